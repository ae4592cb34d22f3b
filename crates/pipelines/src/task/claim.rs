//! Claims that tasks make and delete: `CreatePVC`, `DeletePVC` and the run's workspace. Pure.
//!
//! kfp-kubernetes writes the two as container tasks whose images nobody runs; what they mean is
//! KFP's driver's (`backend/src/v2/driver/k8s.go`).

use std::fmt::Display;

use coracle_api::{
    id::RunId, ir::platform::Workspace, labels, launch::Failure, quantity::Quantity, reason::Reason,
};
use serde_json::{Map, Value, json};

/// Where the tasks of a run find its workspace.
pub const WORKSPACE_PATH: &str = "/kfp-workspace";

const CREATE: &str = "argostub/createpvc";
const DELETE: &str = "argostub/deletepvc";
const ACCESS_MODES: [&str; 4] = [
    "ReadWriteOnce",
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOncePod",
];

/// What to do with a PersistentVolumeClaim.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimOrder {
    /// Make it; one of that name that is there already will do.
    Create(Value),
    /// Delete it; one that is gone need not go.
    Delete {
        /// Its name.
        name: String,
    },
}

/// What a container task does with a claim, when its image says that it does. `unique` names a
/// claim that is given no name, and begins that of one that is given a suffix; KFP draws a UUID there.
///
/// # Errors
/// `SettingInvalid`, naming the parameter that cannot be used.
#[must_use]
pub fn of(
    unique: impl Display,
    image: &str,
    parameters: &Map<String, Value>,
) -> Option<Result<ClaimOrder, Failure>> {
    // An image may carry a tag.
    match image.split(':').next()? {
        CREATE => Some(create(unique, parameters).map(ClaimOrder::Create)),
        DELETE => Some(text(parameters, "pvc_name").and_then(|name| {
            let name =
                name.ok_or_else(|| invalid("`pvc_name` has no value: which claim is to be deleted?"))?;
            Ok(ClaimOrder::Delete { name })
        })),
        _ => None,
    }
}

fn create(unique: impl Display, parameters: &Map<String, Value>) -> Result<Value, Failure> {
    let name = match (
        text(parameters, "pvc_name")?,
        text(parameters, "pvc_name_suffix")?,
    ) {
        (Some(name), None) => name,
        (None, Some(suffix)) => format!("{unique}-{}", suffix.trim_start_matches('-')),
        (Some(_), Some(_)) => {
            return Err(invalid(
                "`pvc_name` and `pvc_name_suffix` both have values: give one of them",
            ));
        }
        (None, None) => unique.to_string(),
    };
    let size = text(parameters, "size")?.ok_or_else(|| invalid("`size` has no value"))?;
    let amount = size
        .parse::<Quantity>()
        .map_err(|error| invalid(format!("`size`: {error}")))?;
    if amount.milli() < 0 {
        return Err(invalid(format!("`size` is {size}; it cannot be negative")));
    }
    let is_mode = |mode: &Value| mode.as_str().is_some_and(|mode| ACCESS_MODES.contains(&mode));
    let modes = match parameters.get("access_modes") {
        Some(Value::Array(modes)) if !modes.is_empty() && modes.iter().all(is_mode) => modes,
        _ => {
            let known = ACCESS_MODES.join("`, `");
            return Err(invalid(format!(
                "`access_modes` is not a list of modes: `{known}`"
            )));
        }
    };
    let mut spec = json!({"accessModes": modes, "resources": {"requests": {"storage": size}}});
    // The empty text is a choice too: no class, for a claim on a volume that exists.
    if let Some(class @ Value::String(_)) = parameters.get("storage_class_name") {
        spec["storageClassName"] = class.clone();
    }
    if let Some(volume) = text(parameters, "volume_name")? {
        spec["volumeName"] = json!(volume);
    }
    if let Some(source) = object(parameters, "data_source")? {
        spec["dataSource"] = data_source(source)?;
    }
    let mut metadata = json!({"name": name});
    if let Some(annotations) = object(parameters, "annotations")? {
        if !annotations.values().all(Value::is_string) {
            return Err(invalid("`annotations` holds something that is not text"));
        }
        metadata["annotations"] = json!(annotations);
    }
    Ok(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec,
    }))
}

/// Kubernetes' names, whichever spelling the pipeline uses.
fn data_source(given: &Map<String, Value>) -> Result<Value, Failure> {
    let mut source = json!({});
    for (name, other) in [("apiGroup", "api_group"), ("kind", "kind"), ("name", "name")] {
        match given.get(name).or_else(|| given.get(other)) {
            Some(Value::String(text)) => source[name] = json!(text),
            None | Some(Value::Null) if name == "apiGroup" => {}
            _ => return Err(invalid(format!("`data_source` has no `{name}`"))),
        }
    }
    Ok(source)
}

/// The name of the claim behind the workspace of a run.
#[must_use]
pub fn workspace_name(run: RunId) -> String {
    format!("workspace-{run}")
}

/// The claim behind the workspace of a run. It goes with the run.
#[must_use]
pub fn workspace(run: RunId, workspace: &Workspace) -> Value {
    let size = match workspace.size.as_str() {
        "" => "1Gi",
        size => size,
    };
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    });
    merge(&mut spec, &workspace.kubernetes.pvc_spec_patch);
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": workspace_name(run), "labels": {(labels::RUN_ID): run}},
        "spec": spec,
    })
}

/// JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Map<String, Value>) {
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(fields) => merge(target.entry(key.clone()).or_insert(Value::Null), fields),
            value => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

fn text(parameters: &Map<String, Value>, name: &str) -> Result<Option<String>, Failure> {
    match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid(format!("`{name}` is not text"))),
    }
}

fn object<'a>(
    parameters: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, Failure> {
    match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(_) => Err(invalid(format!("`{name}` is not a struct"))),
    }
}

fn invalid(why: impl Into<String>) -> Failure {
    Failure {
        reason: Reason::SettingInvalid,
        message: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(image: &str, parameters: Value) -> Option<Result<ClaimOrder, String>> {
        let parameters = parameters.as_object().expect("object").clone();
        of("my-run", image, &parameters).map(|order| order.map_err(|failure| failure.message))
    }

    #[test]
    fn a_claim_is_made_as_the_parameters_say() {
        let created = order(
            "argostub/createpvc",
            json!({"pvc_name_suffix": "-data", "size": "5Gi", "access_modes": ["ReadWriteMany"],
                   "storage_class_name": "", "annotations": {"a": "b"}, "pvc_name": ""}),
        );
        let expected = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "my-run-data", "annotations": {"a": "b"}},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}},
                "storageClassName": ""},
        });
        assert_eq!(created, Some(Ok(ClaimOrder::Create(expected))));
        let deleted = order("argostub/deletepvc:latest", json!({"pvc_name": "x"}));
        assert_eq!(deleted, Some(Ok(ClaimOrder::Delete { name: "x".into() })));
        assert_eq!(order("alpine", json!({})), None);
    }

    #[test]
    fn every_parameter_has_its_field_and_no_name_is_a_name_of_its_own() {
        let created = order(
            "argostub/createpvc",
            json!({"size": "5Gi", "access_modes": ["ReadWriteOnce"], "volume_name": "pv", "annotations": null,
                   "data_source": {"api_group": "", "kind": "PersistentVolumeClaim", "name": "other"}}),
        );
        let expected = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "my-run"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "5Gi"}},
                "volumeName": "pv",
                "dataSource": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "other"},
            },
        });
        assert_eq!(created, Some(Ok(ClaimOrder::Create(expected))));
    }

    #[test]
    fn a_workspace_is_a_claim_with_the_pipelines_own_fields() {
        let run: RunId = "0198c0de-0000-7000-8000-000000000001".parse().expect("id");
        let wanted: Workspace = serde_json::from_value(json!({
            "size": "2Gi",
            "kubernetes": {"pvcSpecPatch": {"accessModes": ["ReadWriteMany"], "resources": {"limits": {"storage": "3Gi"}}}},
        }))
        .expect("workspace");
        let claim = workspace(run, &wanted);
        assert_eq!(claim["metadata"]["name"], json!(workspace_name(run)));
        assert_eq!(
            claim["spec"],
            json!({
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "2Gi"}, "limits": {"storage": "3Gi"}},
            })
        );
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let whole = |extra: Value| {
            let mut parameters = json!({"pvc_name": "a", "size": "1Gi", "access_modes": ["ReadWriteOnce"]});
            merge(&mut parameters, extra.as_object().expect("object"));
            parameters
        };
        for (parameters, name) in [
            (whole(json!({"size": "big"})), "`size`"),
            (whole(json!({"size": "-1"})), "`size`"),
            (whole(json!({"access_modes": ["Any"]})), "`access_modes`"),
            (whole(json!({"annotations": {"a": 1}})), "`annotations`"),
            (
                whole(json!({"data_source": {"kind": "x"}})),
                "`data_source` has no `name`",
            ),
            (json!({"pvc_name": "a", "pvc_name_suffix": "b"}), "both"),
            (json!({"pvc_name": "a"}), "`size`"),
            (json!({"pvc_name": "a", "size": "1Gi"}), "`access_modes`"),
            (json!({"pvc_name": 3}), "`pvc_name`"),
        ] {
            let error = order("argostub/createpvc", parameters)
                .expect("a claim")
                .expect_err(name);
            assert!(error.contains(name), "{error}");
        }
    }
}
