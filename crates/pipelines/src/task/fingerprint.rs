//! The cache key of a task: a digest of everything that decides what it makes. Pure.
//!
//! What goes in is what KFP's driver puts in (`backend/src/v2/cacheutils/cache.go`), but for input
//! artifacts: KFP takes their names, so that equal content is not recognised and changed content
//! not noticed. Here it is the content's digest, or the URI where no digest is known.

use coracle_api::{
    ir::{ComponentSpec, ContainerSpec},
    launch::SpilledValue,
};
use coracle_store::records::{Artifact, TaskIo};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// What decides the outputs of a task.
pub struct Work<'a> {
    /// The component.
    pub component: &'a ComponentSpec,
    /// Its container.
    pub container: &'a ContainerSpec,
    /// Its input parameters.
    pub inputs: &'a TaskIo,
    /// Its input artifacts, by id.
    pub artifact: &'a dyn Fn(&coracle_api::id::ArtifactId) -> Option<&'a Artifact>,
    /// Its Kubernetes settings: the secrets and claims it mounts, and the like.
    pub settings: Value,
}

/// The key of a task that the user gave a key of their own: the same for all tasks of that
/// component and key, whatever their inputs are.
#[must_use]
pub fn chosen(component_name: &str, key: &str) -> String {
    digest(format!("{component_name}\0{key}").as_bytes())
}

impl Work<'_> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> String {
        let Self {
            component,
            container,
            inputs,
            artifact,
            settings,
        } = self;
        let parameters: Map<String, Value> = inputs
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), small(value)))
            .collect();
        let artifacts: Map<String, Value> = inputs
            .artifacts
            .iter()
            .map(|(name, ids)| {
                let contents = ids.iter().map(|id| artifact(id).map(content));
                (name.clone(), contents.collect())
            })
            .collect();
        let outputs = &component.output_definitions;
        let work = json!({
            "parameters": parameters,
            "artifacts": artifacts,
            "outputParameters": outputs.parameters.iter()
                .map(|(name, output)| (name.clone(), json!(output.parameter_type)))
                .collect::<Map<_, _>>(),
            "outputArtifacts": outputs.artifacts.iter()
                .map(|(name, output)| (name.clone(), json!([output.artifact_type, output.is_artifact_list, output.metadata])))
                .collect::<Map<_, _>>(),
            "image": container.image,
            "command": container.command,
            "args": container.args,
            "env": container.env,
            "settings": settings,
        });
        digest(canonical(&work).to_string().as_bytes())
    }
}

/// A large value by its digest: where it is kept does not matter.
fn small(value: &Value) -> Value {
    SpilledValue::of(value).map_or_else(|| value.clone(), |spilled| json!({"digest": spilled.digest}))
}

fn content(artifact: &Artifact) -> Value {
    let what = artifact.digest.as_ref().unwrap_or(&artifact.uri);
    json!([artifact.artifact_type, what, artifact.metadata])
}

/// The same value with the fields of every object in order.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| name.as_str());
            let fields = sorted
                .into_iter()
                .map(|(name, value)| (name.clone(), canonical(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use coracle_api::id::ArtifactId;
    use jiff::Timestamp;

    use super::*;

    fn artifact(uri: &str, digest: Option<&str>) -> Artifact {
        Artifact {
            id: ArtifactId::new(),
            namespace: "default".into(),
            name: "data".into(),
            artifact_type: "system.Dataset".into(),
            type_version: "0.0.1".into(),
            uri: uri.into(),
            metadata: Map::new(),
            digest: digest.map(str::to_owned),
            size: None,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn key(image: &str, parameters: Value, artifact: &Artifact, settings: Value) -> String {
        let component = ComponentSpec::default();
        let container = ContainerSpec {
            image: image.into(),
            ..ContainerSpec::default()
        };
        let inputs = TaskIo {
            parameters: parameters.as_object().expect("object").clone(),
            artifacts: [("data".to_owned(), vec![artifact.id])].into(),
        };
        Work {
            component: &component,
            container: &container,
            inputs: &inputs,
            artifact: &|_| Some(artifact),
            settings,
        }
        .key()
    }

    #[test]
    fn the_same_work_has_the_same_key_wherever_its_inputs_are() {
        let (here, there) = (artifact("/a", Some("sha256:1")), artifact("/b", Some("sha256:1")));
        let one = key("i", json!({"a": 1, "b": 2}), &here, json!({"x": 1, "y": 2}));
        assert_eq!(
            one,
            key("i", json!({"b": 2, "a": 1}), &there, json!({"y": 2, "x": 1}))
        );
        let other = artifact("/a", Some("sha256:2"));
        for changed in [
            key("j", json!({"a": 1, "b": 2}), &here, json!({"x": 1, "y": 2})),
            key("i", json!({"a": 1, "b": "2"}), &here, json!({"x": 1, "y": 2})),
            key("i", json!({"a": 1, "b": 2}), &other, json!({"x": 1, "y": 2})),
            key("i", json!({"a": 1, "b": 2}), &here, json!({"x": 1})),
        ] {
            assert_ne!(one, changed);
        }
    }

    #[test]
    fn content_that_is_not_known_is_told_apart_by_its_place() {
        let (here, there) = (artifact("s3://b/a", None), artifact("s3://b/c", None));
        assert_ne!(
            key("i", json!({}), &here, json!({})),
            key("i", json!({}), &there, json!({}))
        );
    }

    #[test]
    fn a_key_of_the_users_own_belongs_to_its_component() {
        assert_eq!(chosen("comp-a", "k"), chosen("comp-a", "k"));
        assert_ne!(chosen("comp-a", "k"), chosen("comp-b", "k"));
        assert_ne!(chosen("a", "bk"), chosen("ab", "k"));
    }
}
