//! Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes' strategic merge.
//! Pure: a patch and an object give an object. What server-side apply does is in
//! [`crate::managed`].

mod strategic;

use std::ops::Range;

use http::HeaderMap;
use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::{Map, Value};

use crate::{body, kinds::Kind, negotiate, object, status::Error, structure::builtin};

/// Operations of a JSON patch that are carried out, as in Kubernetes.
const OPERATIONS: usize = 10_000;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A patch, read and not yet applied.
#[derive(Debug, Clone)]
pub(crate) enum Patch {
    Json(json_patch::Patch),
    /// The patch, and what is to be said of fields that it has twice.
    Merge(Value, Vec<String>),
    Strategic(Value, Vec<String>, &'static builtin::Type),
    /// Server-side apply: what the applier wants to be there.
    Apply(Value, Vec<String>),
}

impl Patch {
    /// From the body of a request.
    pub(crate) fn parse(kind: &Kind, headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Error> {
        let structure = builtin::of(&kind.group, &kind.kind);
        match negotiate::media_type(headers) {
            JSON => json(bytes),
            MERGE => map(bytes).map(|(patch, repeated)| Self::Merge(patch, repeated)),
            STRATEGIC if !kind.is_custom() => {
                map(bytes).map(|(patch, repeated)| Self::Strategic(patch, repeated, structure))
            }
            APPLY => {
                let (wanted, repeated) = body::yaml_checked(bytes)?;
                if wanted.is_object() {
                    Ok(Self::Apply(wanted, repeated))
                } else {
                    Err(Error::bad_request(
                        "error decoding YAML: the body must be an object",
                    ))
                }
            }
            _ => {
                let all = [JSON, MERGE, STRATEGIC, APPLY].into_iter();
                let served = all.filter(|media| *media != STRATEGIC || !kind.is_custom());
                Err(Error::UnsupportedMediaType(format!(
                    "the body of the request was in an unknown format - accepted media types include: {}",
                    served.collect::<Vec<_>>().join(", ")
                )))
            }
        }
    }

    /// What is to be said of fields that the patch has twice.
    pub(crate) fn repeated(&self) -> &[String] {
        match self {
            Self::Json(_) => &[],
            Self::Merge(_, repeated) | Self::Strategic(_, repeated, _) | Self::Apply(_, repeated) => repeated,
        }
    }

    /// The object with the patch applied. What an applier wants is applied elsewhere.
    pub(crate) fn apply(&self, object: &Value) -> Result<Value, Error> {
        let mut patched = object.clone();
        match self {
            Self::Json(patch) => operate(&mut patched, patch)?,
            Self::Merge(patch, _) => merge(&mut patched, patch),
            Self::Strategic(patch, _, structure) => strategic::apply(&mut patched, patch, structure)?,
            Self::Apply(wanted, _) => return Ok(wanted.clone()),
        }
        if !patched.is_object() {
            return Err(Error::PatchFailed(
                "the patched object is not an object any more".to_owned(),
            ));
        }
        Ok(patched)
    }
}

/// Carries out a JSON patch. What is not there is null to a `test`, as in Kubernetes: clients find out
/// so whether they are the first to write a field.
fn operate(document: &mut Value, operations: &[PatchOperation]) -> Result<(), Error> {
    let carry_out = |document: &mut Value, range: Range<usize>| {
        json_patch::patch(document, &operations[range.clone()]).map_err(|mut error| {
            error.operation += range.start;
            Error::PatchFailed(error.to_string())
        })
    };
    let mut done = 0;
    for (at, operation) in operations.iter().enumerate() {
        if let PatchOperation::Test(test) = operation
            && test.value.is_null()
        {
            carry_out(document, done..at)?;
            done = if is_absent(document, &test.path) {
                at + 1
            } else {
                at
            };
        }
    }
    carry_out(document, done..operations.len())
}

/// Whether the path names a field that its object does not have.
fn is_absent(document: &Value, path: &Pointer) -> bool {
    let parent = path.parent().and_then(|parent| document.pointer(parent.as_str()));
    parent.is_some_and(Value::is_object) && document.pointer(path.as_str()).is_none()
}

fn json(bytes: &[u8]) -> Result<Patch, Error> {
    let patch: json_patch::Patch = serde_json::from_slice(bytes)
        .map_err(|error| Error::bad_request(format!("the JSON patch cannot be read: {error}")))?;
    if patch.len() > OPERATIONS {
        return Err(Error::TooManyOperations {
            limit: OPERATIONS,
            got: patch.len(),
        });
    }
    Ok(Patch::Json(patch))
}

fn map(bytes: &[u8]) -> Result<(Value, Vec<String>), Error> {
    let (patch, repeated) = body::json_checked(bytes)?;
    if patch.is_object() {
        Ok((patch, repeated))
    } else {
        Err(Error::bad_request(
            "error decoding patch: the patch must be an object",
        ))
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    let target: &mut Map<String, Value> = object::as_map(target);
    for (field, change) in patch {
        if change.is_null() {
            target.shift_remove(field);
        } else {
            merge(target.entry(field.as_str()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header;
    use serde_json::json;

    use super::*;
    use crate::kinds::PODS;

    fn parse(media: &str, body: &Value) -> Result<Patch, Error> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media.parse().unwrap())]);
        Patch::parse(&PODS, &headers, body.to_string().as_bytes())
    }

    #[test]
    fn merge_patch_follows_its_rfc() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let patched = parse("application/merge-patch+json", &patch)
                .unwrap()
                .apply(&target)
                .unwrap();
            assert_eq!(patched, expected, "{target} {patch}");
        }
    }

    #[test]
    fn a_json_patch_whose_test_fails_changes_nothing() {
        let patch = json!([{"op": "test", "path": "/a", "value": 2}, {"op": "remove", "path": "/a"}]);
        let patch = parse("application/json-patch+json", &patch).unwrap();
        assert!(matches!(
            patch.apply(&json!({"a": 1})),
            Err(Error::PatchFailed(_))
        ));
        assert_eq!(patch.apply(&json!({"a": 2})).unwrap(), json!({}));
    }

    #[test]
    fn a_json_patch_may_test_that_something_is_not_there() {
        let check = |operations: Value, expected: Result<Value, &str>| {
            let patched = parse(JSON, &operations).unwrap().apply(&json!({"a": {"b": 1}}));
            match (patched, expected) {
                (Err(Error::PatchFailed(why)), Err(said)) => assert!(why.contains(said), "{why}"),
                (patched, expected) => assert_eq!(patched.unwrap(), expected.unwrap(), "{operations}"),
            }
        };
        let test = |path: &str, value: Value| json!({"op": "test", "path": path, "value": value});
        let add = json!({"op": "add", "path": "/a/c", "value": 2});
        let both = json!({"a": {"b": 1, "c": 2}});
        check(json!([test("/a/c", Value::Null), add]), Ok(both.clone()));
        check(
            json!([
                test("/a/b", json!(1)),
                test("/a/c", Value::Null),
                add,
                test("/a/c", json!(2))
            ]),
            Ok(both),
        );
        check(json!([add, test("/a/c", Value::Null)]), Err("operation '/1'"));
        check(json!([test("/a/b", Value::Null), add]), Err("operation '/0'"));
        check(json!([test("/a/c", json!(3)), add]), Err("operation '/0'"));
        check(json!([test("/x/c", Value::Null)]), Err("operation '/0'"));
        check(
            json!([test("/a/c", Value::Null), test("/a/b", json!(2))]),
            Err("operation '/1'"),
        );
    }

    #[test]
    fn unknown_kinds_of_patch_are_refused() {
        for media in ["application/apply-patch+cbor", "application/json", "text/plain"] {
            assert!(
                matches!(parse(media, &json!({})), Err(Error::UnsupportedMediaType(_))),
                "{media}"
            );
        }
    }

    #[test]
    fn a_json_patch_may_have_so_many_operations_only() {
        let operation = json!({"op": "add", "path": "/a", "value": 1});
        let patch = |length: usize| Value::Array(vec![operation.clone(); length]);
        assert!(parse(JSON, &patch(OPERATIONS)).is_ok());
        let refused = parse(JSON, &patch(OPERATIONS + 1)).unwrap_err();
        assert_eq!(refused.code().1, "RequestEntityTooLarge");
    }
}
