//! Outputs of a DAG: which outputs of its tasks they are.

use super::{Problem, listing};
use crate::ir::{ComponentSpec, DagSpec, ParameterType, PipelineSpec, TaskSpec};

pub(super) fn check(
    spec: &PipelineSpec,
    holder: &ComponentSpec,
    dag: &DagSpec,
    path: &str,
) -> Result<(), Problem> {
    let producer = |name: &str, at: &str| {
        let task = dag.tasks.get(name);
        task.and_then(|task| Some((task, spec.component_of(task)?)))
            .ok_or_else(|| {
                Problem::at(
                    at,
                    format!(
                        "there is no task `{name}` here; tasks are {}",
                        listing(dag.tasks.keys())
                    ),
                )
            })
    };
    let outputs = &holder.output_definitions;
    for (name, output) in &dag.outputs.parameters {
        let path = format!("{path}.outputs.parameters.{name}");
        let Some(declared) = outputs.parameters.get(name) else {
            return Err(Problem::at(
                path,
                "the component declares no such output parameter",
            ));
        };
        if output.value_from_parameter.is_some() && output.value_from_oneof.is_some() {
            return Err(Problem::at(
                path,
                "expected `valueFromParameter` or `valueFromOneof`, found both",
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
            let (task, key) = (&selector.producer_subtask, &selector.output_parameter_key);
            let (of, component) = producer(task, &path)?;
            let Some(made) = component.output_definitions.parameters.get(key) else {
                return Err(Problem::at(
                    path,
                    format!("task `{task}` has no output parameter `{key}`"),
                ));
            };
            let (from, to) = (made.parameter_type, declared.parameter_type);
            // A loop's outputs are gathered: the SDK declares LIST for the body that makes one element.
            let is_gathered = is_loop(of) || to == ParameterType::List;
            if !is_gathered && !from.may_become(to) {
                return Err(Problem::at(
                    path,
                    format!("expected {to}, and output `{key}` of task `{task}` is of type {from}"),
                ));
            }
        }
    }
    for (name, output) in &dag.outputs.artifacts {
        let path = format!("{path}.outputs.artifacts.{name}");
        if !outputs.artifacts.contains_key(name) {
            return Err(Problem::at(
                path,
                "the component declares no such output artifact",
            ));
        }
        if output.artifact_selectors.is_empty() {
            return Err(Problem::at(path, "expected one of `artifactSelectors` or more"));
        }
        for selector in &output.artifact_selectors {
            let (task, key) = (&selector.producer_subtask, &selector.output_artifact_key);
            let (_, component) = producer(task, &path)?;
            if !component.output_definitions.artifacts.contains_key(key) {
                return Err(Problem::at(
                    path,
                    format!("task `{task}` has no output artifact `{key}`"),
                ));
            }
        }
    }
    Ok(())
}

/// Whether a task's outputs are lists of what its component declares.
pub(super) const fn is_loop(task: &TaskSpec) -> bool {
    task.parameter_iterator.is_some() || task.artifact_iterator.is_some()
}
