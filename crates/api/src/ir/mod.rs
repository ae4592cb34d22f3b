//! The pipeline intermediate representation, as `kfp.compiler` writes it.
//!
//! The shape is `api/v2alpha1/pipeline_spec.proto` of kubeflow/pipelines in its JSON form
//! (camelCase). Fields that Coracle gives no meaning to are ignored here and kept in the stored
//! document, so nothing that a client sent is lost.
//!
//! - [`document`]: bytes → [`document::Document`] (one or two YAML documents, JSON)
//! - [`validate`]: everything that can be refused before anything starts
//! - [`value`]: parameter types and coercion
//! - [`condition`]: CEL, in conditions and selectors
//! - [`placeholder`]: `{{$...}}`, `IfPresent`, `Concat`
//! - [`platform`]: the Kubernetes part that may come with a pipeline
//! - [`lightweight`]: the command line of lightweight Python components
//! - [`preamble`]: the pip preamble of lightweight Python components

pub mod condition;
pub mod document;
pub mod lightweight;
pub mod placeholder;
pub mod platform;
pub mod preamble;
mod task;
pub mod validate;
pub mod value;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
pub use task::*;
pub use value::ParameterType;

/// A whole pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineSpec {
    /// Its name and description.
    pub pipeline_info: PipelineInfo,
    /// How components are executed.
    #[serde(default)]
    pub deployment_spec: DeploymentSpec,
    /// Components by name.
    #[serde(default)]
    pub components: IndexMap<String, ComponentSpec>,
    /// The outermost component: always a DAG.
    pub root: ComponentSpec,
    /// `2.1.0`, or `2.0.0` from early compilers.
    #[serde(default)]
    pub schema_version: String,
    /// E.g. `kfp-2.17.0`.
    #[serde(default)]
    pub sdk_version: String,
    /// Where artifacts go unless the run says otherwise.
    #[serde(default)]
    pub default_pipeline_root: String,
}

/// Name and description of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineInfo {
    /// The name that artifacts and the cache are filed under.
    #[serde(default)]
    pub name: String,
    /// The name shown.
    #[serde(default)]
    pub display_name: String,
    /// What the pipeline does.
    #[serde(default)]
    pub description: String,
}

/// How components are executed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// Executors by label.
    #[serde(default)]
    pub executors: IndexMap<String, Executor>,
}

/// One way to execute a component. Exactly one field is set; [`validate`] sees to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Executor {
    /// Runs a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerSpec>,
    /// Registers an artifact that already exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importer: Option<ImporterSpec>,
    /// Chooses artifacts by query. Known, and not run (nor does Kubeflow run it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<Value>,
    /// A job of a cloud service. Known, and not run (nor does Kubeflow run it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_job: Option<Value>,
}

/// A container to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    /// The image's name; may hold placeholders.
    #[serde(default)]
    pub image: String,
    /// The entrypoint; may hold placeholders.
    #[serde(default)]
    pub command: Vec<String>,
    /// Its arguments; may hold placeholders.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// What it needs to run.
    #[serde(default)]
    pub resources: Option<ResourceSpec>,
}

/// An environment variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// What a container needs to run. The `resource_*` texts are Kubernetes quantities and win over
/// the older numbers (cores, gigabytes of 10⁹ bytes).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSpec {
    /// Cores at most.
    #[serde(default)]
    pub cpu_limit: Option<f64>,
    /// Cores at least.
    #[serde(default)]
    pub cpu_request: Option<f64>,
    /// Gigabytes at most.
    #[serde(default)]
    pub memory_limit: Option<f64>,
    /// Gigabytes at least.
    #[serde(default)]
    pub memory_request: Option<f64>,
    /// Cores at most.
    #[serde(default)]
    pub resource_cpu_limit: Option<String>,
    /// Cores at least.
    #[serde(default)]
    pub resource_cpu_request: Option<String>,
    /// Bytes at most.
    #[serde(default)]
    pub resource_memory_limit: Option<String>,
    /// Bytes at least.
    #[serde(default)]
    pub resource_memory_request: Option<String>,
    /// Devices.
    #[serde(default)]
    pub accelerator: Option<AcceleratorSpec>,
}

/// Devices that a container needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorSpec {
    /// The older form of `resource_type`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The older form of `resource_count`; protobuf's JSON writes 64-bit integers as text.
    #[serde(default)]
    pub count: Option<Value>,
    /// E.g. `nvidia.com/gpu`.
    #[serde(default)]
    pub resource_type: String,
    /// How many.
    #[serde(default)]
    pub resource_count: String,
}

/// Registers an artifact that already exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImporterSpec {
    /// Where the artifact is.
    #[serde(default)]
    pub artifact_uri: ValueOrRuntimeParameter,
    /// Its type.
    #[serde(default)]
    pub type_schema: ArtifactTypeSchema,
    /// What to record about it; values may hold placeholders.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Whether to make a new artifact even if one of this URI is known.
    #[serde(default)]
    pub reimport: bool,
    /// Whether to copy it into the run's workspace.
    #[serde(default)]
    pub download_to_workspace: bool,
}

/// A constant, or the name of an input parameter that holds the value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueOrRuntimeParameter {
    /// The value itself; early compilers write `constantValue.stringValue`.
    #[serde(default, alias = "constantValue", skip_serializing_if = "Option::is_none")]
    pub constant: Option<Value>,
    /// The input parameter's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_parameter: Option<String>,
}

/// What a task runs: another DAG, or an executor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSpec {
    /// What it takes.
    #[serde(default)]
    pub input_definitions: InputDefinitions,
    /// What it makes.
    #[serde(default)]
    pub output_definitions: OutputDefinitions,
    /// The tasks inside, for a DAG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dag: Option<DagSpec>,
    /// The executor's label, for a leaf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_label: Option<String>,
    /// Settings of the task that are handed to its `TaskConfig` input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_config_passthroughs: Vec<TaskConfigPassthrough>,
}

/// A setting of a task that is handed to its `TaskConfig` input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskConfigPassthrough {
    /// Which.
    #[serde(default)]
    pub field: TaskConfigField,
    /// Whether it holds for the task itself too.
    #[serde(default)]
    pub apply_to_task: bool,
}

/// A kind of setting of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskConfigField {
    /// None.
    #[default]
    None,
    /// Requests and limits.
    Resources,
    /// Environment variables.
    Env,
    /// Which machines and neighbours are wanted.
    KubernetesAffinity,
    /// Tolerated taints.
    KubernetesTolerations,
    /// Labels of machines.
    KubernetesNodeSelector,
    /// Claims, Secrets and ConfigMaps as folders.
    KubernetesVolumes,
}

/// What a component takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InputDefinitions {
    /// Parameters by name.
    #[serde(default)]
    pub parameters: IndexMap<String, InputParameterSpec>,
    /// Artifacts by name.
    #[serde(default)]
    pub artifacts: IndexMap<String, InputArtifactSpec>,
}

/// What a component makes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputDefinitions {
    /// Parameters by name.
    #[serde(default)]
    pub parameters: IndexMap<String, OutputParameterSpec>,
    /// Artifacts by name.
    #[serde(default)]
    pub artifacts: IndexMap<String, OutputArtifactSpec>,
}

/// An input parameter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputParameterSpec {
    /// Its type.
    #[serde(default)]
    pub parameter_type: ParameterType,
    /// Its value when none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_value: Option<Value>,
    /// Whether it may be without a value.
    #[serde(default)]
    pub is_optional: bool,
    /// What it means.
    #[serde(default)]
    pub description: String,
    /// The values allowed; empty for all.
    #[serde(default)]
    pub literals: Vec<Value>,
}

/// An input artifact.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputArtifactSpec {
    /// Its type.
    #[serde(default)]
    pub artifact_type: ArtifactTypeSchema,
    /// Whether it is a list of artifacts.
    #[serde(default)]
    pub is_artifact_list: bool,
    /// Whether it may be absent.
    #[serde(default)]
    pub is_optional: bool,
    /// What it is.
    #[serde(default)]
    pub description: String,
}

/// An output parameter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputParameterSpec {
    /// Its type.
    #[serde(default)]
    pub parameter_type: ParameterType,
    /// What it means.
    #[serde(default)]
    pub description: String,
}

/// An output artifact.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputArtifactSpec {
    /// Its type.
    #[serde(default)]
    pub artifact_type: ArtifactTypeSchema,
    /// Whether it is a list of artifacts.
    #[serde(default)]
    pub is_artifact_list: bool,
    /// What to record about it before user code runs.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// What it is.
    #[serde(default)]
    pub description: String,
}

/// The type of an artifact. Exactly one of the first two is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactTypeSchema {
    /// E.g. `system.Model`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema_title: String,
    /// The legacy form: a YAML schema.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance_schema: String,
    /// E.g. `0.0.1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema_version: String,
}

/// A graph of tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DagSpec {
    /// Tasks by name.
    #[serde(default)]
    pub tasks: IndexMap<String, TaskSpec>,
    /// Which outputs of which tasks are the DAG's own.
    #[serde(default)]
    pub outputs: DagOutputs,
}

/// Which outputs of which tasks are the DAG's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DagOutputs {
    /// Parameters by output name.
    #[serde(default)]
    pub parameters: IndexMap<String, DagOutputParameter>,
    /// Artifacts by output name.
    #[serde(default)]
    pub artifacts: IndexMap<String, DagOutputArtifact>,
}

/// Where an output parameter of a DAG comes from. Exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DagOutputParameter {
    /// One task's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from_parameter: Option<ParameterSelector>,
    /// The first of several that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from_oneof: Option<ParameterSelectors>,
}

/// Candidates of which the first that ran is taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSelectors {
    /// The candidates, in order.
    #[serde(default)]
    pub parameter_selectors: Vec<ParameterSelector>,
}

/// An output parameter of a task inside the DAG.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSelector {
    /// The task.
    #[serde(default)]
    pub producer_subtask: String,
    /// Its output.
    #[serde(default)]
    pub output_parameter_key: String,
}

/// Where an output artifact of a DAG comes from: the first candidate that ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DagOutputArtifact {
    /// The candidates, in order.
    #[serde(default)]
    pub artifact_selectors: Vec<ArtifactSelector>,
}

/// An output artifact of a task inside the DAG.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSelector {
    /// The task.
    #[serde(default)]
    pub producer_subtask: String,
    /// Its output.
    #[serde(default)]
    pub output_artifact_key: String,
}

impl PipelineSpec {
    /// The component that a task runs.
    #[must_use]
    pub fn component_of(&self, task: &TaskSpec) -> Option<&ComponentSpec> {
        self.components.get(&task.component_ref.name)
    }

    /// The executor of a leaf component.
    #[must_use]
    pub fn executor_of(&self, component: &ComponentSpec) -> Option<&Executor> {
        self.deployment_spec
            .executors
            .get(component.executor_label.as_deref()?)
    }
}
