//! What is wrong with names, ports, paths and numbers, field by field, in Kubernetes' words
//! (`apimachinery/pkg/util/validation`). Shared by the rules of many kinds. Pure.

use coracle_api::quantity::Amount;
use serde_json::{Map, Value};

use crate::{
    object,
    validation::{self, Problems},
};

pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const IMMUTABLE: &str = "field is immutable";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
     with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
     used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// What is wrong with the text as a DNS label that begins with a letter.
pub(crate) fn label_1035_problem(text: &str) -> Option<&'static str> {
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    (!begins || !validation::is_label(text)).then_some(LABEL_1035)
}

/// What is wrong with the text as one segment of a path.
pub(crate) fn segment_problem(text: &str) -> Option<&'static str> {
    match text {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        _ if text.contains('/') => Some("may not contain '/'"),
        _ if text.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

/// What is wrong with the text as the name of a port.
pub(crate) fn port_name_problems(text: &str) -> Vec<&'static str> {
    let mut problems = Vec::new();
    if text.is_empty() || text.len() > 15 {
        problems.push("must be no more than 15 characters");
    }
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)");
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens");
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen");
    }
    problems
}

/// Problems with a port that is a number.
pub(crate) fn check_port(field: impl Into<String>, port: i64, problems: &mut Problems) {
    if !(1..=65535).contains(&port) {
        problems.invalid(field, port, "must be between 1 and 65535, inclusive");
    }
}

/// Problems with a port that is a number or a name.
pub(crate) fn check_port_or_name(field: &str, port: &Value, problems: &mut Problems) {
    match port {
        Value::String(name) => {
            for problem in port_name_problems(name) {
                problems.invalid(field, name.as_str(), problem);
            }
        }
        number => check_port(field, number.as_i64().unwrap_or_default(), problems),
    }
}

/// Problems with a path that stays inside.
pub(crate) fn check_relative_path(field: impl Into<String>, path: &str, problems: &mut Problems) {
    let field = field.into();
    if path.starts_with('/') {
        problems.invalid(field.clone(), path, "must be a relative path");
    }
    check_no_way_up(field, path, problems);
}

/// Problems with a path that leads up.
pub(crate) fn check_no_way_up(field: impl Into<String>, path: &str, problems: &mut Problems) {
    if path.split('/').any(|part| part == "..") {
        problems.invalid(field, path, "must not contain '..'");
    }
}

/// Problems with the number at the pointer, when it is there, for being below 0.
pub(crate) fn check_not_negative(
    object: &Value,
    pointer: &str,
    field: impl Into<String>,
    problems: &mut Problems,
) {
    let number = object::number(object, pointer);
    if number < 0 {
        problems.invalid(field, number, NEGATIVE);
    }
}

/// Problems with a text that must be one of a closed set, when it is there.
pub(crate) fn check_one_of(
    object: &Value,
    pointer: &str,
    field: impl Into<String>,
    allowed: &[&str],
    problems: &mut Problems,
) {
    if let Some(text) = object::at(object, pointer).and_then(Value::as_str)
        && !allowed.contains(&text)
    {
        problems.unsupported(field, text, allowed);
    }
}

/// Problems with a field that may not change.
pub(crate) fn check_unchanged(old: &Value, new: &Value, field: &str, problems: &mut Problems) {
    let pointer = format!("/{}", field.replace('.', "/"));
    let (was, is) = (object::at(old, &pointer), object::at(new, &pointer));
    if was != is {
        problems.invalid(field, is.cloned().unwrap_or_default(), IMMUTABLE);
    }
}

/// Problems with the labels at the pointer.
pub(crate) fn check_labels(object: &Value, pointer: &str, field: &str, problems: &mut Problems) {
    for (key, value) in map(object, pointer) {
        if let Some(problem) = validation::qualified_name_problem(key) {
            problems.invalid(field, key.as_str(), problem);
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(problem) = validation::label_value_problem(value) {
            problems.invalid(field, value, problem);
        }
    }
}

/// Problems with names at the pointer that must be subdomains, when it is there.
pub(crate) fn check_subdomain(
    object: &Value,
    pointer: &str,
    field: impl Into<String>,
    problems: &mut Problems,
) {
    let text = object::text(object, pointer);
    if !text.is_empty() && !validation::is_subdomain(text) {
        problems.invalid(field, text, validation::SUBDOMAIN);
    }
}

/// The map at the pointer, or an empty one.
pub(crate) fn map<'a>(
    object: &'a Value,
    pointer: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    object::at(object, pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// The amount at the key of a list of resources.
pub(crate) fn amount(resources: Option<&Value>, name: &str) -> Option<Amount> {
    resources?.get(name)?.as_str()?.parse().ok()
}

/// Whether something is set at the pointer: not absent, not null.
pub(crate) fn is_set(object: &Value, pointer: &str) -> bool {
    object::at(object, pointer).is_some_and(|value| !value.is_null())
}

/// Sets the field when it is missing, 0 or empty: what Go cannot tell from each other.
pub(crate) fn default_zero(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    let is_zero = match map.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if is_zero {
        map.insert(field.to_owned(), value.into());
    }
}

/// The keys of the map that are not in `known`.
pub(crate) fn others<'a>(value: &'a Value, known: &'a [&str]) -> impl Iterator<Item = &'a String> {
    value
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .filter(|key| !known.contains(&key.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ports_are_short_and_have_a_letter() {
        for good in ["http", "a", "x-1", "abcdefghijklmno"] {
            assert!(port_name_problems(good).is_empty(), "{good}");
        }
        for (bad, problem) in [
            ("abcdefghijklmnop", "must be no more than 15 characters"),
            (
                "Http",
                "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            ),
            ("80", "must contain at least one letter (a-z)"),
            ("a--b", "must not contain consecutive hyphens"),
            ("-a", "must not begin or end with a hyphen"),
        ] {
            assert_eq!(port_name_problems(bad), [problem], "{bad}");
        }
    }

    #[test]
    fn names_of_services_begin_with_a_letter() {
        assert_eq!(label_1035_problem("a-1"), None);
        for bad in ["1a", "", "a.b", "-a"] {
            assert!(label_1035_problem(bad).is_some(), "{bad}");
        }
    }
}
