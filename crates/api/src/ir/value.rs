//! Parameter types, and what a value becomes when it meets one.
//!
//! The rules are those of KFP's driver (`backend/src/v2/driver/resolve.go`): whatever is bound to
//! a STRING becomes text; any other mismatch is an error. Numbers stay JSON numbers, and a whole
//! number is never turned into a float.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The declared type of a parameter (`ParameterType.ParameterTypeEnum`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum ParameterType {
    /// None declared: every value is taken as it is.
    #[default]
    ParameterTypeEnumUnspecified,
    /// A floating-point number.
    NumberDouble,
    /// A whole number.
    NumberInteger,
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// A JSON array.
    List,
    /// A JSON object.
    Struct,
    /// A `PipelineTaskFinalStatus`.
    TaskFinalStatus,
    /// A `TaskConfig`.
    TaskConfig,
}

/// A value is not of the type it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct Mismatch {
    /// The declared type.
    pub expected: ParameterType,
    /// The value, shortened.
    pub found: String,
}

impl ParameterType {
    /// `value` as this type: unchanged when it already is one, text when this is STRING.
    ///
    /// # Errors
    /// [`Mismatch`] when the value is of another type.
    pub fn coerce(self, value: Value) -> Result<Value, Mismatch> {
        match (self, &value) {
            (Self::ParameterTypeEnumUnspecified, _)
            | (Self::String, Value::String(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::List, Value::Array(_))
            | (Self::Struct | Self::TaskFinalStatus | Self::TaskConfig, Value::Object(_))
            | (Self::NumberDouble, Value::Number(_)) => Ok(value),
            (Self::NumberInteger, Value::Number(number)) => match whole(number) {
                Some(whole) => Ok(Value::from(whole)),
                None => Err(self.mismatch(&value)),
            },
            (Self::String, _) => Ok(Value::String(text(&value))),
            _ => Err(self.mismatch(&value)),
        }
    }

    /// Whether some value of this type can become one of type `other`, as [`Self::coerce`] has it.
    #[must_use]
    pub fn may_become(self, other: Self) -> bool {
        let numbers = [Self::NumberDouble, Self::NumberInteger];
        let records = [Self::Struct, Self::TaskFinalStatus, Self::TaskConfig];
        self == other
            || other == Self::String
            || [self, other].contains(&Self::ParameterTypeEnumUnspecified)
            || (numbers.contains(&self) && numbers.contains(&other))
            || (records.contains(&self) && records.contains(&other))
    }

    /// The text of an output parameter's file as a value of this type.
    ///
    /// # Errors
    /// [`Mismatch`] when the text does not say such a value.
    pub fn parse(self, text: &str) -> Result<Value, Mismatch> {
        let mismatch = || self.mismatch(&Value::String(text.to_owned()));
        match self {
            Self::ParameterTypeEnumUnspecified | Self::String => Ok(Value::String(text.to_owned())),
            Self::Boolean => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(Value::Bool(true)),
                "false" | "0" => Ok(Value::Bool(false)),
                _ => Err(mismatch()),
            },
            Self::NumberDouble
            | Self::NumberInteger
            | Self::List
            | Self::Struct
            | Self::TaskFinalStatus
            | Self::TaskConfig => {
                let value = serde_json::from_str(text.trim()).map_err(|_| mismatch())?;
                self.coerce(value).map_err(|_| mismatch())
            }
        }
    }

    fn mismatch(self, value: &Value) -> Mismatch {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "the boolean",
            Value::Number(_) => "the number",
            Value::String(_) => "the text",
            Value::Array(_) => "the list",
            Value::Object(_) => "the struct",
        };
        let mut shown = value.to_string();
        if shown.len() > 80 {
            let cut = (0..=77)
                .rev()
                .find(|index| shown.is_char_boundary(*index))
                .unwrap_or(0);
            shown.truncate(cut);
            shown.push('…');
        }
        let found = if value.is_null() {
            kind.to_owned()
        } else {
            format!("{kind} {shown}")
        };
        Mismatch {
            expected: self,
            found,
        }
    }
}

/// A value as the text that a STRING input receives.
#[must_use]
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match whole(number) {
            Some(whole) => whole.to_string(),
            None => number.to_string(),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// The number as a whole one, if it is. Clients whose JSON knows only floats write 3 as 3.0.
fn whole(number: &serde_json::Number) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: beyond it a float names no single integer
    if let Some(whole) = number.as_i64() {
        return Some(whole);
    }
    let float = number.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within ±2^53")]
    (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_meets_a_string_becomes_text() {
        for (value, expected) in [
            (json!("as is"), "as is"),
            (json!(3), "3"),
            (json!(3.0), "3"),
            (json!(0.25), "0.25"),
            (json!(true), "true"),
            (json!([1, "a"]), r#"[1,"a"]"#),
            (json!({"k": null}), r#"{"k":null}"#),
        ] {
            assert_eq!(ParameterType::String.coerce(value), Ok(json!(expected)));
        }
    }

    #[test]
    fn whole_floats_become_integers_and_integers_stay_integers() {
        assert_eq!(
            ParameterType::NumberInteger
                .coerce(json!(3.0))
                .map(|v| v.to_string()),
            Ok("3".into())
        );
        assert_eq!(
            ParameterType::NumberDouble
                .coerce(json!(3))
                .map(|v| v.to_string()),
            Ok("3".into())
        );
        assert_eq!(
            ParameterType::NumberInteger
                .coerce(json!(i64::MAX))
                .map(|v| v.to_string()),
            Ok(i64::MAX.to_string())
        );
    }

    #[test]
    fn other_mismatches_say_what_was_expected_and_found() {
        for (expected, value, message) in [
            (
                ParameterType::NumberInteger,
                json!("x"),
                r#"expected NUMBER_INTEGER, found the text "x""#,
            ),
            (
                ParameterType::NumberInteger,
                json!(1.5),
                "expected NUMBER_INTEGER, found the number 1.5",
            ),
            (
                ParameterType::Boolean,
                json!(null),
                "expected BOOLEAN, found null",
            ),
            (
                ParameterType::List,
                json!({"a": 1}),
                r#"expected LIST, found the struct {"a":1}"#,
            ),
            (
                ParameterType::Struct,
                json!([1]),
                "expected STRUCT, found the list [1]",
            ),
        ] {
            assert_eq!(expected.coerce(value).expect_err(message).to_string(), message);
        }
    }

    #[test]
    fn output_files_are_read_by_declared_type() {
        assert_eq!(ParameterType::NumberInteger.parse(" 7\n"), Ok(json!(7)));
        assert_eq!(ParameterType::String.parse("7\n"), Ok(json!("7\n")));
        assert_eq!(ParameterType::Boolean.parse("True"), Ok(json!(true)));
        assert_eq!(ParameterType::List.parse("[1, 2]"), Ok(json!([1, 2])));
        assert!(ParameterType::Struct.parse("[1]").is_err());
        assert!(ParameterType::NumberDouble.parse("much").is_err());
    }
}
