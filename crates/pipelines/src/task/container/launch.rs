//! What a launcher fetches: inputs, commands as written, and where each output goes.
//!
//! Output artifacts go to the run's pipeline root. Everything else that an attempt keeps (values,
//! log) stays in the artifact root of this machine, and so do artifacts on their way to another.

use std::path::PathBuf;

use coracle_api::{
    launch::{
        ArtifactList, ExecutorInput, ExecutorInputs, ExecutorOutputs, Failure, OutputParameter,
        ParameterDefault, RuntimeArtifact, Spec,
    },
    reason::Reason,
};
use coracle_artifacts::layout::{self, TaskFolder};
use indexmap::IndexMap;

use super::{Order, Settings};

pub(super) fn launch_spec(order: &Order<'_>, settings: &Settings) -> Result<Spec, Failure> {
    let pipeline_root = layout::pipeline_root(order.pipeline_root).map_err(|error| Failure {
        reason: Reason::PipelineRootInvalid,
        message: error.to_string(),
    })?;
    let digits = order.task_id.uuid().simple().to_string();
    let run_root = layout::run_root(&settings.artifact_root, order.pipeline_name, order.run_id);
    // Unique to the attempt, so that a second attempt never finds what the first left half-made.
    let unique = format!("{}-{}", &digits[..10], order.attempt);
    let folder = TaskFolder::new(&run_root, order.task_name, &unique);
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    // The same names below another root.
    let elsewhere = pipeline_root.as_ref().map(|root| {
        root.join(&layout::relative(
            order.pipeline_name,
            order.run_id,
            order.task_name,
            &unique,
        ))
    });
    let place = |name: &str| match &elsewhere {
        None => (text(folder.artifact(name)), None),
        Some(other) => {
            let uri = other.join(&layout::artifact_name(name));
            // What has no path here is made in the task's folder, and sent from there.
            let path = uri.local().is_err().then(|| text(folder.artifact(name)));
            (uri.to_string(), path)
        }
    };
    let outputs = &order.component.output_definitions;
    let parameters: IndexMap<_, _> = outputs
        .parameters
        .keys()
        .map(|name| {
            (
                name.clone(),
                OutputParameter {
                    output_file: text(folder.parameter(name)),
                },
            )
        })
        .collect();
    let artifacts: IndexMap<_, _> = outputs
        .artifacts
        .iter()
        .map(|(name, declared)| {
            let (uri, custom_path) = place(name);
            let artifact = RuntimeArtifact {
                name: name.clone(),
                artifact_type: declared.artifact_type.clone(),
                uri,
                metadata: declared.metadata.clone(),
                custom_path,
            };
            (
                name.clone(),
                ArtifactList {
                    artifacts: vec![artifact],
                },
            )
        })
        .collect();
    let inputs = ExecutorInputs {
        parameter_values: order
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        artifacts: order
            .artifacts
            .iter()
            .map(|(name, artifacts)| (name.clone(), artifacts.clone()))
            .collect(),
    };
    let mut context = order.context.clone();
    if let Some(root) = &pipeline_root {
        context.insert("pipeline_root".to_owned(), root.to_string());
    }
    Ok(Spec {
        run_id: order.run_id,
        task_id: order.task_id,
        attempt: order.attempt,
        command: order.container.command.clone(),
        args: order.container.args.clone(),
        executor_input: ExecutorInput {
            inputs,
            outputs: ExecutorOutputs {
                parameters,
                artifacts,
                output_file: text(folder.output_metadata()),
            },
        },
        input_parameters: order
            .component
            .input_definitions
            .parameters
            .iter()
            .map(|(name, input)| {
                let default_value = input.default_value.clone();
                (
                    name.clone(),
                    ParameterDefault {
                        parameter_type: input.parameter_type,
                        default_value,
                    },
                )
            })
            .collect(),
        output_parameters: outputs
            .parameters
            .iter()
            .map(|(name, output)| (name.clone(), output.parameter_type))
            .collect(),
        context,
        log_uri: text(folder.log()),
        input_digests: order.digests.clone(),
        workspace_import: order.workspace_import.clone(),
    })
}
