//! The contract between the engine and the launcher beside user code.
//!
//! The launcher starts with nothing but a server URL and a token. It fetches a [`Spec`], runs it,
//! and sends back one [`Report`]. A report is kept under (task, attempt): sending it again
//! changes nothing.
//!
//! HTTP, on the server's own port, with `Authorization: Bearer TOKEN`:
//! `GET /launch/v1/spec` → [`Spec`]; `PUT /launch/v1/report` with a [`Report`] → 204.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    id::{RunId, TaskId},
    ir::{ArtifactTypeSchema, ParameterType},
    reason::Reason,
};

/// All that the launcher must know to run one attempt of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Command and arguments as written in the pipeline, placeholders included.
    pub command: Vec<String>,
    /// Arguments as written in the pipeline, placeholders included.
    pub args: Vec<String>,
    /// What user code is given. Output URIs and files are already decided.
    pub executor_input: ExecutorInput,
    /// Types of the input parameters that the component declares.
    pub input_parameters: BTreeMap<String, ParameterDefault>,
    /// Types of the output parameters that the component declares.
    pub output_parameters: BTreeMap<String, ParameterType>,
    /// What the placeholders about the run itself stand for, e.g. `pipeline_job_uuid`.
    pub context: BTreeMap<String, String>,
    /// Where the log is kept: an artifact URI of this machine.
    pub log_uri: String,
    /// Recorded digests of input artifacts, by URI: what is fetched must match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub input_digests: BTreeMap<String, String>,
    /// Set for an importer that brings its artifact into the run's workspace: there is no command
    /// to run then, and what is imported is the one input artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_import: Option<WorkspaceImport>,
}

/// Copies an artifact into the run's workspace, and reports it as an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceImport {
    /// The artifact; its URI is where it is now.
    pub artifact: RuntimeArtifact,
    /// The output it is reported as.
    pub output: String,
    /// The folder of the workspace to copy it to: what the SDK makes of the URI lies below.
    pub folder: String,
}

/// A parameter value that is too large to be kept in rows: its JSON is a file of the artifact
/// store. It stands in for the value wherever parameters are kept or handed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpilledValue {
    /// Where its JSON is: an artifact URI.
    pub uri: String,
    /// Bytes of the JSON.
    pub size: u64,
    /// `sha256:HEX` of the JSON.
    pub digest: String,
}

impl SpilledValue {
    /// Bytes of JSON that a value may have and still be kept as it is.
    pub const LONGEST_KEPT: usize = 10_000;
    const FIELD: &str = "coracle.dev/spilled-value";

    /// The reference that stands at a value's place, if it is one.
    #[must_use]
    pub fn of(value: &Value) -> Option<Self> {
        let object = value.as_object().filter(|object| object.len() == 1)?;
        Self::deserialize(object.get(Self::FIELD)?).ok()
    }

    /// What to put at the value's place.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let Self { uri, size, digest } = self;
        serde_json::json!({ (Self::FIELD): {"uri": uri, "size": size, "digest": digest} })
    }
}

/// What the launcher knows of an input parameter that may be absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterDefault {
    /// The declared type.
    pub parameter_type: ParameterType,
    /// The value when none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_value: Option<Value>,
}

/// KFP's `ExecutorInput` (`api/v2alpha1/pipeline_spec.proto`), in its JSON form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutorInput {
    /// What the task is given.
    #[serde(default)]
    pub inputs: ExecutorInputs,
    /// Where the task puts what it makes.
    #[serde(default)]
    pub outputs: ExecutorOutputs,
}

/// The `inputs` of an [`ExecutorInput`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutorInputs {
    /// Values by parameter name. An optional input without a value is absent.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub parameter_values: IndexMap<String, Value>,
    /// Artifacts by input name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub artifacts: IndexMap<String, ArtifactList>,
}

/// The `outputs` of an [`ExecutorInput`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutorOutputs {
    /// Files by output parameter name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub parameters: IndexMap<String, OutputParameter>,
    /// Artifacts to be made, by output name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub artifacts: IndexMap<String, ArtifactList>,
    /// Where user code may leave its `output_metadata.json`.
    #[serde(default)]
    pub output_file: String,
}

/// Where one output parameter's value is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputParameter {
    /// Absolute path.
    pub output_file: String,
}

/// One or more artifacts under one name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArtifactList {
    /// The artifacts, in order.
    #[serde(default)]
    pub artifacts: Vec<RuntimeArtifact>,
}

/// KFP's `RuntimeArtifact`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeArtifact {
    /// The artifact's id in the store, or the name of the output while it is being made.
    #[serde(default)]
    pub name: String,
    /// Its type.
    #[serde(rename = "type", default)]
    pub artifact_type: ArtifactTypeSchema,
    /// Where its bytes are: an absolute path, or a URI with a scheme.
    #[serde(default)]
    pub uri: String,
    /// What user code recorded about it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// A local path that stands in for the URI's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_path: Option<String>,
}

/// The name under which a report tells digest and size of the log; no output has it.
pub const LOG_ARTIFACT: &str = "executor-logs";

/// How an attempt ended, as the launcher saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Values of the output parameters.
    #[serde(default)]
    pub parameters: IndexMap<String, Value>,
    /// Artifacts that exist, failed attempts included.
    #[serde(default)]
    pub artifacts: IndexMap<String, Vec<ProducedArtifact>>,
    /// Why the attempt failed; absent when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The user command's exit code, when it ran and ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// An artifact that the attempt made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducedArtifact {
    /// The artifact, its metadata merged with what user code wrote.
    #[serde(flatten)]
    pub artifact: RuntimeArtifact,
    /// `sha256:HEX` of the file; of a folder, over the sorted list of its files. Absent when
    /// nothing was written (metrics have metadata only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The stable name.
    pub reason: Reason,
    /// What happened, to what, and why.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_whole_reference_is_taken_for_a_spilled_value() {
        let spilled = SpilledValue {
            uri: "/artifacts/x.json".into(),
            size: 7,
            digest: "sha256:00".into(),
        };
        assert_eq!(SpilledValue::of(&spilled.to_value()), Some(spilled.clone()));
        let mut more = spilled.to_value();
        more["other"] = json!(1);
        for value in [json!({}), json!(1), more, json!({"coracle.dev/spilled-value": 3})] {
            assert_eq!(SpilledValue::of(&value), None, "{value}");
        }
    }
}
