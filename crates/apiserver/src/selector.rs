//! Label and field selectors: which objects a list, a watch or a collection's deletion is about.
//! Grammar and meaning are those of kubernetes/apimachinery `pkg/labels` and `pkg/fields`.

use coracle_store::resources::Body;
use serde_json::Value;

use crate::{
    kinds::{Kind, Text},
    status::Error,
};

/// Which objects are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

/// A demand on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    demand: Demand,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Demand {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

/// A demand on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    pointer: Text,
    absent: &'static str,
    value: String,
    is_equal: bool,
}

impl Selection {
    /// From the two selectors of a request, either of which may be empty.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Error> {
        let labels = parse_labels(labels).map_err(|why| {
            Error::bad_request(format!(
                "unable to parse requirement: {why} in label selector \"{labels}\""
            ))
        })?;
        Ok(Self {
            labels,
            fields: parse_fields(kind, fields)?,
        })
    }

    /// The selection of the one object of this name.
    pub(crate) fn one(name: &str) -> Self {
        let value = name.to_owned();
        let name = FieldRequirement {
            pointer: Text::Borrowed(NAME.1),
            absent: "",
            value,
            is_equal: true,
        };
        Self {
            labels: Vec::new(),
            fields: vec![name],
        }
    }

    /// Whether every object is meant.
    pub(crate) const fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object is meant.
    pub(crate) fn admits(&self, object: &Body) -> bool {
        let labels = if self.labels.is_empty() {
            None
        } else {
            object.find("/metadata/labels")
        };
        self.labels.iter().all(|requirement| {
            let label = labels
                .as_deref()
                .and_then(|labels| labels.get(&requirement.key))
                .and_then(Value::as_str);
            requirement.demand.admits(label)
        }) && self.fields.iter().all(|field| {
            let value = match object.find(&field.pointer).as_deref() {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => field.absent.to_owned(),
                Some(other) => other.to_string(),
            };
            (value == field.value) == field.is_equal
        })
    }

    /// The name that the selection demands, if it does.
    pub(crate) fn name(&self) -> Option<&str> {
        let demand = self
            .fields
            .iter()
            .find(|field| field.pointer == NAME.1 && field.is_equal)?;
        Some(&demand.value)
    }
}

impl Demand {
    fn admits(&self, label: Option<&str>) -> bool {
        let number = |bound: fn(i64, i64) -> bool, than: i64| {
            label
                .and_then(|label| label.parse().ok())
                .is_some_and(|label| bound(label, than))
        };
        match self {
            Self::In(values) => label.is_some_and(|label| values.iter().any(|value| value == label)),
            Self::NotIn(values) => label.is_none_or(|label| values.iter().all(|value| value != label)),
            Self::Exists => label.is_some(),
            Self::Absent => label.is_none(),
            Self::Above(than) => number(|label, than| label > than, *than),
            Self::Below(than) => number(|label, than| label < than, *than),
        }
    }
}

/// Splits at commas outside parentheses.
fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut requirements = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    if text.trim().is_empty() {
        return Ok(requirements);
    }
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => {
                depth = depth
                    .checked_sub(1)
                    .ok_or("found ')', expected: ',' or 'end of string'")?
            }
            ',' if depth == 0 => {
                requirements.push(parse_requirement(&text[start..at])?);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err("found 'end of string', expected: ')'".to_owned());
    }
    requirements.push(parse_requirement(&text[start..])?);
    Ok(requirements)
}

fn parse_requirement(text: &str) -> Result<Requirement, String> {
    let text = text.trim();
    if let Some(key) = text.strip_prefix('!') {
        return requirement(key, Demand::Absent);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return requirement(key, Demand::NotIn(vec![single(value)?]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return requirement(key, Demand::In(vec![single(value)?]));
    }
    for (sign, demand) in [('>', Demand::Above as fn(i64) -> Demand), ('<', Demand::Below)] {
        if let Some((key, value)) = text.split_once(sign) {
            let value = value.trim();
            let number = value
                .parse()
                .map_err(|_| format!("\"{value}\" is not an integer"))?;
            return requirement(key, demand(number));
        }
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return requirement(text, Demand::Exists);
    };
    let rest = rest.trim_start();
    let (operator, set) = rest
        .split_once('(')
        .ok_or_else(|| format!("found '{rest}', expected: in, notin"))?;
    let set = set
        .trim_end()
        .strip_suffix(')')
        .ok_or("found 'end of string', expected: ')'")?;
    let values = set.split(',').map(single).collect::<Result<Vec<_>, _>>()?;
    match operator.trim() {
        "in" => requirement(key, Demand::In(values)),
        "notin" => requirement(key, Demand::NotIn(values)),
        other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    }
}

fn requirement(key: &str, demand: Demand) -> Result<Requirement, String> {
    let key = key.trim();
    if let Some(problem) = crate::validation::qualified_name_problem(key) {
        return Err(format!("<nil>: Invalid value: \"{key}\": {problem}"));
    }
    Ok(Requirement {
        key: key.to_owned(),
        demand,
    })
}

fn single(value: &str) -> Result<String, String> {
    let value = value.trim();
    match crate::validation::label_value_problem(value) {
        Some(problem) => Err(format!("values[0]: Invalid value: \"{value}\": {problem}")),
        None => Ok(value.to_owned()),
    }
}

const NAME: (&str, &str) = ("metadata.name", "/metadata/name");
const NAMESPACE: (&str, &str) = ("metadata.namespace", "/metadata/namespace");

fn parse_fields(kind: &Kind, text: &str) -> Result<Vec<FieldRequirement>, Error> {
    let terms = split_unescaped(text)
        .into_iter()
        .filter(|term| !term.trim().is_empty());
    terms.map(|term| parse_field(kind, term)).collect()
}

fn parse_field(kind: &Kind, term: &str) -> Result<FieldRequirement, Error> {
    let (name, value, is_equal) = if let Some((name, value)) = term.split_once("!=") {
        (name, value, false)
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, value, true)
    } else {
        return Err(Error::bad_request(format!(
            "invalid selector: '{term}'; can't understand '{term}'"
        )));
    };
    let (pointer, absent) = if name == NAME.0 {
        (Text::Borrowed(NAME.1), "")
    } else if name == NAMESPACE.0 && kind.is_namespaced() {
        (Text::Borrowed(NAMESPACE.1), "")
    } else if let Some(field) = kind.fields.iter().find(|field| field.name == name) {
        (field.pointer.clone(), field.absent)
    } else {
        let known = kind.fields.iter().map(|field| &*field.name);
        let known = [NAME.0, NAMESPACE.0]
            .into_iter()
            .chain(known)
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("field label not supported: {name} (of {}: {known})", kind.plural);
        return Err(Error::bad_request(message));
    };
    Ok(FieldRequirement {
        pointer,
        absent,
        value: unescape(value),
        is_equal,
    })
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        let next = if character == '\\' {
            characters.next()
        } else {
            Some(character)
        };
        plain.extend(next);
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::PODS;

    fn admits(labels: &str, fields: &str, object: &Value) -> bool {
        Selection::parse(&PODS, labels, fields)
            .unwrap()
            .admits(&object.clone().into())
    }

    #[test]
    fn labels_are_matched_by_every_operator() {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "", "n": "5", "a.io/b": "c"}}});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web , n = 5", true),
            ("app=web,n=6", false),
            ("app!=web", false),
            ("gone!=web", true),
            ("app in (db, web)", true),
            ("app in (db)", false),
            ("app notin (db,cache)", true),
            ("gone notin (db)", true),
            ("gone in (db)", false),
            ("app", true),
            ("gone", false),
            ("!gone", true),
            ("!app", false),
            ("tier=", true),
            ("a.io/b=c,app in (web),!gone", true),
            ("n>4", true),
            ("n<5", false),
            ("app>4", false),
        ] {
            assert_eq!(admits(selector, "", &pod), expected, "{selector}");
        }
    }

    #[test]
    fn broken_label_selectors_are_refused() {
        for selector in [
            "a in (b", "a in b", "a b (c)", "=x", "a=b=c", "a)", "a,,b", "n>x", "a=-",
        ] {
            assert!(Selection::parse(&PODS, selector, "").is_err(), "{selector}");
        }
    }

    #[test]
    fn fields_are_matched_with_their_meaning_when_absent() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "status": {"phase": "Running"}});
        for (selector, expected) in [
            ("metadata.name=p", true),
            ("metadata.name=p,metadata.namespace!=d", false),
            ("status.phase!=Succeeded,status.phase!=Failed", true),
            ("spec.nodeName=", true),
            ("spec.hostNetwork=false", true),
            ("metadata.name=p\\,q", false),
        ] {
            assert_eq!(admits("", selector, &pod), expected, "{selector}");
        }
        let error = Selection::parse(&PODS, "", "spec.color=red").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("field label not supported: spec.color")
        );
    }
}
