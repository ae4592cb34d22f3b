//! Experiments.

use coracle_api::state::StorageState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Time, ignored};

/// `v2beta1.Experiment`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kfp) struct Experiment {
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
