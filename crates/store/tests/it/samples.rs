//! Rows and objects for the cases, with as little said about each as the case needs.

use std::collections::BTreeMap;

use coracle_api::{
    id::{ArtifactId, EventId, ExperimentId, PipelineId, PipelineVersionId, RecurringRunId, RunId, TaskId},
    launch::Failure,
    reason::Reason,
    state::{RuntimeState, StorageState},
};
use coracle_store::{
    Store,
    records::{
        Artifact, ArtifactTask, Attempt, AttemptSpec, CacheEntry, CachedFrom, Experiment, IoType, NewRun,
        Pipeline, PipelineVersion, RecurringRun, Run, Schedule, ScheduleProgress, StateChange, Task,
        TaskEvent, TaskIo, TaskKind, Trigger,
    },
    resources::{GroupResource, Key},
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Second `seconds` of the year 2026.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

pub(crate) fn pods() -> GroupResource {
    GroupResource::new("", "pods")
}

pub(crate) fn pod(namespace: &str, name: &str) -> Key {
    Key {
        resource: pods(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A body that differs by `value`.
pub(crate) fn body(value: impl Into<Value>) -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"value": value.into()}})
}

pub(crate) fn experiment(name: &str) -> Experiment {
    Experiment {
        id: ExperimentId::new(),
        namespace: "team".to_owned(),
        name: name.to_owned(),
        description: format!("about {name}"),
        storage_state: StorageState::Available,
        created_at: at(0),
        last_run_created_at: None,
    }
}

pub(crate) fn pipeline(name: &str) -> Pipeline {
    Pipeline {
        id: PipelineId::new(),
        namespace: "team".to_owned(),
        name: name.to_owned(),
        display_name: format!("The {name}"),
        description: String::new(),
        tags: BTreeMap::new(),
        created_at: at(0),
    }
}

pub(crate) fn version(pipeline: &Pipeline, name: &str) -> PipelineVersion {
    PipelineVersion {
        id: PipelineVersionId::new(),
        pipeline_id: pipeline.id,
        name: name.to_owned(),
        display_name: format!("The {name}"),
        description: String::new(),
        code_source_url: "https://example.org/code".to_owned(),
        package_url: String::new(),
        tags: BTreeMap::new(),
        document: json!({"pipelineInfo": {"name": pipeline.name}, "root": {"version": name}}),
        warnings: vec!["root.surprise: unknown field".to_owned()],
        created_at: at(0),
    }
}

pub(crate) fn new_run(experiment_id: ExperimentId, name: &str) -> NewRun {
    NewRun {
        id: RunId::new(),
        experiment_id,
        display_name: name.to_owned(),
        description: format!("about {name}"),
        pipeline_id: None,
        pipeline_version_id: None,
        document: json!({"pipelineInfo": {"name": "hello"}}),
        parameters: Map::from_iter([("rate".to_owned(), json!(0.5))]),
        pipeline_root: String::new(),
        service_account: "runner".to_owned(),
        recurring_run_id: None,
        scheduled_at: at(0),
        created_at: at(0),
    }
}

/// A run of an experiment of its own.
pub(crate) async fn stored_run(store: &Store) -> Run {
    let name = RunId::new().to_string();
    let experiment = experiment(&name);
    let new = new_run(experiment.id, &name);
    store.records().create_experiment(experiment).await.unwrap();
    store.records().create_run(new).await.unwrap()
}

pub(crate) fn task(run_id: RunId, path: &str) -> Task {
    Task {
        id: TaskId::at(run_id, path),
        run_id,
        parent_id: path
            .rsplit_once('.')
            .map(|(parent, _)| TaskId::at(run_id, parent)),
        path: path.to_owned(),
        name: path.rsplit('.').next().unwrap().to_owned(),
        display_name: path.to_uppercase(),
        kind: TaskKind::Container,
        iteration: Some(3),
        state: RuntimeState::Failed,
        state_history: vec![StateChange {
            time: at(1),
            state: RuntimeState::Failed,
            error: Some(failure()),
        }],
        error: Some(failure()),
        inputs: TaskIo {
            parameters: Map::from_iter([("rate".to_owned(), json!({"nested": [1, "é", null]}))]),
            artifacts: BTreeMap::from([("data".to_owned(), vec![ArtifactId::new()])]),
        },
        outputs: TaskIo::default(),
        retries: 2,
        retry_at: Some(at(9)),
        cached_from: Some(CachedFrom {
            run_id,
            task_id: TaskId::at(run_id, "root.before"),
        }),
        created_at: at(1),
        started_at: Some(at(2)),
        finished_at: None,
    }
}

pub(crate) fn failure() -> Failure {
    Failure {
        reason: Reason::CommandFailed,
        message: "exit code 1; it's \"said\" so".to_owned(),
    }
}

pub(crate) fn attempt(task: &Task, number: u32) -> Attempt {
    Attempt {
        task_id: task.id,
        run_id: task.run_id,
        number,
        namespace: "team".to_owned(),
        pod_name: format!("pod-{number}"),
        token: format!("token-{}-{number}", task.id),
        state: RuntimeState::Running,
        error: None,
        exit_code: Some(-1),
        log_uri: "/logs/1".to_owned(),
        created_at: at(3),
        started_at: None,
        finished_at: Some(at(4)),
    }
}

pub(crate) fn spec(attempt: &Attempt) -> AttemptSpec {
    AttemptSpec {
        task_id: attempt.task_id,
        number: attempt.number,
        launch: r#"{"command":["sh","-c","true"],"number":1.50}"#.to_owned(),
        pod: r#"{"kind":"Pod","text":"\u0000\n'ü"}"#.to_owned(),
    }
}

pub(crate) fn event(task: &Task, reason: &str) -> TaskEvent {
    TaskEvent {
        id: EventId::new(),
        run_id: task.run_id,
        task_id: task.id,
        time: at(5),
        kind: "Normal".to_owned(),
        reason: reason.to_owned(),
        message: "something happened".to_owned(),
    }
}

pub(crate) fn artifact(uri: &str) -> Artifact {
    Artifact {
        id: ArtifactId::new(),
        namespace: "team".to_owned(),
        name: "model".to_owned(),
        artifact_type: "system.Model".to_owned(),
        type_version: "0.0.1".to_owned(),
        uri: uri.to_owned(),
        metadata: Map::from_iter([("accuracy".to_owned(), json!(0.9))]),
        digest: Some("sha256:00".to_owned()),
        size: Some(12),
        created_at: at(6),
    }
}

pub(crate) fn output(task: &Task, artifact: &Artifact, key: &str) -> ArtifactTask {
    ArtifactTask {
        artifact_id: artifact.id,
        run_id: task.run_id,
        task_id: task.id,
        io: IoType::Output,
        key: key.to_owned(),
        position: 0,
        producer_task: "train".to_owned(),
    }
}

pub(crate) fn recurring_run(experiment_id: ExperimentId, name: &str) -> RecurringRun {
    RecurringRun {
        id: RecurringRunId::new(),
        experiment_id,
        namespace: "team".to_owned(),
        display_name: name.to_owned(),
        description: format!("about {name}"),
        pipeline_id: None,
        pipeline_version_id: None,
        document: Some(json!({"pipelineInfo": {"name": "hello"}})),
        parameters: Map::from_iter([("day".to_owned(), json!("[[CurrentTime]]"))]),
        pipeline_root: "s3://bucket/root".to_owned(),
        service_account: "runner".to_owned(),
        trigger: Trigger {
            schedule: Schedule::Cron("0 0 2 * * *".to_owned()),
            start: Some(at(0)),
            end: None,
        },
        enabled: true,
        max_concurrency: 2,
        no_catchup: true,
        created_at: at(0),
        updated_at: at(1),
        progress: ScheduleProgress::default(),
    }
}

pub(crate) fn cache_entry(task: &Task, key: &str, artifacts: &[&Artifact]) -> CacheEntry {
    CacheEntry {
        key: key.to_owned(),
        namespace: "team".to_owned(),
        pipeline_name: "hello".to_owned(),
        task_name: task.name.clone(),
        made_by: CachedFrom {
            run_id: task.run_id,
            task_id: task.id,
        },
        outputs: TaskIo {
            parameters: Map::from_iter([("loss".to_owned(), json!(0.1))]),
            artifacts: BTreeMap::from([(
                "model".to_owned(),
                artifacts.iter().map(|artifact| artifact.id).collect(),
            )]),
        },
        created_at: at(7),
    }
}
