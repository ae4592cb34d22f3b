//! Runs.

use coracle_api::state::{RuntimeState, StorageState};
use coracle_store::records::StateChange;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Status, Time, ignored, list};
use crate::kfp::{error::status_of, tasks::TaskDetail};

/// `v2beta1.Run`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct Run {
    /// The experiment it belongs to; `Default` when absent.
    #[serde(alias = "experimentId", skip_serializing_if = "Option::is_none")]
    pub experiment_id: Option<String>,
    /// Its id. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "runId",
        skip_serializing_if = "Option::is_none"
    )]
    pub run_id: Option<String>,
    /// The name shown. Required.
    #[serde(alias = "displayName", skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// `AVAILABLE` or `ARCHIVED`. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "storageState",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub storage_state: Option<StorageState>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Deprecated in KFP: use `pipeline_version_reference`.
    #[serde(alias = "pipelineVersionId", skip_serializing_if = "Option::is_none")]
    pub pipeline_version_id: Option<String>,
    /// An inline pipeline: the IR, or `{pipeline_spec, platform_spec}`. Left out of lists.
    #[serde(alias = "pipelineSpec", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub pipeline_spec: Option<Value>,
    /// A pipeline that was uploaded.
    #[serde(alias = "pipelineVersionReference", skip_serializing_if = "Option::is_none")]
    pub pipeline_version_reference: Option<PipelineVersionReference>,
    /// Parameters and where artifacts go.
    #[serde(alias = "runtimeConfig", skip_serializing_if = "Option::is_none")]
    pub runtime_config: Option<RuntimeConfig>,
    /// The Kubernetes service account to run as.
    #[serde(alias = "serviceAccount", skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// When it was made. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "createdAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<Time>,
    /// When it was due. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "scheduledAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub scheduled_at: Option<Time>,
    /// When it ended; `1970-01-01T00:00:00Z` until then. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "finishedAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub finished_at: Option<Time>,
    /// Where it stands. Output.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub state: Option<RuntimeState>,
    /// Why it failed. Output.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
    /// Its tasks. Output, left out of lists.
    #[serde(
        deserialize_with = "ignored",
        alias = "runDetails",
        skip_serializing_if = "Option::is_none"
    )]
    pub run_details: Option<RunDetails>,
    /// The recurring run that made it. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "recurringRunId",
        skip_serializing_if = "Option::is_none"
    )]
    pub recurring_run_id: Option<String>,
    /// Each state it was in. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "stateHistory",
        skip_serializing_if = "Option::is_none"
    )]
    pub state_history: Option<Vec<RuntimeStatus>>,
    /// Settings of KFP's plugins, of which Coracle has none. Ignored.
    #[serde(
        deserialize_with = "ignored",
        alias = "pluginsInput",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Object>)]
    pub plugins_input: Option<Value>,
    /// What KFP's plugins made. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "pluginsOutput",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Object>)]
    pub plugins_output: Option<Value>,
    /// What was noticed in the pipeline and does not stop it from running. Output, Coracle's own.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// `v2beta1.PipelineVersionReference`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct PipelineVersionReference {
    /// The pipeline.
    #[serde(alias = "pipelineId", skip_serializing_if = "Option::is_none")]
    pub pipeline_id: Option<String>,
    /// The version; the latest when absent.
    #[serde(alias = "pipelineVersionId", skip_serializing_if = "Option::is_none")]
    pub pipeline_version_id: Option<String>,
}

/// `v2beta1.RuntimeConfig`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct RuntimeConfig {
    /// Values of the pipeline's parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Map<String, Value>>,
    /// Where artifacts go.
    #[serde(alias = "pipelineRoot", skip_serializing_if = "Option::is_none")]
    pub pipeline_root: Option<String>,
}

/// `v2beta1.RuntimeStatus`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::kfp) struct RuntimeStatus {
    /// When the state began.
    pub update_time: Time,
    /// The state.
    #[schema(value_type = String)]
    pub state: RuntimeState,
    /// Why, when it is a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
}

impl RuntimeStatus {
    /// A history as KFP shows it.
    pub(in crate::kfp) fn history(changes: &[StateChange]) -> Option<Vec<Self>> {
        list(changes.iter().map(Self::from).collect())
    }
}

impl From<&StateChange> for RuntimeStatus {
    fn from(change: &StateChange) -> Self {
        Self {
            update_time: Time(change.time),
            state: change.state,
            error: change.error.as_ref().map(status_of),
        }
    }
}

/// `v2beta1.RunDetails`.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(in crate::kfp) struct RunDetails {
    /// The run's tasks: the root first, then in the order they were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub task_details: Vec<TaskDetail>,
}
