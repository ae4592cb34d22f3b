//! How a run is made to stop before its end: because somebody asked, or because its time is up.

use coracle_api::{id::TaskId, launch::Failure, reason::Reason, state::RuntimeState};
use coracle_store::records::TaskKind;

use super::Planner;

impl Planner<'_> {
    pub(super) fn terminate(&mut self) {
        self.state.run.termination_requested = true;
        self.stop();
    }

    /// Whether the run's time is up and nobody has stopped it yet.
    pub(super) fn is_late(&self) -> bool {
        let deadline = self.state.deadline(self.pipeline);
        !self.state.is_canceling() && deadline.is_some_and(|deadline| deadline <= self.now)
    }

    /// Ends what is at work; nothing begins any more.
    pub(super) fn stop(&mut self) {
        self.set_run_state(RuntimeState::Canceling, None);
        self.state.timers.clear();
        let mut ids: Vec<TaskId> = self.state.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(node) = self.state.nodes.get_mut(&id) else {
                continue;
            };
            node.todo.clear();
            node.task.retry_at = None;
            if node.task.state.is_terminal() {
                continue;
            }
            let is_dag = matches!(
                node.task.kind,
                TaskKind::Root | TaskKind::Dag | TaskKind::Loop | TaskKind::Iteration
            );
            match node.current_attempt() {
                Some(attempt) => {
                    self.plan.delete.push((id, attempt.number));
                    self.set_task_state(id, RuntimeState::Canceling, None);
                }
                None if node.task.state == RuntimeState::Pending || !is_dag => self.end_canceled(id),
                // It ends with the tasks inside it.
                None if node.unfinished == 0 => self.close_dag(id),
                None => {}
            }
        }
    }

    /// Why whatever is stopped has ended.
    pub(super) fn why_stopped(&self) -> Failure {
        if self.state.run.termination_requested {
            return Failure {
                reason: Reason::RunTerminated,
                message: "the run was asked to stop".to_owned(),
            };
        }
        let seconds = self.pipeline.config().active_deadline_seconds;
        Failure {
            reason: Reason::DeadlineExceeded,
            message: format!("the run was still at work after {seconds} s, which is all it may take"),
        }
    }
}
