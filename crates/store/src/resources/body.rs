//! What an object says: JSON as text, parsed when somebody looks into it.

use std::{
    borrow::Cow,
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::scan::{self, Found};

/// JSON that is kept as text. It reads like the [`Value`] that the text stands for; what is handed
/// on as it is need not be parsed. Clones share the text and, once there is one, the value.
#[derive(Clone)]
pub struct Body(Arc<Parts>);

struct Parts {
    text: Bytes,
    value: OnceLock<Value>,
}

impl Body {
    /// From text that is JSON.
    pub(crate) fn from_text(text: Bytes) -> Self {
        Self(Arc::new(Parts {
            text,
            value: OnceLock::new(),
        }))
    }

    /// From text and the value that it stands for.
    pub(crate) fn from_parts(text: Bytes, value: Value) -> Self {
        Self(Arc::new(Parts {
            text,
            value: OnceLock::from(value),
        }))
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.0.text
    }

    pub(crate) fn as_str(&self) -> &str {
        // It was made from a string.
        str::from_utf8(&self.0.text).unwrap_or_default()
    }

    /// The value, without a copy when nobody else holds it.
    #[must_use]
    pub fn into_value(self) -> Value {
        match Arc::try_unwrap(self.0) {
            Ok(Parts { text, value }) => value.into_inner().unwrap_or_else(|| parse(&text)),
            Err(shared) => match shared.value.get() {
                Some(value) => value.clone(),
                None => parse(&shared.text),
            },
        }
    }

    /// The part at the JSON pointer. Where nobody has looked into the body before, the rest of it is
    /// not made a value for this.
    #[must_use]
    pub fn find(&self, pointer: &str) -> Option<Cow<'_, Value>> {
        if self.0.value.get().is_none() {
            match scan::find(&self.0.text, pointer) {
                Found::At(place) => return Some(Cow::Owned(parse(&self.0.text[place]))),
                Found::Nothing => return None,
                Found::Unknown => {}
            }
        }
        self.pointer(pointer).map(Cow::Borrowed)
    }

    /// Reads the part of it that `T` names, without making a value of the rest. None when it does
    /// not fit.
    #[must_use]
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        match self.0.value.get() {
            Some(value) => T::deserialize(value).ok(),
            None => serde_json::from_slice(&self.0.text).ok(),
        }
    }
}

/// The text of a value. Does not go through a formatter, which costs as much again.
pub(super) fn write(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a value has text for keys, and memory can be written to")
}

/// Text is checked before it becomes a body, so this does not fail; should it, then the body reads
/// like nothing instead of ending the process.
fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| {
        tracing::error!(%error, "an object cannot be read: it is not JSON");
        Value::Null
    })
}

impl Deref for Body {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.0.value.get_or_init(|| parse(&self.0.text))
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self::from_parts(write(&value).into(), value)
    }
}

impl Default for Body {
    /// `null`.
    fn default() -> Self {
        Self::from(Value::Null)
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text || **self == **other
    }
}

impl PartialEq<Value> for Body {
    fn eq(&self, other: &Value) -> bool {
        **self == *other
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0.text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_reads_like_its_value() {
        let value = json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "n": 1.5});
        let parsed = Body::from(value.clone());
        let text = Body::from_text(value.to_string().into());
        assert_eq!(parsed, text);
        assert_eq!(text, value);
        assert_eq!(text["metadata"]["name"], "x");
        assert_eq!(text.clone().into_value(), value);
        assert_eq!(text.into_value(), value);
    }

    #[test]
    fn a_part_is_found_whether_or_not_the_body_was_looked_into() {
        let value = json!({"metadata": {"labels": {"a": "b"}}, "list": [{"n": 1}]});
        for pointer in [
            "/metadata/labels",
            "/metadata/labels/a",
            "/list/0/n",
            "/list",
            "/x",
            "",
        ] {
            let text = Body::from_text(value.to_string().into());
            assert_eq!(text.find(pointer).as_deref(), value.pointer(pointer), "{pointer}");
            let parsed = Body::from(value.clone());
            assert_eq!(
                parsed.find(pointer).as_deref(),
                value.pointer(pointer),
                "{pointer}"
            );
        }
    }

    #[test]
    fn a_part_is_read_without_the_rest() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Part {
            n: f64,
        }
        let value = json!({"metadata": {"name": "x"}, "n": 1.5});
        for body in [
            Body::from(value.clone()),
            Body::from_text(value.to_string().into()),
        ] {
            assert_eq!(body.read(), Some(Part { n: 1.5 }));
            assert_eq!(body.read::<Vec<u8>>(), None);
        }
    }
}
