//! Versions of pipelines.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use coracle_api::{
    id::{PipelineId, PipelineVersionId},
    ir::document::{self, Document},
};
use coracle_store::records;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Options,
    error::Error,
    extract::{Body, Ids, Params},
    fetch,
    name::{VERSION_NAME, checked, checked_tags},
    page::ListParams,
    wire::{Empty, PipelineVersion, Time, Url, list as list_of, map, text},
};

/// One page of versions.
#[derive(Serialize, ToSchema)]
pub(super) struct ListPipelineVersionsResponse {
    /// The page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pipeline_versions: Vec<PipelineVersion>,
    /// How many there are in all.
    total_size: i64,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

impl From<records::PipelineVersion> for PipelineVersion {
    fn from(row: records::PipelineVersion) -> Self {
        Self {
            pipeline_id: Some(row.pipeline_id.to_string()),
            pipeline_version_id: Some(row.id.to_string()),
            display_name: text(&row.display_name),
            name: text(&row.name),
            description: text(&row.description),
            created_at: Some(Time(row.created_at)),
            package_url: text(&row.package_url).map(|url| Url {
                pipeline_url: Some(url),
            }),
            code_source_url: text(&row.code_source_url),
            pipeline_spec: Some(row.document),
            tags: map(row.tags),
            error: None,
            warnings: list_of(row.warnings),
        }
    }
}

/// Makes a version from an inline `pipeline_spec`, or from a file that the server fetches.
#[utoipa::path(post, path = "/pipelines/{pipeline_id}/versions", tag = "pipelines",
    params(("pipeline_id" = String, Path)), request_body = PipelineVersion,
    responses((status = 200, body = PipelineVersion)))]
pub(super) async fn create(
    State(options): State<Arc<Options>>,
    Ids(pipeline_id): Ids<PipelineId>,
    Body(body): Body<PipelineVersion>,
) -> Result<Json<PipelineVersion>, Error> {
    options.records.pipeline(pipeline_id).await?;
    let row = new_row(&options, pipeline_id, body).await?;
    options.records.create_pipeline_version(row.clone()).await?;
    Ok(Json(row.into()))
}

/// Shows a version.
#[utoipa::path(get, path = "/pipelines/{pipeline_id}/versions/{pipeline_version_id}", tag = "pipelines",
    params(("pipeline_id" = String, Path), ("pipeline_version_id" = String, Path)),
    responses((status = 200, body = PipelineVersion)))]
pub(super) async fn get(
    State(options): State<Arc<Options>>,
    Ids((pipeline_id, id)): Ids<(PipelineId, PipelineVersionId)>,
) -> Result<Json<PipelineVersion>, Error> {
    Ok(Json(
        options.records.pipeline_version(pipeline_id, id).await?.into(),
    ))
}

/// Lists a pipeline's versions.
#[utoipa::path(get, path = "/pipelines/{pipeline_id}/versions", tag = "pipelines",
    params(("pipeline_id" = String, Path), ListParams),
    responses((status = 200, body = ListPipelineVersionsResponse)))]
pub(super) async fn list(
    State(options): State<Arc<Options>>,
    Ids(pipeline_id): Ids<PipelineId>,
    Params(params): Params<ListParams>,
) -> Result<Json<ListPipelineVersionsResponse>, Error> {
    let query = params.read()?;
    options.records.pipeline(pipeline_id).await?;
    let page = options
        .records
        .list_pipeline_versions(pipeline_id, &query.list)
        .await?;
    Ok(Json(ListPipelineVersionsResponse {
        next_page_token: query.next_token(&page),
        total_size: page.total,
        pipeline_versions: page.items.into_iter().map(PipelineVersion::from).collect(),
    }))
}

/// Changes a version's display name, description and tags: those that the body has.
///
/// `"tags": {}` removes all tags. What a version runs cannot be changed.
#[utoipa::path(patch, path = "/pipelines/{pipeline_id}/versions/{pipeline_version_id}", tag = "pipelines",
    params(("pipeline_id" = String, Path), ("pipeline_version_id" = String, Path)),
    request_body = PipelineVersion, responses((status = 200, body = PipelineVersion)))]
pub(super) async fn update(
    State(options): State<Arc<Options>>,
    Ids((pipeline_id, id)): Ids<(PipelineId, PipelineVersionId)>,
    Body(body): Body<PipelineVersion>,
) -> Result<Json<PipelineVersion>, Error> {
    let kept = options.records.pipeline_version(pipeline_id, id).await?;
    let change = update_of(
        "version",
        VERSION_NAME,
        body.display_name,
        body.description,
        body.tags,
    )?;
    let fixed = [
        ("name", body.name.is_some_and(|name| name != kept.name)),
        (
            "pipeline_spec",
            body.pipeline_spec.is_some_and(|spec| spec != kept.document),
        ),
        (
            "code_source_url",
            body.code_source_url
                .is_some_and(|url| url != kept.code_source_url),
        ),
        (
            "package_url",
            body.package_url
                .is_some_and(|url| url.pipeline_url.unwrap_or_default() != kept.package_url),
        ),
    ];
    if let Some((field, _)) = fixed.iter().find(|(_, differs)| *differs) {
        return Err(Error::Invalid(format!(
            "`{field}` of a version cannot be changed: make a new version instead"
        )));
    }
    let row = options
        .records
        .update_pipeline_version(pipeline_id, id, change)
        .await?;
    Ok(Json(row.into()))
}

/// What a PATCH changes.
pub(super) fn update_of(
    kind: &str,
    longest: usize,
    display_name: Option<String>,
    description: Option<String>,
    tags: Option<BTreeMap<String, String>>,
) -> Result<records::PipelineUpdate, Error> {
    Ok(records::PipelineUpdate {
        display_name: display_name
            .map(|name| checked(kind, longest, Some(name)))
            .transpose()?,
        description,
        tags: tags.map(checked_tags).transpose()?,
    })
}

/// Deletes a version.
#[utoipa::path(delete, path = "/pipelines/{pipeline_id}/versions/{pipeline_version_id}", tag = "pipelines",
    params(("pipeline_id" = String, Path), ("pipeline_version_id" = String, Path)),
    responses((status = 200, body = Empty)))]
pub(super) async fn delete(
    State(options): State<Arc<Options>>,
    Ids((pipeline_id, id)): Ids<(PipelineId, PipelineVersionId)>,
) -> Result<Json<Empty>, Error> {
    options.records.delete_pipeline_version(pipeline_id, id).await?;
    Ok(Json(Empty {}))
}

/// A row for the version that `body` describes.
pub(super) async fn new_row(
    options: &Options,
    pipeline_id: PipelineId,
    body: PipelineVersion,
) -> Result<records::PipelineVersion, Error> {
    let package_url = body
        .package_url
        .and_then(|url| url.pipeline_url)
        .filter(|url| !url.is_empty());
    let document = match (body.pipeline_spec, &package_url) {
        (Some(spec), _) => checked_document(spec).await?,
        (None, Some(url)) => fetch::pipeline(options, url).await?,
        (None, None) => {
            return Err(Error::Invalid(
                "the version has no pipeline: set `pipeline_spec`, or `package_url.pipeline_url`".to_owned(),
            ));
        }
    };
    let display_name = body.display_name.filter(|name| !name.is_empty());
    let name = body
        .name
        .filter(|name| !name.is_empty())
        .or_else(|| display_name.clone());
    let name = checked("version", VERSION_NAME, name)?;
    Ok(records::PipelineVersion {
        id: PipelineVersionId::new(),
        pipeline_id,
        display_name: checked(
            "version",
            VERSION_NAME,
            Some(display_name.unwrap_or_else(|| name.clone())),
        )?,
        name,
        description: body.description.unwrap_or_default(),
        code_source_url: body.code_source_url.unwrap_or_default(),
        package_url: package_url.unwrap_or_default(),
        tags: checked_tags(body.tags.unwrap_or_default())?,
        document: document.value,
        warnings: document.warnings,
        created_at: (options.clock)(),
    })
}

/// Reads an inline pipeline, off the async threads: it may be tens of megabytes.
pub(super) async fn checked_document(value: Value) -> Result<Document, Error> {
    tokio::task::spawn_blocking(move || document::from_value(&value))
        .await
        .map_err(|error| Error::internal("the pipeline could not be read", error))?
        .map_err(|problem| Error::Pipeline {
            subject: "the pipeline cannot be used",
            problem,
        })
}
