//! Artifacts, under the paths and names that KFP is moving to (branch `mlmd-removal`).

use std::sync::Arc;

use axum::{Json, extract::State};
use coracle_api::id::ArtifactId;
use coracle_artifacts::ArtifactUri;
use coracle_store::records;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    Options,
    error::Error,
    extract::{Body, Ids, Params},
    name::{ARTIFACT_NAME, checked},
    page::ListParams,
    tasks::only_the_engine,
    wire::Time,
};

/// The most artifacts that one request makes.
const MOST_AT_ONCE: usize = 1000;
/// The types that KFP is moving to, which are named without `system.`.
const SHORT_TYPES: [&str; 9] = [
    "Artifact",
    "Dataset",
    "Model",
    "Metrics",
    "ClassificationMetrics",
    "SlicedClassificationMetrics",
    "HTML",
    "Markdown",
    "Metric",
];

/// Something that a task made or that was imported.
#[derive(Debug, Serialize, ToSchema)]
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

/// One page of artifacts.
#[derive(Serialize, ToSchema)]
pub(super) struct ListArtifactsResponse {
    /// The page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    artifacts: Vec<Artifact>,
    /// How many there are in all.
    total_size: i64,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// Which artifacts to list.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct ArtifactParams {
    /// The run whose tasks made or consumed them.
    #[serde(alias = "runId")]
    run_id: String,
    /// The task that made or consumed them.
    #[serde(alias = "taskId")]
    task_id: String,
}

/// An artifact to record.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateArtifactRequest {
    /// The artifact.
    artifact: NewArtifact,
    /// Only the engine links artifacts to runs.
    #[serde(default, alias = "runId")]
    #[schema(value_type = Option<String>)]
    run_id: Value,
    /// Only the engine links artifacts to tasks.
    #[serde(default, alias = "taskId")]
    #[schema(value_type = Option<String>)]
    task_id: Value,
}

/// What is known of an artifact that nobody made here.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewArtifact {
    /// Its name.
    #[serde(default)]
    name: String,
    /// E.g. `system.Model`, or `Model` for short; `system.Artifact` when absent.
    #[serde(default, rename = "type")]
    artifact_type: String,
    /// Where its bytes are.
    #[serde(default)]
    uri: String,
    /// What to record about it.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    /// Ignored: there is one namespace for pipelines.
    #[serde(default, rename = "namespace")]
    _namespace: String,
}

/// Artifacts to record.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchCreateArtifactsRequest {
    /// All or none of them.
    artifacts: Vec<CreateArtifactRequest>,
}

/// Artifacts that were recorded.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchCreateArtifactsResponse {
    /// In the order of the request.
    artifacts: Vec<Artifact>,
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

/// Lists artifacts.
#[utoipa::path(get, path = "/artifacts", tag = "artifacts", params(ListParams, ArtifactParams),
    responses((status = 200, body = ListArtifactsResponse)))]
pub(super) async fn list(
    State(options): State<Arc<Options>>,
    Params(params): Params<ListParams>,
    Params(of): Params<ArtifactParams>,
) -> Result<Json<ListArtifactsResponse>, Error> {
    let query = params.read()?;
    let mut scope = records::ArtifactScope {
        namespace: Some(options.namespace.clone()),
        ..records::ArtifactScope::default()
    };
    if !of.run_id.is_empty() {
        scope.run_id = Some(options.records.run(of.run_id.parse()?).await?.id);
    }
    if !of.task_id.is_empty() {
        scope.task_id = Some(options.records.task(of.task_id.parse()?).await?.id);
    }
    let page = options.records.list_artifacts(scope, &query.list).await?;
    Ok(Json(ListArtifactsResponse {
        next_page_token: query.next_token(&page),
        total_size: page.total,
        artifacts: page.items.into_iter().map(Artifact::from).collect(),
    }))
}

/// Records an artifact that exists somewhere, so that importers and lineage know it.
#[utoipa::path(post, path = "/artifacts", tag = "artifacts", request_body = CreateArtifactRequest,
    responses((status = 200, body = Artifact)))]
pub(super) async fn create(
    State(options): State<Arc<Options>>,
    Body(body): Body<CreateArtifactRequest>,
) -> Result<Json<Artifact>, Error> {
    let row = new_row(&options, body)?;
    options
        .records
        .create_artifacts(std::slice::from_ref(&row))
        .await?;
    Ok(Json(row.into()))
}

/// Records several artifacts, or none.
#[utoipa::path(post, path = "/artifacts/:batchCreate", tag = "artifacts", request_body = BatchCreateArtifactsRequest,
    responses((status = 200, body = BatchCreateArtifactsResponse)))]
pub(super) async fn batch_create(
    State(options): State<Arc<Options>>,
    Body(body): Body<BatchCreateArtifactsRequest>,
) -> Result<Json<BatchCreateArtifactsResponse>, Error> {
    if body.artifacts.len() > MOST_AT_ONCE {
        return Err(Error::Invalid(format!(
            "{} artifacts are too many for one request: {MOST_AT_ONCE} are the most",
            body.artifacts.len()
        )));
    }
    let rows = body
        .artifacts
        .into_iter()
        .map(|request| new_row(&options, request))
        .collect::<Result<Vec<_>, _>>()?;
    options.records.create_artifacts(&rows).await?;
    Ok(Json(BatchCreateArtifactsResponse {
        artifacts: rows.into_iter().map(Artifact::from).collect(),
    }))
}

fn new_row(options: &Options, request: CreateArtifactRequest) -> Result<records::Artifact, Error> {
    if !request.run_id.is_null() || !request.task_id.is_null() {
        return Err(only_the_engine("artifacts of runs and tasks"));
    }
    let new = request.artifact;
    let name = checked("artifact", ARTIFACT_NAME, Some(new.name))?;
    let uri: ArtifactUri = new
        .uri
        .parse()
        .map_err(|error: coracle_artifacts::uri::InvalidUri| {
            Error::Invalid(format!("`artifact.uri`: {error}"))
        })?;
    let artifact_type = match new.artifact_type.as_str() {
        "" => "system.Artifact".to_owned(),
        short if SHORT_TYPES.contains(&short) => format!("system.{short}"),
        full if full.contains('.') => full.to_owned(),
        other => {
            return Err(Error::Invalid(format!(
                "`artifact.type`: expected a title such as system.Model, found `{other}`"
            )));
        }
    };
    Ok(records::Artifact {
        id: ArtifactId::new(),
        namespace: options.namespace.clone(),
        name,
        artifact_type,
        type_version: String::new(),
        uri: uri.as_str().to_owned(),
        metadata: new.metadata,
        digest: None,
        size: None,
        created_at: (options.clock)(),
    })
}
