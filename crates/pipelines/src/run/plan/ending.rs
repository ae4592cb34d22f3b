//! How tasks, DAGs and runs end, and who is told.

use coracle_api::{id::TaskId, launch::Failure, state::RuntimeState};
use coracle_store::records::{Task, TaskKind};

use super::{Planner, Work};
use crate::{run::state::Node, task::outputs};

impl Planner<'_> {
    /// A task has reached its last state.
    pub(super) fn end(&mut self, id: TaskId, state: RuntimeState, failure: Option<Failure>) {
        if let Some(failure) = failure.as_ref().filter(|_| state == RuntimeState::Failed) {
            self.event(id, "Warning", failure.reason.into(), failure.message.clone());
        }
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.task.finished_at = Some(self.now);
        }
        self.set_task_state(id, state, failure);
        self.work.push_back(Work::Ended(id));
    }

    pub(super) fn end_canceled(&mut self, id: TaskId) {
        let why = self.why_stopped();
        self.end(id, RuntimeState::Canceled, Some(why));
    }

    /// Tells those who waited for a task, and the DAG that holds it.
    pub(super) fn ended(&mut self, id: TaskId) {
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
                    if node.task.kind == TaskKind::Loop {
                        return self.iteration_ended(parent);
                    }
                    node.unfinished = node.unfinished.saturating_sub(1);
                    if node.unfinished == 0 {
                        self.close_dag(parent);
                    }
                }
            }
        }
    }

    /// All tasks of a DAG have ended.
    pub(super) fn close_dag(&mut self, id: TaskId) {
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
        let failed = children().filter(|task: &&Task| task.state == RuntimeState::Failed);
        // What will not pass is to blame for all that follows, whichever failed first: the DAG is not
        // tried again then.
        let to_blame = failed.min_by_key(|task| {
            let failure = task.error.as_ref();
            (
                failure.is_some_and(|failure| failure.reason.may_pass()),
                task.finished_at,
            )
        });
        if let Some(task) = to_blame {
            let failure = task.error.as_ref().map(|failure| Failure {
                reason: failure.reason,
                message: format!("task `{}`: {}", task.display_name, failure.message),
            });
            if failure.as_ref().is_some_and(|failure| self.retry(id, failure)) {
                return;
            }
            return self.end(id, RuntimeState::Failed, failure);
        }
        let is_canceled = |task: &Task| task.state == RuntimeState::Canceled;
        if children().any(is_canceled) || self.was_cut_short(node) {
            return self.end_canceled(id);
        }
        let outputs_of = |name: &str| {
            let task = &self.state.nodes.get(node.children.get(name)?)?.task;
            (task.state == RuntimeState::Succeeded).then_some(&task.outputs)
        };
        let outputs = if node.task.kind == TaskKind::Loop {
            self.loop_outputs(node)
        } else {
            self.pipeline
                .dag(&node.component)
                .map(|dag| outputs::of_dag(dag, outputs_of))
                .unwrap_or_default()
        };
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.task.outputs = outputs;
        }
        self.end(id, RuntimeState::Succeeded, None);
    }

    /// Whether a loop was stopped before all its iterations had begun.
    fn was_cut_short(&self, node: &Node) -> bool {
        let is_short = match &node.items {
            Some(items) => node.children.len() < items.len(),
            None => true,
        };
        node.task.kind == TaskKind::Loop && self.state.is_canceling() && is_short
    }

    fn end_run(&mut self, root: TaskId) {
        let Some(root) = self.state.nodes.get(&root) else {
            return;
        };
        let (mut state, mut error) = (root.task.state, root.task.error.clone());
        if self.state.is_canceling() && state != RuntimeState::Succeeded {
            // What failed before is told by its task; the run ended because it was stopped.
            error = Some(self.why_stopped());
            state = if self.state.run.termination_requested {
                RuntimeState::Canceled
            } else {
                RuntimeState::Failed
            };
        }
        if state == RuntimeState::Succeeded {
            self.end_workspace();
        }
        self.state.run.finished_at = Some(self.now);
        self.set_run_state(state, error);
    }
}
