//! Runs: made, shown, listed, stopped and put away here; run by the engine.

use std::sync::Arc;

use axum::{Json, extract::State};
use coracle_api::{
    id::{ExperimentId, PipelineId, PipelineVersionId, RunId},
    ir::{document::Document, validate},
    state::StorageState,
};
use coracle_store::records::{self, NewRun, RunScope};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    Options,
    error::{Error, status_of},
    experiments,
    extract::{Body, Ids, Params},
    name::{RUN_NAME, checked},
    page::ListParams,
    tasks,
    versions::checked_document,
    wire::{Empty, PipelineVersionReference, Run, RunDetails, RuntimeConfig, RuntimeStatus, Time, text},
};

/// One page of runs.
#[derive(Serialize, ToSchema)]
pub(super) struct ListRunsResponse {
    /// The page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<Run>,
    /// How many there are in all.
    total_size: i64,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// The experiment that a request is about.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct ExperimentParam {
    /// The experiment's id.
    #[serde(alias = "experimentId")]
    experiment_id: String,
}

impl From<records::Run> for Run {
    fn from(row: records::Run) -> Self {
        let runtime_config = RuntimeConfig {
            parameters: (!row.parameters.is_empty()).then_some(row.parameters),
            pipeline_root: text(&row.pipeline_root),
        };
        Self {
            experiment_id: Some(row.experiment_id.to_string()),
            run_id: Some(row.id.to_string()),
            display_name: text(&row.display_name),
            storage_state: Some(row.storage_state),
            description: text(&row.description),
            pipeline_version_reference: row.pipeline_id.map(|id| PipelineVersionReference {
                pipeline_id: Some(id.to_string()),
                pipeline_version_id: row.pipeline_version_id.map(|id| id.to_string()),
            }),
            runtime_config: Some(runtime_config),
            service_account: text(&row.service_account),
            created_at: Some(Time(row.created_at)),
            scheduled_at: Some(Time(row.scheduled_at)),
            finished_at: Some(row.finished_at.map_or(Time::UNSET, Time)),
            state: Some(row.state),
            error: row.error.as_ref().map(status_of),
            state_history: RuntimeStatus::history(&row.state_history),
            ..Self::default()
        }
    }
}

/// Makes a run.
#[utoipa::path(post, path = "/runs", tag = "runs", params(ExperimentParam), request_body = Run,
    responses((status = 200, body = Run)))]
pub(super) async fn create(
    State(options): State<Arc<Options>>,
    Params(params): Params<ExperimentParam>,
    Body(body): Body<Run>,
) -> Result<Json<Run>, Error> {
    let display_name = checked("run", RUN_NAME, body.display_name)?;
    let source = source(
        &options,
        body.pipeline_version_reference,
        body.pipeline_version_id,
        body.pipeline_spec,
    )
    .await?;
    let config = body.runtime_config.unwrap_or_default();
    let parameters: Map<String, Value> = config.parameters.unwrap_or_default();
    validate::check_parameters(&source.document.spec, &parameters).map_err(|problem| Error::Pipeline {
        subject: "the run's parameters cannot be used",
        problem,
    })?;
    // Last, for it may make the experiment `Default`.
    let named = body
        .experiment_id
        .filter(|id| !id.is_empty())
        .unwrap_or(params.experiment_id);
    let experiment = experiment(&options, &named).await?;
    let created_at = (options.clock)();
    let row = options
        .records
        .create_run(NewRun {
            id: RunId::new(),
            experiment_id: experiment,
            display_name,
            description: body.description.unwrap_or_default(),
            pipeline_id: source.version.map(|(pipeline, _)| pipeline),
            pipeline_version_id: source.version.map(|(_, version)| version),
            document: source.document.value.clone(),
            parameters,
            pipeline_root: config.pipeline_root.unwrap_or_default(),
            service_account: body.service_account.unwrap_or_default(),
            recurring_run_id: None,
            scheduled_at: created_at,
            created_at,
        })
        .await?;
    let mut run = Run::from(row);
    if run.pipeline_version_reference.is_none() {
        run.pipeline_spec = Some(source.document.value);
    }
    Ok(Json(run))
}

/// Shows a run and its tasks.
#[utoipa::path(get, path = "/runs/{run_id}", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = Run)))]
pub(super) async fn get(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RunId>,
) -> Result<Json<Run>, Error> {
    let row = options.records.run(id).await?;
    let pipeline_spec = match row.pipeline_id {
        Some(_) => None,
        None => Some(options.records.document(&row.document_digest).await?),
    };
    Ok(Json(Run {
        pipeline_spec,
        ..with_details(&options, row).await?
    }))
}

/// Lists runs, without their tasks and inline pipelines.
#[utoipa::path(get, path = "/runs", tag = "runs", params(ListParams, ExperimentParam),
    responses((status = 200, body = ListRunsResponse)))]
pub(super) async fn list(
    State(options): State<Arc<Options>>,
    Params(params): Params<ListParams>,
    Params(of): Params<ExperimentParam>,
) -> Result<Json<ListRunsResponse>, Error> {
    let query = params.read()?;
    let scope = if of.experiment_id.is_empty() {
        RunScope::Namespace(options.namespace.clone())
    } else {
        RunScope::Experiment(options.records.experiment(of.experiment_id.parse()?).await?.id)
    };
    let page = options.records.list_runs(scope, &query.list).await?;
    Ok(Json(ListRunsResponse {
        next_page_token: query.next_token(&page),
        total_size: page.total,
        runs: page.items.into_iter().map(Run::from).collect(),
    }))
}

/// Asks a run to stop.
#[utoipa::path(post, path = "/runs/{run_id}/:terminate", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = Empty)))]
pub(super) async fn terminate(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RunId>,
) -> Result<Json<Empty>, Error> {
    let run = options.records.run(id).await?;
    if run.state.is_terminal() {
        return Err(Error::FailedPrecondition(format!(
            "run `{id}` cannot be stopped: it has already ended as {}",
            run.state
        )));
    }
    options.records.request_termination(id).await?;
    Ok(Json(Empty {}))
}

/// Takes a run out of the main lists.
#[utoipa::path(post, path = "/runs/{run_id}/:archive", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = Empty)))]
pub(super) async fn archive(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RunId>,
) -> Result<Json<Empty>, Error> {
    options
        .records
        .set_run_storage_state(id, StorageState::Archived)
        .await?;
    Ok(Json(Empty {}))
}

/// Brings a run back into the main lists.
#[utoipa::path(post, path = "/runs/{run_id}/:unarchive", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = Empty)))]
pub(super) async fn unarchive(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RunId>,
) -> Result<Json<Empty>, Error> {
    options
        .records
        .set_run_storage_state(id, StorageState::Available)
        .await?;
    Ok(Json(Empty {}))
}

/// Deletes a run. Its artifacts stay.
#[utoipa::path(delete, path = "/runs/{run_id}", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = Empty)))]
pub(super) async fn delete(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RunId>,
) -> Result<Json<Empty>, Error> {
    options.records.delete_run(id).await?;
    Ok(Json(Empty {}))
}

/// The run with its tasks, without its pipeline.
pub(super) async fn with_details(options: &Options, row: records::Run) -> Result<Run, Error> {
    let tasks = options.records.tasks(row.id).await?;
    let attempts = options.records.attempts(row.id).await?;
    let task_details = tasks::details(tasks, attempts);
    Ok(Run {
        run_details: Some(RunDetails { task_details }),
        ..Run::from(row)
    })
}

/// What a run is made from.
struct Source {
    document: Document,
    version: Option<(PipelineId, PipelineVersionId)>,
}

async fn source(
    options: &Options,
    reference: Option<PipelineVersionReference>,
    version_id: Option<String>,
    spec: Option<Value>,
) -> Result<Source, Error> {
    let pipeline_id = reference
        .as_ref()
        .and_then(|reference| reference.pipeline_id.clone());
    let version_id = reference
        .and_then(|reference| reference.pipeline_version_id)
        .or(version_id);
    let version_id = version_id.filter(|id| !id.is_empty());
    match (pipeline_id.filter(|id| !id.is_empty()), spec) {
        (Some(_), Some(_)) => Err(Error::Invalid(
            "the run names two pipelines: set `pipeline_spec` or `pipeline_version_reference`, not both"
                .to_owned(),
        )),
        (None, None) if version_id.is_some() => Err(Error::Invalid(
            "the run names a version and no pipeline: set `pipeline_version_reference.pipeline_id`"
                .to_owned(),
        )),
        (None, None) => Err(Error::Invalid(
            "the run names no pipeline: set `pipeline_spec` or `pipeline_version_reference`".to_owned(),
        )),
        (None, Some(spec)) => Ok(Source {
            document: checked_document(spec).await?,
            version: None,
        }),
        (Some(pipeline_id), None) => {
            let pipeline = options.records.pipeline(pipeline_id.parse()?).await?;
            let version = match version_id {
                Some(id) => options.records.pipeline_version(pipeline.id, id.parse()?).await?,
                None => options
                    .records
                    .latest_pipeline_version(pipeline.id)
                    .await?
                    .ok_or_else(|| {
                        Error::FailedPrecondition(format!(
                            "pipeline `{}` has no version: upload one first",
                            pipeline.display_name
                        ))
                    })?,
            };
            let document = checked_document(version.document).await?;
            Ok(Source {
                document,
                version: Some((pipeline.id, version.id)),
            })
        }
    }
}

async fn experiment(options: &Options, id: &str) -> Result<ExperimentId, Error> {
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
    Ok(found.id)
}
