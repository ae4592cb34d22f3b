//! What a container task runs as: what its launcher fetches, and its Pod. Pure.
//!
//! The Pod is small whatever the task is given: inputs, commands and sources travel in the launch
//! spec, which the launcher fetches from the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use coracle_api::{
    id::{RunId, TaskId},
    ir::{ComponentSpec, ContainerSpec, placeholder, preamble},
    labels,
    launch::{ArtifactList, Failure, Spec, WorkspaceImport},
    reason::Reason,
};
use coracle_artifacts::ArtifactUri;
use serde_json::{Map, Value, json};

mod launch;
mod resources;

/// How long a task that is asked to stop may take before it is killed.
const GRACE_SECONDS: u32 = 10;

/// What is the same for all tasks of a server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where artifacts go: an absolute path.
    pub artifact_root: PathBuf,
    /// The executable that Pods start: this one.
    pub launcher: String,
    /// Where launchers reach the server.
    pub server_url: String,
}

/// One attempt to be made.
#[derive(Debug)]
pub struct Order<'a> {
    /// The run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// The task's name in its DAG.
    pub task_name: &'a str,
    /// The pipeline's name.
    pub pipeline_name: &'a str,
    /// From 1.
    pub attempt: u32,
    /// Where the Pod goes.
    pub namespace: &'a str,
    /// What the launcher shows to be let in.
    pub token: &'a str,
    /// The component.
    pub component: &'a ComponentSpec,
    /// Its container.
    pub container: &'a ContainerSpec,
    /// The input parameters, followed and typed.
    pub parameters: &'a Map<String, Value>,
    /// The input artifacts.
    pub artifacts: BTreeMap<String, ArtifactList>,
    /// What the placeholders about the run stand for.
    pub context: BTreeMap<String, String>,
    /// Where output artifacts go: a URI; empty for the artifact root.
    pub pipeline_root: &'a str,
    /// The executor's Kubernetes configuration, as kfp-kubernetes wrote it.
    pub kubernetes: Option<&'a Map<String, Value>>,
    /// The claim of the run's workspace, when the pipeline has one.
    pub workspace_claim: Option<String>,
    /// Set when the artifact is to be brought into the workspace and nothing else is to be done.
    pub workspace_import: Option<WorkspaceImport>,
}

/// What an attempt runs as.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// What the launcher fetches.
    pub launch: Spec,
    /// The Pod, as JSON.
    pub pod: Value,
    /// The Pod's name.
    pub pod_name: String,
}

/// The name of the Pod of an attempt: the same for the same attempt, unlike any other's.
#[must_use]
pub fn pod_name(task_name: &str, task: TaskId, attempt: u32) -> String {
    let readable = sanitised(task_name, 40);
    let digits = task.uuid().simple().to_string();
    format!("{readable}-{}-{attempt}", &digits[..10])
}

/// Works out launch spec and Pod.
///
/// # Errors
/// `PlaceholderUnresolved` or `InputTypeMismatch`, when image, environment or resources cannot be
/// read.
pub fn build(order: &Order<'_>, settings: &Settings) -> Result<Built, Failure> {
    let launch = launch::launch_spec(order, settings);
    let pod_name = pod_name(order.task_name, order.task_id, order.attempt);
    let text = |what: &str, text: &str| {
        let scope = placeholder::Scope {
            input: &launch.executor_input,
            declared: &launch.input_parameters,
            context: &order.context,
        };
        placeholder::resolve_text(text, &scope).map_err(|error| Failure {
            reason: Reason::PlaceholderUnresolved,
            message: format!("{what}: {error}"),
        })
    };
    let mut env = vec![
        json!({"name": labels::SERVER_ENV, "value": settings.server_url}),
        json!({"name": labels::TOKEN_ENV, "value": order.token}),
    ];
    for variable in &order.container.env {
        let value = text(
            &format!("environment variable `{}`", variable.name),
            &variable.value,
        )?;
        env.push(json!({"name": variable.name, "value": value}));
    }
    let mut annotations = Map::new();
    if let Some(preamble) = preamble::parse(&order.container.command, &order.container.args) {
        annotations.insert(
            labels::PYTHON_REQUIREMENTS.to_owned(),
            json!(json!(preamble.requirements).to_string()),
        );
    }
    let (volumes, mounts) = inputs_from_elsewhere(order, settings);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name,
            "namespace": order.namespace,
            "labels": {
                (labels::RUN_ID): order.run_id,
                (labels::TASK_ID): order.task_id,
                (labels::ATTEMPT): order.attempt.to_string(),
                (labels::TASK_NAME): sanitised(order.task_name, 63),
            },
            "annotations": annotations,
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "volumes": volumes,
            "containers": [{
                "name": "main",
                "image": text("the image", &order.container.image)?,
                "command": [settings.launcher, "launch"],
                "env": env,
                "resources": resources::resources(order.container, text)?,
                "volumeMounts": mounts,
            }],
        },
    });
    Ok(Built {
        launch,
        pod,
        pod_name,
    })
}

/// Local artifacts outside the artifact store, such as an imported file in /tmp, as volumes at their own paths:
/// a task's sandbox may cover the place where they are.
fn inputs_from_elsewhere(order: &Order<'_>, settings: &Settings) -> (Vec<Value>, Vec<Value>) {
    let artifacts = order.artifacts.values().flat_map(|list| &list.artifacts);
    let uris = artifacts.filter_map(|artifact| artifact.uri.parse::<ArtifactUri>().ok());
    let paths: BTreeSet<PathBuf> = uris
        .filter_map(|uri| uri.local().ok().map(Path::to_owned))
        .filter(|path| !path.starts_with(&settings.artifact_root))
        .collect();
    paths
        .iter()
        .enumerate()
        .map(|(number, path)| {
            let name = format!("input-{number}");
            let volume = json!({"name": name, "hostPath": {"path": path}});
            (volume, json!({"name": name, "mountPath": path, "readOnly": true}))
        })
        .unzip()
}

/// Text as one component of a name or path: lower-case letters, digits, dashes.
fn sanitised(text: &str, longest: usize) -> String {
    let mut name: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(longest)
        .collect();
    while name.ends_with('-') {
        name.pop();
    }
    let name = name.trim_start_matches('-');
    if name.is_empty() {
        "task".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(executor: Value, parameters: Value) -> Result<Built, Failure> {
        let component: ComponentSpec = serde_json::from_value(json!({
            "executorLabel": "e",
            "outputDefinitions": {
                "parameters": {"Output": {"parameterType": "STRING"}},
                "artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}}
            }
        }))
        .expect("component");
        let container: ContainerSpec = serde_json::from_value(executor).expect("container");
        let run_id: RunId = "0198c0de-0000-7000-8000-000000000001".parse().expect("id");
        let parameters = parameters.as_object().expect("object").clone();
        let order = Order {
            run_id,
            task_id: TaskId::at(run_id, "root.train"),
            task_name: "Train it!",
            pipeline_name: "my pipeline",
            attempt: 2,
            namespace: "default",
            token: "secret",
            component: &component,
            container: &container,
            parameters: &parameters,
            artifacts: BTreeMap::new(),
            context: BTreeMap::new(),
            pipeline_root: "",
            kubernetes: None,
            workspace_claim: None,
            workspace_import: None,
        };
        let settings = Settings {
            artifact_root: "/data/artifacts".into(),
            launcher: "/bin/coracle".into(),
            server_url: "http://127.0.0.1:4242".into(),
        };
        build(&order, &settings)
    }

    #[test]
    fn every_attempt_writes_to_a_place_of_its_own() {
        let built = built(json!({"image": "alpine", "command": ["true"]}), json!({})).expect("builds");
        let outputs = &built.launch.executor_input.outputs;
        let uri = &outputs.artifacts["model"].artifacts[0].uri;
        assert!(uri.ends_with("-2/model"), "{uri}");
        assert!(
            built.pod_name.starts_with("train-it-") && built.pod_name.ends_with("-2"),
            "{}",
            built.pod_name
        );
        assert!(
            !built.pod.to_string().contains("alpine\",\"command\":[\"true"),
            "the command stays out of the Pod"
        );
    }

    #[test]
    fn resources_are_kubernetes_quantities_wherever_they_come_from() {
        let built = built(
            json!({"image": "alpine", "resources": {
                "cpuLimit": 2, "resourceCpuRequest": "500m", "memoryLimit": 0.5, "resourceMemoryRequest": "{{$.inputs.parameters['mem']}}",
                "accelerator": {"type": "NVIDIA_TESLA_T4", "count": "2"}
            }}),
            json!({"mem": "64Mi"}),
        )
        .expect("builds");
        assert_eq!(
            built.pod["spec"]["containers"][0]["resources"],
            json!({
                "limits": {"cpu": "2", "memory": "0.5G", "nvidia.com/gpu": "2"},
                "requests": {"cpu": "500m", "memory": "64Mi"}
            })
        );
    }

    #[test]
    fn a_quantity_that_is_none_fails_with_its_text() {
        let failure = built(
            json!({"image": "alpine", "resources": {"resourceMemoryLimit": "a lot"}}),
            json!({}),
        )
        .expect_err("must fail");
        assert_eq!(failure.reason, Reason::InputTypeMismatch);
        assert!(
            failure
                .message
                .starts_with("the memory limit: `a lot` is not a quantity"),
            "{}",
            failure.message
        );
    }
}
