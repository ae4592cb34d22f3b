//! The columns that `kubectl get` shows for a custom resource: those of its definition.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::path::Path;
use crate::{columns, object};

/// One column of `additionalPrinterColumns`.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    /// None when it cannot be read, and nothing is shown.
    path: Option<Path>,
}

/// The columns of a version: the name, and what its definition adds to it.
pub(super) fn of(version: &Value) -> Vec<Column> {
    let declared = object::list(version, "/additionalPrinterColumns");
    let columns = declared.iter().map(|column| Column {
        name: object::text(column, "/name").to_owned(),
        kind: object::text(column, "/type").to_owned(),
        format: object::text(column, "/format").to_owned(),
        description: object::text(column, "/description").to_owned(),
        priority: object::number(column, "/priority"),
        path: Path::parse(object::text(column, "/jsonPath")).ok(),
    });
    columns.collect()
}

/// What the columns are called, as a table says it.
pub(crate) fn definitions(columns: &[Column]) -> Value {
    let plain = |name: &str, kind: &str, format: &str| json!({"name": name, "type": kind, "format": format, "description": "", "priority": 0});
    let mut definitions = vec![plain("Name", "string", "name")];
    if columns.is_empty() {
        definitions.push(plain("Age", "date", ""));
    }
    definitions.extend(columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    }));
    Value::Array(definitions)
}

/// What they show of an object.
pub(crate) fn cells(columns: &[Column], object: &Value, now: Timestamp) -> Value {
    let mut cells = vec![Value::from(object::name(object))];
    if columns.is_empty() {
        cells.push(date(object.pointer("/metadata/creationTimestamp"), now));
    }
    cells.extend(columns.iter().map(|column| column.cell(object, now)));
    Value::Array(cells)
}

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let value = self.path.as_ref().and_then(|path| path.first(object));
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Value::Null;
        };
        match (self.kind.as_str(), value) {
            ("integer", Value::Number(number)) => number
                .as_i64()
                .map_or_else(|| number.as_f64().map(|number| number as i64).into(), Value::from),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("date", _) => date(Some(value), now),
            ("string", Value::String(_)) => value.clone(),
            ("string", _) => value.to_string().into(),
            _ => Value::Null,
        }
    }
}

fn date(at: Option<&Value>, now: Timestamp) -> Value {
    let Some(at) = at.and_then(Value::as_str) else {
        return "<unknown>".into();
    };
    at.parse()
        .map_or_else(|_| "<invalid>".to_owned(), |then| columns::age(then, now))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_what_the_paths_lead_to() {
        let column =
            |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
        let version = json!({"additionalPrinterColumns": [
            column("State", "string", ".status.conditions[?(@.type==\"Complete\")].status"),
            column("Nodes", "integer", ".spec.nodes"),
            column("Share", "number", ".spec.share"),
            column("Paused", "boolean", ".spec.paused"),
            column("Labels", "string", ".spec.labels"),
            column("Age", "date", ".metadata.creationTimestamp"),
            column("Gone", "string", ".spec.gone"),
        ]});
        let object = json!({
            "metadata": {"name": "w", "creationTimestamp": "2026-11-22T10:00:00Z"},
            "spec": {"nodes": 4, "share": 0.5, "paused": true, "labels": {"a": "b"}},
            "status": {"conditions": [{"type": "Complete", "status": "True"}]},
        });
        let now = "2026-11-22T10:01:00Z".parse().unwrap();
        assert_eq!(
            cells(&of(&version), &object, now),
            json!(["w", "True", 4, 0.5, true, "{\"a\":\"b\"}", "60s", null])
        );
        assert_eq!(cells(&[], &object, now), json!(["w", "60s"]));
        assert_eq!(definitions(&[])[1]["name"], "Age");
        assert_eq!(definitions(&of(&version))[2]["type"], "integer");
    }
}
