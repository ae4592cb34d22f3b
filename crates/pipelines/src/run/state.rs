//! What the engine knows of one run: its rows, arranged as a tree.
//!
//! The tree holds nothing that the rows do not: [`State::load`] rebuilds it after a restart. The
//! two counters of a [`Node`] are kept so that one event costs the tasks it changes, not all.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use coracle_api::{
    id::{ArtifactId, TaskId},
    launch::{LOG_ARTIFACT, Report},
    state::RuntimeState,
};
use coracle_store::records::{Artifact, Attempt, Run, StateChange, Task, TaskKind};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    observe::PodEnd,
    pipeline::{Graph, Pipeline, ROOT},
};
use crate::task::items::Items;

/// What the engine knows of one run.
#[derive(Debug)]
pub struct State {
    /// The run's row.
    pub run: Run,
    /// Its tasks. In boxes: a table that grows is half empty.
    pub nodes: HashMap<TaskId, Box<Node>>,
    /// Every artifact that its tasks made or were given, but for logs.
    pub artifacts: HashMap<ArtifactId, Artifact>,
    /// The tasks that are to be tried again, and when.
    pub timers: BTreeSet<(Timestamp, TaskId)>,
    /// Large values that had to be read, by URI.
    pub values: HashMap<String, Value>,
    /// Attempts that have ended and whose Pods are still there, oldest first.
    pub finished_pods: VecDeque<(TaskId, u32)>,
    /// By how much the clock was set since the run was taken up.
    pub clock_set: SignedDuration,
    /// Tasks whose turn has come, and that the last plan had no room for.
    pub postponed: VecDeque<TaskId>,
}

/// A task and what is known around it.
#[derive(Debug)]
pub struct Node {
    /// Its row.
    pub task: Task,
    /// The component it runs; [`ROOT`] for the root.
    pub component: String,
    /// The tasks inside it, by name.
    pub children: BTreeMap<String, TaskId>,
    /// How many of the tasks it waits for have not ended.
    pub waiting_for: usize,
    /// How many of the tasks inside it have not ended; of a loop, those that have begun.
    pub unfinished: usize,
    /// What a loop goes over, once it has begun.
    pub items: Option<Items>,
    /// The iterations of a loop that have not begun, in order.
    pub todo: VecDeque<usize>,
    /// The key under which results of the same work are being looked for.
    pub looking_up: Option<String>,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// What the launcher of the newest attempt reported, while it is under way. In a box: few tasks have it at once.
    pub report: Option<Box<Report>>,
    /// How the Pod of the newest attempt ended.
    pub pod_end: Option<PodEnd>,
    /// What the newest attempt's Pod was last seen waiting for.
    pub waiting_reason: Option<String>,
    /// Whether its row says that it succeeded. Its inputs are in the row only then.
    is_settled: bool,
}

impl Node {
    /// A node around a row, before anything around it is known.
    #[must_use]
    pub fn new(task: Task, component: String) -> Self {
        Self {
            task,
            component,
            children: BTreeMap::new(),
            waiting_for: 0,
            unfinished: 0,
            items: None,
            todo: VecDeque::new(),
            looking_up: None,
            attempts: Vec::new(),
            report: None,
            pod_end: None,
            waiting_reason: None,
            is_settled: false,
        }
    }

    /// Its row, unless that is as it will stay. A task that has succeeded needs its inputs no more, and a run may have
    /// many: they are forgotten here.
    pub fn row_to_write(&mut self) -> Option<Task> {
        if self.task.state != RuntimeState::Succeeded {
            self.is_settled = false;
            return Some(self.task.clone());
        }
        if self.is_settled {
            return None;
        }
        self.is_settled = true;
        self.task.state_history.shrink_to_fit();
        let inputs = std::mem::take(&mut self.task.inputs);
        let row = self.task.clone();
        Some(Task { inputs, ..row })
    }

    /// The attempts whose rows are not as they will stay: the newest, and one that ended when it
    /// was made. What only those at work need is forgotten here once they have ended: a run may have
    /// many tasks.
    pub fn attempts_to_write(&mut self) -> Vec<Attempt> {
        let unwritten = self.attempts.iter_mut().rev();
        let mut written: Vec<Attempt> = unwritten
            .take_while(|attempt| !attempt.token.is_empty())
            .map(|attempt| {
                let written = attempt.clone();
                forget_what_ended(attempt);
                written
            })
            .collect();
        written.reverse();
        written
    }

    /// Whether it has left the state in which it waits for its turn.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        match self.task.state {
            RuntimeState::Skipped => false,
            RuntimeState::Pending => {
                self.current_attempt().is_some() || self.task.retry_at.is_some() || self.looking_up.is_some()
            }
            _ => true,
        }
    }

    /// The attempt that is under way.
    #[must_use]
    pub fn current_attempt(&self) -> Option<&Attempt> {
        self.attempts
            .last()
            .filter(|attempt| !attempt.state.is_terminal())
    }
}

/// The row keeps it; nothing here asks for it again.
fn forget_what_ended(attempt: &mut Attempt) {
    if attempt.state.is_terminal() {
        (attempt.token, attempt.log_uri) = (String::new(), String::new());
    }
}

/// A row that belongs nowhere: the store and the pipeline do not agree.
#[derive(Debug, thiserror::Error)]
#[error("the task `{path}` of the run is not in its pipeline")]
pub struct Stray {
    /// The task's path.
    pub path: String,
}

impl State {
    /// The tree of a run's rows.
    ///
    /// # Errors
    /// [`Stray`] when a row has no place in the pipeline.
    pub fn load(
        pipeline: &Pipeline,
        run: Run,
        mut tasks: Vec<Task>,
        attempts: Vec<Attempt>,
        artifacts: Vec<Artifact>,
    ) -> Result<Self, Stray> {
        // Parents before children: a child's path is longer than its parent's.
        tasks.sort_by_key(|task| task.path.matches('.').count());
        let artifacts = artifacts
            .into_iter()
            .filter(|artifact| artifact.name != LOG_ARTIFACT)
            .map(|artifact| (artifact.id, artifact))
            .collect();
        let mut state = Self {
            run,
            nodes: HashMap::with_capacity(tasks.len()),
            artifacts,
            timers: BTreeSet::new(),
            values: HashMap::new(),
            finished_pods: VecDeque::new(),
            clock_set: SignedDuration::ZERO,
            postponed: VecDeque::new(),
        };
        for task in tasks {
            state.timers.extend(task.retry_at.map(|time| (time, task.id)));
            state.insert(pipeline, task)?;
        }
        for mut attempt in attempts {
            if let Some(node) = state.nodes.get_mut(&attempt.task_id) {
                forget_what_ended(&mut attempt);
                node.attempts.push(attempt);
            }
        }
        for node in state.nodes.values_mut() {
            node.attempts.sort_by_key(|attempt| attempt.number);
        }
        state.count(pipeline);
        Ok(state)
    }

    /// Adds a task's row under its parent.
    ///
    /// # Errors
    /// [`Stray`] when the parent or the task is not in the pipeline.
    pub fn insert(&mut self, pipeline: &Pipeline, task: Task) -> Result<(), Stray> {
        let component = match task.parent_id {
            None => ROOT.to_owned(),
            Some(parent) => {
                let found = self.nodes.get_mut(&parent).and_then(|parent| {
                    parent.children.insert(task.name.clone(), task.id);
                    if parent.task.kind == TaskKind::Loop {
                        return Some(&parent.component);
                    }
                    Some(&pipeline.task(&parent.component, &task.name)?.component_ref.name)
                });
                let stray = || Stray {
                    path: task.path.clone(),
                };
                found.ok_or_else(stray)?.clone()
            }
        };
        self.nodes.insert(task.id, Box::new(Node::new(task, component)));
        Ok(())
    }

    /// Works the counters out anew from the rows.
    fn count(&mut self, pipeline: &Pipeline) {
        let counts: Vec<(TaskId, usize, usize)> = self
            .nodes
            .values()
            .map(|node| {
                let is_loop = node.task.kind == TaskKind::Loop;
                let children = node.children.values().filter_map(|child| self.nodes.get(child));
                let unfinished = children
                    .filter(|child| !child.task.state.is_terminal() && (!is_loop || child.has_begun()))
                    .count();
                let waiting_for = self
                    .upstream(pipeline, node)
                    .filter(|task| !self.has_ended(*task))
                    .count();
                (node.task.id, waiting_for, unfinished)
            })
            .collect();
        for (id, waiting_for, unfinished) in counts {
            if let Some(node) = self.nodes.get_mut(&id) {
                (node.waiting_for, node.unfinished) = (waiting_for, unfinished);
            }
        }
    }

    /// The root task, once the run has started.
    #[must_use]
    pub fn root(&self) -> Option<&Node> {
        self.nodes.get(&TaskId::at(self.run.id, "root")).map(Box::as_ref)
    }

    /// When the run has to be looked at even if nothing happens until then.
    #[must_use]
    pub fn wakes_at(&self, pipeline: &Pipeline) -> Option<Timestamp> {
        let first = self.timers.first().map(|(time, _)| *time);
        let deadline = self.deadline(pipeline).filter(|_| !self.is_canceling());
        [first, deadline].into_iter().flatten().min()
    }

    /// When what a run that has ended used is to be deleted, if its pipeline says so.
    #[must_use]
    pub fn expires_at(&self, pipeline: &Pipeline) -> Option<Timestamp> {
        let config = pipeline.config();
        let of_outcome = match self.run.state {
            RuntimeState::Succeeded => config.resource_ttl_on_success,
            _ => config.resource_ttl_on_failure,
        };
        let seconds = [of_outcome, config.resource_ttl_on_completion]
            .into_iter()
            .find(|seconds| *seconds > 0)?;
        let ended = self.run.finished_at?;
        ended.checked_add(SignedDuration::from_secs(seconds.into())).ok()
    }

    /// When the run's time is up: counted from when it last began.
    #[must_use]
    pub fn deadline(&self, pipeline: &Pipeline) -> Option<Timestamp> {
        let seconds = pipeline.config().active_deadline_seconds;
        let began = |change: &&StateChange| change.state == RuntimeState::Running;
        let began = self.run.state_history.iter().rev().find(began)?;
        let after = SignedDuration::from_secs(seconds.into()).saturating_add(self.clock_set);
        (seconds > 0)
            .then(|| began.time.checked_add(after).ok())
            .flatten()
    }

    /// The node that holds `node`.
    #[must_use]
    pub fn parent(&self, node: &Node) -> Option<&Node> {
        self.nodes.get(&node.task.parent_id?).map(Box::as_ref)
    }

    /// The tasks that `node` waits for.
    pub fn upstream<'a>(
        &'a self,
        pipeline: &'a Pipeline,
        node: &'a Node,
    ) -> impl Iterator<Item = TaskId> + 'a {
        self.beside(pipeline, node, |graph| graph.upstream(&node.task.name))
    }

    /// The tasks that wait for `node`.
    pub fn downstream<'a>(
        &'a self,
        pipeline: &'a Pipeline,
        node: &'a Node,
    ) -> impl Iterator<Item = TaskId> + 'a {
        self.beside(pipeline, node, |graph| graph.downstream(&node.task.name))
    }

    /// The tasks beside `node` whose names `choose` takes from their graph.
    fn beside<'a, N: Iterator<Item = &'a str> + 'a>(
        &'a self,
        pipeline: &'a Pipeline,
        node: &'a Node,
        choose: impl FnOnce(&'a Graph) -> N,
    ) -> impl Iterator<Item = TaskId> + 'a {
        let parent = self.parent(node);
        let graph = parent.and_then(|parent| pipeline.graph(&parent.component));
        let names = graph.map(choose).into_iter().flatten();
        names.filter_map(move |name| parent?.children.get(name).copied())
    }

    fn has_ended(&self, id: TaskId) -> bool {
        self.nodes
            .get(&id)
            .is_some_and(|node| node.task.state.is_terminal())
    }

    /// Whether somebody asked the run to stop.
    #[must_use]
    pub fn is_canceling(&self) -> bool {
        self.run.state == RuntimeState::Canceling
    }
}
