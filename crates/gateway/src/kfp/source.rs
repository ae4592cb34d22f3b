//! What runs are made from: a pipeline, values for its parameters, a place for artifacts. The
//! same for single and for recurring runs.

use coracle_api::{
    id::{PipelineId, PipelineVersionId},
    ir::{document::Document, validate},
    reason::Reason,
    state::StorageState,
};
use coracle_artifacts::{ArtifactUri, uri::Place};
use coracle_store::records;
use serde_json::{Map, Value};

use super::{
    Options,
    error::Error,
    experiments,
    versions::checked_document,
    wire::{PipelineVersionReference, RuntimeConfig},
};

/// A pipeline that can run.
pub(super) struct Source {
    /// Its document.
    pub document: Document,
    /// Where it was uploaded, unless it is inline.
    pub uploaded: Option<Uploaded>,
}

/// A pipeline that was uploaded.
#[derive(Clone, Copy)]
pub(super) struct Uploaded {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The version, the latest when none was named.
    pub version: PipelineVersionId,
    /// Whether the request named the version.
    pub is_named: bool,
}

impl Source {
    /// Finds the one pipeline that a request names.
    pub(super) async fn find(
        options: &Options,
        reference: Option<PipelineVersionReference>,
        version_id: Option<String>,
        spec: Option<Value>,
    ) -> Result<Self, Error> {
        let present = |id: &String| !id.is_empty();
        let reference = reference.unwrap_or_default();
        let pipeline_id = reference.pipeline_id.filter(present);
        let version_id = reference
            .pipeline_version_id
            .filter(present)
            .or(version_id)
            .filter(present);
        match (pipeline_id, spec) {
            (Some(_), Some(_)) => Err(Error::Invalid(
                "two pipelines are named: set `pipeline_spec` or `pipeline_version_reference`, not both"
                    .to_owned(),
            )),
            (None, None) if version_id.is_some() => Err(Error::Invalid(
                "the request names a version and no pipeline: set `pipeline_version_reference.pipeline_id`"
                    .to_owned(),
            )),
            (None, None) => Err(Error::Invalid(
                "the request names no pipeline: set `pipeline_spec` or `pipeline_version_reference`"
                    .to_owned(),
            )),
            (None, Some(spec)) => Ok(Self {
                document: checked_document(spec).await?,
                uploaded: None,
            }),
            (Some(pipeline_id), None) => {
                let pipeline = options.records.pipeline(pipeline_id.parse()?).await?;
                let (version, is_named) = version(options, &pipeline, version_id).await?;
                let uploaded = Uploaded {
                    pipeline: pipeline.id,
                    version: version.id,
                    is_named,
                };
                Ok(Self {
                    document: checked_document(version.document).await?,
                    uploaded: Some(uploaded),
                })
            }
        }
    }
}

async fn version(
    options: &Options,
    pipeline: &records::Pipeline,
    id: Option<String>,
) -> Result<(records::PipelineVersion, bool), Error> {
    if let Some(id) = id {
        let version = options.records.pipeline_version(pipeline.id, id.parse()?).await?;
        return Ok((version, true));
    }
    let latest = options.records.latest_pipeline_version(pipeline.id).await?;
    let latest = latest.ok_or_else(|| {
        Error::FailedPrecondition(format!(
            "pipeline `{}` has no version: upload one first",
            pipeline.display_name
        ))
    })?;
    Ok((latest, false))
}

/// Parameters and pipeline root, once they fit the pipeline and this server.
pub(super) async fn config(
    options: &Options,
    document: &Document,
    config: Option<RuntimeConfig>,
) -> Result<(Map<String, Value>, String), Error> {
    let config = config.unwrap_or_default();
    let parameters = config.parameters.unwrap_or_default();
    validate::check_parameters(&document.spec, &parameters).map_err(|problem| Error::Pipeline {
        subject: "the run's parameters cannot be used",
        problem,
    })?;
    let root = config.pipeline_root.unwrap_or_default();
    if !root.is_empty() {
        check_root(options, &root).await?;
    }
    Ok((parameters, root))
}

async fn check_root(options: &Options, root: &str) -> Result<(), Error> {
    let refused = |why: String| Error::Refused {
        reason: Reason::PipelineRootInvalid,
        message: format!("`runtime_config.pipeline_root`: {why}"),
    };
    let uri: ArtifactUri = root
        .parse()
        .map_err(|error: coracle_artifacts::uri::InvalidUri| refused(error.to_string()))?;
    match uri.place() {
        Place::Object(_) => Ok(()),
        Place::Local(path) => {
            let (artifacts, path) = (options.artifacts.clone(), path.clone());
            tokio::task::spawn_blocking(move || artifacts.confine(&path))
                .await
                .map_err(|error| Error::internal("the pipeline root could not be looked for", error))?
                .map(|_| ())
                .map_err(|error| refused(error.to_string()))
        }
        Place::Http => Err(refused(format!(
            "`{root}` can be read and not written; expected a folder of this machine, or a URI such as \
             s3://bucket/folder"
        ))),
        Place::Unsupported { scheme } => Err(refused(format!(
            "`{scheme}://` is no place that artifacts can be written to; expected a folder of this machine, \
             s3://, gs://, az:// or minio://"
        ))),
    }
}

/// The experiment of the first of these ids that is not empty, else `Default`: one that takes runs.
pub(super) async fn experiment(options: &Options, ids: &[&str]) -> Result<records::Experiment, Error> {
    let id = ids.iter().find(|id| !id.is_empty()).copied().unwrap_or_default();
    let found = if id.is_empty() {
        experiments::default(options).await?
    } else {
        options.records.experiment(id.parse()?).await?
    };
    if found.storage_state == StorageState::Archived {
        return Err(Error::FailedPrecondition(format!(
            "experiment `{}` is archived and takes no runs: unarchive it, or name another",
            found.name
        )));
    }
    Ok(found)
}
