//! Pipelines: series of versions under one name.

use std::sync::Arc;

use axum::{Json, extract::State};
use coracle_api::id::PipelineId;
use coracle_store::records;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Options,
    error::Error,
    extract::{Body, FromPath, Ids, Params, flag},
    name::{PIPELINE_NAME, checked, checked_tags},
    page::ListParams,
    versions,
    wire::{Empty, Pipeline, PipelineVersion, Time, list as list_of, map, text},
};

/// One page of pipelines.
#[derive(Serialize, ToSchema)]
pub(super) struct ListPipelinesResponse {
    /// The page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pipelines: Vec<Pipeline>,
    /// How many there are in all.
    total_size: i64,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// A pipeline and its first version.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreatePipelineAndVersionRequest {
    /// The pipeline.
    pipeline: Pipeline,
    /// Its first version.
    #[serde(alias = "pipelineVersion")]
    pipeline_version: PipelineVersion,
}

/// How a pipeline is deleted.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteParams {
    /// Delete its versions as well; without it, a pipeline that has versions is kept.
    #[serde(deserialize_with = "flag")]
    cascade: bool,
}

impl From<records::Pipeline> for Pipeline {
    fn from(row: records::Pipeline) -> Self {
        Self {
            pipeline_id: Some(row.id.to_string()),
            display_name: text(&row.display_name),
            name: text(&row.name),
            description: text(&row.description),
            created_at: Some(Time(row.created_at)),
            namespace: None,
            tags: map(row.tags),
            error: None,
            warnings: None,
        }
    }
}

/// Makes a pipeline that has no version yet.
#[utoipa::path(post, path = "/pipelines", tag = "pipelines", request_body = Pipeline,
    responses((status = 200, body = Pipeline)))]
pub(super) async fn create(
    State(options): State<Arc<Options>>,
    Body(body): Body<Pipeline>,
) -> Result<Json<Pipeline>, Error> {
    let row = new_row(&options, body)?;
    options.records.create_pipeline(row.clone(), None).await?;
    Ok(Json(row.into()))
}

/// Makes a pipeline and its first version, or neither.
#[utoipa::path(post, path = "/pipelines/create", tag = "pipelines",
    request_body = CreatePipelineAndVersionRequest, responses((status = 200, body = Pipeline)))]
pub(super) async fn create_with_version(
    State(options): State<Arc<Options>>,
    Body(body): Body<CreatePipelineAndVersionRequest>,
) -> Result<Json<Pipeline>, Error> {
    let pipeline = new_row(&options, body.pipeline)?;
    let mut version = body.pipeline_version;
    if version.name.is_none() && version.display_name.is_none() {
        version.name = Some(pipeline.name.clone());
        version.display_name = Some(pipeline.display_name.clone());
    }
    let version = versions::new_row(&options, pipeline.id, version).await?;
    let warnings = version.warnings.clone();
    options
        .records
        .create_pipeline(pipeline.clone(), Some(version))
        .await?;
    Ok(Json(Pipeline {
        warnings: list_of(warnings),
        ..pipeline.into()
    }))
}

/// Shows a pipeline.
#[utoipa::path(get, path = "/pipelines/{pipeline_id}", tag = "pipelines",
    params(("pipeline_id" = String, Path)), responses((status = 200, body = Pipeline)))]
pub(super) async fn get(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<PipelineId>,
) -> Result<Json<Pipeline>, Error> {
    Ok(Json(options.records.pipeline(id).await?.into()))
}

/// A pipeline's name in a path.
pub(super) struct Name(String);

impl FromPath for Name {
    fn from_path(segments: &[String]) -> Result<Self, Error> {
        Ok(Self(segments.first().cloned().unwrap_or_default()))
    }
}

/// Shows the pipeline of a name.
#[utoipa::path(get, path = "/pipelines/names/{name}", tag = "pipelines",
    params(("name" = String, Path)), responses((status = 200, body = Pipeline)))]
pub(super) async fn get_by_name(
    State(options): State<Arc<Options>>,
    Ids(Name(name)): Ids<Name>,
) -> Result<Json<Pipeline>, Error> {
    let found = options.records.pipeline_named(&options.namespace, &name).await?;
    let row = found.ok_or_else(|| Error::NotFound {
        kind: "pipeline".to_owned(),
        id: name,
    })?;
    Ok(Json(row.into()))
}

/// Lists pipelines.
#[utoipa::path(get, path = "/pipelines", tag = "pipelines", params(ListParams),
    responses((status = 200, body = ListPipelinesResponse)))]
pub(super) async fn list(
    State(options): State<Arc<Options>>,
    Params(params): Params<ListParams>,
) -> Result<Json<ListPipelinesResponse>, Error> {
    let query = params.read()?;
    let page = options
        .records
        .list_pipelines(Some(&options.namespace), &query.list)
        .await?;
    Ok(Json(ListPipelinesResponse {
        next_page_token: query.next_token(&page),
        total_size: page.total,
        pipelines: page.items.into_iter().map(Pipeline::from).collect(),
    }))
}

/// Changes a pipeline's display name, description and tags: those that the body has.
///
/// `"tags": {}` removes all tags.
#[utoipa::path(patch, path = "/pipelines/{pipeline_id}", tag = "pipelines",
    params(("pipeline_id" = String, Path)), request_body = Pipeline,
    responses((status = 200, body = Pipeline)))]
pub(super) async fn update(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<PipelineId>,
    Body(body): Body<Pipeline>,
) -> Result<Json<Pipeline>, Error> {
    let kept = options.records.pipeline(id).await?;
    if body.name.is_some_and(|name| name != kept.name) {
        return Err(Error::Invalid(
            "`name` of a pipeline cannot be changed: change its `display_name`".to_owned(),
        ));
    }
    let change = versions::update_of(
        "pipeline",
        PIPELINE_NAME,
        body.display_name,
        body.description,
        body.tags,
    )?;
    Ok(Json(options.records.update_pipeline(id, change).await?.into()))
}

/// Deletes a pipeline.
#[utoipa::path(delete, path = "/pipelines/{pipeline_id}", tag = "pipelines",
    params(("pipeline_id" = String, Path), DeleteParams), responses((status = 200, body = Empty)))]
pub(super) async fn delete(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<PipelineId>,
    Params(params): Params<DeleteParams>,
) -> Result<Json<Empty>, Error> {
    match options.records.delete_pipeline(id, params.cascade).await {
        Ok(()) => Ok(Json(Empty {})),
        Err(records::Error::InUse { .. }) => Err(Error::FailedPrecondition(format!(
            "pipeline `{id}` has versions: delete them first, or delete all with `?cascade=true`"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// A row for the pipeline that `body` describes.
pub(super) fn new_row(options: &Options, body: Pipeline) -> Result<records::Pipeline, Error> {
    let display_name = body.display_name.filter(|name| !name.is_empty());
    let name = body
        .name
        .filter(|name| !name.is_empty())
        .or_else(|| display_name.clone());
    let name = checked("pipeline", PIPELINE_NAME, name)?;
    Ok(records::Pipeline {
        id: PipelineId::new(),
        namespace: options.namespace.clone(),
        display_name: checked(
            "pipeline",
            PIPELINE_NAME,
            Some(display_name.unwrap_or_else(|| name.clone())),
        )?,
        name,
        description: body.description.unwrap_or_default(),
        tags: checked_tags(body.tags.unwrap_or_default())?,
        created_at: (options.clock)(),
    })
}
