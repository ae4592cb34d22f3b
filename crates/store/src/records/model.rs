//! The rows, as the rest of Coracle sees them. Times are UTC with microseconds.

use std::collections::BTreeMap;

use coracle_api::{
    id::{ArtifactId, EventId, ExperimentId, PipelineId, PipelineVersionId, RecurringRunId, RunId, TaskId},
    launch::Failure,
    state::{RuntimeState, StorageState},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A named group of runs. Names are unique within a namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Its id.
    pub id: ExperimentId,
    /// The namespace that owns it.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// Whether it is shown.
    pub storage_state: StorageState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a run was last made in it.
    pub last_run_created_at: Option<Timestamp>,
}

/// A series of versions under one name. Names are unique within a namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Its id.
    pub id: PipelineId,
    /// The namespace that owns it.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The name shown.
    pub display_name: String,
    /// What it does.
    pub description: String,
    /// Labels of the user's own.
    pub tags: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One version of a pipeline. Names are unique within the pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineVersion {
    /// Its id.
    pub id: PipelineVersionId,
    /// The pipeline it belongs to.
    pub pipeline_id: PipelineId,
    /// Its name.
    pub name: String,
    /// The name shown.
    pub display_name: String,
    /// What changed.
    pub description: String,
    /// Where its source is.
    pub code_source_url: String,
    /// Where it was fetched from.
    pub package_url: String,
    /// Labels of the user's own.
    pub tags: BTreeMap<String, String>,
    /// The document, as the API shows it: the IR, or `{pipeline_spec, platform_spec}`.
    pub document: Value,
    /// What was noticed in the document and does not stop it from running, e.g. unknown fields.
    pub warnings: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What to change of a pipeline or of a version. What is not given stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PipelineUpdate {
    /// The name shown.
    pub display_name: Option<String>,
    /// What it does, or what changed.
    pub description: Option<String>,
    /// All labels: those that are not among these go.
    pub tags: Option<BTreeMap<String, String>>,
}

/// One execution of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The experiment it belongs to.
    pub experiment_id: ExperimentId,
    /// The namespace that owns it.
    pub namespace: String,
    /// The name shown.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Whether it is shown.
    pub storage_state: StorageState,
    /// The pipeline it was made from, unless inline.
    pub pipeline_id: Option<PipelineId>,
    /// The version it was made from, unless inline.
    pub pipeline_version_id: Option<PipelineVersionId>,
    /// Digest of the document it runs: [`super::Records::document`] gives the document.
    pub document_digest: String,
    /// Parameters as the caller gave them.
    pub parameters: Map<String, Value>,
    /// Where its artifacts go, when the caller said so.
    pub pipeline_root: String,
    /// The Kubernetes service account asked for.
    pub service_account: String,
    /// Where it stands. Written by the engine.
    pub state: RuntimeState,
    /// Why it failed. Written by the engine.
    pub error: Option<Failure>,
    /// Each state it was in. Written by the engine.
    pub state_history: Vec<StateChange>,
    /// Whether somebody asked it to stop. Written by the façade; cleared by the engine.
    pub termination_requested: bool,
    /// Whether somebody asked it, ended as it is, to go on from what succeeded. Written by the
    /// façade; cleared by the engine.
    pub retry_requested: bool,
    /// The recurring run that made it.
    pub recurring_run_id: Option<RecurringRunId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was due.
    pub scheduled_at: Timestamp,
    /// When it ended. Written by the engine.
    pub finished_at: Option<Timestamp>,
}

impl Run {
    /// Whether it has ended, and nobody has asked it to go on.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.state.is_terminal() && !self.retry_requested
    }

    /// Whether it has ended, and is about to go on.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        self.state.is_terminal() && self.retry_requested
    }

    /// Why it has yet to begin or to go on, if it was told to wait.
    #[must_use]
    pub fn waits_for(&self) -> Option<&Failure> {
        let is_to_begin = self.state == RuntimeState::Pending || self.goes_on();
        let last = self.state_history.last().filter(|_| is_to_begin)?;
        last.error
            .as_ref()
            .filter(|_| last.state == RuntimeState::Pending)
    }
}

/// One entry of a state history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// When the state began.
    pub time: Timestamp,
    /// The state.
    pub state: RuntimeState,
    /// Why, when it is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What makes a run, before it has a state.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its id, drawn by the caller.
    pub id: RunId,
    /// The experiment it belongs to.
    pub experiment_id: ExperimentId,
    /// The name shown.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// The pipeline it is made from, unless inline.
    pub pipeline_id: Option<PipelineId>,
    /// The version it is made from, unless inline.
    pub pipeline_version_id: Option<PipelineVersionId>,
    /// The document it runs, as the API shows it.
    pub document: Value,
    /// Parameters as the caller gave them.
    pub parameters: Map<String, Value>,
    /// Where its artifacts go, when the caller says so.
    pub pipeline_root: String,
    /// The Kubernetes service account asked for.
    pub service_account: String,
    /// The recurring run that makes it.
    pub recurring_run_id: Option<RecurringRunId>,
    /// When it was due: `created_at`, unless a recurring run makes it.
    pub scheduled_at: Timestamp,
    /// Now.
    pub created_at: Timestamp,
}

/// A node of a run's task tree. Iterations of a loop are nodes of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id: a function of run and path.
    pub id: TaskId,
    /// The run.
    pub run_id: RunId,
    /// The task that holds it; the root has none.
    pub parent_id: Option<TaskId>,
    /// Where it is in the tree: `root`, `root.train`, `root.for-loop-1.3.train`.
    pub path: String,
    /// Its name in the DAG that holds it.
    pub name: String,
    /// The name shown.
    pub display_name: String,
    /// What it does.
    pub kind: TaskKind,
    /// Which iteration of a loop it is, from 0.
    pub iteration: Option<i64>,
    /// Where it stands.
    pub state: RuntimeState,
    /// Each state it was in.
    pub state_history: Vec<StateChange>,
    /// Why it failed or was skipped.
    pub error: Option<Failure>,
    /// Its inputs, once known.
    pub inputs: TaskIo,
    /// Its outputs, once known.
    pub outputs: TaskIo,
    /// How often it was tried again by its own retry policy, since the run was last retried.
    pub retries: u32,
    /// When it is tried again; set while it waits for that.
    pub retry_at: Option<Timestamp>,
    /// Whose outputs it took over instead of running.
    pub cached_from: Option<CachedFrom>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it left PENDING.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// The task whose outputs another took over. Either may be deleted since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedFrom {
    /// The run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
}

/// The outputs of a task, kept to be taken over by tasks that would do the same again.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheEntry {
    /// What was done: a digest of everything that decides the outputs.
    pub key: String,
    /// The namespace that owns it.
    pub namespace: String,
    /// The name of the pipeline: entries are only found by runs of the same pipeline.
    pub pipeline_name: String,
    /// The task's name in its DAG.
    pub task_name: String,
    /// Who did it.
    pub made_by: CachedFrom,
    /// What came of it.
    pub outputs: TaskIo,
    /// When.
    pub created_at: Timestamp,
}

/// What makes runs again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct RecurringRun {
    /// Its id.
    pub id: RecurringRunId,
    /// The experiment that its runs belong to.
    pub experiment_id: ExperimentId,
    /// The namespace that owns it.
    pub namespace: String,
    /// The name shown; its runs carry it too.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// The pipeline its runs are made from, unless inline.
    pub pipeline_id: Option<PipelineId>,
    /// The version; none for the latest one at the time of each run.
    pub pipeline_version_id: Option<PipelineVersionId>,
    /// The inline document, as the API shows it; none when `pipeline_id` is set.
    pub document: Option<Value>,
    /// Parameters; texts may hold `[[ScheduledTime]]` and the like.
    pub parameters: Map<String, Value>,
    /// Where artifacts go, when the caller said so.
    pub pipeline_root: String,
    /// The Kubernetes service account asked for.
    pub service_account: String,
    /// When runs are due.
    pub trigger: Trigger,
    /// Whether it makes runs. Written by the façade.
    pub enabled: bool,
    /// How many of its runs may be unfinished at once.
    pub max_concurrency: u32,
    /// Whether times that passed unused are given up, but for the last one.
    pub no_catchup: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed by a user.
    pub updated_at: Timestamp,
    /// Where it stands. Written by the scheduler.
    pub progress: ScheduleProgress,
}

/// How far a recurring run has come. Written by the scheduler, together with the run it made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleProgress {
    /// The last time that was used or given up; none before the first.
    pub last_due: Option<Timestamp>,
    /// Runs made so far.
    pub runs_made: u32,
    /// Why the last run that was due could not be made.
    pub error: Option<Failure>,
}

/// When runs are due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Trigger {
    /// The pattern.
    pub schedule: Schedule,
    /// Not before.
    #[serde(default)]
    pub start: Option<Timestamp>,
    /// Not after.
    #[serde(default)]
    pub end: Option<Timestamp>,
}

/// A pattern of times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Six fields, seconds first, in UTC, as KFP takes them.
    Cron(String),
    /// Every so many seconds.
    Every(u64),
}

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskKind {
    /// The outermost DAG of a run.
    Root,
    /// A DAG inside another.
    Dag,
    /// A loop: its children are iterations.
    Loop,
    /// One iteration of a loop.
    Iteration,
    /// A container.
    Container,
    /// Registers an artifact that exists.
    Importer,
}

/// Parameters and artifacts at one side of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskIo {
    /// Values by name.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// Artifacts by name, in order.
    #[serde(default)]
    pub artifacts: BTreeMap<String, Vec<ArtifactId>>,
}

/// One try at a task: one Pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The task.
    pub task_id: TaskId,
    /// The run.
    pub run_id: RunId,
    /// From 1.
    pub number: u32,
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name: a function of run, task and attempt.
    pub pod_name: String,
    /// What the launcher shows to be let in.
    pub token: String,
    /// Where it stands.
    pub state: RuntimeState,
    /// Why it failed.
    pub error: Option<Failure>,
    /// The user command's exit code.
    pub exit_code: Option<i32>,
    /// The log's URI.
    pub log_uri: String,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When the process started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What an attempt is given: written with it, and never changed. Apart from it, because it is large
/// and asked for by few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptSpec {
    /// The task.
    pub task_id: TaskId,
    /// The attempt.
    pub number: u32,
    /// What the launcher fetches: the JSON of [`coracle_api::launch::Spec`].
    pub launch: String,
    /// The Pod to create, as JSON.
    pub pod: String,
}

/// An entry of a task's history that a person reads.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskEvent {
    /// Its id.
    pub id: EventId,
    /// The run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// When.
    pub time: Timestamp,
    /// `Normal` or `Warning`, as in Kubernetes events.
    pub kind: String,
    /// A stable name.
    pub reason: String,
    /// What happened.
    pub message: String,
}

/// Something that a task made or that was imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    /// Its id.
    pub id: ArtifactId,
    /// The namespace that owns it.
    pub namespace: String,
    /// Its name: that of the output it was made as.
    pub name: String,
    /// E.g. `system.Model`.
    pub artifact_type: String,
    /// E.g. `0.0.1`.
    pub type_version: String,
    /// Where its bytes are.
    pub uri: String,
    /// What user code recorded about it.
    pub metadata: Map<String, Value>,
    /// `sha256:HEX`, when it has bytes that were read.
    pub digest: Option<String>,
    /// Bytes in all.
    pub size: Option<u64>,
    /// When it was recorded.
    pub created_at: Timestamp,
}

/// That a task consumed or made an artifact. Names follow KFP's `ArtifactTask`
/// (kubeflow/pipelines, branch `mlmd-removal`).
#[derive(Debug, Clone, PartialEq)]
pub struct ArtifactTask {
    /// The artifact.
    pub artifact_id: ArtifactId,
    /// The run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// Which side, and how.
    pub io: IoType,
    /// The input's or output's name.
    pub key: String,
    /// Its place in a list, from 0.
    pub position: i64,
    /// The task that made it, for an input.
    pub producer_task: String,
}

/// How a task met an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum IoType {
    /// Handed down by the component that holds the task.
    ComponentInput,
    /// Made by another task.
    TaskOutputInput,
    /// Gathered from a loop.
    CollectedInputs,
    /// Made by this task.
    Output,
    /// Chosen among branches.
    OneOfOutput,
    /// The log of an attempt.
    ExecutorLog,
}

/// All that the engine writes in one transaction. Rows are inserted, or replaced by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commit {
    /// The run's own new state.
    pub run: Option<RunStatus>,
    /// Tasks that changed.
    pub tasks: Vec<Task>,
    /// Attempts that changed.
    pub attempts: Vec<Attempt>,
    /// What attempts that are new are given.
    pub specs: Vec<AttemptSpec>,
    /// What happened.
    pub events: Vec<TaskEvent>,
    /// Artifacts that came to be.
    pub artifacts: Vec<Artifact>,
    /// Who made or consumed what.
    pub artifact_tasks: Vec<ArtifactTask>,
    /// Outputs to be taken over by later tasks.
    pub cache_entries: Vec<CacheEntry>,
}

/// The part of a run that the engine writes.
#[derive(Debug, Clone, PartialEq)]
pub struct RunStatus {
    /// Where it stands.
    pub state: RuntimeState,
    /// Why it failed.
    pub error: Option<Failure>,
    /// Each state it was in.
    pub state_history: Vec<StateChange>,
    /// Whether it goes on because somebody asked for it: clears `retry_requested` and
    /// `termination_requested`. A request that the engine has not seen is never cleared.
    pub retried: bool,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// Something in the records changed. Sent after the transaction is durable; a receiver that lags
/// reads the rows again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A run was made.
    RunCreated(RunId),
    /// Somebody asked a run to stop.
    TerminationRequested(RunId),
    /// Somebody asked a run that ended to go on from what succeeded.
    RetryRequested(RunId),
    /// A launcher reported.
    Reported {
        /// The run.
        run_id: RunId,
        /// The task.
        task_id: TaskId,
        /// The attempt.
        attempt: u32,
    },
    /// The engine wrote something about a run.
    RunChanged(RunId),
    /// A run was deleted.
    RunDeleted(RunId),
    /// A recurring run was made, changed or deleted by a user.
    RecurringRunChanged(RecurringRunId),
}
