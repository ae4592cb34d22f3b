//! A task in full, under the names that KFP is moving to.

use std::collections::BTreeMap;

use coracle_api::{launch::Failure, state::RuntimeState};
use coracle_store::records;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{ArtifactList, artifact_lists, is_cached, shown_name};
use crate::kfp::wire::{RuntimeStatus, Time, list, text};

/// A task in full.
#[derive(Serialize, ToSchema)]
pub(in crate::kfp) struct Task {
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
    /// `CACHED` of a task that took over the outputs of another; else a state as of runs.
    #[schema(value_type = String)]
    state: TaskState,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_history: Option<Vec<RuntimeStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<TaskError>,
    /// How often it was tried again by its retry policy.
    #[serde(skip_serializing_if = "is_zero")]
    retries: u32,
    /// When it is tried again, while it waits for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<Time>,
    /// Whose outputs it took over.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_from: Option<CachedFrom>,
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

/// Where a task stands.
#[derive(Serialize)]
#[serde(untagged)]
enum TaskState {
    Cached(&'static str),
    Runtime(RuntimeState),
}

/// The task whose outputs another took over. Either may be deleted since.
#[derive(Serialize, ToSchema)]
pub(in crate::kfp) struct CachedFrom {
    run_id: String,
    task_id: String,
}

/// Why a task or attempt failed, and what to do about it.
#[derive(Serialize, ToSchema)]
pub(in crate::kfp) struct TaskError {
    /// The stable name.
    reason: String,
    /// What happened, to what, and why.
    message: String,
    /// What to do about it.
    hint: &'static str,
}

/// One side of a task.
#[derive(Serialize, ToSchema)]
pub(in crate::kfp) struct TaskIo {
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
pub(in crate::kfp) struct Event {
    time: Time,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    message: String,
}

/// One try at a task: one Pod.
#[derive(Serialize, ToSchema)]
pub(in crate::kfp) struct Attempt {
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

impl Task {
    /// The row with what belongs to it.
    pub(in crate::kfp) fn new(
        row: records::Task,
        attempts: Vec<records::Attempt>,
        events: Vec<records::TaskEvent>,
    ) -> Self {
        let is_cached = is_cached(&row);
        Self {
            run_id: row.run_id.to_string(),
            task_id: row.id.to_string(),
            parent_task_id: row.parent_id.map(|id| id.to_string()),
            display_name: shown_name(&row),
            name: row.name,
            kind: row.kind,
            scope_path: row.path,
            iteration_index: row.iteration.map(|index| index.to_string()),
            state: if is_cached {
                TaskState::Cached("CACHED")
            } else {
                TaskState::Runtime(row.state)
            },
            state_history: RuntimeStatus::history(&row.state_history),
            error: row.error.map(TaskError::from),
            retries: row.retries,
            retry_at: row.retry_at.map(Time),
            cached_from: row.cached_from.map(CachedFrom::from),
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

impl From<records::CachedFrom> for CachedFrom {
    fn from(row: records::CachedFrom) -> Self {
        Self {
            run_id: row.run_id.to_string(),
            task_id: row.task_id.to_string(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
