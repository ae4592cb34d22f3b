//! Loops: an iteration is a node of its own, made when its turn comes.

use std::collections::VecDeque;

use coracle_api::{id::TaskId, state::RuntimeState};
use coracle_store::records::{TaskIo, TaskKind};

use super::{Planner, Work};
use crate::{
    run::state::Node,
    task::{
        items::{self, Items},
        values::Values,
    },
};

/// Iterations at work at once in a loop that sets no limit of its own. More would only be Pods
/// that wait for this machine.
const WINDOW: usize = 256;

impl Planner<'_> {
    /// Begins the iterations of a loop whose row says that it runs.
    pub(super) fn begin_loop(&mut self, id: TaskId, items: Items) {
        let Some(node) = self.state.nodes.get(&id) else {
            return;
        };
        let has_begun = |index: &usize| {
            let child = node.children.get(&index.to_string());
            child
                .and_then(|child| self.state.nodes.get(child))
                .is_some_and(|child| child.has_begun())
        };
        let todo: VecDeque<usize> = (0..items.len()).filter(|index| !has_begun(index)).collect();
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.items = Some(items);
            if self.state.run.state != RuntimeState::Canceling {
                node.todo = todo;
            }
        }
        self.advance_loop(id);
    }

    /// A loop that was at work before a restart, or whose list has been read.
    pub(super) fn resume_loop(&mut self, id: TaskId) {
        let Some((node, spec)) = self.lookup(id) else {
            return;
        };
        match Items::of(spec, &node.task.inputs, &Values::new(&self.state.values)) {
            Ok(items) => {
                if let Some(items) = items {
                    self.begin_loop(id, items);
                }
            }
            Err(unready) => self.unready(id, unready),
        }
    }

    /// Begins as many iterations as may be at work; ends the loop after the last one.
    pub(super) fn advance_loop(&mut self, id: TaskId) {
        let Some((_, spec)) = self.lookup(id) else {
            return;
        };
        let limit = spec.iterator_policy.unwrap_or_default().parallelism_limit;
        let limit = match usize::try_from(limit).unwrap_or(usize::MAX) {
            0 => WINDOW,
            limit => limit,
        };
        loop {
            let Some(node) = self.state.nodes.get_mut(&id) else {
                return;
            };
            if node.unfinished >= limit {
                return;
            }
            let Some(index) = node.todo.pop_front() else {
                break;
            };
            node.unfinished += 1;
            self.begin_iteration(id, index);
        }
        let is_over = |node: &Node| node.unfinished == 0 && node.items.is_some();
        if self.state.nodes.get(&id).is_some_and(|node| is_over(node)) {
            self.close_dag(id);
        }
    }

    fn begin_iteration(&mut self, id: TaskId, index: usize) {
        let Some(node) = self.state.nodes.get(&id) else {
            return;
        };
        // One that failed before its run was retried goes on from what succeeded.
        if let Some(child) = node.children.get(&index.to_string()).copied()
            && self
                .state
                .nodes
                .get(&child)
                .is_some_and(|child| child.task.state == RuntimeState::Pending && !child.children.is_empty())
        {
            return self.reopen(child);
        }
        let component = self.pipeline.component(&node.component);
        let kind = match component.and_then(|component| component.dag.as_ref()) {
            Some(_) => TaskKind::Iteration,
            None => self.leaf_kind(component),
        };
        let shown = format!("{}[{index}]", node.task.display_name);
        let item = match (&node.items, component) {
            (Some(items), Some(component)) => items.item(index, component),
            _ => Ok(TaskIo::default()),
        };
        let shared = (kind != TaskKind::Iteration).then(|| node.task.inputs.clone());
        let child = self.add_task(Some(id), &index.to_string(), kind, &shown);
        if let Some(node) = self.state.nodes.get_mut(&child) {
            node.task.iteration = i64::try_from(index).ok();
        }
        match item {
            Ok(item) => {
                // A DAG finds the rest at the loop: it is not copied into each iteration.
                let mut inputs = shared.unwrap_or_default();
                inputs.parameters.extend(item.parameters);
                inputs.artifacts.extend(item.artifacts);
                self.begin_task(child, inputs, None);
            }
            Err(failure) => self.end(child, RuntimeState::Failed, Some(failure)),
        }
    }

    /// What a loop that succeeded has made.
    pub(super) fn loop_outputs(&self, node: &Node) -> TaskIo {
        let Some(component) = self.pipeline.component(&node.component) else {
            return TaskIo::default();
        };
        let count = node.items.as_ref().map_or(0, Items::len);
        let mut iterations: Vec<_> = node
            .children
            .values()
            .filter_map(|child| Some(&self.state.nodes.get(child)?.task))
            .filter_map(|task| Some((usize::try_from(task.iteration?).ok()?, &task.outputs)))
            .filter(|(index, _)| *index < count)
            .collect();
        iterations.sort_unstable_by_key(|(index, _)| *index);
        items::collected(component, iterations.into_iter().map(|(_, outputs)| outputs))
    }

    /// Tells the loop that one of its iterations has ended.
    pub(super) fn iteration_ended(&mut self, id: TaskId) {
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.unfinished = node.unfinished.saturating_sub(1);
        }
        self.work.push_back(Work::Advance(id));
    }
}
