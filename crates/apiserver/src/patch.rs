//! Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes' strategic merge.
//! Pure: a patch and an object give an object.

mod strategic;

use http::HeaderMap;
use serde_json::{Map, Value};

use crate::{body, negotiate, object, status::Error};

/// A patch, read and not yet applied.
#[derive(Debug, Clone)]
pub(crate) enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// From the body of a request.
    pub(crate) fn parse(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Error> {
        let media = negotiate::media_type(headers);
        match media {
            "application/json-patch+json" => serde_json::from_slice(bytes)
                .map(Self::Json)
                .map_err(|error| Error::bad_request(format!("the JSON patch cannot be read: {error}"))),
            "application/merge-patch+json" => Ok(Self::Merge(map(bytes)?)),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic(map(bytes)?)),
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
                Err(Error::UnsupportedMediaType(
                    "server-side apply is not served yet: use client-side apply (`kubectl apply` without \
                     --server-side), or a merge patch"
                        .to_owned(),
                ))
            }
            other => Err(Error::UnsupportedMediaType(format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json; not {other}"
            ))),
        }
    }

    /// The object with the patch applied.
    pub(crate) fn apply(&self, object: &Value) -> Result<Value, Error> {
        let mut patched = object.clone();
        match self {
            Self::Json(patch) => {
                json_patch::patch(&mut patched, patch)
                    .map_err(|error| Error::PatchFailed(error.to_string()))?;
            }
            Self::Merge(patch) => merge(&mut patched, patch),
            Self::Strategic(patch) => strategic::apply(&mut patched, patch).map_err(Error::PatchFailed)?,
        }
        if !patched.is_object() {
            return Err(Error::PatchFailed(
                "the patched object is not an object any more".to_owned(),
            ));
        }
        Ok(patched)
    }
}

fn map(bytes: &[u8]) -> Result<Value, Error> {
    let patch = body::json(bytes)?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(Error::bad_request("the patch must be an object"))
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

    fn parse(media: &str, body: &Value) -> Result<Patch, Error> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media.parse().unwrap())]);
        Patch::parse(&headers, body.to_string().as_bytes())
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
    fn unknown_kinds_of_patch_are_refused() {
        for media in ["application/apply-patch+yaml", "application/json", "text/plain"] {
            assert!(
                matches!(parse(media, &json!({})), Err(Error::UnsupportedMediaType(_))),
                "{media}"
            );
        }
    }
}
