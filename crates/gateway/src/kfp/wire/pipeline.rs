//! Pipelines and their versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Status, Time, ignored};

/// `v2beta1.Pipeline`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct Pipeline {
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
    /// What was noticed in the pipeline and does not stop it from running. Output, Coracle's own.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// `v2beta1.PipelineVersion`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct PipelineVersion {
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
    /// What was noticed in the pipeline and does not stop it from running. Output, Coracle's own.
    #[serde(deserialize_with = "ignored", skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// `v2beta1.Url`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct Url {
    /// The URL.
    #[serde(alias = "pipelineUrl", skip_serializing_if = "Option::is_none")]
    pub pipeline_url: Option<String>,
}
