//! A body on its way into the store: text with a hole where its revision goes, so that the writer
//! has nothing to encode. Also the one place in a body that the store writes.

use std::ops::Range;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{
    Body, body,
    scan::{member, string_end},
};

/// How deep JSON may be nested and still be read: the limit of `serde_json`.
const DEPTH: usize = 127;

/// A body that is nested deeper than it could be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooDeep;

/// A body without its revision.
#[derive(Debug)]
pub(super) struct Draft {
    value: Value,
    text: Vec<u8>,
    /// Where the revision goes. None when there is no place for it.
    hole: Option<usize>,
}

impl Draft {
    pub(super) fn new(mut value: Value) -> Result<Self, TooDeep> {
        if !is_within(&value, DEPTH) {
            return Err(TooDeep);
        }
        stamp(&mut value, String::new());
        let text = body::write(&value);
        let hole = revision_in(&text).map(|place| place.start);
        Ok(Self { value, text, hole })
    }

    /// About how much is to be written.
    pub(super) const fn size(&self) -> usize {
        self.text.len()
    }

    /// Whether it says what the text of that revision says.
    pub(super) fn says(&self, text: &[u8], revision: u64) -> bool {
        let digits = self.hole.map_or(0, |_| revision.to_string().len());
        // Equal values have texts of one length, if not of one order.
        if self.text.len() + digits != text.len() {
            return false;
        }
        if self.text_at(revision) == text {
            return true;
        }
        let mut value = self.value.clone();
        stamp(&mut value, revision.to_string());
        serde_json::from_slice::<Value>(text).is_ok_and(|current| current == value)
    }

    /// The body of that revision.
    pub(super) fn into_body(mut self, revision: u64) -> Body {
        let text = self.text_at(revision);
        stamp(&mut self.value, revision.to_string());
        Body::from_parts(text, self.value)
    }

    fn text_at(&self, revision: u64) -> Bytes {
        match self.hole {
            Some(hole) => splice(&self.text, hole..hole, revision),
            None => self.text.clone().into(),
        }
    }
}

/// The text with another revision.
pub(super) fn restamp(text: &Bytes, revision: u64) -> Bytes {
    match revision_in(text) {
        Some(place) => splice(text, place, revision),
        None => text.clone(),
    }
}

fn splice(text: &[u8], place: Range<usize>, revision: u64) -> Bytes {
    let revision = revision.to_string();
    [&text[..place.start], revision.as_bytes(), &text[place.end..]]
        .concat()
        .into()
}

/// Makes the body say which revision it is.
fn stamp(body: &mut Value, revision: String) {
    if let Value::Object(fields) = body {
        let metadata = fields
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert("resourceVersion".to_owned(), Value::String(revision));
        }
    }
}

fn is_within(value: &Value, depth: usize) -> bool {
    let deeper = |value: &Value| depth > 0 && is_within(value, depth - 1);
    match value {
        Value::Array(items) => items.iter().all(deeper),
        Value::Object(fields) => fields.values().all(deeper),
        _ => true,
    }
}

/// Where the text has its revision, between the quotes. The text is JSON without white space, as
/// everything is that the store writes.
fn revision_in(text: &[u8]) -> Option<Range<usize>> {
    let metadata = member(text, 0, b"metadata")?;
    let value = member(text, metadata, b"resourceVersion")?;
    let end = string_end(text, value)?;
    Some(value + 1..end - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_says_which_revision_it_is() {
        for (body, stamped) in [
            (json!({}), json!({"metadata": {"resourceVersion": "7"}})),
            (
                json!({"metadata": {"name": "a", "resourceVersion": "3"}}),
                json!({"metadata": {"name": "a", "resourceVersion": "7"}}),
            ),
            (
                json!({"spec": {"metadata": {"resourceVersion": "1"}}, "metadata": {"a": {"resourceVersion": ""}}}),
                json!({
                    "spec": {"metadata": {"resourceVersion": "1"}},
                    "metadata": {"a": {"resourceVersion": ""}, "resourceVersion": "7"},
                }),
            ),
            (json!({"metadata": 1}), json!({"metadata": 1})),
            (json!("text"), json!("text")),
        ] {
            let made = Draft::new(body).unwrap().into_body(7);
            assert_eq!(made, stamped);
            assert_eq!(*made.text(), stamped.to_string());
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_refused() {
        let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!({"a": inner}));
        let deepest = Draft::new(nested(127)).unwrap().into_body(1);
        assert!(serde_json::from_slice::<Value>(deepest.text()).is_ok());
        assert_eq!(Draft::new(nested(128)).unwrap_err(), TooDeep);
    }

    #[test]
    fn a_draft_knows_what_it_says_in_whatever_order() {
        let draft = Draft::new(json!({"a": 1, "metadata": {"name": "x"}, "b": [1, 2]})).unwrap();
        let says = |value: Value| draft.says(value.to_string().as_bytes(), 42);
        assert!(says(
            json!({"a": 1, "metadata": {"name": "x", "resourceVersion": "42"}, "b": [1, 2]})
        ));
        assert!(says(
            json!({"metadata": {"resourceVersion": "42", "name": "x"}, "b": [1, 2], "a": 1})
        ));
        assert!(!says(
            json!({"a": 1, "metadata": {"name": "x", "resourceVersion": "43"}, "b": [1, 2]})
        ));
        assert!(!says(
            json!({"a": 1, "metadata": {"name": "x", "resourceVersion": "42"}, "b": [2, 1]})
        ));
        assert!(!says(
            json!({"a": 10, "metadata": {"name": "x", "resourceVersion": "42"}, "b": [1, 2]})
        ));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a\"\\\\{}\\[\\],:é\n]{0,8}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("metadata".to_owned()),
            Just("resourceVersion".to_owned()),
            "[a\"\\\\{}\\[\\],:]{0,4}",
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_revision_is_written_where_it_belongs_and_nowhere_else(value in json_value(), first: u64, second: u64) {
            let mut expected = value.clone();
            stamp(&mut expected, first.to_string());
            let made = Draft::new(value.clone()).unwrap().into_body(first);
            prop_assert_eq!(made.text(), &expected.to_string());
            prop_assert_eq!(&made, &expected);
            prop_assert!(Draft::new(value).unwrap().says(made.text(), first));
            stamp(&mut expected, second.to_string());
            prop_assert_eq!(restamp(made.text(), second), expected.to_string());
        }
    }
}
