//! Reading and changing Kubernetes objects kept as JSON. No rules live here.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// What is at the JSON pointer. Most names in pointers need no decoding, and are not copied for it
/// as [`Value::pointer`] does.
pub(crate) fn at<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    match names(pointer) {
        Some(mut names) => names.try_fold(object, |value, name| match value {
            Value::Object(map) => map.get(name),
            Value::Array(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        }),
        None => object.pointer(pointer),
    }
}

/// See [`at`].
pub(crate) fn at_mut<'a>(object: &'a mut Value, pointer: &str) -> Option<&'a mut Value> {
    match names(pointer) {
        Some(mut names) => names.try_fold(object, |value, name| match value {
            Value::Object(map) => map.get_mut(name),
            Value::Array(items) => items.get_mut(name.parse::<usize>().ok()?),
            _ => None,
        }),
        None => object.pointer_mut(pointer),
    }
}

/// The names in a JSON pointer, if they are there as they are.
fn names(pointer: &str) -> Option<impl Iterator<Item = &str>> {
    let is_plain = (pointer.is_empty() || pointer.starts_with('/')) && !pointer.contains('~');
    is_plain.then(|| pointer.split('/').skip(1))
}

/// The text at the JSON pointer, or nothing.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    at(object, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at the JSON pointer, or an empty one.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    at(object, pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The number at the JSON pointer, or 0.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    at(object, pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`, empty for what has none.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`.
pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether the object waits for its finalizers, or for its node, to let it go.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/metadata/finalizers")
        .iter()
        .filter_map(Value::as_str)
}

/// The value as an object, which it becomes when it is not one.
pub(crate) fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object just above")
}

/// The object under `field`, made when it is missing.
pub(crate) fn section<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    as_map(
        as_map(object)
            .entry(field)
            .or_insert_with(|| Value::Object(Map::new())),
    )
}

/// `metadata`.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    section(object, "metadata")
}

/// Sets the field when it is missing.
pub(crate) fn default(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    map.entry(field).or_insert_with(|| value.into());
}

/// Puts a value under the key, or takes the key away.
pub(crate) fn put(map: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            map.insert(field.to_owned(), value);
        }
        None => {
            map.shift_remove(field);
        }
    }
}

/// Takes `null` fields away, as decoding into Kubernetes' own structs would.
pub(crate) fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub(crate) fn time(at: Timestamp) -> Value {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string().into()
}

/// The time at the JSON pointer.
pub(crate) fn time_at(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_at_a_pointer_is_found() {
        let value = json!({"a": {"b": [1, {"c": 2}], "x/y": 3, "": 4}});
        for pointer in [
            "", "/a/b/1/c", "/a/b/0", "/a/b/2", "/a/b/x", "/a/x~1y", "/a/", "/a/b/0/c", "/n", "a",
        ] {
            assert_eq!(at(&value, pointer), value.pointer(pointer), "{pointer}");
            let mut changed = value.clone();
            assert_eq!(
                at_mut(&mut changed, pointer).as_deref(),
                value.pointer(pointer),
                "{pointer}"
            );
        }
    }

    #[test]
    fn nulls_go_from_maps_and_stay_in_lists() {
        let mut value = json!({"a": null, "b": {"c": null, "d": 1}, "e": [null, {"f": null}]});
        prune_nulls(&mut value);
        assert_eq!(value, json!({"b": {"d": 1}, "e": [null, {}]}));
    }

    #[test]
    fn times_are_cut_to_whole_seconds() {
        let at = "2026-11-22T10:00:01.9Z".parse().unwrap();
        assert_eq!(time(at), "2026-11-22T10:00:01Z");
    }
}
