//! Runs: made, shown, listed, stopped and put away here; run by the engine.

use std::sync::Arc;

use axum::{Json, extract::State};
use coracle_api::{
    id::RunId,
    ir::document::{self, Document},
    state::{RuntimeState, StorageState},
};
use coracle_store::records::{self, NewRun, RunScope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Options,
    error::{Error, status_of},
    extract::{Body, Ids, Params},
    name::{RUN_NAME, checked},
    page::ListParams,
    source::{self, Source},
    tasks,
    wire::{
        Empty, PipelineVersionReference, Run, RunDetails, RuntimeConfig, RuntimeStatus, Time,
        list as list_of, text,
    },
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
    pub(super) experiment_id: String,
}

impl ExperimentParam {
    /// What a list is asked for: an experiment that exists, or all of the namespace.
    pub(super) async fn scope(&self, options: &Options) -> Result<RunScope, Error> {
        if self.experiment_id.is_empty() {
            return Ok(RunScope::Namespace(options.namespace.clone()));
        }
        let experiment = options.records.experiment(self.experiment_id.parse()?).await?;
        Ok(RunScope::Experiment(experiment.id))
    }
}

impl From<records::Run> for Run {
    fn from(row: records::Run) -> Self {
        // Who waits for a run that was just asked to go on must not see how it ended before.
        let (state, error, finished_at) = if row.goes_on() {
            (RuntimeState::Pending, None, None)
        } else {
            (row.state, row.error.as_ref(), row.finished_at)
        };
        let error = error.or_else(|| row.waits_for()).map(status_of);
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
            finished_at: Some(finished_at.map_or(Time::UNSET, Time)),
            state: Some(state),
            error,
            recurring_run_id: row.recurring_run_id.map(|id| id.to_string()),
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
    let source = Source::find(
        &options,
        body.pipeline_version_reference,
        body.pipeline_version_id,
        body.pipeline_spec,
    )
    .await?;
    let (parameters, pipeline_root) = source::config(&options, &source.document, body.runtime_config).await?;
    // Last, for it may make the experiment `Default`.
    let named = body.experiment_id.unwrap_or_default();
    let experiment = source::experiment(&options, &[&named, &params.experiment_id]).await?;
    let created_at = (options.clock)();
    let Document { value, warnings, .. } = source.document;
    let inline = source.uploaded.is_none().then(|| value.clone());
    let row = options
        .records
        .create_run(NewRun {
            id: RunId::new(),
            experiment_id: experiment.id,
            display_name,
            description: body.description.unwrap_or_default(),
            pipeline_id: source.uploaded.map(|uploaded| uploaded.pipeline),
            pipeline_version_id: source.uploaded.map(|uploaded| uploaded.version),
            document: value,
            parameters,
            pipeline_root,
            service_account: body.service_account.unwrap_or_default(),
            recurring_run_id: None,
            scheduled_at: created_at,
            created_at,
        })
        .await?;
    coracle_breakpoint::at("gateway.run-created");
    Ok(Json(Run {
        pipeline_spec: inline,
        warnings: list_of(warnings),
        ..Run::from(row)
    }))
}

/// Shows a run and its tasks.
#[utoipa::path(get, path = "/runs/{run_id}", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = Run)))]
pub(super) async fn get(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RunId>,
) -> Result<Json<Run>, Error> {
    let row = options.records.run(id).await?;
    let (pipeline_spec, warnings) = match row.pipeline_id {
        Some(_) => (None, Vec::new()),
        None => {
            let document = options.records.document(&row.document_digest).await?;
            let warnings = document::unknown_fields(&document);
            (Some(document), warnings)
        }
    };
    Ok(Json(Run {
        pipeline_spec,
        warnings: list_of(warnings),
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
    let scope = of.scope(&options).await?;
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

/// Asks a run that failed or was stopped to go on: what succeeded is kept.
#[utoipa::path(post, path = "/runs/{run_id}/:retry", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = Empty)))]
pub(super) async fn retry(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RunId>,
) -> Result<Json<Empty>, Error> {
    let run = options.records.run(id).await?;
    match run.state {
        RuntimeState::Failed | RuntimeState::Canceled => {}
        state => {
            let why = if state.is_terminal() {
                "there is nothing left to do again; make a new run instead"
            } else {
                "wait for its end, or stop it first"
            };
            return Err(Error::FailedPrecondition(format!(
                "run `{id}` cannot be retried: it is {state}, and only FAILED and CANCELED runs can; {why}"
            )));
        }
    }
    options.records.request_retry(id).await?;
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
