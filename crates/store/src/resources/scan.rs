//! Finding places in JSON without reading it. Knows only text without white space, as everything is
//! that the store writes, and trusts it to be JSON.

use std::ops::Range;

/// The part at the pointer, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    At(Range<usize>),
    Nothing,
    /// The pointer goes where this does not: through lists and escaped names.
    Unknown,
}

/// Follows a JSON pointer.
pub(super) fn find(text: &[u8], pointer: &str) -> Found {
    let is_plain = |byte: u8| !matches!(byte, b'~' | b'"' | b'\\' | ..=0x1f);
    if !pointer.bytes().all(is_plain) {
        return Found::Unknown;
    }
    let mut at = 0;
    for name in pointer.split('/').skip(1) {
        if text.get(at) == Some(&b'[') {
            return Found::Unknown;
        }
        match member(text, at, name.as_bytes()) {
            Some(value) => at = value,
            None => return Found::Nothing,
        }
    }
    value_end(text, at).map_or(Found::Nothing, |end| Found::At(at..end))
}

/// Where the value of the member begins, in the object that begins at `open`.
pub(super) fn member(text: &[u8], open: usize, name: &[u8]) -> Option<usize> {
    let mut at = open + 1;
    if *text.get(open)? != b'{' {
        return None;
    }
    loop {
        let key_end = string_end(text, at)?;
        // Behind the colon.
        let value = key_end + 1;
        if text.get(at + 1..key_end - 1)? == name {
            return Some(value);
        }
        at = value_end(text, value)?;
        if *text.get(at)? != b',' {
            return None;
        }
        at += 1;
    }
}

/// What follows the string that begins at `at`.
pub(super) fn string_end(text: &[u8], at: usize) -> Option<usize> {
    if *text.get(at)? != b'"' {
        return None;
    }
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// What follows the value that begins at `at`.
pub(super) fn value_end(text: &[u8], at: usize) -> Option<usize> {
    let (mut at, mut depth) = (at, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => at = string_end(text, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            b'}' | b']' | b',' if depth == 0 => return Some(at),
            _ => at += 1,
        }
        if depth == 0 && matches!(text.get(at), None | Some(b'}' | b']' | b',')) {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_found_is_what_the_pointer_points_to() {
        let value = json!({
            "a": {"b\"}": 1, "c": {"d": "x\\\"}", "e": [{"f": 1}, "]"], "": null}, "d": 1.5},
            "é": {"a": {}},
            "last": "y",
        });
        let text = value.to_string();
        for pointer in [
            "", "/a", "/a/c", "/a/c/d", "/a/c/e", "/a/c/", "/a/d", "/é/a", "/last", "/last/x", "/x", "/a/x",
            "/a/b", "/a/c/d/x",
        ] {
            let found = match find(text.as_bytes(), pointer) {
                Found::At(place) => Some(serde_json::from_str::<Value>(&text[place]).unwrap()),
                Found::Nothing => None,
                Found::Unknown => panic!("{pointer}"),
            };
            assert_eq!(found.as_ref(), value.pointer(pointer), "{pointer}");
        }
        for pointer in ["/a/c/e/0", "/a/b\"}", "/a~1b"] {
            assert_eq!(find(text.as_bytes(), pointer), Found::Unknown, "{pointer}");
        }
    }
}
