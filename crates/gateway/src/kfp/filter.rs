//! KFP's filters (`backend/api/v2beta1/filter.proto`): text in a URL to predicates on rows.
//!
//! A filter only ever becomes bound values: which fields there are, and what each can be compared
//! with, the store says.

use axum::Json;
use coracle_store::records::query::{Op, Predicate, Value as Bound};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::{error::Error, extract::Params};

/// What a client sent, its predicates still KFP's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter {
    /// The filter as JSON: what a page token carries.
    pub source: Value,
    /// What the store is asked.
    pub predicates: Vec<Predicate>,
}

impl Filter {
    /// No filter.
    pub(super) const fn none() -> Self {
        Self {
            source: Value::Null,
            predicates: Vec::new(),
        }
    }

    /// Reads a filter from a URL's query. KFP's own page encodes it twice, its SDK once.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::none());
        }
        let decoded = if text.starts_with('{') {
            text.to_owned()
        } else {
            decode(text)?
        };
        let source: Value =
            serde_json::from_str(&decoded).map_err(|error| invalid(format!("it is no JSON: {error}")))?;
        Self::from_json(source)
    }

    /// Reads a filter that is JSON already.
    pub(super) fn from_json(source: Value) -> Result<Self, Error> {
        if source.is_null() {
            return Ok(Self::none());
        }
        if !source.is_object() {
            return Err(invalid("it is no JSON object"));
        }
        let message: Message = Message::deserialize(&source).map_err(|error| invalid(error.to_string()))?;
        let predicates = message
            .predicates
            .into_iter()
            .map(PredicateMessage::read)
            .collect::<Result<_, _>>()?;
        Ok(Self { source, predicates })
    }
}

/// The query of [`get`].
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterParams {
    /// A filter, as JSON.
    filter: String,
}

/// Shows a filter as the lists understand it, or says what is wrong with it.
#[utoipa::path(get, path = "/filters", tag = "filters", params(FilterParams),
    responses((status = 200, body = Object)))]
pub(super) async fn get(Params(params): Params<FilterParams>) -> Result<Json<Value>, Error> {
    let source = Filter::parse(&params.filter)?.source;
    Ok(Json(match source {
        Value::Null => Value::Object(serde_json::Map::new()),
        source => source,
    }))
}

fn decode(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|error| invalid(format!("it is no text: {error}")))
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::Invalid(format!(
        "the filter cannot be used: {why}; expected e.g. \
         {{\"predicates\":[{{\"operation\":\"EQUALS\",\"key\":\"display_name\",\"string_value\":\"x\"}}]}}"
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    #[serde(default)]
    predicates: Vec<PredicateMessage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PredicateMessage {
    #[serde(alias = "op")]
    operation: Value,
    key: String,
    #[serde(default, alias = "intValue")]
    int_value: Option<Int>,
    #[serde(default, alias = "longValue")]
    long_value: Option<Int>,
    #[serde(default, alias = "stringValue")]
    string_value: Option<String>,
    #[serde(default, alias = "timestampValue")]
    timestamp_value: Option<Value>,
    #[serde(default, alias = "intValues")]
    int_values: Option<List<Int>>,
    #[serde(default, alias = "longValues")]
    long_values: Option<List<Int>>,
    #[serde(default, alias = "stringValues")]
    string_values: Option<List<String>>,
}

/// A 64-bit integer: protobuf's JSON writes it as text, and takes both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Int {
    Number(i64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List<T> {
    #[serde(default = "Vec::new")]
    values: Vec<T>,
}

impl Int {
    fn read(self) -> Result<Bound, Error> {
        match self {
            Self::Number(number) => Ok(Bound::Int(number)),
            Self::Text(text) => text
                .parse()
                .map(Bound::Int)
                .map_err(|_| invalid(format!("`{text}` is not a whole number"))),
        }
    }
}

impl PredicateMessage {
    fn read(self) -> Result<Predicate, Error> {
        let op = operation(&self.operation)?;
        let key = self.key.to_ascii_lowercase();
        let key = if key.starts_with("tags.") { self.key } else { key };
        let mut given: Vec<(bool, Vec<Bound>)> = Vec::new();
        for number in [self.int_value, self.long_value].into_iter().flatten() {
            given.push((false, vec![number.read()?]));
        }
        if let Some(text) = self.string_value {
            given.push((false, vec![Bound::Text(text)]));
        }
        if let Some(time) = self.timestamp_value {
            given.push((false, vec![Bound::Time(timestamp(&time)?)]));
        }
        for numbers in [self.int_values, self.long_values].into_iter().flatten() {
            given.push((
                true,
                numbers
                    .values
                    .into_iter()
                    .map(Int::read)
                    .collect::<Result<_, _>>()?,
            ));
        }
        if let Some(texts) = self.string_values {
            given.push((true, texts.values.into_iter().map(Bound::Text).collect()));
        }
        let Ok([(is_list, values)]) = <[_; 1]>::try_from(given) else {
            return Err(invalid(format!(
                "the predicate on `{key}` must have exactly one value"
            )));
        };
        if is_list != (op == Op::In) {
            return Err(invalid(format!(
                "the predicate on `{key}` must have {}",
                if is_list {
                    "one value: a list goes with IN only"
                } else {
                    "a list of values: it says IN"
                },
            )));
        }
        Ok(Predicate {
            field: key,
            op,
            values,
        })
    }
}

fn operation(value: &Value) -> Result<Op, Error> {
    Ok(match (value.as_i64(), value.as_str()) {
        (Some(1), _) | (_, Some("EQUALS")) => Op::Equals,
        (Some(2), _) | (_, Some("NOT_EQUALS")) => Op::NotEquals,
        (Some(3), _) | (_, Some("GREATER_THAN")) => Op::GreaterThan,
        (Some(5), _) | (_, Some("GREATER_THAN_EQUALS")) => Op::GreaterThanEquals,
        (Some(6), _) | (_, Some("LESS_THAN")) => Op::LessThan,
        (Some(7), _) | (_, Some("LESS_THAN_EQUALS")) => Op::LessThanEquals,
        (Some(8), _) | (_, Some("IN")) => Op::In,
        (Some(9), _) | (_, Some("IS_SUBSTRING")) => Op::IsSubstring,
        _ => return Err(invalid(format!("`{value}` is not an operation"))),
    })
}

fn timestamp(value: &Value) -> Result<Timestamp, Error> {
    let time = match value {
        Value::String(text) => text.parse().ok(),
        other => other
            .as_i64()
            .and_then(|seconds| Timestamp::from_second(seconds).ok()),
    };
    time.ok_or_else(|| {
        invalid(format!(
            "`{value}` is not a time such as \"2026-01-31T12:00:00Z\""
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Bound {
        Bound::Text(value.to_owned())
    }

    fn time(value: &str) -> Bound {
        Bound::Time(value.parse().expect("a time"))
    }

    #[test]
    fn every_spelling_of_a_filter_is_read() {
        let check = |input: &str, expect: &[(&str, Op, Vec<Bound>)]| {
            let expect: Vec<_> = expect
                .iter()
                .map(|(field, op, values)| Predicate {
                    field: (*field).to_owned(),
                    op: *op,
                    values: values.clone(),
                })
                .collect();
            assert_eq!(Filter::parse(input).expect(input).predicates, expect, "{input}");
        };
        check("", &[]);
        check("{}", &[]);
        check(r#"{"predicates":[]}"#, &[]);
        check(
            r#"{"predicates":[{"operation":1,"key":"display_name","stringValue":"x"}]}"#,
            &[("display_name", Op::Equals, vec![text("x")])],
        );
        check(
            r#"{"predicates":[{"op":"EQUALS","key":"name","string_value":"100%+a"}]}"#,
            &[("name", Op::Equals, vec![text("100%+a")])],
        );
        check(
            "%7B%22predicates%22%3A%5B%7B%22operation%22%3A9%2C%22key%22%3A%22name%22%2C%22string_value%22%3A%22a+b%22%7D%5D%7D",
            &[("name", Op::IsSubstring, vec![text("a b")])],
        );
        check(
            r#"{"predicates":[{"operation":"IN","key":"state","string_values":{"values":["FAILED","CANCELED"]}},
                              {"operation":"NOT_EQUALS","key":"storage_state","stringValue":"ARCHIVED"}]}"#,
            &[
                ("state", Op::In, vec![text("FAILED"), text("CANCELED")]),
                ("storage_state", Op::NotEquals, vec![text("ARCHIVED")]),
            ],
        );
        check(
            r#"{"predicates":[{"operation":3,"key":"created_at","timestamp_value":"2026-01-01T00:00:00Z"},
                              {"operation":7,"key":"created_at","long_value":"1767225600"},
                              {"operation":6,"key":"finished_at","string_value":"2026-01-02T00:00:00Z"}]}"#,
            &[
                ("created_at", Op::GreaterThan, vec![time("2026-01-01T00:00:00Z")]),
                ("created_at", Op::LessThanEquals, vec![Bound::Int(1_767_225_600)]),
                ("finished_at", Op::LessThan, vec![text("2026-01-02T00:00:00Z")]),
            ],
        );
        check(
            r#"{"predicates":[{"operation":"EQUALS","key":"tags.Team","string_value":"x"}]}"#,
            &[("tags.Team", Op::Equals, vec![text("x")])],
        );
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for input in [
            "nonsense",
            "%FF",
            "[]",
            r#"{"predicate":[]}"#,
            r#"{"predicates":[{"key":"name","string_value":"x"}]}"#,
            r#"{"predicates":[{"operation":4,"key":"name","string_value":"x"}]}"#,
            r#"{"predicates":[{"operation":"LIKE","key":"name","string_value":"x"}]}"#,
            r#"{"predicates":[{"operation":1,"key":"name"}]}"#,
            r#"{"predicates":[{"operation":1,"key":"name","string_value":"x","int_value":1}]}"#,
            r#"{"predicates":[{"operation":8,"key":"name","string_value":"x"}]}"#,
            r#"{"predicates":[{"operation":1,"key":"name","string_values":{"values":["x"]}}]}"#,
            r#"{"predicates":[{"operation":1,"key":"name","long_value":"many"}]}"#,
            r#"{"predicates":[{"operation":1,"key":"created_at","timestamp_value":"yesterday"}]}"#,
            r#"{"predicates":[{"operation":1,"key":"name","stringvalue":"x"}]}"#,
        ] {
            let error = Filter::parse(input).expect_err(input);
            assert_eq!(error.code(), 3, "{input}: {error}");
        }
    }
}
