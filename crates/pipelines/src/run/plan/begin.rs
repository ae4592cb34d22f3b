//! How runs, DAGs and tasks begin: who is allowed to, with what, and as what.

use coracle_api::{
    id::TaskId,
    ir::{ComponentSpec, Executor, TaskSpec, TriggerStrategy, condition},
    launch::Failure,
    reason::Reason,
    state::RuntimeState,
};
use coracle_store::records::{StateChange, Task, TaskIo, TaskKind};

use super::{Planner, Work};
use crate::{
    run::state::Node,
    task::{
        inputs,
        items::Items,
        values::{Unready, Values},
    },
};

/// Whether a task runs.
pub(super) enum Verdict {
    /// It does, with these inputs; a loop with what it goes over.
    Run(TaskIo, Option<Items>),
    /// It is not needed; with a failure when another task's is to blame.
    Skip(Option<Failure>),
}

impl Planner<'_> {
    pub(super) fn begin_run(&mut self) {
        self.set_run_state(RuntimeState::Running, None);
        self.begin_workspace();
        self.begin_root();
    }

    pub(super) fn begin_root(&mut self) {
        let root = self.pipeline.spec().root.clone();
        let id = self.add_task(None, "root", TaskKind::Root, "root");
        match inputs::of_root(&root, &self.state.run.parameters) {
            Ok(inputs) => {
                self.tell_of_unused_root(id);
                self.begin_task(id, inputs, None);
            }
            Err(failure) => self.end(id, RuntimeState::Failed, Some(failure)),
        }
    }

    /// Kubeflow goes by the run's root alone, and pipelines carry roots that nobody filled in.
    fn tell_of_unused_root(&mut self, root: TaskId) {
        let default = &self.pipeline.spec().default_pipeline_root;
        if !default.is_empty() && self.state.run.pipeline_root.is_empty() {
            let message = format!(
                "the pipeline's own root `{default}` is not used, as on Kubeflow: \
                 give the run a `pipeline_root` to keep its artifacts there"
            );
            self.event(root, "Normal", "DefaultPipelineRootNotUsed", message);
        }
    }

    /// A new row under `parent`, or the one that is there as if it were new.
    pub(super) fn add_task(
        &mut self,
        parent: Option<TaskId>,
        name: &str,
        kind: TaskKind,
        display_name: &str,
    ) -> TaskId {
        let path = match parent.and_then(|parent| self.state.nodes.get(&parent)) {
            None => name.to_owned(),
            Some(parent) => format!("{}.{name}", parent.task.path),
        };
        let id = TaskId::at(self.state.run.id, &path);
        if self.state.nodes.contains_key(&id) {
            self.renew(id);
            return id;
        }
        let task = Task {
            id,
            run_id: self.state.run.id,
            parent_id: parent,
            path,
            name: name.to_owned(),
            display_name: display_name.to_owned(),
            kind,
            iteration: None,
            state: RuntimeState::Pending,
            state_history: vec![StateChange {
                time: self.now,
                state: RuntimeState::Pending,
                error: None,
            }],
            error: None,
            inputs: TaskIo::default(),
            outputs: TaskIo::default(),
            retries: 0,
            retry_at: None,
            cached_from: None,
            created_at: self.now,
            started_at: None,
            finished_at: None,
        };
        // A validated pipeline has a component for each of its tasks, so nothing strays here.
        if let Err(stray) = self.state.insert(self.pipeline, task) {
            tracing::error!(run.id = %self.state.run.id, "{stray}");
        }
        self.changed.insert(id);
        id
    }

    /// Whether a task whose upstream has ended runs.
    pub(super) fn verdict(&self, id: TaskId) -> Result<Verdict, Unready> {
        let Some((node, spec)) = self.lookup(id) else {
            return Ok(Verdict::Skip(None));
        };
        if spec.trigger_policy.strategy != TriggerStrategy::AllUpstreamTasksCompleted
            && let Some(verdict) = self.held_back(node)
        {
            return Ok(verdict);
        }
        let component = self
            .pipeline
            .component(&node.component)
            .ok_or_else(|| internal("its component is gone"))?;
        let io = inputs::resolve(spec, component, &self.around(node))?;
        let condition = &spec.trigger_policy.condition;
        if !condition.is_empty() {
            let values = Values::new(&self.state.values);
            let parameters = io
                .parameters
                .iter()
                .map(|(name, value)| Ok((name.clone(), values.get(value)?.clone())))
                .collect::<Result<_, Unready>>()?;
            let holds = condition::holds(condition, &parameters).map_err(|error| Failure {
                reason: Reason::ConditionInvalid,
                message: error.to_string(),
            })?;
            if !holds {
                return Ok(Verdict::Skip(None));
            }
        }
        let items = Items::of(spec, &io, &Values::new(&self.state.values))?;
        Ok(Verdict::Run(io, items))
    }

    /// Why a task that needs all its upstream to have succeeded does not run.
    fn held_back(&self, node: &Node) -> Option<Verdict> {
        let upstream = self.state.upstream(self.pipeline, node);
        let mut skipped = false;
        for task in upstream.filter_map(|id| Some(&self.state.nodes.get(&id)?.task)) {
            let to_blame = match task.state {
                RuntimeState::Failed | RuntimeState::Canceled => true,
                RuntimeState::Skipped => {
                    skipped = true;
                    task.error.is_some()
                }
                _ => false,
            };
            if to_blame {
                let how = if task.state == RuntimeState::Skipped {
                    "could not run"
                } else {
                    "did not succeed"
                };
                let message = format!("not started: task `{}` {how}", task.display_name);
                return Some(Verdict::Skip(Some(Failure {
                    reason: Reason::UpstreamFailed,
                    message,
                })));
            }
        }
        skipped.then_some(Verdict::Skip(None))
    }

    /// Starts a task, whatever it is.
    pub(super) fn begin_task(&mut self, id: TaskId, inputs: TaskIo, items: Option<Items>) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        node.task.inputs = inputs;
        let kind = node.task.kind;
        match kind {
            TaskKind::Root | TaskKind::Dag | TaskKind::Iteration => {
                self.set_task_state(id, RuntimeState::Running, None);
                self.open_dag(id);
            }
            TaskKind::Loop => {
                self.set_task_state(id, RuntimeState::Running, None);
                if let Some(items) = items {
                    self.begin_loop(id, items);
                }
            }
            TaskKind::Container if self.is_claim(id) => {
                self.set_task_state(id, RuntimeState::Running, None);
                self.begin_claim(id);
            }
            TaskKind::Container => {
                if !self.look_up(id)
                    && let Err(unready) = self.begin_attempt(id)
                {
                    self.unready(id, unready);
                }
            }
            TaskKind::Importer => {
                self.set_task_state(id, RuntimeState::Running, None);
                self.begin_import(id);
            }
        }
    }

    /// Rows for the tasks of a DAG; those that wait for none are decided at once.
    fn open_dag(&mut self, id: TaskId) {
        let Some(component) = self.state.nodes.get(&id).map(|node| node.component.clone()) else {
            return;
        };
        let pipeline = self.pipeline;
        let (Some(dag), Some(graph)) = (pipeline.dag(&component), pipeline.graph(&component)) else {
            return;
        };
        for (name, spec) in &dag.tasks {
            let shown = if spec.task_info.name.is_empty() {
                name
            } else {
                &spec.task_info.name
            };
            let child = self.add_task(Some(id), name, self.kind_of(spec), shown);
            let waiting_for = graph.upstream(name).count();
            if let Some(node) = self.state.nodes.get_mut(&child) {
                node.waiting_for = waiting_for;
            }
            if waiting_for == 0 {
                self.work.push_back(Work::Decide(child));
            }
        }
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.unfinished = dag.tasks.len();
        }
    }

    fn kind_of(&self, spec: &TaskSpec) -> TaskKind {
        if spec.parameter_iterator.is_some() || spec.artifact_iterator.is_some() {
            return TaskKind::Loop;
        }
        let component = self.pipeline.spec().component_of(spec);
        if component.is_some_and(|component| component.dag.is_some()) {
            return TaskKind::Dag;
        }
        self.leaf_kind(component)
    }

    pub(super) fn leaf_kind(&self, component: Option<&ComponentSpec>) -> TaskKind {
        match component.and_then(|component| self.pipeline.spec().executor_of(component)) {
            Some(Executor {
                importer: Some(_), ..
            }) => TaskKind::Importer,
            _ => TaskKind::Container,
        }
    }

    /// A task and its place in the pipeline; of an iteration, that of its loop. None for the root,
    /// which has none.
    pub(super) fn lookup(&self, id: TaskId) -> Option<(&Node, &TaskSpec)> {
        Some((self.state.nodes.get(&id)?, self.spec_of(id)?))
    }

    pub(super) fn spec_of(&self, id: TaskId) -> Option<&'_ TaskSpec> {
        let node = self.state.nodes.get(&id)?;
        let parent = self.state.parent(node)?;
        match parent.task.kind {
            TaskKind::Loop => self.spec_of(parent.task.id),
            _ => self.pipeline.task(&parent.component, &node.task.name),
        }
    }
}

pub(super) fn internal(why: &str) -> Failure {
    Failure {
        reason: Reason::InternalError,
        message: format!("the task cannot start: {why}"),
    }
}
