//! A run's tasks: as KFP shows them inside a run, and in full.
//!
//! The full form converges on the task API that KFP is moving to (branch `mlmd-removal` of
//! kubeflow/pipelines): the same paths, and the same names where it has them. Its writes are not
//! taken: only the engine writes tasks.
//!
//! - [`detail`]: as part of a run
//! - [`full`]: alone, with all that there is

mod detail;
mod full;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::{Json, extract::State};
use coracle_api::id::{ArtifactId, RunId, TaskId};
use coracle_store::records;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub(super) use self::{
    detail::{TaskDetail, details},
    full::{Task, TaskIo},
};
use super::{
    Options,
    cache::CacheEntry,
    error::Error,
    extract::{Body, Ids, Params},
    wire::map,
};

/// `v2beta1.ArtifactList`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ArtifactList {
    /// Ids of artifacts, in order.
    artifact_ids: Vec<String>,
}

/// Tasks of a run.
#[derive(Serialize, ToSchema)]
pub(super) struct ListTasksResponse {
    /// The root first, then in the order they were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<Task>,
    /// How many there are in all.
    total_size: usize,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// Which tasks to list.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct TaskParams {
    /// `next_page_token` of the page before.
    #[serde(alias = "pageToken")]
    page_token: String,
    /// How many tasks at most; all when absent.
    #[serde(alias = "pageSize")]
    page_size: Option<u32>,
    /// Only those directly in this task: a DAG, a loop or an iteration.
    #[serde(alias = "parentTaskId")]
    parent_task_id: String,
}

/// Lists a run's tasks in full.
#[utoipa::path(get, path = "/runs/{run_id}/tasks", tag = "tasks",
    params(("run_id" = String, Path), TaskParams), responses((status = 200, body = ListTasksResponse)))]
pub(super) async fn list_all(
    State(options): State<Arc<Options>>,
    Ids(run_id): Ids<RunId>,
    Params(params): Params<TaskParams>,
) -> Result<Json<ListTasksResponse>, Error> {
    let records = &options.records;
    records.run(run_id).await?;
    let mut rows = records.tasks(run_id).await?;
    if !params.parent_task_id.is_empty() {
        let parent = records.task(params.parent_task_id.parse()?).await?.id;
        rows.retain(|row| row.parent_id == Some(parent));
    }
    let total_size = rows.len();
    let next_page_token = params.cut(&mut rows)?;
    let mut attempts = grouped(records.attempts(run_id).await?, |attempt| attempt.task_id);
    let mut events = grouped(records.events(run_id).await?, |event| event.task_id);
    let tasks: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let attempts = attempts.remove(&row.id).unwrap_or_default();
            let events = events.remove(&row.id).unwrap_or_default();
            Task::new(row, attempts, events)
        })
        .collect();
    Ok(Json(ListTasksResponse {
        tasks,
        total_size,
        next_page_token,
    }))
}

impl TaskParams {
    /// Leaves one page of the rows, and returns the token of the next: the id of the page's last
    /// task. Tasks are never deleted alone, and new ones come at the end.
    fn cut(&self, rows: &mut Vec<records::Task>) -> Result<Option<String>, Error> {
        if !self.page_token.is_empty() {
            let last = rows.iter().position(|row| row.id.to_string() == self.page_token);
            let last = last.ok_or_else(|| {
                Error::Invalid(
                    "the page_token does not belong to this list of tasks: start again without it".to_owned(),
                )
            })?;
            rows.drain(..=last);
        }
        let most = match self.page_size {
            None | Some(0) => return Ok(None),
            Some(size) => usize::try_from(size).unwrap_or(usize::MAX),
        };
        let has_more = rows.len() > most;
        rows.truncate(most);
        Ok(rows.last().filter(|_| has_more).map(|last| last.id.to_string()))
    }
}

/// Shows a task in full.
#[utoipa::path(get, path = "/runs/{run_id}/tasks/{task_id}", tag = "tasks",
    params(("run_id" = String, Path), ("task_id" = String, Path)), responses((status = 200, body = Task)))]
pub(super) async fn get(
    State(options): State<Arc<Options>>,
    Ids((run_id, id)): Ids<(RunId, TaskId)>,
) -> Result<Json<Task>, Error> {
    let records = &options.records;
    let row = records.task(id).await?;
    if row.run_id != run_id {
        return Err(Error::NotFound {
            kind: "task".to_owned(),
            id: id.to_string(),
        });
    }
    let attempts = records.attempts_of(id).await?;
    let mut events = records.events(run_id).await?;
    events.retain(|event| event.task_id == id);
    Ok(Json(Task::new(row, attempts, events)))
}

/// What an earlier result is looked for by.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FindCachedTaskRequest {
    /// Ignored: there is one namespace for pipelines.
    #[serde(default, rename = "namespace")]
    _namespace: String,
    /// The name of the pipeline: only its own results are found.
    #[serde(alias = "pipelineName")]
    pipeline_name: String,
    /// The key: that of a cache entry.
    #[serde(alias = "cacheFingerprint")]
    cache_fingerprint: String,
}

/// An earlier result, if there is one: `{}` if not.
#[derive(Serialize, ToSchema)]
pub(super) struct FindCachedTaskResponse {
    /// The task that made it, unless its run was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
    /// The result.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_entry: Option<CacheEntry>,
}

/// Finds the outputs that a task with this key would take over.
#[utoipa::path(post, path = "/tasks/:findCached", tag = "tasks", request_body = FindCachedTaskRequest,
    responses((status = 200, body = FindCachedTaskResponse)))]
pub(super) async fn find_cached(
    State(options): State<Arc<Options>>,
    Body(body): Body<FindCachedTaskRequest>,
) -> Result<Json<FindCachedTaskResponse>, Error> {
    let records = &options.records;
    let entry = records
        .cache_entry(&options.namespace, &body.pipeline_name, &body.cache_fingerprint)
        .await?;
    let task = match &entry {
        Some(entry) => records.tasks_by_ids(&[entry.made_by.task_id]).await?.pop(),
        None => None,
    };
    Ok(Json(FindCachedTaskResponse {
        task: task.map(|row| Task::new(row, Vec::new(), Vec::new())),
        cache_entry: entry.map(CacheEntry::from),
    }))
}

/// Refuses: only the engine makes tasks.
#[utoipa::path(post, path = "/runs/{run_id}/tasks", tag = "tasks", params(("run_id" = String, Path)),
    request_body = Object, responses((status = 403, description = "Always.")))]
pub(super) async fn create(Ids(id): Ids<RunId>) -> Error {
    only_the_engine(&format!("tasks of run `{id}`"))
}

/// Refuses: only the engine changes tasks.
#[utoipa::path(patch, path = "/runs/{run_id}/tasks/{task_id}", tag = "tasks",
    params(("run_id" = String, Path), ("task_id" = String, Path)),
    request_body = Object, responses((status = 403, description = "Always.")))]
pub(super) async fn update(Ids(ids): Ids<(RunId, TaskId)>) -> Error {
    only_the_engine(&format!("task `{}`", ids.1))
}

/// Refuses: only the engine changes tasks.
#[utoipa::path(post, path = "/runs/{run_id}/tasks/:batchUpdate", tag = "tasks", params(("run_id" = String, Path)),
    request_body = Object, responses((status = 403, description = "Always.")))]
pub(super) async fn batch_update(Ids(id): Ids<RunId>) -> Error {
    only_the_engine(&format!("tasks of run `{id}`"))
}

/// That a row is not for clients to write.
pub(super) fn only_the_engine(what: &str) -> Error {
    Error::PermissionDenied(format!(
        "{what}: written by the engine alone, which executes runs itself; stop a run with `:terminate`, and \
         let it go on with `:retry`"
    ))
}

/// The name shown.
fn shown_name(row: &records::Task) -> String {
    if row.display_name.is_empty() {
        row.name.clone()
    } else {
        row.display_name.clone()
    }
}

/// Whether a task ended well with the outputs of another.
fn is_cached(row: &records::Task) -> bool {
    row.cached_from.is_some() && row.state.is_terminal()
}

fn grouped<T>(rows: Vec<T>, task: impl Fn(&T) -> TaskId) -> HashMap<TaskId, Vec<T>> {
    let mut groups: HashMap<TaskId, Vec<T>> = HashMap::new();
    for row in rows {
        groups.entry(task(&row)).or_default().push(row);
    }
    groups
}

fn artifact_lists(artifacts: BTreeMap<String, Vec<ArtifactId>>) -> Option<BTreeMap<String, ArtifactList>> {
    let lists = artifacts.into_iter().map(|(name, ids)| {
        (
            name,
            ArtifactList {
                artifact_ids: ids.iter().map(ToString::to_string).collect(),
            },
        )
    });
    map(lists.collect())
}
