//! A run's tasks as KFP shows them inside a run.

use std::collections::{BTreeMap, HashMap};

use coracle_api::{id::TaskId, state::RuntimeState};
use coracle_store::records;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ArtifactList, artifact_lists, is_cached, shown_name};
use crate::kfp::{
    error::status_of,
    wire::{RuntimeStatus, Status, Time, list},
};

/// `v2beta1.PipelineTaskDetail`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::kfp) struct TaskDetail {
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
    pub(in crate::kfp) fn task_id(&self) -> &str {
        &self.task_id
    }
}

/// `v2beta1.PipelineTaskExecutorDetail`: Pods by what they were for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::kfp) struct ExecutorDetail {
    /// The Pod of the last attempt.
    main_job: String,
    /// The Pods of the attempts before it, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_main_jobs: Option<Vec<String>>,
}

/// `v2beta1.PipelineTaskDetail.ChildTask`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::kfp) struct ChildTask {
    /// The child.
    task_id: String,
    /// The Pod of its last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
}

/// A run's tasks as KFP shows them.
pub(in crate::kfp) fn details(tasks: Vec<records::Task>, attempts: Vec<records::Attempt>) -> Vec<TaskDetail> {
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
        display_name: shown_name(&row),
        create_time: Time(row.created_at),
        start_time: row.started_at.map(Time),
        end_time: row.finished_at.map(Time),
        executor_detail: pod_name.clone().map(|main_job| ExecutorDetail {
            main_job,
            failed_main_jobs: list(pods),
        }),
        // As KFP shows a task that was not run because its outputs were known.
        state: if is_cached(&row) {
            RuntimeState::Skipped
        } else {
            row.state
        },
        error: row.error.as_ref().map(status_of),
        inputs: artifact_lists(row.inputs.artifacts),
        outputs: artifact_lists(row.outputs.artifacts),
        parent_task_id: row.parent_id.map(|id| id.to_string()),
        state_history: RuntimeStatus::history(&row.state_history),
        pod_name,
        child_tasks: list(children),
    }
}
