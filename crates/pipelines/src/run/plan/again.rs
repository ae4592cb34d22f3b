//! Trying again: a task or a DAG by its own retry policy, a run because somebody asked.
//!
//! Rows are used again, attempts are counted on: the Pod of a new attempt never has the name of an
//! old one. What lay inside a DAG that is tried again is `SKIPPED` until its turn comes.

use std::collections::{BTreeSet, VecDeque};

use coracle_api::{id::TaskId, ir::RetryPolicy, launch::Failure, state::RuntimeState};
use coracle_store::records::{TaskIo, TaskKind};
use jiff::{SignedDuration, Timestamp};

use super::{Planner, Work};
use crate::{
    run::state::Node,
    task::{items::Items, values::Values},
};

/// What KFP's compiler takes when a pipeline does not say.
const BACKOFF_FACTOR: f64 = 2.0;
const LONGEST_BACKOFF: f64 = 3600.0;

impl Planner<'_> {
    /// Has a task that failed wait for another try, if its policy allows one.
    pub(super) fn retry(&mut self, id: TaskId, failure: &Failure) -> bool {
        if self.state.is_canceling() || !failure.reason.may_pass() {
            return false;
        }
        let Some(policy) = self.lookup(id).and_then(|(_, spec)| spec.retry_policy.clone()) else {
            return false;
        };
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return false;
        };
        let task = &mut node.task;
        // The policy of a loop is that of the loop, not of its iterations.
        if task.iteration.is_some() || task.retries >= policy.max_retry_count {
            return false;
        }
        task.retries += 1;
        let wait = backoff(&policy, task.retries);
        let time = self.now.checked_add(wait).unwrap_or(Timestamp::MAX);
        task.retry_at = Some(time);
        let message = format!(
            "try {} of {} failed ({}: {}); the next one begins in {}",
            task.retries,
            policy.max_retry_count.saturating_add(1),
            failure.reason,
            failure.message.lines().next().unwrap_or_default(),
            shown(wait),
        );
        self.state.timers.insert((time, id));
        self.event(id, "Warning", "Retrying", message);
        self.set_task_state(id, RuntimeState::Pending, Some(failure.clone()));
        self.set_aside_inside(id);
        if wait.is_zero() {
            self.state.timers.remove(&(time, id));
            self.try_again(id, time);
        }
        true
    }

    /// The clock was set: every wait ends when it would have ended.
    pub(super) fn clock_set(&mut self, by: SignedDuration) {
        self.state.clock_set = self.state.clock_set.saturating_add(by);
        for (time, id) in std::mem::take(&mut self.state.timers) {
            self.wait_until(id, time.saturating_add(by).unwrap_or(time));
        }
    }

    /// After a restart nobody knows whether the clock was set meanwhile. No wait is longer than the whole
    /// of it.
    pub(super) fn bound_waits(&mut self) {
        for (time, id) in self.state.timers.clone() {
            let waiting = self.lookup(id);
            let whole = waiting.and_then(|(node, spec)| {
                let policy = spec.retry_policy.as_ref()?;
                Some(backoff(policy, node.task.retries))
            });
            let latest = whole.and_then(|whole| self.now.checked_add(whole).ok());
            if let Some(latest) = latest.filter(|latest| time > *latest) {
                self.state.timers.remove(&(time, id));
                self.wait_until(id, latest);
            }
        }
    }

    fn wait_until(&mut self, id: TaskId, time: Timestamp) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        node.task.retry_at = Some(time);
        self.state.timers.insert((time, id));
        self.changed.insert(id);
    }

    /// The time has come for another try.
    pub(super) fn try_again(&mut self, id: TaskId, time: Timestamp) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        if node.task.retry_at != Some(time) || node.task.state != RuntimeState::Pending {
            return;
        }
        node.task.retry_at = None;
        if node.task.kind == TaskKind::Container {
            if let Err(unready) = self.begin_attempt(id) {
                self.unready(id, unready);
            }
            return;
        }
        let inputs = node.task.inputs.clone();
        let items = match self.lookup(id) {
            Some((_, spec)) => Items::of(spec, &inputs, &Values::new(&self.state.values)),
            None => Ok(None),
        };
        match items {
            Ok(items) => self.begin_task(id, inputs, items),
            Err(unready) => self.unready(id, unready),
        }
    }

    /// Goes on with a run that has ended, from what succeeded.
    pub(super) fn retry_run(&mut self) {
        let run = &mut self.state.run;
        (run.retry_requested, run.termination_requested, run.finished_at) = (false, false, None);
        self.retried = true;
        self.set_run_state(RuntimeState::Running, None);
        self.begin_workspace();
        let root = self.state.root();
        match root.map(|root| (root.task.id, root.children.is_empty())) {
            Some((root, false)) => self.reopen(root),
            _ => self.begin_root(),
        }
    }

    /// Goes on with a DAG that did not succeed. Its inputs stay; of its tasks, those that
    /// succeeded stay unless they come after one that is done again.
    pub(super) fn reopen(&mut self, id: TaskId) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        let task = &mut node.task;
        (task.finished_at, task.retries, task.retry_at) = (None, 0, None);
        task.outputs = TaskIo::default();
        let is_loop = task.kind == TaskKind::Loop;
        self.set_task_state(id, RuntimeState::Running, None);
        if is_loop {
            for child in self.unsuccessful(id) {
                self.wait_again(child);
            }
            if let Some(node) = self.state.nodes.get_mut(&id) {
                node.unfinished = 0;
            }
            return self.resume_loop(id);
        }
        let seeds = self.unsuccessful(id);
        let after = self.all_downstream(&seeds);
        let anew: BTreeSet<TaskId> = seeds.iter().chain(&after).copied().collect();
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.unfinished = anew.len();
        }
        let goes_on = |node: &Node| !node.children.is_empty() && !after.contains(&node.task.id);
        let (reopened, renewed): (Vec<TaskId>, Vec<TaskId>) = anew
            .iter()
            .partition(|id| self.state.nodes.get(id).is_some_and(|node| goes_on(node)));
        for id in &renewed {
            self.renew(*id);
            let waiting_for = match self.state.nodes.get(id) {
                Some(node) => self
                    .state
                    .upstream(self.pipeline, node)
                    .filter(|upstream| anew.contains(upstream))
                    .count(),
                None => 0,
            };
            if let Some(node) = self.state.nodes.get_mut(id) {
                node.waiting_for = waiting_for;
            }
            if waiting_for == 0 {
                self.work.push_back(Work::Decide(*id));
            }
        }
        for id in reopened {
            self.reopen(id);
        }
        if anew.is_empty() {
            self.close_dag(id);
        }
    }

    /// A row as if its task had never been, but for its attempts.
    pub(super) fn renew(&mut self, id: TaskId) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        let task = &mut node.task;
        (task.inputs, task.outputs) = (TaskIo::default(), TaskIo::default());
        (task.started_at, task.finished_at, task.retry_at) = (None, None, None);
        (task.retries, task.cached_from) = (0, None);
        (node.report, node.pod_end, node.waiting_reason, node.looking_up) = (None, None, None, None);
        self.set_task_state(id, RuntimeState::Pending, None);
        self.set_aside_inside(id);
    }

    /// An iteration that did not succeed waits for its turn.
    fn wait_again(&mut self, id: TaskId) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        if node.children.is_empty() {
            return self.renew(id);
        }
        (node.task.finished_at, node.task.retry_at) = (None, None);
        self.set_task_state(id, RuntimeState::Pending, None);
    }

    /// What lies inside a DAG that begins anew counts for nothing until it is reached.
    fn set_aside_inside(&mut self, id: TaskId) {
        let children = |state: &crate::run::state::State, id: &TaskId| -> Vec<TaskId> {
            let node = state.nodes.get(id);
            node.map(|node| node.children.values().copied().collect())
                .unwrap_or_default()
        };
        let mut inside: VecDeque<TaskId> = children(self.state, &id).into();
        while let Some(id) = inside.pop_front() {
            inside.extend(children(self.state, &id));
            if let Some(node) = self.state.nodes.get_mut(&id) {
                (node.unfinished, node.items) = (0, None);
                node.todo.clear();
                node.task.error = None;
                if node.task.state != RuntimeState::Skipped {
                    (node.task.inputs, node.task.outputs) = (TaskIo::default(), TaskIo::default());
                    self.set_task_state(id, RuntimeState::Skipped, None);
                }
            }
        }
        if let Some(node) = self.state.nodes.get_mut(&id) {
            (node.unfinished, node.items) = (0, None);
            node.todo.clear();
        }
    }

    /// The tasks inside a DAG that did not end as they should.
    fn unsuccessful(&self, id: TaskId) -> Vec<TaskId> {
        let children = self.state.nodes.get(&id).map(|node| node.children.values());
        let children = children
            .into_iter()
            .flatten()
            .filter_map(|id| self.state.nodes.get(id));
        children
            .filter(|child| match child.task.state {
                RuntimeState::Succeeded => false,
                RuntimeState::Skipped => child.task.error.is_some(),
                _ => true,
            })
            .map(|child| child.task.id)
            .collect()
    }

    /// All tasks that come after one of these.
    fn all_downstream(&self, tasks: &[TaskId]) -> BTreeSet<TaskId> {
        let mut found = BTreeSet::new();
        let mut next: VecDeque<TaskId> = tasks.iter().copied().collect();
        while let Some(node) = next.pop_front().and_then(|id| self.state.nodes.get(&id)) {
            for id in self.state.downstream(self.pipeline, node) {
                if found.insert(id) {
                    next.push_back(id);
                }
            }
        }
        found
    }
}

/// How long to wait before try number `retry` after the first.
fn backoff(policy: &RetryPolicy, retry: u32) -> SignedDuration {
    let seconds = |text: &Option<String>| {
        let number = text.as_deref()?.strip_suffix('s')?.parse::<f64>().ok()?;
        Some(number).filter(|number| number.is_finite() && *number >= 0.0)
    };
    let first = seconds(&policy.backoff_duration).unwrap_or_default();
    let factor = policy
        .backoff_factor
        .filter(|factor| *factor > 0.0)
        .unwrap_or(BACKOFF_FACTOR);
    let longest = seconds(&policy.backoff_max_duration)
        .filter(|longest| *longest > 0.0)
        .unwrap_or(LONGEST_BACKOFF);
    let steps = f64::from(retry.saturating_sub(1));
    let wait = (first * factor.powf(steps)).min(longest);
    SignedDuration::try_from_secs_f64(wait).unwrap_or(SignedDuration::from_secs(3600))
}

fn shown(wait: SignedDuration) -> String {
    if wait.is_zero() {
        "no time".to_owned()
    } else {
        format!("{} s", wait.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_longer_than_the_one_before_up_to_the_longest() {
        let policy = RetryPolicy {
            max_retry_count: 5,
            backoff_duration: Some("1.5s".into()),
            backoff_factor: Some(2.0),
            backoff_max_duration: Some("5s".into()),
        };
        let waits: Vec<f64> = (1..5)
            .map(|retry| backoff(&policy, retry).as_secs_f64())
            .collect();
        assert_eq!(waits, [1.5, 3.0, 5.0, 5.0]);
        assert_eq!(backoff(&RetryPolicy::default(), 3), SignedDuration::ZERO);
        let endless = RetryPolicy {
            backoff_duration: Some("60s".into()),
            ..policy
        };
        assert_eq!(
            backoff(
                &RetryPolicy {
                    backoff_max_duration: None,
                    ..endless
                },
                4000
            )
            .as_secs(),
            3600
        );
    }
}
