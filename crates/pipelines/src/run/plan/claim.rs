//! Volume claims: those that tasks make and delete, and the run's workspace.

use coracle_api::{id::TaskId, launch::Failure, reason::Reason, state::RuntimeState};
use serde_json::Value;

use super::{Claim, Planner, attempt::namespace};
use crate::{run::state::State, task::claim};

/// The output of a task that makes a claim.
const NAME: &str = "name";

impl Planner<'_> {
    /// Whether a task makes or deletes a claim instead of running its image.
    pub(super) fn is_claim(&self, id: TaskId) -> bool {
        self.claim_order(id).is_some()
    }

    fn claim_order(&self, id: TaskId) -> Option<Result<claim::ClaimOrder, Failure>> {
        let node = self.state.nodes.get(&id)?;
        let component = self.pipeline.component(&node.component)?;
        let container = self.pipeline.spec().executor_of(component)?.container.as_ref()?;
        claim::of(id, &container.image, &node.task.inputs.parameters)
    }

    /// Asks for the claim of a task that runs.
    pub(super) fn begin_claim(&mut self, id: TaskId) {
        match self.claim_order(id) {
            Some(Ok(order)) => {
                let namespace = namespace(self.state).to_owned();
                self.plan.claims.push(Claim {
                    task: id,
                    namespace,
                    order,
                });
            }
            Some(Err(failure)) => self.end(id, RuntimeState::Failed, Some(failure)),
            None => {}
        }
    }

    /// Asks for the volume that all tasks of the run share. Asking again changes nothing.
    pub(super) fn begin_workspace(&mut self) {
        if let Some(workspace) = &self.pipeline.config().workspace {
            let order = claim::ClaimOrder::Create(claim::workspace(self.state.run.id, workspace));
            self.plan.claims.push(Claim {
                task: root(self.state),
                namespace: namespace(self.state).to_owned(),
                order,
            });
        }
    }

    /// What the tasks of a run that succeeded have left in the workspace is not needed any more.
    pub(super) fn end_workspace(&mut self) {
        if let Some(name) = self.workspace_claim() {
            self.plan.claims.push(Claim {
                task: root(self.state),
                namespace: namespace(self.state).to_owned(),
                order: claim::ClaimOrder::Delete { name },
            });
        }
    }

    /// The name of the claim behind the run's workspace.
    pub(super) fn workspace_claim(&self) -> Option<String> {
        let workspace = self.pipeline.config().workspace.as_ref();
        workspace.map(|_| claim::workspace_name(self.state.run.id))
    }

    pub(super) fn claim_done(&mut self, id: TaskId, name: &str) {
        if id == root(self.state) {
            return;
        }
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        if node.task.state.is_terminal() {
            return;
        }
        let component = self.pipeline.component(&node.component);
        if component.is_some_and(|component| component.output_definitions.parameters.contains_key(NAME)) {
            let outputs = &mut node.task.outputs.parameters;
            outputs.insert(NAME.to_owned(), Value::String(name.to_owned()));
        }
        self.end(id, RuntimeState::Succeeded, None);
    }

    pub(super) fn claim_refused(&mut self, id: TaskId, message: String) {
        let failure = Failure {
            reason: Reason::VolumeNotReady,
            message,
        };
        if id == root(self.state) {
            // Its tasks will say so too, when they mount what is not there.
            return self.event(id, "Warning", failure.reason.into(), failure.message);
        }
        if self
            .state
            .nodes
            .get(&id)
            .is_some_and(|node| !node.task.state.is_terminal())
        {
            self.end(id, RuntimeState::Failed, Some(failure));
        }
    }
}

fn root(state: &State) -> TaskId {
    TaskId::at(state.run.id, "root")
}
