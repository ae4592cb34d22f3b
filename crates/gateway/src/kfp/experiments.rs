//! Experiments: named groups of runs.

use std::sync::Arc;

use axum::{Json, extract::State};
use coracle_api::{id::ExperimentId, state::StorageState};
use coracle_store::records::{self, Records};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Options,
    error::Error,
    extract::{Body, Ids, Params},
    name::{EXPERIMENT_NAME, checked},
    page::ListParams,
    wire::{Empty, Experiment, Time, text},
};

/// The experiment of runs that name none.
const DEFAULT_EXPERIMENT: &str = "Default";

/// One page of experiments.
#[derive(Serialize, ToSchema)]
pub(super) struct ListExperimentsResponse {
    /// The page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    experiments: Vec<Experiment>,
    /// How many there are in all.
    total_size: i64,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

impl From<records::Experiment> for Experiment {
    fn from(row: records::Experiment) -> Self {
        Self {
            experiment_id: Some(row.id.to_string()),
            display_name: text(&row.name),
            description: text(&row.description),
            created_at: Some(Time(row.created_at)),
            namespace: None,
            storage_state: Some(row.storage_state),
            last_run_created_at: Some(row.last_run_created_at.map_or(Time::UNSET, Time)),
        }
    }
}

/// Makes an experiment.
#[utoipa::path(post, path = "/experiments", tag = "experiments", request_body = Experiment,
    responses((status = 200, body = Experiment)))]
pub(super) async fn create(
    State(options): State<Arc<Options>>,
    Body(body): Body<Experiment>,
) -> Result<Json<Experiment>, Error> {
    let name = checked("experiment", EXPERIMENT_NAME, body.display_name)?;
    let row = new_row(&options, name, body.description.unwrap_or_default());
    options.records.create_experiment(row.clone()).await?;
    Ok(Json(row.into()))
}

/// Shows an experiment.
#[utoipa::path(get, path = "/experiments/{experiment_id}", tag = "experiments",
    params(("experiment_id" = String, Path)), responses((status = 200, body = Experiment)))]
pub(super) async fn get(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<ExperimentId>,
) -> Result<Json<Experiment>, Error> {
    Ok(Json(options.records.experiment(id).await?.into()))
}

/// Lists experiments.
#[utoipa::path(get, path = "/experiments", tag = "experiments", params(ListParams),
    responses((status = 200, body = ListExperimentsResponse)))]
pub(super) async fn list(
    State(options): State<Arc<Options>>,
    Params(params): Params<ListParams>,
) -> Result<Json<ListExperimentsResponse>, Error> {
    let query = params.read()?;
    let page = options
        .records
        .list_experiments(Some(&options.namespace), &query.list)
        .await?;
    Ok(Json(ListExperimentsResponse {
        next_page_token: query.next_token(&page),
        total_size: page.total,
        experiments: page.items.into_iter().map(Experiment::from).collect(),
    }))
}

/// Takes an experiment out of the main lists.
#[utoipa::path(post, path = "/experiments/{experiment_id}/:archive", tag = "experiments",
    params(("experiment_id" = String, Path)), responses((status = 200, body = Empty)))]
pub(super) async fn archive(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<ExperimentId>,
) -> Result<Json<Empty>, Error> {
    options
        .records
        .set_experiment_storage_state(id, StorageState::Archived)
        .await?;
    Ok(Json(Empty {}))
}

/// Brings an experiment back into the main lists.
#[utoipa::path(post, path = "/experiments/{experiment_id}/:unarchive", tag = "experiments",
    params(("experiment_id" = String, Path)), responses((status = 200, body = Empty)))]
pub(super) async fn unarchive(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<ExperimentId>,
) -> Result<Json<Empty>, Error> {
    options
        .records
        .set_experiment_storage_state(id, StorageState::Available)
        .await?;
    Ok(Json(Empty {}))
}

/// Deletes an experiment.
#[utoipa::path(delete, path = "/experiments/{experiment_id}", tag = "experiments",
    params(("experiment_id" = String, Path)), responses((status = 200, body = Empty)))]
pub(super) async fn delete(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<ExperimentId>,
) -> Result<Json<Empty>, Error> {
    options.records.delete_experiment(id).await?;
    Ok(Json(Empty {}))
}

/// The experiment of runs that name none: made when it is first needed.
pub(super) async fn default(options: &Options) -> Result<records::Experiment, Error> {
    if let Some(found) = named_default(&options.records, &options.namespace).await? {
        return Ok(found);
    }
    let row = new_row(
        options,
        DEFAULT_EXPERIMENT.to_owned(),
        "All runs made without an experiment".to_owned(),
    );
    match options.records.create_experiment(row.clone()).await {
        Ok(()) => Ok(row),
        Err(records::Error::AlreadyExists { .. }) => named_default(&options.records, &options.namespace)
            .await?
            .ok_or_else(|| Error::Aborted("the experiment `Default` was just deleted: try again".to_owned())),
        Err(error) => Err(error.into()),
    }
}

async fn named_default(records: &Records, namespace: &str) -> Result<Option<records::Experiment>, Error> {
    Ok(records.experiment_named(namespace, DEFAULT_EXPERIMENT).await?)
}

fn new_row(options: &Options, name: String, description: String) -> records::Experiment {
    records::Experiment {
        id: ExperimentId::new(),
        namespace: options.namespace.clone(),
        name,
        description,
        storage_state: StorageState::Available,
        created_at: (options.clock)(),
        last_run_created_at: None,
    }
}
