//! Objects against the types of their kinds: wrong types are refused, unknown fields too when the
//! client asks for that, and dropped when it does not.

use serde_json::Value;

use crate::{kinds::Kind, request::Parameters, status::Error};

/// What becomes of fields that the kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownFields {
    /// They are dropped.
    Drop,
    /// They make the request fail.
    Refuse,
}

impl UnknownFields {
    /// As `fieldValidation` in the query says.
    pub(crate) fn parse(parameters: &Parameters) -> Result<Self, Error> {
        match parameters.text("fieldValidation") {
            "" | "Ignore" | "Warn" => Ok(Self::Drop),
            "Strict" => Ok(Self::Refuse),
            other => Err(Error::BadRequest(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Warn\", \"Strict\""
            ))),
        }
    }
}

/// Makes the object one of its kind, or says why it is not.
pub(super) fn conform(kind: &Kind, object: &mut Value, unknown: UnknownFields) -> Result<(), Error> {
    let refuse = |why: &str| {
        let (version, kind) = (&kind.version, &kind.kind);
        Error::BadRequest(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    };
    let known = (kind.rules.shape)(object).map_err(|error| refuse(&error.to_string()))?;
    let mut dropped = Vec::new();
    keep(object, &known, "", &mut dropped);
    if unknown == UnknownFields::Drop || dropped.is_empty() {
        return Ok(());
    }
    let fields = dropped
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect::<Vec<_>>();
    Err(refuse(&format!("strict decoding error: {}", fields.join(", "))))
}

/// Drops what is not in `known`, and says where it was.
fn keep(object: &mut Value, known: &Value, path: &str, dropped: &mut Vec<String>) {
    match (object, known) {
        (Value::Object(fields), Value::Object(known)) => {
            fields.retain(|field, value| {
                let path = if path.is_empty() {
                    field.clone()
                } else {
                    format!("{path}.{field}")
                };
                if let Some(known) = known.get(field) {
                    keep(value, known, &path, dropped);
                    return true;
                }
                dropped.push(path);
                false
            });
        }
        (Value::Array(items), Value::Array(known)) => {
            for (index, (item, known)) in items.iter_mut().zip(known).enumerate() {
                keep(item, known, &format!("{path}[{index}]"), dropped);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::PODS;

    fn pod() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "labels": {}, "annotations": {"any.key/at": "all"}},
            "spec": {"containers": [{
                "name": "c",
                "image": "x",
                "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}},
                "livenessProbe": {"httpGet": {"port": 80}},
            }]},
        })
    }

    #[test]
    fn what_the_kind_has_is_kept() {
        let mut kept = pod();
        conform(&PODS, &mut kept, UnknownFields::Refuse).unwrap();
        assert_eq!(kept, pod());
    }

    #[test]
    fn unknown_fields_are_dropped_or_named() {
        let mut misspelt = pod();
        misspelt["spec"]["containers"][0]["comand"] = json!(["sh"]);
        misspelt["spec"]["colour"] = json!({"red": 1});
        let error = conform(&PODS, &mut misspelt.clone(), UnknownFields::Refuse).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: \
             unknown field \"spec.containers[0].comand\", unknown field \"spec.colour\""
        );
        conform(&PODS, &mut misspelt, UnknownFields::Drop).unwrap();
        assert_eq!(misspelt, pod());
    }
}
