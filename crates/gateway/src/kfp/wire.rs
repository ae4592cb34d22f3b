//! KFP's messages in their JSON form (`backend/api/v2beta1/*.proto` of kubeflow/pipelines).
//!
//! One struct per message, for both directions, as in the proto: a field that a client may not
//! set is accepted and ignored. Names are snake_case on the way out; camelCase is taken as well
//! on the way in. What has no value is left out. Fields that KFP has not are never added here:
//! they are in [`super::tasks`] and [`super::artifacts`].

use std::{collections::BTreeMap, fmt};

use coracle_api::state::{RuntimeState, StorageState};
use coracle_store::records::StateChange;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{error::status_of, tasks::TaskDetail};

/// A moment, written as protobuf's JSON does: RFC 3339 in UTC with 0, 3 or 6 decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-31T12:00:00Z")]
pub(super) struct Time(pub Timestamp);

impl Time {
    /// What KFP shows as the end of something that has not ended.
    pub(super) const UNSET: Self = Self(Timestamp::UNIX_EPOCH);
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.subsec_microsecond() + 1000 * self.0.subsec_millisecond();
        match micros {
            0 => write!(f, "{:.0}", self.0),
            _ if micros % 1000 == 0 => write!(f, "{:.3}", self.0),
            _ => write!(f, "{:.6}", self.0),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// For fields that are the server's to set: whatever a client sends is passed over.
fn ignored<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Option<T>, D::Error> {
    de::IgnoredAny::deserialize(deserializer).map(|_| None)
}

/// The text, unless it is empty: unset and empty are the same in proto3.
pub(super) fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// The list, unless it is empty.
pub(super) fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

/// The map, unless it is empty.
pub(super) fn map<V>(items: BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!items.is_empty()).then_some(items)
}

/// The answer to a request that has nothing to say: `{}`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Empty {}

/// `google.rpc.Status`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Status {
    /// A gRPC code.
    pub code: i32,
    /// What happened.
    pub message: String,
    /// More about it: `google.rpc.ErrorInfo` with the stable reason and what to do about it.
    #[schema(value_type = Vec<Object>)]
    pub details: Vec<Value>,
}

/// `v2beta1.Experiment`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Experiment {
    /// Its id. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "experimentId",
        skip_serializing_if = "Option::is_none"
    )]
    pub experiment_id: Option<String>,
    /// Its name, unique. Required.
    #[serde(alias = "displayName", skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was made. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "createdAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<Time>,
    /// Ignored: there is one namespace for pipelines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `AVAILABLE` or `ARCHIVED`. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "storageState",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub storage_state: Option<StorageState>,
    /// When a run was last made in it. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "lastRunCreatedAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub last_run_created_at: Option<Time>,
}

/// `v2beta1.Pipeline`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Pipeline {
    /// Its id. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "pipelineId",
        skip_serializing_if = "Option::is_none"
    )]
    pub pipeline_id: Option<String>,
    /// The name shown; `name` when absent.
    #[serde(alias = "displayName", skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Its name, unique; `display_name` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was made. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "createdAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<Time>,
    /// Ignored: there is one namespace for pipelines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels of the user's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Output: never set.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
}

/// `v2beta1.PipelineVersion`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PipelineVersion {
    /// The pipeline it belongs to.
    #[serde(alias = "pipelineId", skip_serializing_if = "Option::is_none")]
    pub pipeline_id: Option<String>,
    /// Its id. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "pipelineVersionId",
        skip_serializing_if = "Option::is_none"
    )]
    pub pipeline_version_id: Option<String>,
    /// The name shown; `name` when absent.
    #[serde(alias = "displayName", skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Its name, unique in the pipeline; `display_name` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was made. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "createdAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<Time>,
    /// Where it was fetched from.
    #[serde(alias = "packageUrl", skip_serializing_if = "Option::is_none")]
    pub package_url: Option<Url>,
    /// Where its source is.
    #[serde(alias = "codeSourceUrl", skip_serializing_if = "Option::is_none")]
    pub code_source_url: Option<String>,
    /// The compiled pipeline: the IR, or `{pipeline_spec, platform_spec}`.
    #[serde(alias = "pipelineSpec", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub pipeline_spec: Option<Value>,
    /// Labels of the user's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Output: never set.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
}

/// `v2beta1.Url`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Url {
    /// The URL.
    #[serde(alias = "pipelineUrl", skip_serializing_if = "Option::is_none")]
    pub pipeline_url: Option<String>,
}

/// `v2beta1.Run`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Run {
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
    /// Settings of KFP's plugins, of which Coracle has none. Output.
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
}

/// `v2beta1.PipelineVersionReference`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PipelineVersionReference {
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
pub(super) struct RuntimeConfig {
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
pub(super) struct RuntimeStatus {
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
    pub(super) fn history(changes: &[StateChange]) -> Option<Vec<Self>> {
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
pub(super) struct RunDetails {
    /// The run's tasks: the root first, then in the order they were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub task_details: Vec<TaskDetail>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_have_as_many_decimals_as_they_need() {
        let check = |input: &str, expect: &str| {
            let time = Time(input.parse().expect("a time"));
            assert_eq!(
                serde_json::to_value(time).expect("text"),
                json!(expect),
                "{input}"
            );
        };
        check("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z");
        check("2026-01-31T12:00:00.5Z", "2026-01-31T12:00:00.500Z");
        check("2026-01-31T12:00:00.000001Z", "2026-01-31T12:00:00.000001Z");
        check("2026-01-31T13:00:00.25+01:00", "2026-01-31T12:00:00.250Z");
        assert_eq!(Time::UNSET.to_string(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn what_has_no_value_is_left_out() {
        assert_eq!(serde_json::to_value(Run::default()).expect("json"), json!({}));
        assert_eq!(
            serde_json::to_value(Pipeline::default()).expect("json"),
            json!({})
        );
    }

    #[test]
    fn fields_that_the_server_sets_are_passed_over() {
        let run: Run = serde_json::from_value(json!({
            "run_id": 7, "state": "NONSENSE", "created_at": "never", "run_details": {"task_details": [1]},
            "error": {"code": 1}, "state_history": null,
        }))
        .expect("a run");
        assert_eq!(serde_json::to_value(run).expect("json"), json!({}));
    }

    #[test]
    fn unknown_fields_are_refused_at_every_level() {
        for body in [
            json!({"displayname": "x"}),
            json!({"runtime_config": {"params": {}}}),
            json!({"pipeline_version_reference": {"version": "x"}}),
        ] {
            assert!(serde_json::from_value::<Run>(body.clone()).is_err(), "{body}");
        }
    }

    #[test]
    fn both_spellings_of_a_field_are_taken() {
        for body in [
            json!({"display_name": "x", "runtime_config": {"pipeline_root": "/r"}}),
            json!({"displayName": "x", "runtimeConfig": {"pipelineRoot": "/r"}}),
        ] {
            let run: Run = serde_json::from_value(body).expect("a run");
            assert_eq!(run.display_name.as_deref(), Some("x"));
            assert_eq!(
                run.runtime_config
                    .and_then(|config| config.pipeline_root)
                    .as_deref(),
                Some("/r")
            );
        }
    }
}
