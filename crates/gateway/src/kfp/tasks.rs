//! A run's tasks: as KFP shows them inside a run, and in full.
//!
//! The full form converges on the task API that KFP is moving to (branch `mlmd-removal` of
//! kubeflow/pipelines): the same paths, and the same names where it has them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::{Json, extract::State};
use coracle_api::{
    id::{RunId, TaskId},
    launch::Failure,
    state::RuntimeState,
};
use coracle_store::records;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    Options,
    error::{Error, status_of},
    extract::Ids,
    wire::{RuntimeStatus, Status, Time, list, map, text},
};

/// `v2beta1.PipelineTaskDetail`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct TaskDetail {
    run_id: String,
    task_id: String,
    display_name: String,
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executor_detail: Option<ExecutorDetail>,
    #[schema(value_type = String)]
    state: RuntimeState,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<BTreeMap<String, ArtifactList>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<BTreeMap<String, ArtifactList>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_task_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_history: Option<Vec<RuntimeStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_tasks: Option<Vec<ChildTask>>,
}

impl TaskDetail {
    /// The task's id.
    pub(super) fn task_id(&self) -> &str {
        &self.task_id
    }
}

/// `v2beta1.PipelineTaskExecutorDetail`: Pods by what they were for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ExecutorDetail {
    /// The Pod of the last attempt.
    main_job: String,
    /// The Pods of the attempts before it, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_main_jobs: Option<Vec<String>>,
}

/// `v2beta1.ArtifactList`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ArtifactList {
    /// Ids of artifacts, in order.
    artifact_ids: Vec<String>,
}

/// `v2beta1.PipelineTaskDetail.ChildTask`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ChildTask {
    /// The child.
    task_id: String,
    /// The Pod of its last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
}

/// All tasks of a run.
#[derive(Serialize, ToSchema)]
pub(super) struct ListTasksResponse {
    /// The root first, then in the order they were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<Task>,
    /// How many there are.
    total_size: usize,
}

/// A task in full.
#[derive(Serialize, ToSchema)]
pub(super) struct Task {
    run_id: String,
    task_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_task_id: Option<String>,
    /// Its name in the DAG that holds it.
    name: String,
    display_name: String,
    /// `ROOT`, `DAG`, `LOOP`, `ITERATION`, `CONTAINER` or `IMPORTER`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    kind: records::TaskKind,
    /// Where it is in the tree, e.g. `root.for-loop-1.3.train`.
    scope_path: String,
    /// Which iteration of a loop it is, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    iteration_index: Option<String>,
    #[schema(value_type = String)]
    state: RuntimeState,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_history: Option<Vec<RuntimeStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<TaskError>,
    inputs: TaskIo,
    outputs: TaskIo,
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<Event>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<Attempt>>,
}

/// Why a task or attempt failed, and what to do about it.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskError {
    /// The stable name.
    reason: String,
    /// What happened, to what, and why.
    message: String,
    /// What to do about it.
    hint: &'static str,
}

/// One side of a task.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskIo {
    /// Values by name.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    parameters: Map<String, Value>,
    /// Artifacts by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    artifacts: Option<BTreeMap<String, ArtifactList>>,
}

/// An entry of a task's history.
#[derive(Serialize, ToSchema)]
pub(super) struct Event {
    time: Time,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    message: String,
}

/// One try at a task: one Pod.
#[derive(Serialize, ToSchema)]
pub(super) struct Attempt {
    /// From 1.
    number: u32,
    namespace: String,
    pod_name: String,
    #[schema(value_type = String)]
    state: RuntimeState,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<TaskError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_uri: Option<String>,
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Time>,
}

/// Lists a run's tasks in full.
#[utoipa::path(get, path = "/runs/{run_id}/tasks", tag = "tasks",
    params(("run_id" = String, Path)), responses((status = 200, body = ListTasksResponse)))]
pub(super) async fn list_all(
    State(options): State<Arc<Options>>,
    Ids(run_id): Ids<RunId>,
) -> Result<Json<ListTasksResponse>, Error> {
    let records = &options.records;
    records.run(run_id).await?;
    let rows = records.tasks(run_id).await?;
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
        total_size: tasks.len(),
        tasks,
    }))
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

/// A run's tasks as KFP shows them.
pub(super) fn details(tasks: Vec<records::Task>, attempts: Vec<records::Attempt>) -> Vec<TaskDetail> {
    let mut pods: HashMap<TaskId, Vec<String>> = HashMap::new();
    for attempt in attempts {
        pods.entry(attempt.task_id).or_default().push(attempt.pod_name);
    }
    let mut children: HashMap<TaskId, Vec<ChildTask>> = HashMap::new();
    for task in &tasks {
        if let Some(parent) = task.parent_id {
            let pod_name = pods.get(&task.id).and_then(|pods| pods.last()).cloned();
            children.entry(parent).or_default().push(ChildTask {
                task_id: task.id.to_string(),
                pod_name,
            });
        }
    }
    tasks
        .into_iter()
        .map(|task| {
            let children = children.remove(&task.id).unwrap_or_default();
            let pods = pods.remove(&task.id).unwrap_or_default();
            detail(task, pods, children)
        })
        .collect()
}

fn detail(row: records::Task, mut pods: Vec<String>, children: Vec<ChildTask>) -> TaskDetail {
    let pod_name = pods.pop();
    TaskDetail {
        run_id: row.run_id.to_string(),
        task_id: row.id.to_string(),
        display_name: if row.display_name.is_empty() {
            row.name
        } else {
            row.display_name
        },
        create_time: Time(row.created_at),
        start_time: row.started_at.map(Time),
        end_time: row.finished_at.map(Time),
        executor_detail: pod_name.clone().map(|main_job| ExecutorDetail {
            main_job,
            failed_main_jobs: list(pods),
        }),
        state: row.state,
        error: row.error.as_ref().map(status_of),
        inputs: artifact_lists(row.inputs.artifacts),
        outputs: artifact_lists(row.outputs.artifacts),
        parent_task_id: row.parent_id.map(|id| id.to_string()),
        state_history: RuntimeStatus::history(&row.state_history),
        pod_name,
        child_tasks: list(children),
    }
}

impl Task {
    fn new(row: records::Task, attempts: Vec<records::Attempt>, events: Vec<records::TaskEvent>) -> Self {
        Self {
            run_id: row.run_id.to_string(),
            task_id: row.id.to_string(),
            parent_task_id: row.parent_id.map(|id| id.to_string()),
            display_name: if row.display_name.is_empty() {
                row.name.clone()
            } else {
                row.display_name
            },
            name: row.name,
            kind: row.kind,
            scope_path: row.path,
            iteration_index: row.iteration.map(|index| index.to_string()),
            state: row.state,
            state_history: RuntimeStatus::history(&row.state_history),
            error: row.error.map(TaskError::from),
            inputs: row.inputs.into(),
            outputs: row.outputs.into(),
            create_time: Time(row.created_at),
            start_time: row.started_at.map(Time),
            end_time: row.finished_at.map(Time),
            events: list(events.into_iter().map(Event::from).collect()),
            attempts: list(attempts.into_iter().map(Attempt::from).collect()),
        }
    }
}

impl From<Failure> for TaskError {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.reason.to_string(),
            message: failure.message,
            hint: failure.reason.hint(),
        }
    }
}

impl From<records::TaskIo> for TaskIo {
    fn from(io: records::TaskIo) -> Self {
        Self {
            parameters: io.parameters,
            artifacts: artifact_lists(io.artifacts),
        }
    }
}

impl From<records::TaskEvent> for Event {
    fn from(row: records::TaskEvent) -> Self {
        Self {
            time: Time(row.time),
            kind: row.kind,
            reason: row.reason,
            message: row.message,
        }
    }
}

impl From<records::Attempt> for Attempt {
    /// Leaves out the token and what the launcher fetches with it.
    fn from(row: records::Attempt) -> Self {
        Self {
            number: row.number,
            namespace: row.namespace,
            pod_name: row.pod_name,
            state: row.state,
            error: row.error.map(TaskError::from),
            exit_code: row.exit_code,
            log_uri: text(&row.log_uri),
            create_time: Time(row.created_at),
            start_time: row.started_at.map(Time),
            end_time: row.finished_at.map(Time),
        }
    }
}

fn artifact_lists(
    artifacts: BTreeMap<String, Vec<coracle_api::id::ArtifactId>>,
) -> Option<BTreeMap<String, ArtifactList>> {
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

fn grouped<T>(rows: Vec<T>, task: impl Fn(&T) -> TaskId) -> HashMap<TaskId, Vec<T>> {
    let mut groups: HashMap<TaskId, Vec<T>> = HashMap::new();
    for row in rows {
        groups.entry(task(&row)).or_default().push(row);
    }
    groups
}
