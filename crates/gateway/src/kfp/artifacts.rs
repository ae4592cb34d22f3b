//! Artifacts, under the paths and names that KFP is moving to (branch `mlmd-removal`).

use std::sync::Arc;

use axum::{Json, extract::State};
use coracle_api::id::ArtifactId;
use coracle_store::records;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    Options,
    error::Error,
    extract::{Ids, Params},
    wire::Time,
};

/// Something that a task made or that was imported.
#[derive(Serialize, ToSchema)]
pub(super) struct Artifact {
    artifact_id: String,
    /// Its name: that of the output it was made as.
    name: String,
    /// E.g. `system.Model`.
    #[serde(rename = "type")]
    artifact_type: String,
    /// Where its bytes are.
    uri: String,
    /// What user code recorded about it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    created_at: Time,
    namespace: String,
    /// `sha256:HEX`, when it has bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<String>,
}

/// The artifacts of a run.
#[derive(Serialize, ToSchema)]
pub(super) struct ListArtifactsResponse {
    /// All of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    artifacts: Vec<Artifact>,
    /// How many there are.
    total_size: usize,
}

/// Which artifacts to list.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct ArtifactParams {
    /// The run whose tasks made or consumed them. Required.
    #[serde(alias = "runId")]
    run_id: String,
}

impl From<records::Artifact> for Artifact {
    fn from(row: records::Artifact) -> Self {
        Self {
            artifact_id: row.id.to_string(),
            name: row.name,
            artifact_type: row.artifact_type,
            uri: row.uri,
            metadata: row.metadata,
            created_at: Time(row.created_at),
            namespace: row.namespace,
            digest: row.digest,
            size: row.size.map(|bytes| bytes.to_string()),
        }
    }
}

/// Shows an artifact.
#[utoipa::path(get, path = "/artifacts/{artifact_id}", tag = "artifacts",
    params(("artifact_id" = String, Path)), responses((status = 200, body = Artifact)))]
pub(super) async fn get(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<ArtifactId>,
) -> Result<Json<Artifact>, Error> {
    Ok(Json(options.records.artifact(id).await?.into()))
}

/// Lists the artifacts of a run.
#[utoipa::path(get, path = "/artifacts", tag = "artifacts", params(ArtifactParams),
    responses((status = 200, body = ListArtifactsResponse)))]
pub(super) async fn list(
    State(options): State<Arc<Options>>,
    Params(params): Params<ArtifactParams>,
) -> Result<Json<ListArtifactsResponse>, Error> {
    if params.run_id.is_empty() {
        return Err(Error::Invalid(
            "artifacts are listed by run: add `?run_id=` to the query".to_owned(),
        ));
    }
    let run = options.records.run(params.run_id.parse()?).await?;
    let artifacts: Vec<_> = options
        .records
        .artifacts_of_run(run.id)
        .await?
        .into_iter()
        .map(Artifact::from)
        .collect();
    Ok(Json(ListArtifactsResponse {
        total_size: artifacts.len(),
        artifacts,
    }))
}
