//! How runs, DAGs and tasks begin: who is allowed to, with what, and as what.

use std::collections::BTreeMap;

use coracle_api::{
    id::{ArtifactId, TaskId},
    ir::{Executor, ImporterSpec, TaskSpec, TriggerStrategy, placeholder},
    launch::{ArtifactList, ExecutorInput, ExecutorInputs, Failure, RuntimeArtifact},
    reason::Reason,
    state::RuntimeState,
};
use coracle_store::records::{Artifact, Attempt, IoType, StateChange, Task, TaskIo, TaskKind};
use serde_json::{Map, Value};

use super::{Import, Planner, Work};
use crate::{
    run::state::{Node, State},
    task::{
        condition, container,
        inputs::{self, FinalStatus, Surroundings},
    },
};

/// The output that every importer has.
pub(super) const IMPORTED: &str = "artifact";

/// Whether a task runs.
pub(super) enum Verdict {
    /// It does, with these inputs.
    Run(TaskIo),
    /// It is not needed; with a failure when another task's is to blame.
    Skip(Option<Failure>),
}

impl Planner<'_> {
    pub(super) fn begin_run(&mut self) {
        self.set_run_state(RuntimeState::Running, None);
        let root = self.pipeline.spec().root.clone();
        let id = self.add_task(None, "root", TaskKind::Root, "root");
        match inputs::of_root(&root, &self.state.run.parameters) {
            Ok(inputs) => self.begin_task(id, inputs),
            Err(failure) => self.end(id, RuntimeState::Failed, Some(failure)),
        }
    }

    /// A new row under `parent`.
    fn add_task(&mut self, parent: Option<TaskId>, name: &str, kind: TaskKind, display_name: &str) -> TaskId {
        let path = match parent.and_then(|parent| self.state.nodes.get(&parent)) {
            None => name.to_owned(),
            Some(parent) => format!("{}.{name}", parent.task.path),
        };
        let id = TaskId::at(self.state.run.id, &path);
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
    pub(super) fn verdict(&self, id: TaskId) -> Result<Verdict, Failure> {
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
            let holds = condition::holds(condition, &io.parameters).map_err(|error| Failure {
                reason: Reason::ConditionInvalid,
                message: error.to_string(),
            })?;
            if !holds {
                return Ok(Verdict::Skip(None));
            }
        }
        if spec.parameter_iterator.is_some() || spec.artifact_iterator.is_some() {
            let message = "loops (`dsl.ParallelFor`) do not run yet in this version".to_owned();
            return Err(Failure {
                reason: Reason::NotSupported,
                message,
            });
        }
        Ok(Verdict::Run(io))
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
    pub(super) fn begin_task(&mut self, id: TaskId, inputs: TaskIo) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        node.task.inputs = inputs;
        match node.task.kind {
            TaskKind::Root | TaskKind::Dag | TaskKind::Loop | TaskKind::Iteration => {
                self.set_task_state(id, RuntimeState::Running, None);
                self.open_dag(id);
            }
            TaskKind::Container => {
                if let Err(failure) = self.begin_attempt(id) {
                    self.end(id, RuntimeState::Failed, Some(failure));
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
        match component.and_then(|component| self.pipeline.spec().executor_of(component)) {
            Some(Executor {
                importer: Some(_), ..
            }) => TaskKind::Importer,
            _ => TaskKind::Container,
        }
    }

    /// A new attempt: its row, and its Pod to be created.
    fn begin_attempt(&mut self, id: TaskId) -> Result<(), Failure> {
        let pipeline = self.pipeline;
        let node = self
            .state
            .nodes
            .get(&id)
            .ok_or_else(|| internal("its row is gone"))?;
        let component = pipeline
            .component(&node.component)
            .ok_or_else(|| internal("its component is gone"))?;
        let executor = pipeline
            .spec()
            .executor_of(component)
            .ok_or_else(|| internal("its executor is gone"))?;
        let container = executor
            .container
            .as_ref()
            .ok_or_else(|| internal("its executor is no container"))?;
        if let Some(config) = component
            .executor_label
            .as_ref()
            .and_then(|label| pipeline.kubernetes_config(label))
        {
            let fields: Vec<_> = config.keys().map(|field| format!("`{field}`")).collect();
            let message = format!(
                "the Kubernetes settings {} do not run yet in this version",
                fields.join(", ")
            );
            return Err(Failure {
                reason: Reason::NotSupported,
                message,
            });
        }
        let number = u32::try_from(node.attempts.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let token = (self.token)();
        let order = container::Order {
            run_id: self.state.run.id,
            task_id: id,
            task_name: &node.task.name,
            pipeline_name: &pipeline.spec().pipeline_info.name,
            attempt: number,
            namespace: namespace(self.state),
            token: &token,
            component,
            container,
            parameters: &node.task.inputs.parameters,
            artifacts: runtime_artifacts(self.state, &node.task.inputs),
            context: self.context(node),
        };
        let built = container::build(&order, self.settings)?;
        let launch = serde_json::to_value(&built.launch)
            .map_err(|error| internal(&format!("its launch spec cannot be written: {error}")))?;
        let attempt = Attempt {
            task_id: id,
            run_id: self.state.run.id,
            number,
            namespace: order.namespace.to_owned(),
            pod_name: built.pod_name,
            token: token.clone(),
            launch,
            pod: built.pod,
            state: RuntimeState::Pending,
            error: None,
            exit_code: None,
            log_uri: built.launch.log_uri,
            created_at: self.now,
            started_at: None,
            finished_at: None,
        };
        self.link_inputs(id);
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.attempts.push(attempt);
        }
        self.changed.insert(id);
        self.plan.create.push((id, number));
        Ok(())
    }

    /// Rows for the artifacts that a task consumes.
    fn link_inputs(&mut self, id: TaskId) {
        let Some((node, spec)) = self.lookup(id) else {
            return;
        };
        let mut links = Vec::new();
        for (key, ids) in &node.task.inputs.artifacts {
            let source = spec.inputs.artifacts.get(key);
            let producer = source.and_then(|source| source.task_output_artifact.as_ref());
            let io = if producer.is_some() {
                IoType::TaskOutputInput
            } else {
                IoType::ComponentInput
            };
            let producer = producer
                .map(|output| output.producer_task.clone())
                .unwrap_or_default();
            for (position, artifact) in ids.iter().enumerate() {
                links.push((*artifact, io, key.clone(), position, producer.clone()));
            }
        }
        for (artifact, io, key, position, producer) in links {
            self.link(id, artifact, io, &key, position, producer);
        }
    }

    /// Asks for an artifact to be looked up or added.
    pub(super) fn begin_import(&mut self, id: TaskId) {
        match self.import(id) {
            Ok(import) => self.plan.imports.push(import),
            Err(failure) => self.end(id, RuntimeState::Failed, Some(failure)),
        }
    }

    fn import(&self, id: TaskId) -> Result<Import, Failure> {
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
        if *download_to_workspace {
            let message = "`download_to_workspace` does not run yet in this version".to_owned();
            return Err(Failure {
                reason: Reason::NotSupported,
                message,
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
        Ok(Import {
            task: id,
            artifact,
            reimport: *reimport,
        })
    }

    /// A task and its place in the pipeline. None for the root, which has none.
    fn lookup(&self, id: TaskId) -> Option<(&Node, &TaskSpec)> {
        let node = self.state.nodes.get(&id)?;
        let parent = self.state.parent(node)?;
        Some((node, self.pipeline.task(&parent.component, &node.task.name)?))
    }

    fn around<'a>(&'a self, node: &'a Node) -> Around<'a> {
        Around {
            state: self.state,
            parent: self.state.parent(node),
            context: self.context(node),
        }
    }

    /// What the placeholders about a task and its run stand for.
    fn context(&self, node: &Node) -> BTreeMap<String, String> {
        let run = &self.state.run;
        let name = &self.pipeline.spec().pipeline_info.name;
        BTreeMap::from(
            [
                ("pipeline_job_name", run.display_name.clone()),
                ("pipeline_job_resource_name", job_resource_name(name, self.state)),
                ("pipeline_job_uuid", run.id.to_string()),
                ("pipeline_task_name", node.task.name.clone()),
                ("pipeline_task_uuid", node.task.id.to_string()),
                ("pipeline_root", self.settings.artifact_root.clone()),
                ("pipeline_job_create_time_utc", run.created_at.to_string()),
                ("pipeline_job_schedule_time_utc", run.scheduled_at.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }
}

/// A task's view of what is around it.
struct Around<'a> {
    state: &'a State,
    parent: Option<&'a Node>,
    context: BTreeMap<String, String>,
}

impl Around<'_> {
    fn sibling(&self, name: &str) -> Option<&Task> {
        Some(&self.state.nodes.get(self.parent?.children.get(name)?)?.task)
    }
}

impl Surroundings for Around<'_> {
    fn component_inputs(&self) -> &TaskIo {
        static NONE: std::sync::LazyLock<TaskIo> = std::sync::LazyLock::new(TaskIo::default);
        self.parent.map_or(&NONE, |parent| &parent.task.inputs)
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

fn namespace(state: &State) -> &str {
    if state.run.namespace.is_empty() {
        "default"
    } else {
        &state.run.namespace
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

fn runtime_artifacts(state: &State, inputs: &TaskIo) -> BTreeMap<String, ArtifactList> {
    let runtime = |artifact: &Artifact| RuntimeArtifact {
        name: artifact.id.to_string(),
        artifact_type: coracle_api::ir::ArtifactTypeSchema {
            schema_title: artifact.artifact_type.clone(),
            schema_version: artifact.type_version.clone(),
            ..Default::default()
        },
        uri: artifact.uri.clone(),
        metadata: artifact.metadata.clone(),
        custom_path: None,
    };
    let list = |ids: &Vec<ArtifactId>| ArtifactList {
        artifacts: ids
            .iter()
            .filter_map(|id| state.artifacts.get(id))
            .map(runtime)
            .collect(),
    };
    inputs
        .artifacts
        .iter()
        .map(|(name, ids)| (name.clone(), list(ids)))
        .collect()
}

fn internal(why: &str) -> Failure {
    Failure {
        reason: Reason::InternalError,
        message: format!("the task cannot start: {why}"),
    }
}
