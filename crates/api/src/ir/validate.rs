//! Everything that can be refused before anything starts.
//!
//! A pipeline that passes [`check`] has no dangling name: the engine may look up components,
//! executors, producers and outputs and treat a miss as its own fault. Types of values are
//! checked where they are known: constants here, run parameters in [`check_parameters`], the
//! rest when a task is about to start.

mod cycle;
mod scope;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use self::scope::Scope;
use super::{ComponentSpec, DagSpec, Executor, InputParameterSpec, ParameterType, PipelineSpec};

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
    cycle::check_no_component_holds_itself(spec)
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
    if let Some(cycle) = cycle::of_tasks(dag) {
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

fn listing<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
