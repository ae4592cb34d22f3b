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
    Artifact, ArtifactTask, Commit, IoType, RunStatus, StateChange, TaskEvent, TaskKind,
};
use jiff::Timestamp;

use super::{
    observe::{PodEnd, PodView},
    pipeline::Pipeline,
    state::State,
};
use crate::task::container::Settings;

mod around;
mod attempt;
mod begin;
mod ending;
mod import;

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
    /// What should be imported is not there.
    ImportRefused {
        /// The task.
        task: TaskId,
        /// What was looked for, and what was found.
        message: String,
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
                    cache_entries,
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
        self.commit.cache_entries.extend(cache_entries);
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
            Event::ImportRefused { task, message } => self.import_refused(task, message),
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
                termination_requested: run.termination_requested,
                retry_requested: run.retry_requested,
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
