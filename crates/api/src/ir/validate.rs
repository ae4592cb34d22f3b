//! Everything that can be refused before anything starts.
//!
//! A pipeline that passes [`check`] has no dangling name: the engine may look up components,
//! executors, producers and outputs and treat a miss as its own fault. Types of values are
//! checked where they are known: constants here, run parameters in [`check_parameters`], the
//! rest when a task is about to start.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    ArtifactSource, ComponentSpec, DagSpec, Executor, InputParameterSpec, ParameterSource, ParameterType,
    PipelineSpec, TaskSpec,
};

/// What is wrong with a document or a parameter, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {message}")]
pub struct Problem {
    /// The place, e.g. `root.dag.tasks.train.inputs.parameters.rate`.
    pub path: String,
    /// What is wrong there, and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem at a place.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// Checks that a pipeline holds together.
///
/// # Errors
/// The first [`Problem`], in the order of the document.
pub fn check(spec: &PipelineSpec) -> Result<(), Problem> {
    let name = &spec.pipeline_info.name;
    if name.is_empty() || name.len() > 128 || name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'))
    {
        return Err(Problem::at(
            "pipelineInfo.name",
            "expected 1 to 128 characters without slashes or control characters",
        ));
    }
    if !spec.schema_version.is_empty() && !spec.schema_version.starts_with("2.") {
        let message = format!(
            "version `{}` is not known: expected 2.0.0 or 2.1.0",
            spec.schema_version
        );
        return Err(Problem::at("schemaVersion", message));
    }
    for (label, executor) in &spec.deployment_spec.executors {
        check_executor(executor, &format!("deploymentSpec.executors.{label}"))?;
    }
    if spec.root.dag.is_none() {
        return Err(Problem::at(
            "root.dag",
            "missing: the root of a pipeline is a graph of tasks",
        ));
    }
    check_component(spec, &spec.root, "root")?;
    for (name, component) in &spec.components {
        check_component(spec, component, &format!("components.{name}"))?;
    }
    check_no_component_holds_itself(spec)
}

/// Checks what a run is given against what its pipeline takes.
///
/// # Errors
/// The first [`Problem`]: an unknown name, a missing value, a value of another type or outside
/// the allowed ones.
pub fn check_parameters(spec: &PipelineSpec, given: &Map<String, Value>) -> Result<(), Problem> {
    let declared = &spec.root.input_definitions.parameters;
    let path = |name: &str| format!("runtime_config.parameters.{name}");
    for (name, value) in given {
        let Some(input) = declared.get(name) else {
            let known = listing(declared.keys());
            return Err(Problem::at(
                path(name),
                format!("the pipeline has no such parameter; it takes {known}"),
            ));
        };
        check_given(input, value).map_err(|message| Problem::at(path(name), message))?;
    }
    for (name, input) in declared {
        if !given.contains_key(name) && !input.is_optional && input.default_value.is_none() {
            let message = format!(
                "missing: the pipeline needs a value of type {}",
                input.parameter_type
            );
            return Err(Problem::at(path(name), message));
        }
    }
    if let Some(name) = spec
        .root
        .input_definitions
        .artifacts
        .iter()
        .find(|(_, input)| !input.is_optional)
    {
        let message =
            "the pipeline takes an artifact, and a run cannot be given one: import it inside the pipeline";
        return Err(Problem::at(
            format!("root.inputDefinitions.artifacts.{}", name.0),
            message,
        ));
    }
    Ok(())
}

fn check_given(input: &InputParameterSpec, value: &Value) -> Result<(), String> {
    if value.is_null() && (input.is_optional || input.default_value.is_some()) {
        return Ok(());
    }
    // KFP's server takes only text for STRING here; the coercion to text is for values inside a run.
    if input.parameter_type == ParameterType::String && !value.is_string() {
        return Err(format!("expected STRING, found {value}"));
    }
    let value = input
        .parameter_type
        .coerce(value.clone())
        .map_err(|mismatch| mismatch.to_string())?;
    check_literals(input, &value)
}

/// Checks a value against the list of values that an input allows, when it has one.
///
/// # Errors
/// A sentence naming the value and the allowed ones.
pub fn check_literals(input: &InputParameterSpec, value: &Value) -> Result<(), String> {
    let equal = |literal: &Value| match (literal.as_f64(), value.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => literal == value,
    };
    if input.literals.is_empty() || input.literals.iter().any(equal) {
        return Ok(());
    }
    let allowed = input
        .literals
        .iter()
        .map(Value::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    Err(format!("{value} is not allowed; allowed are {allowed}"))
}

fn check_executor(executor: &Executor, path: &str) -> Result<(), Problem> {
    let Executor {
        container,
        importer,
        resolver,
        custom_job,
    } = executor;
    match (container, importer) {
        (Some(container), None) => {
            if container.image.trim().is_empty() {
                return Err(Problem::at(
                    format!("{path}.container.image"),
                    "missing: a container needs an image",
                ));
            }
        }
        (None, Some(importer)) => {
            if importer.artifact_uri.constant.is_none() && importer.artifact_uri.runtime_parameter.is_none() {
                return Err(Problem::at(
                    format!("{path}.importer.artifactUri"),
                    "missing: nothing to import",
                ));
            }
        }
        (Some(_), Some(_)) => {
            return Err(Problem::at(
                path,
                "expected `container` or `importer`, found both",
            ));
        }
        (None, None) => {
            let what = match (resolver, custom_job) {
                (Some(_), _) => "the executor `resolver` is not supported",
                (_, Some(_)) => "the executor `customJob` belongs to a cloud service and is not supported",
                (None, None) => "unknown executor",
            };
            return Err(Problem::at(
                path,
                format!("{what}: expected `container` or `importer`"),
            ));
        }
    }
    Ok(())
}

fn check_component(spec: &PipelineSpec, component: &ComponentSpec, path: &str) -> Result<(), Problem> {
    for (name, input) in &component.input_definitions.parameters {
        if let Some(default) = &input.default_value
            && !default.is_null()
        {
            let at = || format!("{path}.inputDefinitions.parameters.{name}.defaultValue");
            input
                .parameter_type
                .coerce(default.clone())
                .map_err(|error| Problem::at(at(), error.to_string()))?;
        }
    }
    match (&component.dag, &component.executor_label) {
        (Some(dag), None) => check_dag(spec, component, dag, &format!("{path}.dag")),
        (None, Some(label)) if spec.deployment_spec.executors.contains_key(label) => Ok(()),
        (None, Some(label)) => {
            let known = listing(spec.deployment_spec.executors.keys());
            let message = format!("there is no executor `{label}`; deploymentSpec.executors holds {known}");
            Err(Problem::at(format!("{path}.executorLabel"), message))
        }
        (Some(_), Some(_)) => Err(Problem::at(path, "expected `dag` or `executorLabel`, found both")),
        (None, None) => Err(Problem::at(
            path,
            "expected `dag` or `executorLabel`, found neither",
        )),
    }
}

fn check_dag(spec: &PipelineSpec, holder: &ComponentSpec, dag: &DagSpec, path: &str) -> Result<(), Problem> {
    if dag.tasks.is_empty() {
        return Err(Problem::at(
            format!("{path}.tasks"),
            "empty: a pipeline needs at least one task",
        ));
    }
    for (name, task) in &dag.tasks {
        let scope = Scope {
            spec,
            holder,
            dag,
            path: format!("{path}.tasks.{name}"),
        };
        scope.check(task)?;
    }
    if let Some(cycle) = find_cycle(dag) {
        let message = format!("the tasks wait for each other: {}", cycle.join(" → "));
        return Err(Problem::at(
            format!("{path}.tasks.{}.dependentTasks", cycle[0]),
            message,
        ));
    }
    check_dag_outputs(spec, holder, dag, path)
}

fn check_dag_outputs(
    spec: &PipelineSpec,
    holder: &ComponentSpec,
    dag: &DagSpec,
    path: &str,
) -> Result<(), Problem> {
    let producer = |task: &str, at: String| {
        let found = dag.tasks.get(task).and_then(|task| spec.component_of(task));
        found.ok_or_else(|| {
            Problem::at(
                at,
                format!(
                    "there is no task `{task}` here; tasks are {}",
                    listing(dag.tasks.keys())
                ),
            )
        })
    };
    for (name, output) in &dag.outputs.parameters {
        let path = format!("{path}.outputs.parameters.{name}");
        if !holder.output_definitions.parameters.contains_key(name) {
            return Err(Problem::at(
                path,
                "the component declares no such output parameter",
            ));
        }
        let several = output
            .value_from_oneof
            .iter()
            .flat_map(|oneof| &oneof.parameter_selectors);
        let selectors: Vec<_> = output.value_from_parameter.iter().chain(several).collect();
        if selectors.is_empty() {
            return Err(Problem::at(
                path,
                "expected `valueFromParameter` or `valueFromOneof`",
            ));
        }
        for selector in selectors {
            let component = producer(&selector.producer_subtask, path.clone())?;
            if !component
                .output_definitions
                .parameters
                .contains_key(&selector.output_parameter_key)
            {
                let (task, key) = (&selector.producer_subtask, &selector.output_parameter_key);
                return Err(Problem::at(
                    path,
                    format!("task `{task}` has no output parameter `{key}`"),
                ));
            }
        }
    }
    for (name, output) in &dag.outputs.artifacts {
        let path = format!("{path}.outputs.artifacts.{name}");
        for selector in &output.artifact_selectors {
            let component = producer(&selector.producer_subtask, path.clone())?;
            if !component
                .output_definitions
                .artifacts
                .contains_key(&selector.output_artifact_key)
            {
                let (task, key) = (&selector.producer_subtask, &selector.output_artifact_key);
                return Err(Problem::at(
                    path,
                    format!("task `{task}` has no output artifact `{key}`"),
                ));
            }
        }
    }
    Ok(())
}

/// A task and what it can see.
struct Scope<'a> {
    spec: &'a PipelineSpec,
    holder: &'a ComponentSpec,
    dag: &'a DagSpec,
    path: String,
}

impl Scope<'_> {
    fn check(&self, task: &TaskSpec) -> Result<(), Problem> {
        let name = &task.component_ref.name;
        let Some(component) = self.spec.components.get(name) else {
            let message = format!(
                "there is no component `{name}`; components are {}",
                listing(self.spec.components.keys())
            );
            return Err(self.problem("componentRef.name", message));
        };
        for upstream in &task.dependent_tasks {
            if !self.dag.tasks.contains_key(upstream) {
                let message = format!(
                    "there is no task `{upstream}` here; tasks are {}",
                    listing(self.dag.tasks.keys())
                );
                return Err(self.problem("dependentTasks", message));
            }
        }
        for (input, source) in &task.inputs.parameters {
            // The SDK binds values that only resources or the image quote, undeclared.
            let undeclared = InputParameterSpec::default();
            let declared = component
                .input_definitions
                .parameters
                .get(input)
                .unwrap_or(&undeclared);
            self.check_parameter(input, source, declared)?;
        }
        for (input, source) in &task.inputs.artifacts {
            if !component.input_definitions.artifacts.contains_key(input) {
                let known = listing(component.input_definitions.artifacts.keys());
                let message = format!("component `{name}` has no input artifact `{input}`; it takes {known}");
                return Err(self.problem(&format!("inputs.artifacts.{input}"), message));
            }
            self.check_artifact(input, source)?;
        }
        self.check_nothing_is_missing(task, component)
    }

    fn check_nothing_is_missing(&self, task: &TaskSpec, component: &ComponentSpec) -> Result<(), Problem> {
        let iterated = [&task.parameter_iterator, &task.artifact_iterator]
            .into_iter()
            .flatten()
            .filter_map(|iterator| iterator.get("itemInput")?.as_str())
            .collect::<Vec<_>>();
        for (input, declared) in &component.input_definitions.parameters {
            let supplied = task.inputs.parameters.contains_key(input) || iterated.contains(&input.as_str());
            // A TaskConfig is made by the engine, never passed.
            let engine_made = declared.parameter_type == ParameterType::TaskConfig;
            if !supplied && !declared.is_optional && declared.default_value.is_none() && !engine_made {
                let message = format!(
                    "missing: the component needs a value of type {}",
                    declared.parameter_type
                );
                return Err(self.problem(&format!("inputs.parameters.{input}"), message));
            }
        }
        for (input, declared) in &component.input_definitions.artifacts {
            let supplied = task.inputs.artifacts.contains_key(input) || iterated.contains(&input.as_str());
            if !supplied && !declared.is_optional {
                return Err(self.problem(
                    &format!("inputs.artifacts.{input}"),
                    "missing: the component needs an artifact",
                ));
            }
        }
        Ok(())
    }

    fn check_parameter(
        &self,
        input: &str,
        source: &ParameterSource,
        declared: &InputParameterSpec,
    ) -> Result<(), Problem> {
        let field = format!("inputs.parameters.{input}");
        let ParameterSource {
            task_output_parameter,
            runtime_value,
            component_input_parameter,
            task_final_status,
            parameter_expression_selector,
        } = source;
        let sources = usize::from(task_output_parameter.is_some())
            + usize::from(runtime_value.is_some())
            + usize::from(component_input_parameter.is_some())
            + usize::from(task_final_status.is_some());
        if sources != 1 {
            return Err(self.problem(
                &field,
                format!("expected one source for the value, found {sources}"),
            ));
        }
        if let Some(output) = task_output_parameter {
            let component = self.producer(
                &output.producer_task,
                &format!("{field}.taskOutputParameter.producerTask"),
            )?;
            let outputs = &component.output_definitions.parameters;
            if !outputs.contains_key(&output.output_parameter_key) {
                let (task, key) = (&output.producer_task, &output.output_parameter_key);
                let message = format!(
                    "task `{task}` has no output parameter `{key}`; it has {}",
                    listing(outputs.keys())
                );
                return Err(self.problem(
                    &format!("{field}.taskOutputParameter.outputParameterKey"),
                    message,
                ));
            }
            let made = outputs
                .get(&output.output_parameter_key)
                .map(|made| made.parameter_type);
            let iterated = self.is_loop(&output.producer_task);
            // A loop's outputs are lists of what its component declares.
            self.check_types(&field, source, made.filter(|_| !iterated), declared)?;
        }
        if let Some(status) = task_final_status {
            self.producer(
                &status.producer_task,
                &format!("{field}.taskFinalStatus.producerTask"),
            )?;
        }
        if let Some(name) = component_input_parameter
            && !self.holder.input_definitions.parameters.contains_key(name)
        {
            let known = listing(self.holder.input_definitions.parameters.keys());
            let message =
                format!("the component around this task has no input parameter `{name}`; it takes {known}");
            return Err(self.problem(&format!("{field}.componentInputParameter"), message));
        }
        if let Some(name) = component_input_parameter {
            let given = self.holder.input_definitions.parameters.get(name);
            self.check_types(&field, source, given.map(|given| given.parameter_type), declared)?;
        }
        if let Some(value) = runtime_value.as_ref().and_then(|value| value.constant.as_ref())
            && parameter_expression_selector.is_empty()
            && !value.as_str().is_some_and(|text| text.contains("{{$"))
            && !value.is_null()
        {
            let at = format!("{field}.runtimeValue.constant");
            let value = declared
                .parameter_type
                .coerce(value.clone())
                .map_err(|e| self.problem(&at, e.to_string()))?;
            check_literals(declared, &value).map_err(|message| self.problem(&at, message))?;
        }
        Ok(())
    }

    /// A value of `from` must be able to become one of the declared type.
    fn check_types(
        &self,
        field: &str,
        source: &ParameterSource,
        from: Option<ParameterType>,
        declared: &InputParameterSpec,
    ) -> Result<(), Problem> {
        let to = declared.parameter_type;
        match from {
            Some(from) if source.parameter_expression_selector.is_empty() && !from.may_become(to) => {
                Err(self.problem(
                    field,
                    format!("expected {to}, and the value passed here is of type {from}"),
                ))
            }
            _ => Ok(()),
        }
    }

    fn is_loop(&self, task: &str) -> bool {
        let task = self.dag.tasks.get(task);
        task.is_some_and(|task| task.parameter_iterator.is_some() || task.artifact_iterator.is_some())
    }

    fn check_artifact(&self, input: &str, source: &ArtifactSource) -> Result<(), Problem> {
        let field = format!("inputs.artifacts.{input}");
        match (&source.task_output_artifact, &source.component_input_artifact) {
            (Some(output), None) => {
                let component = self.producer(
                    &output.producer_task,
                    &format!("{field}.taskOutputArtifact.producerTask"),
                )?;
                let outputs = &component.output_definitions.artifacts;
                if outputs.contains_key(&output.output_artifact_key) {
                    return Ok(());
                }
                let (task, key) = (&output.producer_task, &output.output_artifact_key);
                let message = format!(
                    "task `{task}` has no output artifact `{key}`; it has {}",
                    listing(outputs.keys())
                );
                Err(self.problem(&format!("{field}.taskOutputArtifact.outputArtifactKey"), message))
            }
            (None, Some(name)) if self.holder.input_definitions.artifacts.contains_key(name) => Ok(()),
            (None, Some(name)) => {
                let known = listing(self.holder.input_definitions.artifacts.keys());
                let message = format!(
                    "the component around this task has no input artifact `{name}`; it takes {known}"
                );
                Err(self.problem(&format!("{field}.componentInputArtifact"), message))
            }
            (Some(_), Some(_)) | (None, None) => Err(self.problem(
                &field,
                "expected `taskOutputArtifact` or `componentInputArtifact`",
            )),
        }
    }

    fn producer(&self, task: &str, field: &str) -> Result<&ComponentSpec, Problem> {
        let found = self
            .dag
            .tasks
            .get(task)
            .and_then(|task| self.spec.component_of(task));
        found.ok_or_else(|| {
            let known = listing(self.dag.tasks.keys());
            self.problem(
                field,
                format!("there is no task `{task}` here; tasks are {known}"),
            )
        })
    }

    fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        Problem::at(format!("{}.{field}", self.path), message)
    }
}

/// Tasks that wait for each other, the first one again at the end.
fn find_cycle(dag: &DagSpec) -> Option<Vec<String>> {
    let upstream = |name: &str| -> Vec<&str> {
        let task = dag.tasks.get(name);
        task.map(|task| {
            task.upstream()
                .filter(|name| dag.tasks.contains_key(*name))
                .collect()
        })
        .unwrap_or_default()
    };
    cycle_in(dag.tasks.keys().map(String::as_str), upstream)
}

fn check_no_component_holds_itself(spec: &PipelineSpec) -> Result<(), Problem> {
    let inside = |name: &str| -> Vec<&str> {
        let dag = spec
            .components
            .get(name)
            .and_then(|component| component.dag.as_ref());
        dag.map(|dag| {
            dag.tasks
                .values()
                .map(|task| task.component_ref.name.as_str())
                .collect()
        })
        .unwrap_or_default()
    };
    match cycle_in(spec.components.keys().map(String::as_str), inside) {
        None => Ok(()),
        Some(cycle) => {
            let message = format!("the component holds itself, without end: {}", cycle.join(" → "));
            Err(Problem::at(format!("components.{}", cycle[0]), message))
        }
    }
}

/// The first cycle of a graph, found without recursion: documents may be deep.
fn cycle_in<'a>(
    nodes: impl Iterator<Item = &'a str>,
    next: impl Fn(&str) -> Vec<&'a str>,
) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    for start in nodes {
        let mut path: Vec<(&str, Vec<&str>)> = vec![(start, next(start))];
        let mut position = BTreeMap::from([(start, 0)]);
        while let Some((node, rest)) = path.last_mut() {
            match rest.pop() {
                Some(other) => {
                    if let Some(first) = position.get(other) {
                        let mut cycle: Vec<String> = path[*first..]
                            .iter()
                            .map(|(name, _)| (*name).to_owned())
                            .collect();
                        cycle.push(other.to_owned());
                        return Some(cycle);
                    }
                    if !done.contains(other) {
                        position.insert(other, path.len());
                        path.push((other, next(other)));
                    }
                }
                None => {
                    done.insert(*node);
                    position.remove(*node);
                    path.pop();
                }
            }
        }
    }
    None
}

fn listing<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A pipeline `a → b`, with inner pipeline `deep` to aim at.
    fn pipeline() -> Value {
        json!({
            "pipelineInfo": {"name": "p"},
            "schemaVersion": "2.1.0",
            "root": {
                "inputDefinitions": {"parameters": {
                    "rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.1},
                    "count": {"parameterType": "NUMBER_INTEGER"},
                    "mode": {"parameterType": "STRING", "defaultValue": "fast", "literals": ["fast", "slow"]}
                }},
                "dag": {"tasks": {
                    "a": {
                        "componentRef": {"name": "comp-a"},
                        "inputs": {"parameters": {
                            "rate": {"componentInputParameter": "rate"},
                            "steps": {"runtimeValue": {"constant": 3}}
                        }}
                    },
                    "b": {
                        "componentRef": {"name": "comp-b"},
                        "dependentTasks": ["a"],
                        "inputs": {
                            "parameters": {"score": {"taskOutputParameter": {"producerTask": "a", "outputParameterKey": "score"}}},
                            "artifacts": {"model": {"taskOutputArtifact": {"producerTask": "a", "outputArtifactKey": "model"}}}
                        }
                    }
                }}
            },
            "components": {
                "comp-a": {
                    "executorLabel": "exec-a",
                    "inputDefinitions": {"parameters": {
                        "rate": {"parameterType": "NUMBER_DOUBLE"},
                        "steps": {"parameterType": "NUMBER_INTEGER"}
                    }},
                    "outputDefinitions": {
                        "parameters": {"score": {"parameterType": "NUMBER_DOUBLE"}},
                        "artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}}
                    }
                },
                "comp-b": {
                    "executorLabel": "exec-b",
                    "inputDefinitions": {
                        "parameters": {"score": {"parameterType": "NUMBER_DOUBLE"}},
                        "artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}}
                    }
                }
            },
            "deploymentSpec": {"executors": {
                "exec-a": {"container": {"image": "alpine"}},
                "exec-b": {"container": {"image": "alpine"}}
            }}
        })
    }

    fn read(value: &Value) -> PipelineSpec {
        serde_json::from_value(value.clone()).expect("well-formed")
    }

    /// Puts `value` at `pointer` and expects the problem.
    fn check_refused(pointer: &str, value: Value, expected: &str) {
        let mut document = pipeline();
        *document.pointer_mut(pointer).expect(pointer) = value;
        let problem = check(&read(&document)).expect_err(expected);
        assert_eq!(problem.to_string(), expected);
    }

    #[test]
    fn a_sound_pipeline_passes() {
        assert_eq!(check(&read(&pipeline())), Ok(()));
    }

    #[test]
    fn dangling_names_are_refused_at_their_place() {
        check_refused(
            "/root/dag/tasks/a/componentRef/name",
            json!("comp-x"),
            "`root.dag.tasks.a.componentRef.name`: there is no component `comp-x`; components are `comp-a`, `comp-b`",
        );
        check_refused(
            "/components/comp-a/executorLabel",
            json!("exec-x"),
            "`components.comp-a.executorLabel`: there is no executor `exec-x`; deploymentSpec.executors holds `exec-a`, `exec-b`",
        );
        check_refused(
            "/root/dag/tasks/b/dependentTasks",
            json!(["c"]),
            "`root.dag.tasks.b.dependentTasks`: there is no task `c` here; tasks are `a`, `b`",
        );
        check_refused(
            "/root/dag/tasks/b/inputs/parameters/score/taskOutputParameter/outputParameterKey",
            json!("loss"),
            "`root.dag.tasks.b.inputs.parameters.score.taskOutputParameter.outputParameterKey`: task `a` has no output parameter `loss`; it has `score`",
        );
        check_refused(
            "/root/dag/tasks/b/inputs/artifacts/model/taskOutputArtifact/producerTask",
            json!("z"),
            "`root.dag.tasks.b.inputs.artifacts.model.taskOutputArtifact.producerTask`: there is no task `z` here; tasks are `a`, `b`",
        );
        check_refused(
            "/root/dag/tasks/a/inputs/parameters/rate/componentInputParameter",
            json!("speed"),
            "`root.dag.tasks.a.inputs.parameters.rate.componentInputParameter`: the component around this task has no input parameter `speed`; it takes `rate`, `count`, `mode`",
        );
    }

    #[test]
    fn a_constant_of_another_type_is_refused_at_its_place() {
        check_refused(
            "/root/dag/tasks/a/inputs/parameters/steps/runtimeValue/constant",
            json!("many"),
            r#"`root.dag.tasks.a.inputs.parameters.steps.runtimeValue.constant`: expected NUMBER_INTEGER, found the text "many""#,
        );
    }

    #[test]
    fn an_executor_that_is_not_known_is_refused() {
        check_refused(
            "/deploymentSpec/executors/exec-a",
            json!({"teleport": {}}),
            "`deploymentSpec.executors.exec-a`: unknown executor: expected `container` or `importer`",
        );
        check_refused(
            "/deploymentSpec/executors/exec-a",
            json!({"customJob": {}}),
            "`deploymentSpec.executors.exec-a`: the executor `customJob` belongs to a cloud service and is not supported: expected `container` or `importer`",
        );
    }

    #[test]
    fn a_missing_input_is_refused() {
        check_refused(
            "/root/dag/tasks/a/inputs/parameters",
            json!({"rate": {"componentInputParameter": "rate"}}),
            "`root.dag.tasks.a.inputs.parameters.steps`: missing: the component needs a value of type NUMBER_INTEGER",
        );
    }

    #[test]
    fn tasks_that_wait_for_each_other_are_refused_with_the_cycle() {
        let mut document = pipeline();
        document["root"]["dag"]["tasks"]["a"]["dependentTasks"] = json!(["b"]);
        let problem = check(&read(&document)).expect_err("cycle");
        assert_eq!(
            problem.to_string(),
            "`root.dag.tasks.a.dependentTasks`: the tasks wait for each other: a → b → a"
        );
    }

    #[test]
    fn a_component_that_holds_itself_is_refused() {
        let mut document = pipeline();
        document["components"]["comp-a"] = json!({
            "inputDefinitions": document["components"]["comp-a"]["inputDefinitions"],
            "outputDefinitions": document["components"]["comp-a"]["outputDefinitions"],
            "dag": {"tasks": {"again": {
                "componentRef": {"name": "comp-a"},
                "inputs": {"parameters": {
                    "rate": {"componentInputParameter": "rate"},
                    "steps": {"componentInputParameter": "steps"}
                }}
            }}}
        });
        let problem = check(&read(&document)).expect_err("holds itself");
        assert_eq!(
            problem.to_string(),
            "`components.comp-a`: the component holds itself, without end: comp-a → comp-a"
        );
    }

    #[test]
    fn run_parameters_are_checked_against_what_the_pipeline_takes() {
        let spec = read(&pipeline());
        let check = |given: Value| {
            let given = given.as_object().expect("object").clone();
            check_parameters(&spec, &given).map_err(|problem| problem.to_string())
        };
        assert_eq!(check(json!({"count": 3})), Ok(()));
        assert_eq!(check(json!({"count": 3.0, "rate": 1, "mode": "slow"})), Ok(()));
        assert_eq!(
            check(json!({})),
            Err("`runtime_config.parameters.count`: missing: the pipeline needs a value of type NUMBER_INTEGER".into())
        );
        assert_eq!(
            check(json!({"count": 3, "speed": 1})),
            Err("`runtime_config.parameters.speed`: the pipeline has no such parameter; it takes `rate`, `count`, `mode`".into())
        );
        assert_eq!(
            check(json!({"count": "three"})),
            Err(
                r#"`runtime_config.parameters.count`: expected NUMBER_INTEGER, found the text "three""#
                    .into()
            )
        );
        assert_eq!(
            check(json!({"count": 3, "mode": "medium"})),
            Err(
                r#"`runtime_config.parameters.mode`: "medium" is not allowed; allowed are "fast", "slow""#
                    .into()
            )
        );
    }
}
