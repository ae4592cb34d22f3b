//! Executors: what a component runs.

use super::{Problem, listing};
use crate::{
    ir::{ComponentSpec, ContainerSpec, Executor, ImporterSpec, PipelineSpec},
    quantity::Quantity,
};

pub(super) fn check(executor: &Executor, path: &str) -> Result<(), Problem> {
    let Executor {
        container,
        importer,
        resolver,
        custom_job,
    } = executor;
    match (container, importer) {
        (Some(container), None) => check_container(container, &format!("{path}.container")),
        (None, Some(importer)) => check_importer(importer, &format!("{path}.importer")),
        (Some(_), Some(_)) => Err(Problem::at(
            path,
            "expected `container` or `importer`, found both",
        )),
        (None, None) => {
            let what = match (resolver, custom_job) {
                (Some(_), _) => "the executor `resolver` is not supported",
                (_, Some(_)) => "the executor `customJob` belongs to a cloud service and is not supported",
                (None, None) => "unknown executor",
            };
            Err(Problem::at(
                path,
                format!("{what}: expected `container` or `importer`"),
            ))
        }
    }
}

fn check_container(container: &ContainerSpec, path: &str) -> Result<(), Problem> {
    if container.image.trim().is_empty() {
        return Err(Problem::at(
            format!("{path}.image"),
            "missing: a container needs an image",
        ));
    }
    for (index, variable) in container.env.iter().enumerate() {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            return Err(Problem::at(
                format!("{path}.env[{index}].name"),
                format!("`{}` cannot be the name of a variable", variable.name),
            ));
        }
    }
    let Some(resources) = &container.resources else {
        return Ok(());
    };
    for (field, text) in [
        ("resourceCpuLimit", &resources.resource_cpu_limit),
        ("resourceCpuRequest", &resources.resource_cpu_request),
        ("resourceMemoryLimit", &resources.resource_memory_limit),
        ("resourceMemoryRequest", &resources.resource_memory_request),
    ] {
        let constant = text
            .as_deref()
            .filter(|text| !text.is_empty() && !text.contains("{{"));
        if let Some(text) = constant
            && let Err(error) = text.parse::<Quantity>()
        {
            return Err(Problem::at(
                format!("{path}.resources.{field}"),
                error.to_string(),
            ));
        }
    }
    Ok(())
}

fn check_importer(importer: &ImporterSpec, path: &str) -> Result<(), Problem> {
    let uri = &importer.artifact_uri;
    let path = format!("{path}.artifactUri");
    match (&uri.constant, &uri.runtime_parameter) {
        (None, None) => Err(Problem::at(path, "missing: nothing to import")),
        (Some(_), Some(_)) => Err(Problem::at(
            path,
            "expected `constant` or `runtimeParameter`, found both",
        )),
        (Some(constant), None) => {
            let text = constant
                .as_str()
                .or_else(|| constant.get("stringValue")?.as_str());
            match text {
                Some(text) if !text.trim().is_empty() => Ok(()),
                _ => Err(Problem::at(
                    format!("{path}.constant"),
                    format!("expected text with a URI, found {constant}"),
                )),
            }
        }
        (None, Some(_)) => Ok(()),
    }
}

/// Checks a component that `label` executes against its executor.
pub(super) fn check_component(
    spec: &PipelineSpec,
    component: &ComponentSpec,
    label: &str,
    path: &str,
) -> Result<(), Problem> {
    let Some(executor) = spec.deployment_spec.executors.get(label) else {
        let known = listing(spec.deployment_spec.executors.keys());
        let message = format!("there is no executor `{label}`; deploymentSpec.executors holds {known}");
        return Err(Problem::at(format!("{path}.executorLabel"), message));
    };
    let Some(importer) = &executor.importer else {
        return Ok(());
    };
    let outputs = &component.output_definitions.artifacts;
    if outputs.len() != 1 {
        return Err(Problem::at(
            format!("{path}.outputDefinitions.artifacts"),
            format!(
                "an importer makes one artifact, and the component declares {}",
                outputs.len()
            ),
        ));
    }
    let inputs = &component.input_definitions.parameters;
    match &importer.artifact_uri.runtime_parameter {
        Some(name) if !inputs.contains_key(name) => Err(Problem::at(
            format!("deploymentSpec.executors.{label}.importer.artifactUri.runtimeParameter"),
            format!(
                "the importer's component has no input parameter `{name}`; it takes {}",
                listing(inputs.keys())
            ),
        )),
        _ => Ok(()),
    }
}
