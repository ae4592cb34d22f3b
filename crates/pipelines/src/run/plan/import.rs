//! Importers: artifacts that exist already.

use std::collections::BTreeMap;

use coracle_api::{
    id::{ArtifactId, TaskId},
    ir::{ArtifactTypeSchema, ImporterSpec, placeholder},
    launch::{ExecutorInput, ExecutorInputs, Failure, RuntimeArtifact, WorkspaceImport},
    reason::Reason,
    state::RuntimeState,
};
use coracle_store::records::{Artifact, IoType};
use serde_json::{Map, Value};

use super::{Import, Planner, begin::internal};
use crate::run::state::Node;

/// The output that every importer has.
const IMPORTED: &str = "artifact";
/// Where the SDK looks for artifacts that are in the workspace.
const WORKSPACE_FOLDER: &str = "/kfp-workspace/.artifacts";

impl Planner<'_> {
    /// Asks for an artifact to be looked up or added.
    pub(super) fn begin_import(&mut self, id: TaskId) {
        let begun = match self.import(id) {
            Ok((import, false)) => {
                self.plan.imports.push(import);
                Ok(())
            }
            // To the workspace only a Pod has access.
            Ok((_, true)) => self.begin_attempt(id),
            Err(failure) => Err(failure.into()),
        };
        if let Err(unready) = begun {
            self.unready(id, unready);
        }
    }

    /// What the launcher of an importer's Pod is to do.
    pub(super) fn workspace_import(&self, id: TaskId) -> Result<WorkspaceImport, Failure> {
        let (Import { artifact, .. }, _) = self.import(id)?;
        Ok(WorkspaceImport {
            artifact: RuntimeArtifact {
                name: artifact.name,
                artifact_type: ArtifactTypeSchema {
                    schema_title: artifact.artifact_type,
                    schema_version: artifact.type_version,
                    ..ArtifactTypeSchema::default()
                },
                uri: artifact.uri,
                metadata: artifact.metadata,
                custom_path: None,
            },
            output: IMPORTED.to_owned(),
            folder: WORKSPACE_FOLDER.to_owned(),
        })
    }

    /// What is to be imported, and whether it is to be copied into the workspace.
    fn import(&self, id: TaskId) -> Result<(Import, bool), Failure> {
        let node = self
            .state
            .nodes
            .get(&id)
            .ok_or_else(|| internal("its row is gone"))?;
        let component = self
            .pipeline
            .component(&node.component)
            .ok_or_else(|| internal("its component is gone"))?;
        let executor = self.pipeline.spec().executor_of(component);
        let importer = executor.and_then(|executor| executor.importer.as_ref());
        let ImporterSpec {
            artifact_uri,
            type_schema,
            metadata,
            reimport,
            download_to_workspace,
        } = importer.ok_or_else(|| internal("its executor is no importer"))?;
        if *download_to_workspace && self.workspace_claim().is_none() {
            let message = "`download_to_workspace` needs a workspace, and the pipeline has none: \
                           give it one with `dsl.PipelineConfig(workspace=…)`";
            return Err(Failure {
                reason: Reason::SettingInvalid,
                message: message.to_owned(),
            });
        }
        let parameters = &node.task.inputs.parameters;
        let uri = match (&artifact_uri.constant, &artifact_uri.runtime_parameter) {
            (_, Some(name)) => parameters.get(name),
            (Some(Value::Object(typed)), None) => typed.get("stringValue"),
            (constant, None) => constant.as_ref(),
        };
        let uri = uri
            .and_then(Value::as_str)
            .filter(|uri| !uri.is_empty())
            .ok_or_else(|| Failure {
                reason: Reason::InputMissing,
                message: "the importer has no URI to import".to_owned(),
            })?;
        let input = executor_input(parameters);
        let context = self.context(node);
        let scope = placeholder::Scope {
            input: &input,
            declared: &BTreeMap::new(),
            context: &context,
        };
        let unresolved = |error: placeholder::Unresolved| Failure {
            reason: Reason::PlaceholderUnresolved,
            message: error.to_string(),
        };
        let uri = placeholder::resolve_text(uri, &scope).map_err(unresolved)?;
        let metadata =
            match placeholder::resolve_value(&Value::Object(metadata.clone()), &scope).map_err(unresolved)? {
                Value::Object(metadata) => metadata,
                _ => Map::new(),
            };
        let artifact = Artifact {
            id: ArtifactId::of_output(id, 1, IMPORTED, 0),
            namespace: self.state.run.namespace.clone(),
            name: IMPORTED.to_owned(),
            artifact_type: type_schema.schema_title.clone(),
            type_version: type_schema.schema_version.clone(),
            uri,
            metadata,
            digest: None,
            size: None,
            created_at: self.now,
        };
        let import = Import {
            task: id,
            artifact,
            reimport: *reimport,
        };
        Ok((import, *download_to_workspace))
    }

    pub(super) fn import_refused(&mut self, id: TaskId, message: String) {
        let has_ended = |node: &Node| node.task.state.is_terminal();
        if self.state.nodes.get(&id).is_some_and(|node| !has_ended(node)) {
            let reason = Reason::InputArtifactUnavailable;
            self.end(id, RuntimeState::Failed, Some(Failure { reason, message }));
        }
    }

    pub(super) fn imported(&mut self, id: TaskId, artifact: Artifact) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        if node.task.state.is_terminal() {
            return;
        }
        node.task
            .outputs
            .artifacts
            .insert(IMPORTED.to_owned(), vec![artifact.id]);
        self.link(id, artifact.id, IoType::Output, IMPORTED, 0, String::new());
        self.add_artifact(artifact);
        self.end(id, RuntimeState::Succeeded, None);
    }
}

fn executor_input(parameters: &Map<String, Value>) -> ExecutorInput {
    let parameter_values = parameters
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    ExecutorInput {
        inputs: ExecutorInputs {
            parameter_values,
            ..Default::default()
        },
        ..Default::default()
    }
}
