//! The platform part of a pipeline: what only means something on Kubernetes.
//!
//! The shape is `kubernetes_platform/proto/kubernetes_executor_config.proto` and the
//! `SinglePlatformSpec` of `api/v2alpha1/pipeline_spec.proto` of kubeflow/pipelines, in their JSON
//! form. kfp writes both spellings of a field's name, camelCase and snake_case, depending on how
//! it got there; both are read.

mod executor;

pub use executor::{
    ConfigMapAsEnv, ConfigMapAsVolume, ConfigMapKeyToEnv, EmptyDirMount, EnabledSharedMemory, FieldPathAsEnv,
    GenericEphemeralVolume, ImagePullSecret, InitContainer, InitContainerEnv, InitContainerMount,
    InitContainerResources, InvalidSetting, KubernetesExecutorConfig, NodeAffinityTerm, NodeSelector,
    PodAffinityTerm, PodMetadata, PvcMount, SecretAsEnv, SecretAsVolume, SecretKeyToEnv, SecurityContext,
    SelectorRequirement, Toleration,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What holds for the whole pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PipelineConfig {
    /// A volume that all tasks of a run share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Seconds until what a finished run used is deleted, however it ended.
    #[serde(alias = "resource_ttl_on_completion")]
    pub resource_ttl_on_completion: u32,
    /// The same for a run that succeeded; wins over the one for all.
    #[serde(alias = "resource_ttl_on_success")]
    pub resource_ttl_on_success: u32,
    /// The same for a run that did not.
    #[serde(alias = "resource_ttl_on_failure")]
    pub resource_ttl_on_failure: u32,
    /// Seconds after which a run that is still at work fails; 0 for no limit.
    #[serde(alias = "active_deadline_seconds")]
    pub active_deadline_seconds: u32,
}

/// A volume that all tasks of a run share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workspace {
    /// A Kubernetes quantity of bytes.
    pub size: String,
    /// What is different on Kubernetes.
    pub kubernetes: WorkspaceOnKubernetes,
}

/// What is different about a workspace on Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkspaceOnKubernetes {
    /// Fields of the claim's spec.
    #[serde(alias = "pvc_spec_patch")]
    pub pvc_spec_patch: Map<String, Value>,
}
