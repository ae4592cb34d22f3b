//! Problems found in an object, field by field, in the words of Kubernetes' `field.Error`;
//! and the syntax of names. Pure.

use std::fmt;

use serde_json::{Value, json};

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    reason: &'static str,
    field: String,
    message: String,
}

/// Everything at fault in one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, reason: &'static str, field: impl Into<String>, message: String) {
        self.0.push(Problem {
            reason,
            field: field.into(),
            message,
        });
    }

    /// The field must be there.
    pub(crate) fn required(&mut self, field: impl Into<String>, detail: &str) {
        self.push(
            "FieldValueRequired",
            field,
            with_detail("Required value".to_owned(), detail),
        );
    }

    /// The field's value is not allowed.
    pub(crate) fn invalid(&mut self, field: impl Into<String>, value: impl Into<Value>, detail: &str) {
        let message = with_detail(format!("Invalid value: {}", value.into()), detail);
        self.push("FieldValueInvalid", field, message);
    }

    /// As [`Self::invalid`], for a value that is shown as it is.
    pub(crate) fn push_invalid(&mut self, field: impl Into<String>, value: &str, detail: &str) {
        let message = with_detail(format!("Invalid value: {value}"), detail);
        self.push("FieldValueInvalid", field, message);
    }

    /// The field may not be set, or not changed.
    pub(crate) fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.push(
            "FieldValueForbidden",
            field,
            with_detail("Forbidden".to_owned(), detail),
        );
    }

    /// The field's value is not one of a closed set.
    pub(crate) fn unsupported(&mut self, field: impl Into<String>, value: &str, supported: &[&str]) {
        let supported = supported
            .iter()
            .map(|one| format!("\"{one}\""))
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("Unsupported value: \"{value}\": supported values: {supported}");
        self.push("FieldValueNotSupported", field, message);
    }

    /// The value is there twice.
    pub(crate) fn duplicate(&mut self, field: impl Into<String>, value: &str) {
        self.push(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: \"{value}\""),
        );
    }

    /// As [`Self::duplicate`], for what is no text.
    pub(crate) fn duplicate_value(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.push(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {}", value.into()),
        );
    }

    /// What the value names is not there.
    pub(crate) fn not_found(&mut self, field: impl Into<String>, value: &str) {
        self.push("FieldValueNotFound", field, format!("Not found: \"{value}\""));
    }

    /// The text has too many bytes.
    pub(crate) fn too_long(&mut self, field: impl Into<String>, most: usize) {
        let message = format!("Too long: may not be more than {most} bytes");
        self.push("FieldValueTooLong", field, message);
    }

    /// The list has too many items.
    pub(crate) fn too_many(&mut self, field: impl Into<String>, has: usize, most: usize) {
        let message = format!("Too many: {has}: must have at most {most} items");
        self.push("FieldValueTooMany", field, message);
    }

    /// As [`Self::unsupported`], of a value that may be anything.
    pub(crate) fn unsupported_value(&mut self, field: impl Into<String>, value: &Value, supported: &[Value]) {
        let supported = supported
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("Unsupported value: {value}: supported values: {supported}");
        self.push("FieldValueNotSupported", field, message);
    }

    /// The field's value is of another type than the field.
    pub(crate) fn wrong_type(&mut self, field: impl Into<String>, value: &str, detail: &str) {
        let value = Value::from(value);
        self.push(
            "FieldValueTypeInvalid",
            field,
            format!("Invalid value: {value}: {detail}"),
        );
    }

    /// How many they are.
    pub(crate) const fn count(&self) -> usize {
        self.0.len()
    }

    /// Takes over those found elsewhere.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether the object is so far from what it is to be that nothing more can be said of it.
    pub(crate) fn are_fundamental(&self) -> bool {
        let reasons = [
            "FieldValueRequired",
            "FieldValueTypeInvalid",
            "FieldValueTooLong",
            "FieldValueTooMany",
        ];
        self.0.iter().any(|one| reasons.contains(&one.reason))
    }

    /// As the `causes` of a `Status`.
    pub(crate) fn causes(&self) -> Value {
        self.0
            .iter()
            .map(|one| json!({"reason": one.reason, "message": one.message, "field": one.field}))
            .collect()
    }
}

fn with_detail(mut message: String, detail: &str) -> String {
    if !detail.is_empty() {
        message.push_str(": ");
        message.push_str(detail);
    }
    message
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self
            .0
            .iter()
            .map(|one| format!("{}: {}", one.field, one.message))
            .collect::<Vec<_>>();
        match all.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

/// What a name of each syntax looks like, for the message.
pub(crate) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
     characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com')";
/// As [`SUBDOMAIN`], for labels.
pub(crate) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
     or '-', and must start and end with an alphanumeric character (e.g. 'my-name', or '123-abc')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start \
     and end with an alphanumeric character, with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', \
     '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue' or 'my_value')";

/// At most 63 of `[a-z0-9-]`, alphanumeric at both ends.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 63
        && is_framed(
            text,
            |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(),
            |byte| byte == b'-',
        )
}

/// Labels of any length joined by dots, 253 characters in all.
pub(crate) fn is_subdomain(text: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 253
        && text
            .split('.')
            .all(|part| is_framed(part, lower, |byte| byte == b'-'))
}

/// What is wrong with the text as a label key, annotation key or finalizer.
pub(crate) fn qualified_name_problem(text: &str) -> Option<&'static str> {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let sound = prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_text(name);
    (!sound).then_some(QUALIFIED)
}

/// What is wrong with the text as a label's value.
pub(crate) fn label_value_problem(text: &str) -> Option<&'static str> {
    (!text.is_empty() && !is_label_text(text)).then_some(LABEL_VALUE)
}

fn is_label_text(text: &str) -> bool {
    text.len() <= 63
        && is_framed(
            text,
            |byte| byte.is_ascii_alphanumeric(),
            |byte| matches!(byte, b'-' | b'_' | b'.'),
        )
}

fn is_framed(text: &str, ends: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    ends(*first) && ends(*last) && bytes.iter().all(|byte| ends(*byte) || inner(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dns() {
        for good in ["a", "a-b", "a.b-c.9", &"x".repeat(253)] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a..b", ".a", &"x".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
        assert!(is_label(&"x".repeat(63)));
        assert!(!is_label(&"x".repeat(64)));
        assert!(!is_label("a.b"));
    }

    #[test]
    fn keys_and_values_of_labels_are_checked() {
        for good in ["a", "A_b.c", "example.com/x", "pipelines.kubeflow.org/pod-type"] {
            assert_eq!(qualified_name_problem(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "Example.com/x", "a b"] {
            assert!(qualified_name_problem(bad).is_some(), "{bad}");
        }
        assert_eq!(label_value_problem(""), None);
        assert!(label_value_problem("a b").is_some());
    }
}
