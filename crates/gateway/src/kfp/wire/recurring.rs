//! Recurring runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Int64, PipelineVersionReference, RuntimeConfig, Status, Time, ignored};

/// `v2beta1.RecurringRun`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct RecurringRun {
    /// Its id. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "recurringRunId",
        skip_serializing_if = "Option::is_none"
    )]
    pub recurring_run_id: Option<String>,
    /// The name shown, which its runs begin with. Required.
    #[serde(alias = "displayName", skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
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
    /// A pipeline that was uploaded. Without a version, each run takes the latest.
    #[serde(alias = "pipelineVersionReference", skip_serializing_if = "Option::is_none")]
    pub pipeline_version_reference: Option<PipelineVersionReference>,
    /// Parameters, which may hold `[[ScheduledTime]]` and the like, and where artifacts go.
    #[serde(alias = "runtimeConfig", skip_serializing_if = "Option::is_none")]
    pub runtime_config: Option<RuntimeConfig>,
    /// The Kubernetes service account to run as.
    #[serde(alias = "serviceAccount", skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// How many of its runs may be unfinished at once: 1 to 10, 1 when absent.
    #[serde(alias = "maxConcurrency", skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<Int64>,
    /// When runs are due. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// Whether it makes runs from the start: `ENABLE` or `DISABLE`. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// When it was made. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "createdAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<Time>,
    /// When it was last changed. Output.
    #[serde(
        deserialize_with = "ignored",
        alias = "updatedAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub updated_at: Option<Time>,
    /// `ENABLED` or `DISABLED`. Output.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    pub status: Option<RecurringRunStatus>,
    /// Why the last run that was due could not be made. Output.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
    /// Whether due times that passed unused are given up, but for the last.
    #[serde(alias = "noCatchup", skip_serializing_if = "Option::is_none")]
    pub no_catchup: Option<bool>,
    /// Ignored: there is one namespace for pipelines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The experiment that its runs belong to; `Default` when absent.
    #[serde(alias = "experimentId", skip_serializing_if = "Option::is_none")]
    pub experiment_id: Option<String>,
    /// Settings of KFP's plugins, of which Coracle has none. Ignored.
    #[serde(
        deserialize_with = "ignored",
        alias = "pluginsInput",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Object>)]
    pub plugins_input: Option<Value>,
    /// What was noticed in the pipeline and does not stop it from running. Output, Coracle's own.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// `v2beta1.Trigger`. Exactly one field is set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct Trigger {
    /// By a pattern of times.
    #[serde(alias = "cronSchedule", skip_serializing_if = "Option::is_none")]
    pub cron_schedule: Option<CronSchedule>,
    /// By an interval.
    #[serde(alias = "periodicSchedule", skip_serializing_if = "Option::is_none")]
    pub periodic_schedule: Option<PeriodicSchedule>,
}

/// `v2beta1.CronSchedule`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct CronSchedule {
    /// Not before.
    #[serde(alias = "startTime", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Not after.
    #[serde(alias = "endTime", skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// Six fields, seconds first, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
}

/// `v2beta1.PeriodicSchedule`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct PeriodicSchedule {
    /// Not before.
    #[serde(alias = "startTime", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Not after.
    #[serde(alias = "endTime", skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// Seconds between runs.
    #[serde(alias = "intervalSecond", skip_serializing_if = "Option::is_none")]
    pub interval_second: Option<Int64>,
}

/// `v2beta1.RecurringRun.Mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::kfp) enum Mode {
    /// Not said: it makes runs.
    #[serde(rename = "MODE_UNSPECIFIED")]
    Unspecified,
    /// It makes runs.
    Enable,
    /// It makes none until it is enabled.
    Disable,
}

/// `v2beta1.RecurringRun.Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::kfp) enum RecurringRunStatus {
    /// It makes runs.
    Enabled,
    /// It makes none.
    Disabled,
}
