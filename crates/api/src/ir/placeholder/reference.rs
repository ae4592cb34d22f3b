//! The text of one placeholder, taken apart: `{{$.inputs.parameters['n']}}` → inputs, parameters, n.
//!
//! Only shape is known here, not meaning. What has another shape is plain text.

/// A placeholder found in a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// As written, braces included.
    pub(super) text: &'a str,
    /// The names on the way from `$`; none for `{{$}}`.
    pub(super) path: Vec<&'a str>,
}

/// A text as its plain parts and its placeholders, in order.
pub(super) fn split(text: &str) -> Vec<Result<Reference<'_>, &str>> {
    let mut parts = Vec::new();
    let (mut plain_from, mut look_from) = (0, 0);
    while let Some(found) = text[look_from..].find("{{$") {
        let start = look_from + found;
        match read(&text[start..]) {
            Some(reference) => {
                if plain_from < start {
                    parts.push(Err(&text[plain_from..start]));
                }
                plain_from = start + reference.text.len();
                look_from = plain_from;
                parts.push(Ok(reference));
            }
            None => look_from = start + 1,
        }
    }
    if plain_from < text.len() {
        parts.push(Err(&text[plain_from..]));
    }
    parts
}

/// The placeholder that `text` begins with.
fn read(text: &str) -> Option<Reference<'_>> {
    let mut rest = text.strip_prefix("{{$")?;
    let mut path = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix("}}") {
            return Some(Reference {
                text: &text[..text.len() - after.len()],
                path,
            });
        }
        let name;
        (name, rest) = match rest.strip_prefix('.') {
            Some(after) => bare(after)?,
            None => quoted(rest)?,
        };
        path.push(name);
    }
}

/// `name`, up to where a bare name cannot go on.
fn bare(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|char: char| !char.is_alphanumeric() && !"_-".contains(char))?;
    (end > 0).then(|| text.split_at(end))
}

/// `['name']`, `["name"]`, or `[''name'']` as YAML's own quoting sometimes leaves it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    [("[''", "'']"), ("['", "']"), ("[\"", "\"]")]
        .into_iter()
        .find_map(|(open, close)| {
            let (name, after) = text.strip_prefix(open)?.split_once(close)?;
            (!name.is_empty()).then_some((name, after))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[Result<&[&str], &str>]) {
        let parts = split(text);
        let found: Vec<_> = parts
            .iter()
            .map(|part| part.as_ref().map(|r| &*r.path).map_err(|text| *text))
            .collect();
        assert_eq!(found, expected, "{text}");
        let joined: String = parts
            .iter()
            .map(|part| part.as_ref().map_or_else(|t| *t, |r| r.text))
            .collect();
        assert_eq!(joined, text);
    }

    #[test]
    fn placeholders_are_told_from_text() {
        check("", &[]);
        check("plain {{x}} ${y} {$}", &[Err("plain {{x}} ${y} {$}")]);
        check("{{$}}", &[Ok(&[])]);
        check("a{{$}}b", &[Err("a"), Ok(&[]), Err("b")]);
        check(
            "{{$.inputs.parameters['n']}}}",
            &[Ok(&["inputs", "parameters", "n"]), Err("}")],
        );
        check(
            "{{{$.outputMetadataUri}}",
            &[Err("{"), Ok(&["outputMetadataUri"])],
        );
        check(
            "{{$.inputs.artifacts[''d''].metadata[\"it's }} odd\"]}}",
            &[Ok(&["inputs", "artifacts", "d", "metadata", "it's }} odd"])],
        );
        check(
            "{{$.inputs.parameters['it's']}}",
            &[Ok(&["inputs", "parameters", "it's"])],
        );
    }

    #[test]
    fn what_has_another_shape_is_text() {
        for text in [
            "{{$",
            "{{$.}}",
            "{{$.a",
            "{{$.a b}}",
            "{{$.a['b}}",
            "{{$.a['']}}",
            "{{$x}}",
            "{{ $.a }}",
        ] {
            check(text, &[Err(text)]);
        }
        check("{{$.a {{$}}", &[Err("{{$.a "), Ok(&[])]);
    }
}
