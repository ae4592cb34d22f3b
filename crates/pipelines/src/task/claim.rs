//! Claims that tasks make and delete: `CreatePVC`, `DeletePVC` and the run's workspace. Pure.
//!
//! kfp-kubernetes writes the two as container tasks whose images nobody runs; what they mean is
//! KFP's driver's (`backend/src/v2/driver/k8s.go`).

use std::fmt::Display;

use coracle_api::{id::RunId, ir::platform::Workspace, labels, launch::Failure, reason::Reason};
use serde_json::{Map, Value, json};

/// Where the tasks of a run find its workspace.
pub const WORKSPACE_PATH: &str = "/kfp-workspace";

const CREATE: &str = "argostub/createpvc";
const DELETE: &str = "argostub/deletepvc";

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

/// What a container task does with a claim, when its image says that it does. `unique` begins
/// the name of a claim that is only given a suffix; KFP draws a UUID there.
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
            let name = name.ok_or_else(|| invalid("`pvc_name` has no value: which claim is to be deleted?"))?;
            Ok(ClaimOrder::Delete { name })
        })),
        _ => None,
    }
}

fn create(unique: impl Display, parameters: &Map<String, Value>) -> Result<Value, Failure> {
    let name = match (text(parameters, "pvc_name")?, text(parameters, "pvc_name_suffix")?) {
        (Some(name), None) => name,
        (None, Some(suffix)) => format!("{unique}-{}", suffix.trim_start_matches('-')),
        (Some(_), Some(_)) => {
            return Err(invalid("`pvc_name` and `pvc_name_suffix` both have values: give one of them"));
        }
        (None, None) => return Err(invalid("neither `pvc_name` nor `pvc_name_suffix` has a value: give one")),
    };
    let size = text(parameters, "size")?.ok_or_else(|| invalid("`size` has no value"))?;
    let modes = match parameters.get("access_modes") {
        Some(Value::Array(modes)) if !modes.is_empty() && modes.iter().all(Value::is_string) => modes,
        _ => return Err(invalid("`access_modes` is not a list of modes such as `ReadWriteOnce`")),
    };
    let mut spec = json!({"accessModes": modes, "resources": {"requests": {"storage": size}}});
    // An empty class says that no class is wanted; KFP takes it for none said.
    if let Some(class) = text(parameters, "storage_class_name")? {
        spec["storageClassName"] = json!(class);
    }
    if let Some(volume) = text(parameters, "volume_name")? {
        spec["volumeName"] = json!(volume);
    }
    if let Some(source) = object(parameters, "data_source")? {
        spec["dataSource"] = json!(source);
    }
    let mut metadata = json!({"name": name});
    if let Some(annotations) = object(parameters, "annotations")? {
        metadata["annotations"] = json!(annotations);
    }
    Ok(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec,
    }))
}

/// The name of the claim behind the workspace of a run.
#[must_use]
pub fn workspace_name(run: RunId) -> String {
    format!("workspace-{run}")
}

/// The claim behind the workspace of a run. It goes with the run.
#[must_use]
pub fn workspace(run: RunId, workspace: &Workspace) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": workspace.size}},
    });
    if let Some(spec) = spec.as_object_mut() {
        spec.extend(workspace.kubernetes.pvc_spec_patch.clone());
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": workspace_name(run), "labels": {(labels::RUN_ID): run}},
        "spec": spec,
    })
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
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}},
        });
        assert_eq!(created, Some(Ok(ClaimOrder::Create(expected))));
        let deleted = order("argostub/deletepvc:latest", json!({"pvc_name": "x"}));
        assert_eq!(deleted, Some(Ok(ClaimOrder::Delete { name: "x".into() })));
        assert_eq!(order("alpine", json!({})), None);
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        for (parameters, name) in [
            (json!({}), "`pvc_name_suffix`"),
            (json!({"pvc_name": "a", "pvc_name_suffix": "b"}), "both"),
            (json!({"pvc_name": "a"}), "`size`"),
            (json!({"pvc_name": "a", "size": "1Gi"}), "`access_modes`"),
            (json!({"pvc_name": 3}), "`pvc_name`"),
        ] {
            let error = order("argostub/createpvc", parameters).expect("a claim").expect_err(name);
            assert!(error.contains(name), "{error}");
        }
    }
}
