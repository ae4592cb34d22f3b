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
//! FAILED, and its retry policy allows another try ──► PENDING, until its time comes
//! any ── the run is asked to stop ──► CANCELED, after its Pod is gone
//! ```

use std::collections::{BTreeSet, VecDeque};

use coracle_api::{
    id::{ArtifactId, EventId, TaskId},
    launch::{Failure, SpilledValue},
    reason::Reason,
    state::RuntimeState,
};
use coracle_store::records::{Artifact, ArtifactTask, IoType, RunStatus, StateChange, TaskEvent, TaskKind};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    observe::PodEnd,
    pipeline::Pipeline,
    state::{Node, State},
};
use crate::task::{container::Settings, values::Unready};

mod again;
mod around;
mod attempt;
mod begin;
mod cache;
mod claim;
mod ending;
mod event;
mod import;
mod iterate;
mod stop;

pub use event::{Claim, Event, Import, Known, Lookup, MOST_ATTEMPTS, Plan};

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
        retried: false,
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
    /// A loop may have room for more iterations.
    Advance(TaskId),
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
    retried: bool,
    work: VecDeque<Work>,
}

impl Planner<'_> {
    fn handle(&mut self, event: Event) {
        let is_retry = event == Event::Resumed && self.state.run.retry_requested;
        if self.state.run.state.is_terminal() && !is_retry {
            return;
        }
        match event {
            Event::Resumed => self.resume(),
            Event::Room => {}
            Event::ClockSet { by } => self.clock_set(by),
            Event::TerminationRequested => self.terminate(),
            Event::TimeCame => self.time_came(),
            Event::LookedUp { task, found } => self.looked_up(task, found.map(|known| *known)),
            Event::ValuesRead { task, values } => self.values_read(task, values),
            Event::ClaimDone { task, name } => self.claim_done(task, &name),
            Event::ClaimRefused { task, message } => self.claim_refused(task, message),
            Event::Pod { task, number, view } => self.observe_pod(task, number, view),
            // The list may be older than the Pod.
            Event::Missing { task, number } => self.plan.look.push((task, number)),
            Event::Reported { task, number, report } => {
                if let Some(node) = self.state.nodes.get_mut(&task)
                    && node
                        .current_attempt()
                        .is_some_and(|attempt| attempt.number == number)
                {
                    node.report = Some(Box::new(report));
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
        let postponed = &mut self.state.postponed;
        let next = postponed.drain(..postponed.len().min(MOST_ATTEMPTS));
        self.work.extend(next.map(Work::Decide));
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Decide(task) if self.plan.is_full() => self.state.postponed.push_back(task),
                Work::Decide(task) => self.decide(task),
                Work::Ended(task) => self.ended(task),
                Work::Advance(task) => self.advance_loop(task),
            }
        }
    }

    /// Collects the rows that changed.
    fn finish(mut self) -> Plan {
        let Self {
            state, changed, plan, ..
        } = &mut self;
        for id in changed.iter() {
            if let Some(node) = state.nodes.get_mut(id) {
                plan.commit.tasks.extend(node.row_to_write());
                plan.commit.attempts.extend(node.attempts_to_write());
            }
        }
        if self.run_changed {
            let run = &self.state.run;
            self.plan.commit.run = Some(RunStatus {
                state: run.state,
                error: run.error.clone(),
                state_history: run.state_history.clone(),
                retried: self.retried,
                finished_at: run.finished_at,
            });
        }
        self.plan
    }

    fn resume(&mut self) {
        if self.state.run.retry_requested && self.state.run.state.is_terminal() {
            self.retry_run();
        } else if self.state.run.state == RuntimeState::Pending && self.state.nodes.is_empty() {
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
        self.begin_workspace();
        self.bound_waits();
        let mut ids: Vec<TaskId> = self.state.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(node) = self.state.nodes.get(&id) else {
                continue;
            };
            match node.current_attempt() {
                // A Pod that was never created need not be created to be deleted.
                Some(attempt) if self.state.is_canceling() => self.plan.delete.push((id, attempt.number)),
                // Who has reported has run.
                Some(attempt) if attempt.state == RuntimeState::Pending && node.report.is_none() => {
                    self.plan.create.push((id, attempt.number));
                }
                Some(_) => {}
                None => self.take_up(id),
            }
            self.conclude(id);
        }
    }

    /// A task without a Pod, after a restart.
    fn take_up(&mut self, id: TaskId) {
        let Some(node) = self.state.nodes.get(&id) else {
            return;
        };
        let is_running = node.task.state == RuntimeState::Running;
        match node.task.kind {
            TaskKind::Importer if is_running => self.begin_import(id),
            TaskKind::Container if is_running => self.begin_claim(id),
            TaskKind::Loop if is_running => self.resume_loop(id),
            _ if node.task.state == RuntimeState::Pending && self.is_next(node) => {
                self.work.push_back(Work::Decide(id));
            }
            _ => {}
        }
    }

    /// Whether nothing but the planner itself holds up a task that has not started.
    fn is_next(&self, node: &Node) -> bool {
        let holder = self.state.parent(node).filter(|holder| {
            holder.task.state == RuntimeState::Running && holder.task.kind != TaskKind::Loop
        });
        holder.is_some() && node.waiting_for == 0 && node.task.retry_at.is_none()
    }

    fn time_came(&mut self) {
        if self.is_late() {
            return self.stop();
        }
        while let Some((time, id)) = self.state.timers.first().copied() {
            if time > self.now {
                break;
            }
            self.state.timers.remove(&(time, id));
            self.try_again(id, time);
        }
    }

    /// What happens to a task whose upstream has ended.
    fn decide(&mut self, id: TaskId) {
        let Some(node) = self.state.nodes.get(&id) else {
            return;
        };
        if node.task.state != RuntimeState::Pending || node.has_begun() {
            return;
        }
        if self.state.is_canceling() {
            return self.end_canceled(id);
        }
        match self.verdict(id) {
            Ok(begin::Verdict::Run(inputs, items)) => self.begin_task(id, inputs, items),
            Ok(begin::Verdict::Skip(why)) => self.end(id, RuntimeState::Skipped, why),
            Err(unready) => self.unready(id, unready),
        }
    }

    /// A task cannot begin, for good or until large values have been read.
    fn unready(&mut self, id: TaskId, unready: Unready) {
        match unready {
            Unready::Failed(failure) => self.end(id, RuntimeState::Failed, Some(failure)),
            Unready::Needs(values) => self.plan.reads.push((id, values)),
        }
    }

    fn values_read(&mut self, id: TaskId, values: Vec<(SpilledValue, Result<Value, String>)>) {
        for (spilled, value) in values {
            match value {
                Ok(value) => {
                    self.state.values.insert(spilled.uri, value);
                }
                Err(message) => {
                    let reason = Reason::InputArtifactUnavailable;
                    if self
                        .state
                        .nodes
                        .get(&id)
                        .is_some_and(|node| !node.task.state.is_terminal())
                    {
                        self.end(id, RuntimeState::Failed, Some(Failure { reason, message }));
                    }
                    return;
                }
            }
        }
        match self.state.nodes.get(&id) {
            Some(node) if node.task.kind == TaskKind::Loop && node.task.state == RuntimeState::Running => {
                self.resume_loop(id);
            }
            _ => self.work.push_back(Work::Decide(id)),
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
        if state == RuntimeState::Running {
            // Its time begins now, by the clock as it is.
            self.state.clock_set = SignedDuration::ZERO;
        }
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
