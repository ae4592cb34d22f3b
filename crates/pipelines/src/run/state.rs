//! What the engine knows of one run: its rows, arranged as a tree.
//!
//! The tree holds nothing that the rows do not: [`State::load`] rebuilds it after a restart. The
//! two counters of a [`Node`] are kept so that one event costs the tasks it changes, not all.

use std::collections::{BTreeMap, HashMap};

use coracle_api::{
    id::{ArtifactId, TaskId},
    launch::Report,
    state::RuntimeState,
};
use coracle_store::records::{Artifact, Attempt, Run, Task, TaskKind};

use super::{
    observe::PodEnd,
    pipeline::{Graph, Pipeline, ROOT},
};

/// What the engine knows of one run.
#[derive(Debug)]
pub struct State {
    /// The run's row.
    pub run: Run,
    /// Its tasks.
    pub nodes: HashMap<TaskId, Node>,
    /// Every artifact that its tasks made or were given.
    pub artifacts: HashMap<ArtifactId, Artifact>,
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
    /// How many of the tasks inside it have not ended.
    pub unfinished: usize,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// What the launcher of the newest attempt reported.
    pub report: Option<Report>,
    /// How the Pod of the newest attempt ended.
    pub pod_end: Option<PodEnd>,
    /// What the newest attempt's Pod was last seen waiting for.
    pub waiting_reason: Option<String>,
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
            attempts: Vec::new(),
            report: None,
            pod_end: None,
            waiting_reason: None,
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
            .map(|artifact| (artifact.id, artifact))
            .collect();
        let mut state = Self {
            run,
            nodes: HashMap::with_capacity(tasks.len()),
            artifacts,
        };
        for task in tasks {
            state.insert(pipeline, task)?;
        }
        for attempt in attempts {
            if let Some(node) = state.nodes.get_mut(&attempt.task_id) {
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
                    pipeline.task(&parent.component, &task.name)
                });
                found
                    .ok_or_else(|| Stray {
                        path: task.path.clone(),
                    })?
                    .component_ref
                    .name
                    .clone()
            }
        };
        self.nodes.insert(task.id, Node::new(task, component));
        Ok(())
    }

    /// Works the counters out anew from the rows.
    fn count(&mut self, pipeline: &Pipeline) {
        let counts: Vec<(TaskId, usize, usize)> = self
            .nodes
            .values()
            .map(|node| {
                let unfinished = node
                    .children
                    .values()
                    .filter(|child| !self.has_ended(**child))
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
        self.nodes.values().find(|node| node.task.kind == TaskKind::Root)
    }

    /// The node that holds `node`.
    #[must_use]
    pub fn parent(&self, node: &Node) -> Option<&Node> {
        self.nodes.get(&node.task.parent_id?)
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
