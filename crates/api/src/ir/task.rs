//! A node of a DAG: what it runs, when, how often, and where its inputs come from.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::ValueOrRuntimeParameter;

/// A node of a DAG.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskSpec {
    /// The name shown.
    #[serde(default)]
    pub task_info: TaskInfo,
    /// Where its inputs come from.
    #[serde(default)]
    pub inputs: TaskInputs,
    /// Tasks that must end first, beyond those it takes data from.
    #[serde(default)]
    pub dependent_tasks: Vec<String>,
    /// Whether results may be reused.
    #[serde(default)]
    pub caching_options: CachingOptions,
    /// What it runs.
    #[serde(default)]
    pub component_ref: ComponentRef,
    /// When it runs.
    #[serde(default)]
    pub trigger_policy: TriggerPolicy,
    /// Runs it once per element of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter_iterator: Option<ParameterIterator>,
    /// Runs it once per artifact of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_iterator: Option<ArtifactIterator>,
    /// How the iterations are run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterator_policy: Option<IteratorPolicy>,
    /// How often to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
}

/// A loop over the elements of a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterIterator {
    /// The list.
    #[serde(default)]
    pub items: ParameterItems,
    /// The input of the component that gets the element.
    #[serde(default)]
    pub item_input: String,
}

/// The list that a loop goes over. Exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterItems {
    /// JSON of the list itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The task's input that holds the list, or text with its JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_parameter: Option<String>,
}

/// A loop over the artifacts of a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactIterator {
    /// The list.
    #[serde(default)]
    pub items: ArtifactItems,
    /// The input of the component that gets the artifact.
    #[serde(default)]
    pub item_input: String,
}

/// The list that a loop over artifacts goes over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactItems {
    /// The task's input that holds the list.
    #[serde(default)]
    pub input_artifact: String,
}

/// How the iterations of a loop are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IteratorPolicy {
    /// How many may be at work at once; 0 for as many as there are.
    #[serde(default)]
    pub parallelism_limit: u32,
}

/// How often a task is tried again, and how long it waits before each try.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// How often to try again.
    #[serde(default)]
    pub max_retry_count: u32,
    /// The wait before the first try, as protobuf's JSON writes durations: `1.5s`.
    #[serde(default)]
    pub backoff_duration: Option<String>,
    /// How much longer each wait is than the one before. 2 when absent or 0.
    #[serde(default)]
    pub backoff_factor: Option<f64>,
    /// The longest wait; an hour when absent.
    #[serde(default)]
    pub backoff_max_duration: Option<String>,
}

/// The name of a task as shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskInfo {
    /// The name.
    #[serde(default)]
    pub name: String,
}

/// A reference to a component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRef {
    /// A key of [`super::PipelineSpec::components`].
    #[serde(default)]
    pub name: String,
}

/// Whether results may be reused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachingOptions {
    /// Whether to look for an earlier result.
    #[serde(default)]
    pub enable_cache: bool,
    /// The user's own key.
    #[serde(default)]
    pub cache_key: String,
}

/// When a task runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerPolicy {
    /// A CEL expression over the task's inputs; empty for always.
    #[serde(default)]
    pub condition: String,
    /// Whether upstream tasks must succeed, or only end.
    #[serde(default)]
    pub strategy: TriggerStrategy,
}

/// What a task waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TriggerStrategy {
    /// The same as `AllUpstreamTasksSucceeded`.
    #[default]
    TriggerStrategyUnspecified,
    /// All upstream tasks succeeded.
    AllUpstreamTasksSucceeded,
    /// All upstream tasks ended, in whatever state.
    AllUpstreamTasksCompleted,
}

/// Where a task's inputs come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskInputs {
    /// Parameters by input name.
    #[serde(default)]
    pub parameters: IndexMap<String, ParameterSource>,
    /// Artifacts by input name.
    #[serde(default)]
    pub artifacts: IndexMap<String, ArtifactSource>,
}

/// Where one input parameter comes from. Exactly one of the first four is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSource {
    /// An output of another task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_output_parameter: Option<TaskOutputParameter>,
    /// A constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_value: Option<ValueOrRuntimeParameter>,
    /// An input of the component that holds this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_input_parameter: Option<String>,
    /// How another task ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_final_status: Option<TaskFinalStatus>,
    /// Takes a part out of the value, e.g. `parseJson(string_value)["key"]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parameter_expression_selector: String,
}

/// An output parameter of another task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskOutputParameter {
    /// The task.
    #[serde(default)]
    pub producer_task: String,
    /// Its output.
    #[serde(default)]
    pub output_parameter_key: String,
}

/// How another task ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskFinalStatus {
    /// The task.
    #[serde(default)]
    pub producer_task: String,
}

/// Where one input artifact comes from. Exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSource {
    /// An output of another task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_output_artifact: Option<TaskOutputArtifact>,
    /// An input of the component that holds this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_input_artifact: Option<String>,
}

/// An output artifact of another task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskOutputArtifact {
    /// The task.
    #[serde(default)]
    pub producer_task: String,
    /// Its output.
    #[serde(default)]
    pub output_artifact_key: String,
}

impl TaskSpec {
    /// The tasks of the same DAG that this one waits for: those it names, and those it takes
    /// data or a final status from. May name a task twice.
    pub fn upstream(&self) -> impl Iterator<Item = &str> {
        let parameters = self.inputs.parameters.values().filter_map(|source| {
            let output = source
                .task_output_parameter
                .as_ref()
                .map(|output| &output.producer_task);
            let status = source
                .task_final_status
                .as_ref()
                .map(|status| &status.producer_task);
            output.or(status)
        });
        let artifacts = self.inputs.artifacts.values().filter_map(|source| {
            source
                .task_output_artifact
                .as_ref()
                .map(|output| &output.producer_task)
        });
        self.dependent_tasks
            .iter()
            .chain(parameters)
            .chain(artifacts)
            .map(String::as_str)
    }
}
