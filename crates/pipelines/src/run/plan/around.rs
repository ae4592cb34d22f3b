//! What a task can see of its run and of the tasks beside it.

use std::collections::BTreeMap;

use coracle_api::{id::ArtifactId, state::RuntimeState};
use coracle_store::records::{Task, TaskIo, TaskKind};
use serde_json::Value;

use super::Planner;
use crate::{
    run::state::{Node, State},
    task::{
        claim::WORKSPACE_PATH,
        inputs::{FinalStatus, Surroundings},
        values::Values,
    },
};

impl Planner<'_> {
    pub(super) fn around<'a>(&'a self, node: &'a Node) -> Around<'a> {
        Around {
            state: self.state,
            parent: self.state.parent(node),
            context: self.context(node),
        }
    }

    /// Where the artifacts of the run go: a URI or an absolute path.
    fn pipeline_root(&self) -> String {
        match self.state.run.pipeline_root.as_str() {
            "" => self.settings.artifact_root.to_string_lossy().into_owned(),
            root => root.to_owned(),
        }
    }

    /// What the placeholders about a task and its run stand for.
    pub(super) fn context(&self, node: &Node) -> BTreeMap<String, String> {
        let run = &self.state.run;
        let name = &self.pipeline.spec().pipeline_info.name;
        let workspace = self.pipeline.config().workspace.as_ref();
        let mut context = BTreeMap::from(
            [
                ("pipeline_job_name", run.display_name.clone()),
                ("pipeline_job_resource_name", job_resource_name(name, self.state)),
                ("pipeline_job_uuid", run.id.to_string()),
                ("pipeline_task_name", node.task.name.clone()),
                ("pipeline_task_uuid", node.task.id.to_string()),
                ("pipeline_root", self.pipeline_root()),
                ("pipeline_job_create_time_utc", run.created_at.to_string()),
                ("pipeline_job_schedule_time_utc", run.scheduled_at.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        if workspace.is_some() {
            context.insert("workspace_path".to_owned(), WORKSPACE_PATH.to_owned());
        }
        context
    }
}

/// A task's view of what is around it.
pub(super) struct Around<'a> {
    state: &'a State,
    parent: Option<&'a Node>,
    context: BTreeMap<String, String>,
}

impl Around<'_> {
    /// The inputs of the DAG around the task: those of an iteration are its own, then its loop's.
    fn holders(&self) -> impl Iterator<Item = &TaskIo> {
        let own = self.parent;
        let of_loop = own
            .filter(|parent| parent.task.kind == TaskKind::Iteration)
            .and_then(|parent| self.state.parent(parent));
        own.into_iter().chain(of_loop).map(|node| &node.task.inputs)
    }

    fn sibling(&self, name: &str) -> Option<&Task> {
        Some(&self.state.nodes.get(self.parent?.children.get(name)?)?.task)
    }
}

impl Surroundings for Around<'_> {
    fn component_parameter(&self, name: &str) -> Option<&Value> {
        self.holders().find_map(|inputs| inputs.parameters.get(name))
    }

    fn component_artifacts(&self, name: &str) -> Option<&Vec<ArtifactId>> {
        self.holders().find_map(|inputs| inputs.artifacts.get(name))
    }

    fn values(&self) -> Values<'_> {
        Values::new(&self.state.values)
    }

    fn outputs_of(&self, task: &str) -> Option<&TaskIo> {
        self.sibling(task)
            .filter(|task| task.state == RuntimeState::Succeeded)
            .map(|task| &task.outputs)
    }

    fn final_status_of(&self, task: &str) -> Option<FinalStatus> {
        let task = self.sibling(task)?;
        Some(FinalStatus {
            state: task.state,
            failure: task.error.clone(),
            job_resource_name: self
                .context
                .get("pipeline_job_resource_name")
                .cloned()
                .unwrap_or_default(),
        })
    }

    fn context(&self) -> &BTreeMap<String, String> {
        &self.context
    }
}

/// KFP's name for the run's Argo workflow; code that reads it looks for the pipeline's name.
fn job_resource_name(pipeline: &str, state: &State) -> String {
    let digits = state.run.id.uuid().simple().to_string();
    format!("{pipeline}-{}", &digits[digits.len() - 5..])
}
