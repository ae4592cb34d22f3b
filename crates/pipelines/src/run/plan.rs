//! What happens next in a run. Pure: no clock, no I/O, no randomness but the tokens it draws from
//! its caller.
//!
//! An [`Event`] goes in, a [`Plan`] comes out: rows to write in one transaction, then Pods to
//! create and delete. One event costs the tasks it changes. The life of a task:
//!
//! ```text
//! PENDING ── upstream ended ──► decided ─► SKIPPED    an upstream failed or was skipped, or the
//!                                  │                  condition is false
//!                                  ├─► FAILED         an input cannot be resolved
//!                                  ├─► RUNNING        a DAG: its tasks begin; it ends with them
//!                                  └─► attempt ─► PENDING … RUNNING ─► SUCCEEDED | FAILED
//! any ── the run is asked to stop ──► CANCELED, after its Pod is gone
//! ```

use std::collections::{BTreeSet, VecDeque};

use coracle_api::{
    id::{ArtifactId, EventId, TaskId},
    launch::{Failure, Report},
    reason::Reason,
    state::RuntimeState,
};
use coracle_store::records::{
    Artifact, ArtifactTask, Commit, IoType, RunStatus, StateChange, Task, TaskEvent, TaskIo, TaskKind,
};
use jiff::Timestamp;

use super::{
    observe::{PodEnd, PodView},
    pipeline::Pipeline,
    state::State,
};
use crate::task::{container::Settings, outputs};

mod begin;

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The engine took the run up, for the first time or again after a restart.
    Resumed,
    /// Somebody asked the run to stop.
    TerminationRequested,
    /// A Pod of the run looks like this.
    Pod {
        /// The task.
        task: TaskId,
        /// The attempt.
        number: u32,
        /// What its status says.
        view: PodView,
    },
    /// A launcher reported.
    Reported {
        /// The task.
        task: TaskId,
        /// The attempt.
        number: u32,
        /// What it said.
        report: Report,
    },
    /// An import was made.
    Imported {
        /// The task.
        task: TaskId,
        /// The artifact, new or known before.
        artifact: Box<Artifact>,
    },
    /// A Pod was not accepted by the Kubernetes API.
    PodRefused {
        /// The task.
        task: TaskId,
        /// The attempt.
        number: u32,
        /// The API's words.
        message: String,
    },
}

/// What to do, in this order: write, create, import, delete.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Rows to write in one transaction.
    pub commit: Commit,
    /// Pods to create, by attempt.
    pub create: Vec<(TaskId, u32)>,
    /// Artifacts to import.
    pub imports: Vec<Import>,
    /// Pods to delete, by attempt.
    pub delete: Vec<(TaskId, u32)>,
}

impl Plan {
    /// Adds what comes after.
    pub fn extend(&mut self, next: Self) {
        let Self {
            commit:
                Commit {
                    run,
                    tasks,
                    attempts,
                    events,
                    artifacts,
                    artifact_tasks,
                },
            create,
            imports,
            delete,
        } = next;
        self.commit.run = run.or_else(|| self.commit.run.take());
        self.commit.tasks.extend(tasks);
        self.commit.attempts.extend(attempts);
        self.commit.events.extend(events);
        self.commit.artifacts.extend(artifacts);
        self.commit.artifact_tasks.extend(artifact_tasks);
        self.create.extend(create);
        self.imports.extend(imports);
        self.delete.extend(delete);
    }
}

/// An artifact that exists, to be known under a task's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The importer task.
    pub task: TaskId,
    /// The row to add, unless one is known.
    pub artifact: Artifact,
    /// Whether to add it even if one of this URI is known.
    pub reimport: bool,
}

/// Works out what `event` leads to, and brings `state` up to it.
pub fn step(
    pipeline: &Pipeline,
    settings: &Settings,
    state: &mut State,
    event: Event,
    token: &mut dyn FnMut() -> String,
    now: Timestamp,
) -> Plan {
    let mut planner = Planner {
        pipeline,
        settings,
        state,
        token,
        now,
        plan: Plan::default(),
        changed: BTreeSet::new(),
        run_changed: false,
        work: VecDeque::new(),
    };
    planner.handle(event);
    planner.settle();
    planner.finish()
}

/// One step that an event leads to.
enum Work {
    /// A task's upstream has ended.
    Decide(TaskId),
    /// A task has ended.
    Ended(TaskId),
}

struct Planner<'a> {
    pipeline: &'a Pipeline,
    settings: &'a Settings,
    state: &'a mut State,
    token: &'a mut dyn FnMut() -> String,
    now: Timestamp,
    plan: Plan,
    changed: BTreeSet<TaskId>,
    run_changed: bool,
    work: VecDeque<Work>,
}

impl Planner<'_> {
    fn handle(&mut self, event: Event) {
        if self.state.run.state.is_terminal() {
            return;
        }
        match event {
            Event::Resumed => self.resume(),
            Event::TerminationRequested => self.terminate(),
            Event::Pod { task, number, view } => self.observe_pod(task, number, view),
            Event::Reported { task, number, report } => {
                if let Some(node) = self.state.nodes.get_mut(&task)
                    && node
                        .current_attempt()
                        .is_some_and(|attempt| attempt.number == number)
                {
                    node.report = Some(report);
                    self.conclude(task);
                }
            }
            Event::Imported { task, artifact } => self.imported(task, *artifact),
            Event::PodRefused {
                task,
                number,
                message,
            } => {
                let failure = Failure {
                    reason: Reason::PodNotCreated,
                    message,
                };
                self.pod_ended(
                    task,
                    number,
                    PodEnd {
                        failure: Some(failure),
                        exit_code: None,
                    },
                );
            }
        }
    }

    fn settle(&mut self) {
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Decide(task) => self.decide(task),
                Work::Ended(task) => self.ended(task),
            }
        }
    }

    /// Collects the rows that changed.
    fn finish(mut self) -> Plan {
        let Self {
            state, changed, plan, ..
        } = &mut self;
        for id in changed.iter() {
            if let Some(node) = state.nodes.get(id) {
                plan.commit.tasks.push(node.task.clone());
                plan.commit.attempts.extend(node.attempts.last().cloned());
            }
        }
        if self.run_changed {
            let run = &self.state.run;
            self.plan.commit.run = Some(RunStatus {
                state: run.state,
                error: run.error.clone(),
                state_history: run.state_history.clone(),
                finished_at: run.finished_at,
            });
        }
        self.plan
    }

    fn resume(&mut self) {
        if self.state.run.state == RuntimeState::Pending && self.state.nodes.is_empty() {
            self.begin_run();
        } else {
            self.repeat_effects();
        }
        if self.state.run.termination_requested && !self.state.is_canceling() {
            self.terminate();
        }
    }

    /// What was written before a restart and perhaps not done.
    fn repeat_effects(&mut self) {
        let mut ids: Vec<TaskId> = self.state.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(node) = self.state.nodes.get(&id) else {
                continue;
            };
            match node.current_attempt() {
                Some(attempt) if attempt.state == RuntimeState::Pending => {
                    self.plan.create.push((id, attempt.number));
                    if self.state.is_canceling() {
                        self.plan.delete.push((id, attempt.number));
                    }
                }
                Some(attempt) if self.state.is_canceling() => self.plan.delete.push((id, attempt.number)),
                Some(_) => {}
                None if node.task.kind == TaskKind::Importer && node.task.state == RuntimeState::Running => {
                    self.begin_import(id);
                }
                None => {}
            }
            self.conclude(id);
        }
    }

    fn terminate(&mut self) {
        self.state.run.termination_requested = true;
        self.set_run_state(RuntimeState::Canceling, None);
        let mut ids: Vec<TaskId> = self.state.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(node) = self.state.nodes.get(&id) else {
                continue;
            };
            if node.task.state.is_terminal() {
                continue;
            }
            match node.current_attempt() {
                Some(attempt) => {
                    self.plan.delete.push((id, attempt.number));
                    self.set_task_state(id, RuntimeState::Canceling, None);
                }
                None if node.task.state == RuntimeState::Pending || node.task.kind == TaskKind::Importer => {
                    self.end_canceled(id);
                }
                None => {}
            }
        }
    }

    fn end_canceled(&mut self, id: TaskId) {
        let message = "the run was asked to stop".to_owned();
        self.end(
            id,
            RuntimeState::Canceled,
            Some(Failure {
                reason: Reason::RunTerminated,
                message,
            }),
        );
    }

    /// What happens to a task whose upstream has ended.
    fn decide(&mut self, id: TaskId) {
        let Some(node) = self.state.nodes.get(&id) else {
            return;
        };
        if node.task.state != RuntimeState::Pending || node.current_attempt().is_some() {
            return;
        }
        if self.state.is_canceling() {
            return self.end_canceled(id);
        }
        match self.verdict(id) {
            Ok(begin::Verdict::Run(inputs)) => self.begin_task(id, inputs),
            Ok(begin::Verdict::Skip(why)) => self.end(id, RuntimeState::Skipped, why),
            Err(failure) => self.end(id, RuntimeState::Failed, Some(failure)),
        }
    }

    fn observe_pod(&mut self, id: TaskId, number: u32, view: PodView) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        let Some(attempt) = node.attempts.last_mut() else {
            return;
        };
        if attempt.number != number || attempt.state.is_terminal() {
            return;
        }
        match view {
            PodView::Pending => {}
            PodView::Waiting(failure) => {
                let said = format!("{}: {}", failure.reason, failure.message);
                if node.waiting_reason.as_ref() != Some(&said) {
                    node.waiting_reason = Some(said);
                    self.event(id, "Warning", failure.reason.into(), failure.message);
                }
            }
            PodView::Stuck(failure) => {
                self.plan.delete.push((id, number));
                self.pod_ended(
                    id,
                    number,
                    PodEnd {
                        failure: Some(failure),
                        exit_code: None,
                    },
                );
            }
            PodView::Running(since) => {
                if attempt.state == RuntimeState::Pending {
                    attempt.state = RuntimeState::Running;
                    attempt.started_at = since.or(Some(self.now));
                    self.changed.insert(id);
                    if node.task.state == RuntimeState::Pending {
                        self.set_task_state(id, RuntimeState::Running, None);
                    }
                }
            }
            PodView::Ended(end) => self.pod_ended(id, number, end),
        }
    }

    fn pod_ended(&mut self, id: TaskId, number: u32, end: PodEnd) {
        if let Some(node) = self.state.nodes.get_mut(&id)
            && node
                .current_attempt()
                .is_some_and(|attempt| attempt.number == number)
        {
            node.pod_end = Some(end);
            self.conclude(id);
        }
    }

    /// Ends the attempt under way once it is known how: a result counts as soon as it is there; a
    /// failure waits for the Pod's end, which may know better (memory, signals).
    fn conclude(&mut self, id: TaskId) {
        let canceling = self.state.is_canceling();
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        if node.current_attempt().is_none() {
            return;
        }
        let failure = match (&node.report, &node.pod_end) {
            (Some(Report { failure: None, .. }), _) => None,
            (
                Some(Report {
                    failure: Some(reported),
                    ..
                }),
                Some(end),
            ) => {
                let out_of_memory = end
                    .failure
                    .as_ref()
                    .filter(|failure| failure.reason == Reason::OOMKilled);
                Some(out_of_memory.unwrap_or(reported).clone())
            }
            (None, Some(end)) => Some(end.failure.clone().unwrap_or_else(|| Failure {
                reason: Reason::ResultMissing,
                message: "the Pod ended well and no result came from its launcher".to_owned(),
            })),
            (Some(_), None) | (None, None) => return,
        };
        let report = node.report.take();
        let exit_code = node.pod_end.take().and_then(|end| end.exit_code);
        let (state, failure) = match failure {
            None => (RuntimeState::Succeeded, None),
            Some(_) if canceling => {
                let message = "the run was asked to stop".to_owned();
                (
                    RuntimeState::Canceled,
                    Some(Failure {
                        reason: Reason::RunTerminated,
                        message,
                    }),
                )
            }
            Some(failure) => (RuntimeState::Failed, Some(failure)),
        };
        if let Some(attempt) = node.attempts.last_mut() {
            attempt.state = state;
            attempt.error.clone_from(&failure);
            attempt.exit_code = report.as_ref().and_then(|report| report.exit_code).or(exit_code);
            attempt.finished_at = Some(self.now);
            let ran = attempt.started_at.is_some() || report.is_some();
            if attempt.started_at.is_none() && ran {
                attempt.started_at = Some(attempt.created_at);
            }
            if ran {
                self.record_log(id);
            }
        }
        if let Some(report) = report {
            let outputs = self.record_outputs(id, report);
            if let Some(node) = self.state.nodes.get_mut(&id) {
                node.task.outputs = outputs;
            }
        }
        self.end(id, state, failure);
    }

    fn record_log(&mut self, id: TaskId) {
        let Some(attempt) = self.state.nodes.get(&id).and_then(|node| node.attempts.last()) else {
            return;
        };
        let artifact = Artifact {
            id: ArtifactId::of_output(id, attempt.number, "executor-logs", 0),
            namespace: self.state.run.namespace.clone(),
            name: "executor-logs".to_owned(),
            artifact_type: "system.Artifact".to_owned(),
            type_version: "0.0.1".to_owned(),
            uri: attempt.log_uri.clone(),
            metadata: Default::default(),
            digest: None,
            size: None,
            created_at: self.now,
        };
        self.link(
            id,
            artifact.id,
            IoType::ExecutorLog,
            "executor-logs",
            0,
            String::new(),
        );
        self.add_artifact(artifact);
    }

    /// Rows for what an attempt made; its outputs.
    fn record_outputs(&mut self, id: TaskId, report: Report) -> TaskIo {
        let number = self.state.nodes.get(&id).map_or(1, |node| node.attempts.len());
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut outputs = TaskIo {
            parameters: report.parameters.into_iter().collect(),
            ..TaskIo::default()
        };
        for (key, produced) in report.artifacts {
            let mut ids = Vec::with_capacity(produced.len());
            for (position, made) in produced.into_iter().enumerate() {
                let artifact = Artifact {
                    id: ArtifactId::of_output(id, number, &key, position),
                    namespace: self.state.run.namespace.clone(),
                    name: key.clone(),
                    artifact_type: made.artifact.artifact_type.schema_title,
                    type_version: made.artifact.artifact_type.schema_version,
                    uri: made.artifact.uri,
                    metadata: made.artifact.metadata,
                    digest: made.digest,
                    size: made.size,
                    created_at: self.now,
                };
                ids.push(artifact.id);
                self.link(id, artifact.id, IoType::Output, &key, position, String::new());
                self.add_artifact(artifact);
            }
            outputs.artifacts.insert(key, ids);
        }
        outputs
    }

    fn imported(&mut self, id: TaskId, artifact: Artifact) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        if node.task.state.is_terminal() {
            return;
        }
        node.task
            .outputs
            .artifacts
            .insert(begin::IMPORTED.to_owned(), vec![artifact.id]);
        self.link(id, artifact.id, IoType::Output, begin::IMPORTED, 0, String::new());
        self.add_artifact(artifact);
        self.end(id, RuntimeState::Succeeded, None);
    }

    fn add_artifact(&mut self, artifact: Artifact) {
        self.state.artifacts.insert(artifact.id, artifact.clone());
        self.plan.commit.artifacts.push(artifact);
    }

    fn link(
        &mut self,
        task: TaskId,
        artifact: ArtifactId,
        io: IoType,
        key: &str,
        position: usize,
        producer: String,
    ) {
        self.plan.commit.artifact_tasks.push(ArtifactTask {
            artifact_id: artifact,
            run_id: self.state.run.id,
            task_id: task,
            io,
            key: key.to_owned(),
            position: i64::try_from(position).unwrap_or(i64::MAX),
            producer_task: producer,
        });
    }

    /// A task has reached its last state.
    fn end(&mut self, id: TaskId, state: RuntimeState, failure: Option<Failure>) {
        if let Some(failure) = failure.as_ref().filter(|_| state == RuntimeState::Failed) {
            self.event(id, "Warning", failure.reason.into(), failure.message.clone());
        }
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.task.finished_at = Some(self.now);
        }
        self.set_task_state(id, state, failure);
        self.work.push_back(Work::Ended(id));
    }

    /// Tells those who waited for a task, and the DAG that holds it.
    fn ended(&mut self, id: TaskId) {
        let Some(node) = self.state.nodes.get(&id) else {
            return;
        };
        let waiting: Vec<TaskId> = self.state.downstream(self.pipeline, node).collect();
        let parent = node.task.parent_id;
        for other in waiting {
            if let Some(node) = self.state.nodes.get_mut(&other) {
                node.waiting_for = node.waiting_for.saturating_sub(1);
                if node.waiting_for == 0 {
                    self.work.push_back(Work::Decide(other));
                }
            }
        }
        match parent {
            None => self.end_run(id),
            Some(parent) => {
                if let Some(node) = self.state.nodes.get_mut(&parent) {
                    node.unfinished = node.unfinished.saturating_sub(1);
                    if node.unfinished == 0 {
                        self.close_dag(parent);
                    }
                }
            }
        }
    }

    /// All tasks of a DAG have ended.
    fn close_dag(&mut self, id: TaskId) {
        let Some(node) = self.state.nodes.get(&id) else {
            return;
        };
        if node.task.state.is_terminal() {
            return;
        }
        let children = || {
            node.children
                .values()
                .filter_map(|child| Some(&self.state.nodes.get(child)?.task))
        };
        let first = |state| {
            children()
                .filter(move |task: &&Task| task.state == state)
                .min_by_key(|task| task.finished_at)
        };
        if let Some(task) = first(RuntimeState::Failed) {
            let failure = task.error.as_ref().map(|failure| Failure {
                reason: failure.reason,
                message: format!("task `{}`: {}", task.display_name, failure.message),
            });
            return self.end(id, RuntimeState::Failed, failure);
        }
        if first(RuntimeState::Canceled).is_some() {
            return self.end_canceled(id);
        }
        let outputs_of = |name: &str| {
            let task = &self.state.nodes.get(node.children.get(name)?)?.task;
            (task.state == RuntimeState::Succeeded).then_some(&task.outputs)
        };
        let outputs = self
            .pipeline
            .dag(&node.component)
            .map(|dag| outputs::of_dag(dag, outputs_of))
            .unwrap_or_default();
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.task.outputs = outputs;
        }
        self.end(id, RuntimeState::Succeeded, None);
    }

    fn end_run(&mut self, root: TaskId) {
        let Some(root) = self.state.nodes.get(&root) else {
            return;
        };
        let (state, error) = (root.task.state, root.task.error.clone());
        self.state.run.finished_at = Some(self.now);
        self.set_run_state(state, error);
    }

    fn set_run_state(&mut self, state: RuntimeState, error: Option<Failure>) {
        let run = &mut self.state.run;
        run.state = state;
        run.error.clone_from(&error);
        run.state_history.push(StateChange {
            time: self.now,
            state,
            error,
        });
        self.run_changed = true;
    }

    fn set_task_state(&mut self, id: TaskId, state: RuntimeState, error: Option<Failure>) {
        if let Some(node) = self.state.nodes.get_mut(&id) {
            let task = &mut node.task;
            if state != RuntimeState::Pending && task.started_at.is_none() {
                task.started_at = Some(self.now);
            }
            task.state = state;
            task.error.clone_from(&error);
            task.state_history.push(StateChange {
                time: self.now,
                state,
                error,
            });
            self.changed.insert(id);
        }
    }

    fn event(&mut self, task: TaskId, kind: &str, reason: &'static str, message: String) {
        self.plan.commit.events.push(TaskEvent {
            id: EventId::of(task, reason, &message, self.now.as_microsecond()),
            run_id: self.state.run.id,
            task_id: task,
            time: self.now,
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            message,
        });
    }
}
