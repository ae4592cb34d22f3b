//! What a custom object becomes before it is looked at: fields that its schema does not have are
//! taken away, nulls that mean nothing too, and what was left out is filled in. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::schema::Schema;
use crate::{admission, rules::shape as shape_of};

/// Takes away the fields that the schema does not have, and says where they were.
///
/// # Errors
///
/// When the metadata of the object, or of one that it holds, is not metadata.
pub(crate) fn prune(schema: &Schema, object: &mut Value) -> Result<Vec<String>, serde_json::Error> {
    let mut dropped = Vec::new();
    resource(schema, object, "", &mut dropped)?;
    Ok(dropped)
}

/// As [`prune`], of a value that need not be a whole object.
pub(super) fn prune_value(schema: &Schema, value: &mut Value) -> Result<Vec<String>, serde_json::Error> {
    let mut dropped = Vec::new();
    if schema.is_embedded {
        resource(schema, value, "", &mut dropped)?;
    } else {
        node(schema, value, "", &mut dropped)?;
    }
    Ok(dropped)
}

/// A whole object, here or held by another one: its type and its metadata are known without a
/// schema.
fn resource(
    schema: &Schema,
    object: &mut Value,
    path: &str,
    dropped: &mut Vec<String>,
) -> Result<(), serde_json::Error> {
    let Some(fields) = object.as_object_mut() else {
        return Ok(());
    };
    if let Some(metadata) = fields.get_mut("metadata").filter(|metadata| metadata.is_object()) {
        let known = shape_of::<ObjectMeta>(metadata)?;
        admission::keep_known(metadata, &known, &child(path, "metadata"), dropped);
    }
    let is_own = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata");
    let own = fields
        .keys()
        .filter(|name| is_own(name))
        .cloned()
        .collect::<Vec<_>>();
    let own = own
        .into_iter()
        .filter_map(|name| fields.shift_remove_entry(&name))
        .collect::<Vec<_>>();
    let pruned = node(schema, object, path, dropped);
    let mut whole = own.into_iter().collect::<Map<_, _>>();
    if let Some(fields) = object.as_object_mut() {
        whole.extend(std::mem::take(fields));
        *fields = whole;
    }
    pruned
}

fn node(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    dropped: &mut Vec<String>,
) -> Result<(), serde_json::Error> {
    match value {
        Value::Object(fields) => {
            let mut unknown = Vec::new();
            for (name, value) in fields.iter_mut() {
                let path = child(path, name);
                match schema.field(name) {
                    Some(schema) if schema.is_embedded => resource(schema, value, &path, dropped)?,
                    Some(schema) => node(schema, value, &path, dropped)?,
                    None if schema.preserves_unknown || schema.additional_anything => {}
                    None => unknown.push(name.clone()),
                }
            }
            for name in unknown {
                fields.shift_remove(&name);
                dropped.push(child(path, &name));
            }
        }
        Value::Array(items) => {
            // Without a schema for them, the items are data where unknown fields are.
            let Some(schema) = schema.items() else {
                return Ok(());
            };
            for (index, item) in items.iter_mut().enumerate() {
                let path = format!("{path}[{index}]");
                if schema.is_embedded {
                    resource(schema, item, &path, dropped)?;
                } else {
                    node(schema, item, &path, dropped)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Fills in what was left out, and takes away nulls where null is nothing that the field can be.
pub(crate) fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                !value.is_null() || schema.properties.get(name).is_none_or(|schema| schema.nullable)
            });
            for (name, schema) in &schema.properties {
                if let Some(default) = &schema.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields {
                if let Some(schema) = schema.field(name) {
                    if value.is_null()
                        && !schema.nullable
                        && let Some(filling) = &schema.default
                    {
                        value.clone_from(filling);
                    }
                    default(schema, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.items() {
                for item in items {
                    if item.is_null()
                        && !schema.nullable
                        && let Some(filling) = &schema.default
                    {
                        item.clone_from(filling);
                    }
                    default(schema, item);
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

    fn schema() -> Schema {
        Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "replicas": {"type": "integer", "default": 1},
                "note": {"type": "string", "nullable": true, "default": "none"},
                "policy": {"type": "object", "default": {}, "properties": {
                    "mode": {"type": "string", "default": "Fast"},
                }},
                "env": {"type": "array", "items": {"type": "object", "properties": {
                    "name": {"type": "string"},
                    "kind": {"type": "string", "default": "Plain"},
                }}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                    "known": {"type": "object", "properties": {"a": {"type": "string"}}},
                }},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
                    "spec": {"type": "object", "properties": {"a": {"type": "string"}}},
                }},
            }},
        }}))
    }

    #[test]
    fn fields_without_a_schema_are_taken_away_and_named() {
        let mut object = json!({
            "apiVersion": "a.io/v1",
            "kind": "Widget",
            "metadata": {"name": "w", "colour": "red", "labels": {"any": "thing"}},
            "spec": {
                "replicas": 2,
                "unknown": {"deep": 1},
                "env": [{"name": "a"}, {"name": "b", "valu": "c"}],
                "labels": {"any": "thing"},
                "free": {"any": {"thing": 1}, "known": {"a": "b", "c": "d"}},
                "template": {"kind": "Job", "metadata": {"name": "x", "size": 1}, "spec": {"a": "b", "c": "d"}, "e": 1},
            },
            "status": {},
        });
        let mut dropped = prune(&schema(), &mut object).unwrap();
        dropped.sort();
        assert_eq!(
            dropped,
            [
                "metadata.colour",
                "spec.env[1].valu",
                "spec.free.known.c",
                "spec.template.e",
                "spec.template.metadata.size",
                "spec.template.spec.c",
                "spec.unknown",
                "status",
            ]
        );
        assert_eq!(
            object,
            json!({
                "apiVersion": "a.io/v1",
                "kind": "Widget",
                "metadata": {"name": "w", "labels": {"any": "thing"}},
                "spec": {
                    "replicas": 2,
                    "env": [{"name": "a"}, {"name": "b"}],
                    "labels": {"any": "thing"},
                    "free": {"any": {"thing": 1}, "known": {"a": "b"}},
                    "template": {"kind": "Job", "metadata": {"name": "x"}, "spec": {"a": "b"}},
                },
            })
        );
    }

    #[test]
    fn defaults_are_filled_in_below_what_is_there() {
        for (spec, expected) in [
            (
                json!({}),
                json!({"replicas": 1, "note": "none", "policy": {"mode": "Fast"}}),
            ),
            (
                json!({"replicas": null, "note": null, "policy": {"mode": "Slow"}}),
                json!({"replicas": 1, "note": null, "policy": {"mode": "Slow"}}),
            ),
            (
                json!({"replicas": 0, "env": [{"name": "a"}, {"kind": null}], "labels": {"a": "b"}}),
                json!({
                    "replicas": 0,
                    "note": "none",
                    "policy": {"mode": "Fast"},
                    "env": [{"name": "a", "kind": "Plain"}, {"kind": "Plain"}],
                    "labels": {"a": "b"},
                }),
            ),
        ] {
            let mut object = json!({"spec": spec});
            default(&schema(), &mut object);
            assert_eq!(object["spec"], expected);
        }
        let mut without = json!({});
        default(&schema(), &mut without);
        assert_eq!(without, json!({}));
    }
}
