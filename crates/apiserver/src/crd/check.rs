//! What is wrong with a custom object by its schema, in the words of Kubernetes' validation: each
//! value by its type and limits, the items of sets and maps by their keys. CEL rules are in
//! [`super::rules`]. Pure.

use serde_json::{Map, Value};

use super::{
    format,
    schema::{ListType, Schema, Type},
};
use crate::validation::Problems;

/// What problems with no place in the object are said to be at.
pub(super) const NOWHERE: &str = "<nil>";

/// What is wrong with the object. What it was before may stay, so that a schema can become
/// stricter and its objects still be changed.
pub(super) fn check(schema: &Schema, object: &Value, old: Option<&Value>, problems: &mut Problems) {
    value(schema, object, old, "", problems);
    held_objects(schema, object, "", problems);
    keyed_lists(schema, object, "", problems);
}

/// What is wrong with a value at the path.
fn value(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, problems: &mut Problems) {
    if old == Some(value) {
        return;
    }
    kind(schema, value, path, problems);
    alternatives(schema, value, path, problems);
    match value {
        Value::String(text) => string(schema, text, path, problems),
        Value::Number(_) => number(schema, value, path, problems),
        Value::Array(items) => list(schema, items, old, path, problems),
        Value::Object(fields) => object(schema, fields, old, path, problems),
        Value::Null | Value::Bool(_) => {}
    }
    if let Some(allowed) = &schema.limits.one_of
        && !allowed.iter().any(|one| equal(one, value))
        && !(value.is_null() && schema.nullable)
    {
        problems.unsupported_value(at(path), value, allowed);
    }
}

/// Where messages say that a problem is.
fn at(path: &str) -> String {
    let path = path.trim_start_matches('.');
    if path.is_empty() {
        NOWHERE.to_owned()
    } else {
        path.to_owned()
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_whole(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn kind(schema: &Schema, value: &Value, path: &str, problems: &mut Problems) {
    let wanted = match (schema.int_or_string, schema.kind) {
        (true, _) => "integer,string",
        (false, Some(kind)) => kind.name(),
        (false, None) => return,
    };
    let is = type_name(value);
    let fits = match (schema.kind, value) {
        (_, Value::Null) => schema.nullable,
        _ if schema.int_or_string => matches!(is, "integer" | "string"),
        (Some(Type::Number), Value::Number(_)) => true,
        _ => is == wanted,
    };
    if !fits {
        let detail = format!("{path} in body must be of type {wanted}: \"{is}\"");
        problems.wrong_type(at(path), is, &detail);
    }
}

fn alternatives(schema: &Schema, one: &Value, path: &str, problems: &mut Problems) {
    let tries = |schemas: &[Schema]| {
        let each = schemas.iter().map(|schema| {
            let mut found = Problems::default();
            value(schema, one, None, path, &mut found);
            found
        });
        each.collect::<Vec<_>>()
    };
    // The alternative that comes closest is the one that was meant.
    let closest = |tried: Vec<Problems>| tried.into_iter().min_by_key(Problems::count);
    if !schema.any_of.is_empty() {
        let tried = tries(&schema.any_of);
        if !tried.iter().any(Problems::is_empty) {
            problems.invalid(
                NOWHERE,
                "",
                &format!("\"{path}\" must validate at least one schema (anyOf)"),
            );
            problems.extend(closest(tried).unwrap_or_default());
        }
    }
    if !schema.exactly_one_of.is_empty() {
        let tried = tries(&schema.exactly_one_of);
        let fitting = tried.iter().filter(|found| found.is_empty()).count();
        if fitting != 1 {
            let found = match fitting {
                0 => "Found none valid".to_owned(),
                _ => format!("Found {fitting} valid alternatives"),
            };
            let detail = format!("\"{path}\" must validate one and only one schema (oneOf). {found}");
            problems.invalid(NOWHERE, "", &detail);
            if fitting == 0 {
                problems.extend(closest(tried).unwrap_or_default());
            }
        }
    }
    if !schema.all_of.is_empty() {
        let tried = tries(&schema.all_of);
        let failing = tried.iter().filter(|found| !found.is_empty()).count();
        let all = tried.len();
        tried.into_iter().for_each(|found| problems.extend(found));
        if failing > 0 {
            let none = if failing == all { ". None validated" } else { "" };
            let detail = format!("\"{path}\" must validate all the schemas (allOf){none}");
            problems.invalid(NOWHERE, "", &detail);
        }
    }
    if let Some(schema) = &schema.not {
        let mut found = Problems::default();
        value(schema, one, None, path, &mut found);
        if found.is_empty() {
            problems.invalid(
                NOWHERE,
                "",
                &format!("\"{path}\" must not validate the schema (not)"),
            );
        }
    }
}

fn string(schema: &Schema, text: &str, path: &str, problems: &mut Problems) {
    let limits = &schema.limits;
    let length = text.chars().count();
    if let Some(most) = limits.length.1.filter(|most| length > *most) {
        problems.too_long(at(path), most);
    }
    if let Some(least) = limits.length.0.filter(|least| length < *least) {
        let detail = format!("{path} in body should be at least {least} chars long");
        problems.invalid(at(path), text, &detail);
    }
    if let Some((pattern, matcher)) = &limits.pattern
        && !matcher.as_ref().is_some_and(|matcher| matcher.is_match(text))
    {
        problems.invalid(
            at(path),
            text,
            &format!("{path} in body should match '{pattern}'"),
        );
    }
    let is_string = schema.kind == Some(Type::String) || schema.int_or_string;
    if let Some(format) = limits.format.as_deref()
        && is_string
        && !format::is_valid(format, text)
    {
        let detail = format!("{path} in body must be of type {format}: \"{text}\"");
        problems.wrong_type(at(path), text, &detail);
    }
}

fn number(schema: &Schema, number: &Value, path: &str, problems: &mut Problems) {
    let limits = &schema.limits;
    if let (Some(format), Some(kind)) = (limits.format.as_deref(), schema.kind)
        && !format::is_in_range(format, number)
    {
        let kind = kind.name();
        let detail = format!("Checked value must be of type {kind} with format {format} in {path}");
        problems.invalid(NOWHERE, "", &detail);
    }
    let value = number.as_f64().unwrap_or_default();
    let bounds = [
        (&limits.maximum, "less than", f64::gt as fn(&f64, &f64) -> bool),
        (&limits.minimum, "greater than", f64::lt),
    ];
    for (bound, than, is_beyond) in bounds {
        let Some((bound, is_exclusive)) = bound else {
            continue;
        };
        let at_most = bound.as_f64().unwrap_or_default();
        if is_beyond(&value, &at_most) || (*is_exclusive && value == at_most) {
            let or = if *is_exclusive { "" } else { " or equal to" };
            let detail = format!("{path} in body should be {than}{or} {}", plain(at_most));
            problems.invalid(at(path), number.clone(), &detail);
        }
    }
    if let Some(step) = limits.multiple_of.filter(|step| *step > 0.0)
        && (value / step).fract() != 0.0
    {
        let detail = format!("{path} in body should be a multiple of {}", plain(step));
        problems.invalid(at(path), number.clone(), &detail);
    }
}

/// A number as people write it.
fn plain(number: f64) -> String {
    number.to_string()
}

fn list(schema: &Schema, items: &[Value], old: Option<&Value>, path: &str, problems: &mut Problems) {
    let limits = &schema.limits;
    let count = items.len();
    if let Some(below) = schema.items() {
        for (index, item) in items.iter().enumerate() {
            let old = old.and_then(|old| schema.counterpart(item, old));
            value(below, item, old, &format!("{path}[{index}]"), problems);
        }
    }
    if let Some(least) = limits.items.0.filter(|least| count < *least) {
        let detail = format!("{path} in body should have at least {least} items");
        problems.invalid(at(path), count, &detail);
    }
    if let Some(most) = limits.items.1.filter(|most| count > *most) {
        problems.too_many(at(path), count, most);
    }
    let has_twice = || {
        let mut rest = items.iter();
        std::iter::from_fn(|| rest.next().map(|item| (item, rest.as_slice())))
            .any(|(item, later)| later.iter().any(|other| equal(item, other)))
    };
    if limits.unique_items && has_twice() {
        problems.invalid(
            at(path),
            "",
            &format!("{path} in body shouldn't contain duplicates"),
        );
    }
}

fn object(
    schema: &Schema,
    fields: &Map<String, Value>,
    old: Option<&Value>,
    path: &str,
    problems: &mut Problems,
) {
    let limits = &schema.limits;
    let count = fields.len();
    if let Some(least) = limits.properties.0.filter(|least| count < *least) {
        let detail = format!("{path} in body should have at least {least} properties");
        return problems.invalid(at(path), count, &detail);
    }
    if let Some(most) = limits.properties.1.filter(|most| count > *most) {
        return problems.too_many(at(path), count, most);
    }
    for (name, field) in fields {
        if let Some(schema) = schema.field(name) {
            let old = old.and_then(|old| old.get(name));
            value(schema, field, old, &child(path, name), problems);
        }
    }
    for name in &limits.required {
        if !fields.contains_key(name) {
            problems.required(at(&child(path, name)), "");
        }
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Whether two values are the same, however their numbers are written.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

/// Objects held by the object say of which kind they are.
fn held_objects(schema: &Schema, value: &Value, path: &str, problems: &mut Problems) {
    if schema.is_embedded && value.is_object() {
        for field in ["apiVersion", "kind"] {
            if value.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                problems.required(at(&child(path, field)), "must not be empty");
            }
        }
    }
    below(schema, value, path, &mut |schema, value, path| {
        held_objects(schema, value, path, problems)
    });
}

/// The items of a set, and the keys of the items of a map, are there once.
fn keyed_lists(schema: &Schema, value: &Value, path: &str, problems: &mut Problems) {
    if let Value::Array(items) = value {
        let key = |item: &Value| match schema.list_type() {
            ListType::Map(keys) => {
                let key = keys
                    .iter()
                    .filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                Value::Object(key.collect())
            }
            ListType::Atomic | ListType::Set => item.clone(),
        };
        let keys = match schema.list_type() {
            ListType::Atomic => Vec::new(),
            ListType::Set | ListType::Map(_) => items.iter().map(key).collect(),
        };
        for (index, key) in keys.iter().enumerate() {
            if keys[..index].iter().any(|earlier| equal(earlier, key)) {
                problems.duplicate_value(at(&format!("{path}[{index}]")), key.clone());
            }
        }
    }
    below(schema, value, path, &mut |schema, value, path| {
        keyed_lists(schema, value, path, problems)
    });
}

/// Runs the function on each value just below, with its schema.
fn below(schema: &Schema, value: &Value, path: &str, run: &mut impl FnMut(&Schema, &Value, &str)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) = schema.field(name) {
                    run(schema, value, &child(path, name));
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.items() {
                for (index, item) in items.iter().enumerate() {
                    run(schema, item, &format!("{path}[{index}]"));
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(spec: Value, object: Value) -> String {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": spec}}));
        let mut problems = Problems::default();
        check(&schema, &json!({"spec": object}), None, &mut problems);
        problems.to_string()
    }

    #[test]
    fn a_value_at_fault_is_named_in_the_words_of_kubernetes() {
        let of = |kind: &str, more: Value| {
            let mut schema = json!({"type": kind});
            schema
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({"type": "object", "properties": {"x": schema}})
        };
        for (schema, x, expected) in [
            (
                of("integer", json!({})),
                json!("3"),
                r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
            ),
            (
                of("integer", json!({})),
                json!(1.5),
                r#"spec.x: Invalid value: "number": spec.x in body must be of type integer: "number""#,
            ),
            (of("number", json!({})), json!(1), ""),
            (of("integer", json!({})), json!(2.0), ""),
            (
                of("string", json!({})),
                json!(null),
                r#"spec.x: Invalid value: "null": spec.x in body must be of type string: "null""#,
            ),
            (of("string", json!({"nullable": true})), json!(null), ""),
            (
                json!({"properties": {"x": {"x-kubernetes-int-or-string": true}}}),
                json!(true),
                r#"spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean""#,
            ),
            (
                of("string", json!({"enum": ["A", "B"]})),
                json!("C"),
                r#"spec.x: Unsupported value: "C": supported values: "A", "B""#,
            ),
            (
                of("integer", json!({"enum": [1, 2]})),
                json!(3),
                "spec.x: Unsupported value: 3: supported values: 1, 2",
            ),
            (
                of("string", json!({"pattern": "^[a-z]+$"})),
                json!("A"),
                r#"spec.x: Invalid value: "A": spec.x in body should match '^[a-z]+$'"#,
            ),
            (
                of("string", json!({"maxLength": 2})),
                json!("abc"),
                "spec.x: Too long: may not be more than 2 bytes",
            ),
            (
                of("string", json!({"minLength": 2})),
                json!("ä"),
                r#"spec.x: Invalid value: "ä": spec.x in body should be at least 2 chars long"#,
            ),
            (
                of("integer", json!({"minimum": 1})),
                json!(0),
                "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
            ),
            (
                of("number", json!({"maximum": 0.5, "exclusiveMaximum": true})),
                json!(0.5),
                "spec.x: Invalid value: 0.5: spec.x in body should be less than 0.5",
            ),
            (
                of("integer", json!({"multipleOf": 8})),
                json!(9),
                "spec.x: Invalid value: 9: spec.x in body should be a multiple of 8",
            ),
            (
                of("integer", json!({"format": "int32"})),
                json!(3_000_000_000_u64),
                r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.x"#,
            ),
            (
                of("string", json!({"format": "date-time"})),
                json!("now"),
                r#"spec.x: Invalid value: "now": spec.x in body must be of type date-time: "now""#,
            ),
            (of("string", json!({"format": "unheard-of"})), json!("now"), ""),
            (
                of("array", json!({"items": {"type": "string"}, "maxItems": 1})),
                json!(["a", 1]),
                "[spec.x[1]: Invalid value: \"integer\": spec.x[1] in body must be of type string: \"integer\", \
                 spec.x: Too many: 2: must have at most 1 items]",
            ),
            (
                of("array", json!({"minItems": 1})),
                json!([]),
                "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
            ),
            (
                of("array", json!({"uniqueItems": true})),
                json!([1, 2, 1]),
                r#"spec.x: Invalid value: "": spec.x in body shouldn't contain duplicates"#,
            ),
            (
                of("array", json!({"x-kubernetes-list-type": "set"})),
                json!(["a", "b", "a"]),
                r#"spec.x[2]: Duplicate value: "a""#,
            ),
            (
                of(
                    "array",
                    json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
                ),
                json!([{"name": "a", "v": 1}, {"name": "a", "v": 2}]),
                r#"spec.x[1]: Duplicate value: {"name":"a"}"#,
            ),
            (
                of("object", json!({"required": ["name"]})),
                json!({}),
                "spec.x.name: Required value",
            ),
            (
                of("object", json!({"additionalProperties": {"type": "string"}})),
                json!({"a": 1}),
                r#"spec.x.a: Invalid value: "integer": spec.x.a in body must be of type string: "integer""#,
            ),
            (
                of("object", json!({"maxProperties": 1})),
                json!({"a": 1, "b": 2}),
                "spec.x: Too many: 2: must have at most 1 items",
            ),
            (
                of("object", json!({"x-kubernetes-embedded-resource": true})),
                json!({"apiVersion": "v1"}),
                "spec.x.kind: Required value: must not be empty",
            ),
        ] {
            let found = problems(schema, json!({"x": x}));
            assert_eq!(found.trim_matches(['[', ']']), expected.trim_matches(['[', ']']));
        }
    }

    #[test]
    fn alternatives_are_counted() {
        let one = |field: &str| json!({"required": [field]});
        let fields = json!({"a": {"type": "string"}, "b": {"type": "string"}});
        let schema = |word: &str| json!({"type": "object", "properties": fields, word: [one("a"), one("b")]});
        for (word, object, expected) in [
            ("oneOf", json!({"a": ""}), ""),
            (
                "oneOf",
                json!({"a": "", "b": ""}),
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ),
            (
                "oneOf",
                json!({}),
                "[<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid, \
                 spec.a: Required value]",
            ),
            (
                "anyOf",
                json!({}),
                "[<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf), spec.a: Required value]",
            ),
            ("anyOf", json!({"a": "", "b": ""}), ""),
            (
                "allOf",
                json!({"a": ""}),
                "[spec.b: Required value, <nil>: Invalid value: \"\": \"spec\" must validate all the schemas (allOf)]",
            ),
        ] {
            assert_eq!(
                problems(schema(word), object).trim_matches(['[', ']']),
                expected.trim_matches(['[', ']'])
            );
        }
        let not = json!({"type": "object", "properties": fields, "not": one("a")});
        assert_eq!(
            problems(not, json!({"a": ""})),
            r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#
        );
    }
}
