//! Everything that can be refused before anything starts.
//!
//! A pipeline that passes [`check`] has no dangling name: the engine may look up components,
//! executors, producers and outputs and treat a miss as its own fault. Types of values are
//! checked where they are known: constants here, run parameters in [`check_parameters`], the
//! rest when a task is about to start.

mod cycle;
mod executor;
mod outputs;
mod repeat;
mod scope;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use self::scope::Scope;
use super::{ComponentSpec, DagSpec, InputParameterSpec, ParameterType, PipelineSpec};

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
        executor::check(executor, &format!("deploymentSpec.executors.{label}"))?;
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

fn check_component(spec: &PipelineSpec, component: &ComponentSpec, path: &str) -> Result<(), Problem> {
    for (name, input) in &component.input_definitions.parameters {
        if let Some(default) = &input.default_value
            && !default.is_null()
        {
            let at = || format!("{path}.inputDefinitions.parameters.{name}.defaultValue");
            let default = input
                .parameter_type
                .coerce(default.clone())
                .map_err(|error| Problem::at(at(), error.to_string()))?;
            check_literals(input, &default).map_err(|message| Problem::at(at(), message))?;
        }
    }
    match (&component.dag, &component.executor_label) {
        (Some(dag), None) => check_dag(spec, component, dag, &format!("{path}.dag")),
        (None, Some(label)) => executor::check_component(spec, component, label, path),
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
    outputs::check(spec, holder, dag, path)
}

fn listing<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
