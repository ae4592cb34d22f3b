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
    ir::{
        ComponentSpec, ContainerSpec, ParameterSource, TaskConfigField, lightweight, placeholder, preamble,
    },
    labels,
    launch::{ArtifactList, Failure, Spec, WorkspaceImport},
    reason::Reason,
};
use coracle_artifacts::ArtifactUri;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use self::{
    kubernetes::{PodSettings, Sources, volumes::Volumes},
    task_config::Passthroughs,
};
use super::claim::WORKSPACE_PATH;

mod kubernetes;
mod launch;
mod resources;
mod task_config;

/// The container that runs the task.
const MAIN: &str = "main";
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
    /// How results are reused; none for not at all.
    pub cache: Option<Cache>,
    /// The cluster that Pods run on, when it is not this server's own node.
    pub cluster: Option<OnCluster>,
}

/// What Pods on a cluster need that others have by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnCluster {
    /// The only namespace that tasks run in.
    pub namespace: String,
    /// Tells Pods of this server from those of others.
    pub server_id: String,
}

/// How results are reused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cache {
    /// How long a result may be reused; none for as long as it is there.
    pub ttl: Option<SignedDuration>,
}

/// Follows a source of the platform part around a task: an input of the DAG, an output of another of its tasks.
#[derive(Clone, Copy)]
pub struct Resolve<'a>(pub &'a dyn Fn(&ParameterSource) -> Option<Value>);

impl std::fmt::Debug for Resolve<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolve")
    }
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
    /// Recorded digests of the input artifacts, by URI.
    pub digests: BTreeMap<String, String>,
    /// What the placeholders about the run stand for.
    pub context: BTreeMap<String, String>,
    /// Where output artifacts go: a URI; empty for the artifact root.
    pub pipeline_root: &'a str,
    /// The executor's Kubernetes configuration, as kfp-kubernetes wrote it.
    pub kubernetes: Option<&'a Map<String, Value>>,
    /// Where that one's dynamic values come from.
    pub resolve: Resolve<'a>,
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
/// `PlaceholderUnresolved`, `InputTypeMismatch` or `SettingInvalid`, when image, environment, resources or
/// settings cannot be read.
pub fn build(order: &Order<'_>, settings: &Settings) -> Result<Built, Failure> {
    let mut launch = launch::launch_spec(order, settings)?;
    if order.workspace_claim.is_some() {
        let path = WORKSPACE_PATH.to_owned();
        launch.context.entry("workspace_path".to_owned()).or_insert(path);
    }
    let pod_name = pod_name(order.task_name, order.task_id, order.attempt);
    let passthroughs = Passthroughs::of(order.component);
    let text = |what: &str, text: &str| resolved(&launch, what, text);
    let (volumes, kubernetes) = kubernetes_part(order, settings, &text)?;
    let resources = resources::resources(order.container, text)?;
    let mut own_env = Vec::new();
    for variable in &order.container.env {
        let value = text(
            &format!("environment variable `{}`", variable.name),
            &variable.value,
        )?;
        own_env.push(json!({"name": variable.name, "value": value}));
    }
    own_env.extend(kubernetes.env.iter().cloned());
    let image = text("the image", &order.container.image)?;
    let for_component = passthroughs.value(&kubernetes, &own_env, &resources, &volumes);
    for input in passthroughs.inputs() {
        let values = &mut launch.executor_input.inputs.parameter_values;
        values.insert(input.clone(), for_component.clone());
    }
    let on_pod = |field| passthroughs.on_pod(field);
    let mut env = vec![
        json!({"name": labels::SERVER_ENV, "value": settings.server_url}),
        json!({"name": labels::TOKEN_ENV, "value": order.token}),
    ];
    if on_pod(TaskConfigField::Env) {
        env.extend(own_env);
    }
    let (volumes, mounts) = volumes.of_pod(on_pod(TaskConfigField::KubernetesVolumes));
    let mut main = json!({
        "name": MAIN,
        "image": image,
        "command": [settings.launcher, "launch"],
        "env": env,
        "resources": resources,
        "volumeMounts": mounts,
    });
    if !on_pod(TaskConfigField::Resources) {
        main["resources"] = json!({});
    }
    if launch::needs_store(&launch) {
        main["envFrom"] = json!([{"secretRef": {"name": launch::STORE_SECRET, "optional": true}}]);
    }
    if let Some(policy) = &kubernetes.image_pull_policy {
        main["imagePullPolicy"] = json!(policy);
    }
    if let Some(context) = &kubernetes.security_context {
        main["securityContext"] = context.clone();
    }
    let mut spec = json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "volumes": volumes,
        "containers": [main],
    });
    let metadata = metadata(order, settings, &pod_name, &kubernetes);
    for (field, value) in spec_fields(kubernetes, passthroughs) {
        spec[field] = value;
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    Ok(Built {
        launch,
        pod,
        pod_name,
    })
}

/// A text of the pipeline with its placeholders filled in. `what` is for the message.
fn resolved(launch: &Spec, what: &str, text: &str) -> Result<String, Failure> {
    let scope = placeholder::Scope {
        input: &launch.executor_input,
        declared: &launch.input_parameters,
        context: &launch.context,
    };
    placeholder::resolve_text(text, &scope).map_err(|error| Failure {
        reason: Reason::PlaceholderUnresolved,
        message: format!("{what}: {error}"),
    })
}

/// Volumes and settings: of the run, of the inputs, and of the platform part.
fn kubernetes_part(
    order: &Order<'_>,
    settings: &Settings,
    text: &dyn Fn(&str, &str) -> Result<String, Failure>,
) -> Result<(Volumes, PodSettings), Failure> {
    let mut volumes = Volumes::default();
    inputs_from_elsewhere(order, settings, &mut volumes);
    if settings.cluster.is_some() {
        shared_with_node(settings, &mut volumes);
    }
    if let Some(claim) = &order.workspace_claim {
        let source = json!({"persistentVolumeClaim": {"claimName": claim}});
        volumes.add(
            "kfp-workspace",
            source,
            json!({"mountPath": WORKSPACE_PATH}),
            true,
        );
    }
    let kubernetes = match order.kubernetes {
        Some(kubernetes) => {
            let sources = Sources {
                resolve: order.resolve,
                text,
            };
            kubernetes::pod_settings(kubernetes, &sources, &mut volumes)?
        }
        None => PodSettings::default(),
    };
    Ok((volumes, kubernetes))
}

/// The pipeline's own labels and annotations, and ours, which win.
fn metadata(order: &Order<'_>, settings: &Settings, pod_name: &str, kubernetes: &PodSettings) -> Value {
    let mut labels = kubernetes.metadata.labels.clone();
    labels.extend([
        (labels::RUN_ID.to_owned(), order.run_id.to_string()),
        (labels::TASK_ID.to_owned(), order.task_id.to_string()),
        (labels::ATTEMPT.to_owned(), order.attempt.to_string()),
        (labels::TASK_NAME.to_owned(), sanitised(order.task_name, 63)),
    ]);
    if let Some(cluster) = &settings.cluster {
        labels.insert(labels::SERVER.to_owned(), cluster.server_id.clone());
    }
    let mut annotations = kubernetes.metadata.annotations.clone();
    let ContainerSpec { command, args, .. } = order.container;
    let preamble = preamble::parse(command, args);
    if let Some(preamble) = &preamble {
        let requirements = json!(preamble.requirements).to_string();
        annotations.insert(labels::PYTHON_REQUIREMENTS.to_owned(), requirements);
    }
    // The command line that is left.
    let argv = preamble.map_or_else(|| [&command[..], &args[..]].concat(), |preamble| preamble.rest);
    if lightweight::parse(&argv).is_some() {
        annotations.insert(labels::PYTHON_WORKER.to_owned(), MAIN.to_owned());
    }
    json!({"name": pod_name, "namespace": order.namespace, "labels": labels, "annotations": annotations})
}

/// The fields of the Pod's spec that only settings fill.
fn spec_fields(
    kubernetes: PodSettings,
    passthroughs: Passthroughs<'_>,
) -> impl Iterator<Item = (&'static str, Value)> {
    let on_pod = |field| passthroughs.on_pod(field);
    let list = |items: Vec<Value>| (!items.is_empty()).then_some(Value::Array(items));
    let fields = [
        (
            "nodeSelector",
            kubernetes
                .node_selector
                .filter(|_| on_pod(TaskConfigField::KubernetesNodeSelector))
                .map(Value::Object),
        ),
        (
            "tolerations",
            list(kubernetes.tolerations).filter(|_| on_pod(TaskConfigField::KubernetesTolerations)),
        ),
        (
            "affinity",
            kubernetes
                .affinity
                .filter(|_| on_pod(TaskConfigField::KubernetesAffinity)),
        ),
        ("imagePullSecrets", list(kubernetes.image_pull_secrets)),
        ("initContainers", list(kubernetes.init_containers)),
        (
            "activeDeadlineSeconds",
            kubernetes.active_deadline_seconds.map(|seconds| json!(seconds)),
        ),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
}

/// Local artifacts outside the artifact store, such as an imported file in /tmp, as volumes at their own paths:
/// a task's sandbox may cover the place where they are.
fn inputs_from_elsewhere(order: &Order<'_>, settings: &Settings, volumes: &mut Volumes) {
    let imported = order.workspace_import.iter().map(|import| &import.artifact);
    let artifacts = order
        .artifacts
        .values()
        .flat_map(|list| &list.artifacts)
        .chain(imported);
    let uris = artifacts.filter_map(|artifact| artifact.uri.parse::<ArtifactUri>().ok());
    let paths: BTreeSet<PathBuf> = uris
        .filter_map(|uri| uri.local().ok().map(Path::to_owned))
        .filter(|path| !path.starts_with(&settings.artifact_root) && !path.starts_with(WORKSPACE_PATH))
        .collect();
    for (number, path) in paths.iter().enumerate() {
        let source = json!({"hostPath": {"path": path}});
        let mount = json!({"mountPath": path, "readOnly": true});
        volumes.add(&format!("input-{number}"), source, mount, false);
    }
}

/// On a cluster the folder of artifacts and the launcher are where they are here: on nodes that
/// share them with this machine.
fn shared_with_node(settings: &Settings, volumes: &mut Volumes) {
    let root = &settings.artifact_root;
    let source = json!({"hostPath": {"path": root, "type": "Directory"}});
    volumes.add("coracle-artifacts", source, json!({"mountPath": root}), false);
    let launcher = &settings.launcher;
    let source = json!({"hostPath": {"path": launcher, "type": "File"}});
    let mount = json!({"mountPath": launcher, "readOnly": true});
    volumes.add("coracle-launcher", source, mount, false);
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

    pub(super) fn component() -> ComponentSpec {
        serde_json::from_value(json!({
            "executorLabel": "e",
            "outputDefinitions": {
                "parameters": {"Output": {"parameterType": "STRING"}},
                "artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}}
            }
        }))
        .expect("component")
    }

    fn built(executor: Value, parameters: Value) -> Result<Built, Failure> {
        built_with(&component(), executor, parameters, json!({}), json!({}))
    }

    /// `known` holds inputs of the DAG by name, and outputs of its tasks as `task.output`.
    pub(super) fn built_with(
        component: &ComponentSpec,
        executor: Value,
        parameters: Value,
        settings: Value,
        known: Value,
    ) -> Result<Built, Failure> {
        let resolve = |source: &ParameterSource| {
            let name = match &source.task_output_parameter {
                Some(output) => format!("{}.{}", output.producer_task, output.output_parameter_key),
                None => source.component_input_parameter.clone()?,
            };
            known.get(name).cloned()
        };
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
            component,
            container: &container,
            parameters: &parameters,
            artifacts: BTreeMap::new(),
            digests: BTreeMap::new(),
            context: BTreeMap::new(),
            pipeline_root: "",
            kubernetes: settings.as_object(),
            resolve: Resolve(&resolve),
            workspace_claim: parameters
                .get("workspace")
                .map(|_| "run-1-kfp-workspace".to_owned()),
            workspace_import: None,
        };
        let settings = Settings {
            artifact_root: "/data/artifacts".into(),
            launcher: "/bin/coracle".into(),
            server_url: "http://127.0.0.1:4242".into(),
            cache: None,
            cluster: None,
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
    fn every_pod_of_a_run_with_a_workspace_has_it_at_its_place() {
        let built = built(
            json!({"image": "alpine", "env": [{"name": "W", "value": "{{$.workspace_path}}/x"}]}),
            json!({"workspace": "yes"}),
        )
        .expect("builds");
        let spec = &built.pod["spec"];
        assert_eq!(
            spec["volumes"],
            json!([{"name": "kfp-workspace", "persistentVolumeClaim": {"claimName": "run-1-kfp-workspace"}}])
        );
        assert_eq!(
            spec["containers"][0]["volumeMounts"],
            json!([{"name": "kfp-workspace", "mountPath": "/kfp-workspace"}])
        );
        assert_eq!(
            spec["containers"][0]["env"][2]["value"],
            json!("/kfp-workspace/x")
        );
        assert_eq!(built.launch.context["workspace_path"], "/kfp-workspace");
    }

    #[test]
    fn a_request_above_its_limit_and_a_negative_amount_fail_by_name() {
        for (resources, expected) in [
            (
                json!({"resourceCpuLimit": "1", "resourceCpuRequest": "2"}),
                "the CPU request: `2` is more than its limit of `1`",
            ),
            (
                json!({"resourceMemoryLimit": "-1Gi"}),
                "the memory limit: `-1Gi` is negative",
            ),
            (
                json!({"accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "many"}}),
                "the accelerator count: `many` is not a quantity",
            ),
        ] {
            let failure = built(json!({"image": "alpine", "resources": resources}), json!({}));
            let message = failure.expect_err("must fail").message;
            assert!(message.starts_with(expected), "{message}");
        }
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
