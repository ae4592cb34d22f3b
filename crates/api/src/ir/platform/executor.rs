//! What kfp-kubernetes says about one executor: `kubernetes_executor_config.proto`, in its JSON form.
//!
//! Reading is strict: a setting that is not known here would be left out of the Pod without a word.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

use crate::ir::{ParameterSource, TaskOutputParameter};

/// A setting that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {message}")]
pub struct InvalidSetting {
    /// Where, e.g. `secretAsEnv[0].keyToEnv`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// The settings of an executor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubernetesExecutorConfig {
    /// Secrets as files.
    pub secret_as_volume: Vec<SecretAsVolume>,
    /// Values of Secrets as environment variables.
    pub secret_as_env: Vec<SecretAsEnv>,
    /// Claims as folders.
    pub pvc_mount: Vec<PvcMount>,
    /// Labels that the machine must have.
    pub node_selector: Option<NodeSelector>,
    /// Labels and annotations of the Pod.
    pub pod_metadata: PodMetadata,
    /// Secrets to fetch the image with.
    pub image_pull_secret: Vec<ImagePullSecret>,
    /// When to fetch the image: `Always`, `Never`, `IfNotPresent`; empty for Kubernetes' choice.
    pub image_pull_policy: String,
    /// ConfigMaps as files.
    pub config_map_as_volume: Vec<ConfigMapAsVolume>,
    /// Values of ConfigMaps as environment variables.
    pub config_map_as_env: Vec<ConfigMapAsEnv>,
    /// Seconds that the Pod may take; 0 for no limit.
    #[serde(deserialize_with = "integer")]
    pub active_deadline_seconds: i64,
    /// Fields of the Pod as environment variables.
    pub field_path_as_env: Vec<FieldPathAsEnv>,
    /// Taints of machines that the Pod tolerates.
    pub tolerations: Vec<Toleration>,
    /// Claims that live as long as the Pod.
    pub generic_ephemeral_volume: Vec<GenericEphemeralVolume>,
    /// Which machines are wanted.
    pub node_affinity: Vec<NodeAffinityTerm>,
    /// Which Pods are wanted beside it, or not.
    pub pod_affinity: Vec<PodAffinityTerm>,
    /// A larger `/dev/shm`.
    pub enabled_shared_memory: Option<EnabledSharedMemory>,
    /// Folders that live as long as the Pod.
    pub empty_dir_mounts: Vec<EmptyDirMount>,
    /// Who the container runs as.
    pub security_context: Option<SecurityContext>,
    /// Containers that run before.
    pub init_containers: Vec<InitContainer>,
}

impl KubernetesExecutorConfig {
    /// Reads the settings, whichever spelling of field names they use.
    ///
    /// # Errors
    /// [`InvalidSetting`], when a field is unknown or of the wrong type.
    pub fn read(settings: &Map<String, Value>) -> Result<Self, InvalidSetting> {
        serde_path_to_error::deserialize(normal(settings)).map_err(|error| {
            let path = error.path().to_string();
            let text = error.inner().to_string();
            let unknown = text
                .strip_prefix("unknown field `")
                .and_then(|rest| rest.split_once('`'));
            // The path of an unknown field holds its name already.
            let message = match unknown {
                Some(_) => "there is no such setting".to_owned(),
                None => text,
            };
            InvalidSetting { path, message }
        })
    }
}

/// Fields whose content is the user's: its keys are no names of ours.
const OPAQUE: [&str; 7] = [
    "annotations",
    "constant",
    "labels",
    "limits",
    "matchNamespaceLabels",
    "matchPodLabels",
    "requests",
];

/// camelCase names and no nulls, as protobuf's JSON reader takes both spellings and null for "not set".
fn normal(object: &Map<String, Value>) -> Value {
    fn of(value: &Value) -> Value {
        match value {
            Value::Object(object) => normal(object),
            Value::Array(items) => items.iter().map(of).collect(),
            other => other.clone(),
        }
    }
    let fields = object.iter().filter(|(_, value)| !value.is_null());
    fields
        .map(|(name, value)| {
            let name = camel(name);
            let value = if OPAQUE.contains(&name.as_str()) {
                value.clone()
            } else {
                of(value)
            };
            (name, value)
        })
        .collect::<Map<_, _>>()
        .into()
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut text, word| {
        let mut letters = word.chars();
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        text.push_str(letters.as_str());
        text
    })
}

/// A 64-bit integer: protobuf's JSON has it as text, a Struct as a double.
fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let whole = |number: f64| {
        let is_whole = number.fract() == 0.0 && number.abs() < 9.0e15;
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        is_whole.then_some(number as i64)
    };
    let found = match &value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.parse().ok().or_else(|| whole(text.parse().ok()?)),
        _ => None,
    };
    found.ok_or_else(|| D::Error::custom(format!("must be a whole number, and is {value}")))
}

fn optional_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    integer(deserializer).map(Some)
}

/// A Secret as files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SecretAsVolume {
    /// Its name; the older form of the parameter.
    pub secret_name: String,
    /// Where its name comes from.
    pub secret_name_parameter: Option<ParameterSource>,
    /// Where the files appear.
    pub mount_path: String,
    /// Whether it may be missing.
    pub optional: Option<bool>,
}

/// Values of a Secret as environment variables.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SecretAsEnv {
    /// Its name; the older form of the parameter.
    pub secret_name: String,
    /// Where its name comes from.
    pub secret_name_parameter: Option<ParameterSource>,
    /// Which key becomes which variable.
    pub key_to_env: Vec<SecretKeyToEnv>,
    /// Whether it may be missing.
    pub optional: Option<bool>,
}

/// A key of a Secret, and a variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SecretKeyToEnv {
    /// The key.
    pub secret_key: String,
    /// The variable.
    pub env_var: String,
}

/// A ConfigMap as files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConfigMapAsVolume {
    /// Its name; the older form of the parameter.
    pub config_map_name: String,
    /// Where its name comes from.
    pub config_map_name_parameter: Option<ParameterSource>,
    /// Where the files appear.
    pub mount_path: String,
    /// Whether it may be missing.
    pub optional: Option<bool>,
}

/// Values of a ConfigMap as environment variables.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConfigMapAsEnv {
    /// Its name; the older form of the parameter.
    pub config_map_name: String,
    /// Where its name comes from.
    pub config_map_name_parameter: Option<ParameterSource>,
    /// Which key becomes which variable.
    pub key_to_env: Vec<ConfigMapKeyToEnv>,
    /// Whether it may be missing.
    pub optional: Option<bool>,
}

/// A key of a ConfigMap, and a variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConfigMapKeyToEnv {
    /// The key.
    pub config_map_key: String,
    /// The variable.
    pub env_var: String,
}

/// A claim as a folder. The name comes from the parameter, or from one of the three older forms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PvcMount {
    /// Where its name comes from.
    pub pvc_name_parameter: Option<ParameterSource>,
    /// Its name.
    pub constant: String,
    /// The input that holds its name.
    pub component_input_parameter: String,
    /// The output that holds its name.
    pub task_output_parameter: Option<TaskOutputParameter>,
    /// Where the folder appears.
    pub mount_path: String,
    /// The part of the claim to show; empty for all of it.
    pub sub_path: String,
}

/// Labels that the machine must have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeSelector {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Where the labels come from; wins.
    pub node_selector_json: Option<ParameterSource>,
}

/// Labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PodMetadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A Secret to fetch the image with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ImagePullSecret {
    /// Its name; the older form of the parameter.
    pub secret_name: String,
    /// Where its name comes from.
    pub secret_name_parameter: Option<ParameterSource>,
}

/// A field of the Pod as an environment variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FieldPathAsEnv {
    /// The variable.
    pub name: String,
    /// The field, e.g. `metadata.name`.
    pub field_path: String,
}

/// A taint that the Pod tolerates.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key; empty for all.
    pub key: String,
    /// `Exists` or `Equal`.
    pub operator: String,
    /// The taint's value.
    pub value: String,
    /// The taint's effect; empty for all.
    pub effect: String,
    /// For how long; absent for ever.
    #[serde(
        deserialize_with = "optional_integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub toleration_seconds: Option<i64>,
    /// Where one toleration, or a list of them, comes from; wins.
    pub toleration_json: Option<ParameterSource>,
}

/// A claim that lives as long as the Pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GenericEphemeralVolume {
    /// The volume's name.
    pub volume_name: String,
    /// Where the folder appears.
    pub mount_path: String,
    /// Access modes of the claim.
    pub access_modes: Vec<String>,
    /// Bytes, as a Kubernetes quantity.
    pub size: String,
    /// Whether the cluster chooses the storage class.
    pub default_storage_class: bool,
    /// The storage class otherwise.
    pub storage_class_name: String,
    /// Labels and annotations of the claim.
    pub metadata: PodMetadata,
}

/// What a label must be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SelectorRequirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, and for machines `Gt`, `Lt`.
    pub operator: String,
    /// To compare with.
    pub values: Vec<String>,
}

/// A kind of machine that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeAffinityTerm {
    /// What its labels must be.
    pub match_expressions: Vec<SelectorRequirement>,
    /// What its fields must be.
    pub match_fields: Vec<SelectorRequirement>,
    /// How much it is preferred; required if absent.
    #[serde(deserialize_with = "optional_integer")]
    pub weight: Option<i64>,
    /// Where a whole `nodeAffinity` comes from; wins.
    pub node_affinity_json: Option<ParameterSource>,
}

/// A kind of Pod that is wanted beside it, or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PodAffinityTerm {
    /// What the labels of the other Pods must be.
    pub match_pod_expressions: Vec<SelectorRequirement>,
    /// The same, for equality.
    pub match_pod_labels: BTreeMap<String, String>,
    /// The label of machines that says what "beside" means.
    pub topology_key: String,
    /// Where the other Pods are.
    pub namespaces: Vec<String>,
    /// What the labels of those namespaces must be.
    pub match_namespace_expressions: Vec<SelectorRequirement>,
    /// The same, for equality.
    pub match_namespace_labels: BTreeMap<String, String>,
    /// How much it is preferred; required if absent.
    #[serde(deserialize_with = "optional_integer")]
    pub weight: Option<i64>,
    /// Whether they are to be kept apart.
    pub anti: Option<bool>,
}

/// A larger `/dev/shm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EnabledSharedMemory {
    /// The volume's name; empty for `shm`.
    pub volume_name: String,
    /// Bytes at most, as a Kubernetes quantity; empty for no limit.
    pub size: String,
}

/// A folder that lives as long as the Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EmptyDirMount {
    /// The volume's name.
    pub volume_name: String,
    /// Where the folder appears.
    pub mount_path: String,
    /// `Memory`, or absent for disk.
    pub medium: Option<String>,
    /// Bytes at most, as a Kubernetes quantity.
    pub size_limit: Option<String>,
}

/// Who the container runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SecurityContext {
    /// The user's number.
    #[serde(deserialize_with = "optional_integer")]
    pub run_as_user: Option<i64>,
    /// The group's number.
    #[serde(deserialize_with = "optional_integer")]
    pub run_as_group: Option<i64>,
    /// Whether it must be another than root.
    pub run_as_non_root: Option<bool>,
}

/// A container that runs before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InitContainer {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// What it runs.
    pub command: Vec<String>,
    /// Arguments of that.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<InitContainerEnv>,
    /// Volumes of the Pod that it sees.
    pub volume_mounts: Vec<InitContainerMount>,
    /// `Always` for one that runs beside the task until its end.
    pub restart_policy: Option<String>,
    /// What it needs to run.
    pub resources: InitContainerResources,
}

/// An environment variable of an init container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InitContainerEnv {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A volume that an init container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InitContainerMount {
    /// The volume's name.
    pub volume_name: String,
    /// Where it appears.
    pub mount_path: String,
}

/// What an init container needs to run: Kubernetes quantities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InitContainerResources {
    /// At least.
    pub requests: BTreeMap<String, String>,
    /// At most.
    pub limits: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(settings: Value) -> Result<KubernetesExecutorConfig, String> {
        KubernetesExecutorConfig::read(settings.as_object().expect("object"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn both_spellings_and_all_forms_of_numbers_are_read() {
        let camel = json!({
            "secretAsEnv": [{
                "secretNameParameter": {"taskOutputParameter": {"producerTask": "t", "outputParameterKey": "o"}},
                "keyToEnv": [{"secretKey": "k", "envVar": "E"}], "optional": false,
            }],
            "activeDeadlineSeconds": "60",
            "podMetadata": {"labels": {"a_b": "c"}},
            "securityContext": {"runAsUser": "1000"},
            "nodeAffinity": [{"weight": 3.0, "matchExpressions": [{"key": "a", "operator": "Exists"}]}],
        });
        let snake = json!({
            "secret_as_env": [{
                "secret_name_parameter": {"task_output_parameter": {"producer_task": "t", "output_parameter_key": "o"}},
                "key_to_env": [{"secret_key": "k", "env_var": "E"}], "optional": false, "secret_name": null,
            }],
            "active_deadline_seconds": 60.0,
            "pod_metadata": {"labels": {"a_b": "c"}},
            "security_context": {"run_as_user": 1000},
            "node_affinity": [{"weight": 3, "match_expressions": [{"key": "a", "operator": "Exists"}]}],
        });
        let read_camel = read(camel).expect("reads");
        assert_eq!(read_camel, read(snake).expect("reads"));
        assert_eq!(read_camel.active_deadline_seconds, 60);
        assert_eq!(
            read_camel.pod_metadata.labels["a_b"], "c",
            "a label's name is not ours"
        );
    }

    #[test]
    fn constants_are_kept_as_they_are() {
        let settings =
            json!({"tolerations": [{"tolerationJson": {"runtimeValue": {"constant": {"a_b": null}}}}]});
        let source = read(settings)
            .expect("reads")
            .tolerations
            .remove(0)
            .toleration_json;
        let constant = source.and_then(|source| source.runtime_value?.constant);
        assert_eq!(constant, Some(json!({"a_b": null})));
    }

    #[test]
    fn what_is_not_known_is_named_with_its_place() {
        for (settings, expected) in [
            (
                json!({"hostNetwork": true}),
                "`hostNetwork`: there is no such setting",
            ),
            (
                json!({"secretAsEnv": [{"keyToEnv": [{"secretKey": "k", "envvar": "E"}]}]}),
                "`secretAsEnv[0].keyToEnv[0].envvar`: there is no such setting",
            ),
            (
                json!({"activeDeadlineSeconds": "soon"}),
                "`activeDeadlineSeconds`: must be a whole number, and is \"soon\"",
            ),
            (
                json!({"pvcMount": {}}),
                "`pvcMount`: invalid type: map, expected a sequence",
            ),
        ] {
            assert_eq!(read(settings), Err(expected.to_owned()));
        }
    }
}
