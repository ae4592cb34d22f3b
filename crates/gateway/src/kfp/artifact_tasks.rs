//! Which task made or consumed which artifact, under the names that KFP is moving to.

use std::{str::FromStr, sync::Arc};

use axum::{Json, extract::State};
use coracle_api::id::InvalidId;
use coracle_store::records::{
    self, IoType,
    query::{List, Sort},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Options,
    error::Error,
    extract::Params,
    page::ListParams,
    tasks::only_the_engine,
    wire::{Int64, text},
};

/// That a task made or consumed an artifact.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArtifactTask {
    /// Made of what makes it unique.
    id: String,
    artifact_id: String,
    run_id: String,
    task_id: String,
    /// `COMPONENT_INPUT`, `TASK_OUTPUT_INPUT`, `COLLECTED_INPUTS`, `OUTPUT`, `ONE_OF_OUTPUT`, or Coracle's own
    /// `EXECUTOR_LOG`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    io: IoType,
    /// Who made it, for an input.
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<Producer>,
    /// The input's or output's name.
    key: String,
    /// Its place in a list, from 0.
    position: Int64,
}

/// The task that made an artifact.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Producer {
    /// Its name in its DAG.
    task_name: String,
}

/// One page of links between artifacts and tasks.
#[derive(Serialize, ToSchema)]
pub(super) struct ListArtifactTasksResponse {
    /// The page, in order of task, type, key and position.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    artifact_tasks: Vec<ArtifactTask>,
    /// How many there are in all.
    total_size: i64,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

impl From<records::ArtifactTask> for ArtifactTask {
    fn from(row: records::ArtifactTask) -> Self {
        Self {
            id: format!(
                "{}.{}.{}.{}.{}",
                row.task_id, row.io, row.key, row.position, row.artifact_id
            ),
            artifact_id: row.artifact_id.to_string(),
            run_id: row.run_id.to_string(),
            task_id: row.task_id.to_string(),
            io: row.io,
            producer: text(&row.producer_task).map(|task_name| Producer { task_name }),
            key: row.key,
            position: Int64(row.position),
        }
    }
}

/// Lists which tasks made or consumed which artifacts. What is given several times, or with commas, means any.
#[utoipa::path(get, path = "/artifact_tasks", tag = "artifacts",
    params(
        ("run_ids" = Option<String>, Query, description = "Runs; `run_id` is the same."),
        ("task_ids" = Option<String>, Query, description = "Tasks; `task_id` is the same."),
        ("artifact_ids" = Option<String>, Query, description = "Artifacts; `artifact_id` is the same."),
        ("type" = Option<String>, Query, description = "Types."),
        ("page_token" = Option<String>, Query, description = "`next_page_token` of the page before."),
        ("page_size" = Option<String>, Query, description = "How many items at most: 20 when absent, 200 at most."),
    ),
    responses((status = 200, body = ListArtifactTasksResponse)))]
pub(super) async fn list(
    State(options): State<Arc<Options>>,
    Params(pairs): Params<Vec<(String, String)>>,
) -> Result<Json<ListArtifactTasksResponse>, Error> {
    let mut params = ListParams::default();
    let mut filter = records::LinkFilter {
        namespace: Some(options.namespace.clone()),
        ..records::LinkFilter::default()
    };
    for (name, value) in pairs {
        match name.as_str() {
            "run_id" | "run_ids" => add(&mut filter.run_ids, &value)?,
            "task_id" | "task_ids" => add(&mut filter.task_ids, &value)?,
            "artifact_id" | "artifact_ids" => add(&mut filter.artifact_ids, &value)?,
            "type" | "types" => add_types(&mut filter.io, &value)?,
            "page_token" => params.page_token = value,
            "page_size" => params.page_size = value,
            // As everywhere: there is one namespace.
            "namespace" => {}
            _ => {
                return Err(Error::Invalid(format!(
                    "links between artifacts and tasks cannot be listed by `{name}`: expected run_ids, task_ids, \
                     artifact_ids or type"
                )));
            }
        }
    }
    let mut query = params.read()?;
    // The order is always the same: it is what a token is good for.
    let sort = Sort {
        field: "task_id".to_owned(),
        descending: false,
    };
    query.list = List { sort, ..query.list };
    let page = options
        .records
        .list_artifact_tasks(&filter, query.list.page_size, query.list.after.as_ref())
        .await?;
    Ok(Json(ListArtifactTasksResponse {
        next_page_token: query.next_token(&page),
        total_size: page.total,
        artifact_tasks: page.items.into_iter().map(ArtifactTask::from).collect(),
    }))
}

/// Refuses: only the engine records what tasks made and consumed.
#[utoipa::path(post, path = "/artifact_tasks", tag = "artifacts", request_body = Object,
    responses((status = 403, description = "Always.")))]
pub(super) async fn create() -> Error {
    only_the_engine("links between artifacts and tasks")
}

/// Refuses: only the engine records what tasks made and consumed.
#[utoipa::path(post, path = "/artifact_tasks/:batchCreate", tag = "artifacts", request_body = Object,
    responses((status = 403, description = "Always.")))]
pub(super) async fn batch_create() -> Error {
    only_the_engine("links between artifacts and tasks")
}

fn add<T: FromStr<Err = InvalidId>>(ids: &mut Vec<T>, text: &str) -> Result<(), Error> {
    for id in text.split(',').filter(|id| !id.is_empty()) {
        ids.push(id.trim().parse()?);
    }
    Ok(())
}

fn add_types(types: &mut Vec<IoType>, text: &str) -> Result<(), Error> {
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let io = name.trim().parse().map_err(|_| {
            Error::Invalid(format!(
                "`{name}` is no type of a link: expected COMPONENT_INPUT, TASK_OUTPUT_INPUT, COLLECTED_INPUTS, \
                 OUTPUT, ONE_OF_OUTPUT or EXECUTOR_LOG"
            ))
        })?;
        types.push(io);
    }
    Ok(())
}
