//! The two multipart endpoints through which pipelines arrive as files.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{
        DefaultBodyLimit, FromRequest, Multipart, Request, State,
        multipart::{Field, MultipartError},
    },
    http::StatusCode,
};
use coracle_api::{
    id::PipelineId,
    ir::document::{self, Document},
};
use coracle_store::records;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    Options,
    error::Error,
    extract::Params,
    name::{VERSION_NAME, checked, checked_tags},
    package, pipelines,
    wire::{Pipeline, PipelineVersion, list},
};

/// What a multipart envelope may add to the file.
const ENVELOPE: usize = 64 * 1024;

/// The query of both uploads.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadParams {
    /// The name; that of the file when absent.
    name: String,
    /// The name shown; `name` when absent.
    display_name: String,
    /// What it does.
    description: String,
    /// Ignored: there is one namespace for pipelines.
    #[serde(rename = "namespace")]
    _namespace: String,
    /// Labels, as a JSON object of texts.
    tags: String,
    /// Where the source is.
    code_source_url: String,
    /// The pipeline to add a version to. For versions only.
    pipelineid: String,
}

/// The form that both uploads take.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form in the OpenAPI document")]
pub(super) struct UploadForm {
    /// A compiled pipeline: .yaml, .yml, .json, .zip or .tar.gz, of at most 32 MiB.
    #[schema(value_type = String, format = Binary)]
    uploadfile: String,
}

struct File {
    name: String,
    document: Document,
}

/// Makes a pipeline and its first version, of the same name, from a file.
#[utoipa::path(post, path = "/pipelines/upload", tag = "pipelines", params(UploadParams),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses((status = 200, body = Pipeline)))]
pub(super) async fn pipeline(
    State(options): State<Arc<Options>>,
    params: Result<Params<UploadParams>, Error>,
    request: Request,
) -> Result<Json<Pipeline>, Error> {
    upload_pipeline(&options, params, request)
        .await
        .map(Json)
        .map_err(Error::of_upload)
}

/// Makes a version of an existing pipeline from a file.
#[utoipa::path(post, path = "/pipelines/upload_version", tag = "pipelines", params(UploadParams),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses((status = 200, body = PipelineVersion)))]
pub(super) async fn version(
    State(options): State<Arc<Options>>,
    params: Result<Params<UploadParams>, Error>,
    request: Request,
) -> Result<Json<PipelineVersion>, Error> {
    upload_version(&options, params, request)
        .await
        .map(Json)
        .map_err(Error::of_upload)
}

async fn upload_pipeline(
    options: &Options,
    params: Result<Params<UploadParams>, Error>,
    request: Request,
) -> Result<Pipeline, Error> {
    let Params(params) = params?;
    let tags = params.tags()?;
    let file = read(request).await?;
    let pipeline = pipelines::new_row(
        options,
        Pipeline {
            name: Some(params.name(&file)),
            display_name: Some(params.display_name.clone()),
            description: Some(params.description.clone()),
            tags: Some(tags.clone()),
            ..Pipeline::default()
        },
    )?;
    let first = params.version_row(options, pipeline.id, tags, file)?;
    let warnings = first.warnings.clone();
    options
        .records
        .create_pipeline(pipeline.clone(), Some(first))
        .await?;
    Ok(Pipeline {
        warnings: list(warnings),
        ..pipeline.into()
    })
}

async fn upload_version(
    options: &Options,
    params: Result<Params<UploadParams>, Error>,
    request: Request,
) -> Result<PipelineVersion, Error> {
    let Params(params) = params?;
    if params.pipelineid.is_empty() {
        return Err(Error::Invalid(
            "the query names no pipeline: set `pipelineid`".to_owned(),
        ));
    }
    let tags = params.tags()?;
    let pipeline = options.records.pipeline(params.pipelineid.parse()?).await?;
    let file = read(request).await?;
    let row = params.version_row(options, pipeline.id, tags, file)?;
    options.records.create_pipeline_version(row.clone()).await?;
    Ok(row.into())
}

impl UploadParams {
    fn name(&self, file: &File) -> String {
        [&self.name, &self.display_name, &file.name]
            .into_iter()
            .find(|name| !name.is_empty())
            .cloned()
            .unwrap_or_default()
    }

    fn tags(&self) -> Result<BTreeMap<String, String>, Error> {
        if self.tags.is_empty() {
            return Ok(BTreeMap::new());
        }
        let tags = serde_json::from_str(&self.tags).map_err(|error| {
            Error::Invalid(format!(
                "the `tags` must be a JSON object of texts such as {{\"team\":\"ml\"}}: {error}"
            ))
        })?;
        checked_tags(tags)
    }

    fn version_row(
        &self,
        options: &Options,
        pipeline_id: PipelineId,
        tags: BTreeMap<String, String>,
        file: File,
    ) -> Result<records::PipelineVersion, Error> {
        let name = checked("version", VERSION_NAME, Some(self.name(&file)))?;
        Ok(records::PipelineVersion {
            id: coracle_api::id::PipelineVersionId::new(),
            pipeline_id,
            display_name: if self.display_name.is_empty() {
                name.clone()
            } else {
                self.display_name.clone()
            },
            name,
            description: self.description.clone(),
            code_source_url: self.code_source_url.clone(),
            package_url: String::new(),
            tags,
            document: file.document.value,
            warnings: file.document.warnings,
            created_at: (options.clock)(),
        })
    }
}

/// Reads the file out of the form, and the pipeline out of the file.
async fn read(mut request: Request) -> Result<File, Error> {
    let limit = usize::try_from(package::LIMIT).unwrap_or(usize::MAX);
    DefaultBodyLimit::max(limit.saturating_add(ENVELOPE)).apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|rejection| {
        Error::Invalid(format!(
            "the file was not sent as multipart/form-data: {}",
            rejection.body_text()
        ))
    })?;
    while let Some(field) = form.next_field().await.map_err(broken_form)? {
        if field.name() == Some("uploadfile") {
            return read_file(field).await;
        }
    }
    Err(Error::Invalid(
        "the form has no file: send it as the field `uploadfile`".to_owned(),
    ))
}

async fn read_file(field: Field<'_>) -> Result<File, Error> {
    let name = field.file_name().unwrap_or_default().to_owned();
    let bytes = field.bytes().await.map_err(broken_form)?;
    if bytes.len() as u64 > package::LIMIT {
        return Err(too_large());
    }
    let document = document(name.clone(), bytes.into()).await?;
    Ok(File { name, document })
}

/// Reads the pipeline in a file called `name`, off the async threads: it may be tens of megabytes.
pub(super) async fn document(name: String, bytes: Vec<u8>) -> Result<Document, Error> {
    let read = move || -> Result<Document, Error> {
        let document = package::document(&name, bytes).map_err(|error| match error {
            package::Error::TooLarge { .. } => Error::TooLarge(error.to_string()),
            _ => Error::Invalid(error.to_string()),
        })?;
        document::parse(&document).map_err(|problem| Error::Pipeline {
            subject: "the pipeline cannot be used",
            problem,
        })
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Error::internal("the pipeline could not be read", error))?
}

fn broken_form(error: MultipartError) -> Error {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large();
    }
    Error::Invalid(format!("the form did not arrive whole: {}", error.body_text()))
}

/// A file that is larger than any pipeline may be.
pub(super) fn too_large() -> Error {
    Error::TooLarge(format!(
        "the file is larger than {} MiB",
        package::LIMIT / (1024 * 1024)
    ))
}
