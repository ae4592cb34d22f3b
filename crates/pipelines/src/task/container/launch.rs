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
use coracle_artifacts::{
    ArtifactUri,
    layout::{self, TaskFolder},
    uri::Place,
};
use indexmap::IndexMap;

use super::{Order, Settings};

/// The Secret whose keys are the variables that object stores are reached with; a namespace may do
/// without.
pub(super) const STORE_SECRET: &str = "coracle-artifact-store";

/// Whether anything that the task is given or makes is in an object store.
pub(super) fn needs_store(spec: &Spec) -> bool {
    let ExecutorInput { inputs, outputs } = &spec.executor_input;
    inputs
        .artifacts
        .values()
        .chain(outputs.artifacts.values())
        .flat_map(|list| &list.artifacts)
        .chain(spec.workspace_import.as_ref().map(|import| &import.artifact))
        .filter_map(|artifact| artifact.uri.parse::<ArtifactUri>().ok())
        .any(|uri| matches!(uri.place(), Place::Object(_)))
}

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coracle_api::{
        id::{RunId, TaskId},
        ir::{ComponentSpec, ContainerSpec},
    };
    use serde_json::json;

    use super::{super::Resolve, *};

    fn spec(pipeline_root: &str) -> Result<Spec, Failure> {
        let component: ComponentSpec = serde_json::from_value(json!({
            "executorLabel": "e",
            "outputDefinitions": {"artifacts": {"my model": {"artifactType": {"schemaTitle": "system.Model"}}}}
        }))
        .expect("component");
        let container: ContainerSpec = serde_json::from_value(json!({"image": "alpine"})).expect("container");
        let run_id: RunId = "0198c0de-0000-7000-8000-000000000001".parse().expect("id");
        let parameters = serde_json::Map::new();
        let order = Order {
            run_id,
            task_id: TaskId::at(run_id, "root.train"),
            task_name: "train",
            pipeline_name: "my pipeline",
            attempt: 1,
            namespace: "default",
            token: "secret",
            component: &component,
            container: &container,
            parameters: &parameters,
            artifacts: BTreeMap::new(),
            digests: BTreeMap::new(),
            context: BTreeMap::new(),
            pipeline_root,
            kubernetes: None,
            resolve: Resolve(&|_| None),
            workspace_claim: None,
            workspace_import: None,
        };
        let settings = Settings {
            artifact_root: "/data/artifacts".into(),
            launcher: "/bin/coracle".into(),
            server_url: "http://127.0.0.1:4242".into(),
            cache: None,
            cluster: None,
        };
        launch_spec(&order, &settings)
    }

    #[test]
    fn outputs_go_to_the_pipeline_root_and_the_rest_stays_here() {
        let here = spec("").expect("a spec");
        let artifact = |spec: &Spec| spec.executor_input.outputs.artifacts["my model"].artifacts[0].clone();
        assert!(!needs_store(&here) && artifact(&here).custom_path.is_none());
        let path = artifact(&here).uri;
        let below = path.strip_prefix("/data/artifacts/").expect("in the root");

        let there = spec("s3://b/root/").expect("a spec");
        assert!(needs_store(&there));
        assert_eq!(artifact(&there).uri, format!("s3://b/root/{below}"));
        assert_eq!(artifact(&there).custom_path.as_ref(), Some(&path));
        assert_eq!(there.context["pipeline_root"], "s3://b/root/");
        assert_eq!(there.log_uri, here.log_uri);

        let folder = spec("/other").expect("a spec");
        assert_eq!(artifact(&folder).uri, format!("/other/{below}"));
        assert_eq!(artifact(&folder).custom_path, None);

        let failure = spec("https://h/x").expect_err("read-only");
        assert_eq!(failure.reason, Reason::PipelineRootInvalid);
    }
}
