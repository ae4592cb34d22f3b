//! The messages that are read, from the table `messages.txt`.

use std::{collections::HashMap, sync::OnceLock};

const TABLE: &str = include_str!("messages.txt");

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u64,
    /// In JSON; empty when its own fields are the message's.
    pub(super) name: &'static str,
    pub(super) form: Form,
}

/// How a field occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Once. Go writes what is empty too, unless it is a pointer.
    One {
        of: Type,
        is_pointer: bool,
    },
    List(Type),
    /// By text.
    Map(Type),
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Bytes,
    Number,
    Flag,
    Time,
    Quantity,
    IntOrText,
    /// JSON as bytes.
    Raw,
    /// A message that is nothing but a list of texts.
    Texts,
    Message(&'static str),
}

impl Form {
    fn parse(text: &'static str) -> Self {
        if let Some(of) = text.strip_prefix('%') {
            return Self::Map(Type::parse(of));
        }
        if let Some(of) = text.strip_prefix('*') {
            return Self::List(Type::parse(of));
        }
        let (of, is_pointer) = text.strip_suffix('?').map_or((text, false), |of| (of, true));
        Self::One {
            of: Type::parse(of),
            is_pointer,
        }
    }
}

impl Type {
    fn parse(text: &'static str) -> Self {
        match text {
            "text" => Self::Text,
            "bytes" => Self::Bytes,
            "int" => Self::Number,
            "flag" => Self::Flag,
            "time" => Self::Time,
            "quantity" => Self::Quantity,
            "int-or-text" => Self::IntOrText,
            "raw" => Self::Raw,
            "=*text" => Self::Texts,
            message => Self::Message(message),
        }
    }
}

/// The fields of a message, by its name.
pub(super) fn fields(message: &str) -> Option<&'static [Field]> {
    static MESSAGES: OnceLock<HashMap<&'static str, Vec<Field>>> = OnceLock::new();
    let messages = MESSAGES.get_or_init(|| TABLE.lines().filter_map(line).collect());
    messages.get(message).map(Vec::as_slice)
}

/// `core.Secret 1:metadata:meta.ObjectMeta …`
fn line(line: &'static str) -> Option<(&'static str, Vec<Field>)> {
    let mut words = line.split(' ');
    let message = words.next().filter(|message| *message != "#")?;
    let fields = words.filter_map(|field| {
        let (number, rest) = field.split_once(':')?;
        let (name, form) = rest.split_once(':')?;
        Some(Field {
            number: number.parse().ok()?,
            name,
            form: Form::parse(form),
        })
    });
    Some((message, fields.collect()))
}

/// The name of the message that holds objects of a kind: the table knows groups by their first word.
pub(super) fn of_kind(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta.DeleteOptions".to_owned();
    }
    let group = match api_version.split_once('/') {
        Some((group, "v1")) => group.split('.').next().unwrap_or_default(),
        Some(_) => "",
        None => "core",
    };
    format!("{group}.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_is_named_is_there() {
        let mut count = 0;
        for (message, fields) in TABLE.lines().filter_map(line) {
            for field in fields {
                count += 1;
                let (Form::One { of, .. } | Form::List(of) | Form::Map(of)) = field.form;
                if let Type::Message(inner) = of {
                    assert!(
                        super::fields(inner).is_some(),
                        "{message}.{}: {inner}",
                        field.name
                    );
                }
            }
        }
        assert!(count > 1000);
    }

    #[test]
    fn kinds_have_messages() {
        for (api_version, kind, message) in [
            ("v1", "Pod", "core.Pod"),
            ("rbac.authorization.k8s.io/v1", "Role", "rbac.Role"),
            ("policy/v1", "Eviction", "policy.Eviction"),
            ("apps/v1", "DeleteOptions", "meta.DeleteOptions"),
        ] {
            assert_eq!(of_kind(api_version, kind), message);
            assert!(fields(message).is_some(), "{message}");
        }
        assert_eq!(fields(&of_kind("apps/v1beta1", "Deployment")), None);
    }
}
