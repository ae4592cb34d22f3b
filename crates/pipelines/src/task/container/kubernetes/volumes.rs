//! Volumes of a task's Pod, and where its container sees them.

use coracle_api::{ir::platform::KubernetesExecutorConfig, launch::Failure, quantity::Quantity};
use serde_json::{Map, Value, json};

use super::{Sources, invalid};
use crate::task::container::sanitised;

/// Volumes and mounts, in order.
#[derive(Debug, Default)]
pub(in crate::task::container) struct Volumes {
    volumes: Vec<Volume>,
    mounts: Vec<(Carried, Value)>,
}

/// Whether something is one of the things that a component may take over from its task (`TaskConfig`).
type Carried = bool;

#[derive(Debug)]
struct Volume {
    /// What the pipeline calls it.
    known_as: String,
    name: String,
    source: Value,
    carried: Carried,
}

impl Volumes {
    /// Adds a volume, unless the very same is there, and its mount.
    pub(in crate::task::container) fn add(
        &mut self,
        known_as: &str,
        source: Value,
        mount: Value,
        carried: Carried,
    ) {
        let same = self
            .volumes
            .iter()
            .find(|volume| volume.known_as == known_as && volume.source == source);
        let name = match same {
            Some(volume) => volume.name.clone(),
            None => self.name_for(known_as),
        };
        if same.is_none() {
            self.volumes.push(Volume {
                known_as: known_as.to_owned(),
                name: name.clone(),
                source,
                carried,
            });
        }
        let mut mount = mount;
        mount["name"] = json!(name);
        self.mounts.push((carried, mount));
    }

    /// A name that Kubernetes takes and no other volume has: that of a Secret may be neither.
    fn name_for(&self, wanted: &str) -> String {
        let name = sanitised(wanted, 55);
        let is_free = |name: &String| self.volumes.iter().all(|volume| volume.name != *name);
        std::iter::once(name.clone())
            .chain((2..).map(|number| format!("{name}-{number}")))
            .find(is_free)
            .unwrap_or(name)
    }

    /// The name in the Pod of what the pipeline knows under another.
    pub(super) fn named(&self, known_as: &str) -> Option<&str> {
        let found = self.volumes.iter().find(|volume| volume.known_as == known_as);
        found.map(|volume| volume.name.as_str())
    }

    /// Volumes and mounts of the Pod; without those that a component takes over if `carried` is false.
    pub(in crate::task::container) fn of_pod(&self, carried: Carried) -> (Vec<Value>, Vec<Value>) {
        self.select(|is_carried| carried || !is_carried)
    }

    /// Those that a component takes over.
    pub(in crate::task::container) fn carried(&self) -> (Vec<Value>, Vec<Value>) {
        self.select(|is_carried| is_carried)
    }

    fn select(&self, is_wanted: impl Fn(Carried) -> bool) -> (Vec<Value>, Vec<Value>) {
        let volumes = self.volumes.iter().filter(|volume| is_wanted(volume.carried));
        let volumes = volumes.map(|volume| {
            let mut value = volume.source.clone();
            value["name"] = json!(volume.name);
            value
        });
        let mounts = self.mounts.iter().filter(|(carried, _)| is_wanted(*carried));
        (
            volumes.collect(),
            mounts.map(|(_, mount)| mount.clone()).collect(),
        )
    }
}

/// Adds what the settings say.
pub(super) fn add(
    config: &KubernetesExecutorConfig,
    sources: &Sources<'_>,
    volumes: &mut Volumes,
) -> Result<(), Failure> {
    for (index, claim) in config.pvc_mount.iter().enumerate() {
        let setting = |field: &str| format!("pvcMount[{index}].{field}");
        let parameter = claim.pvc_name_parameter.clone().or_else(|| {
            if let Some(output) = &claim.task_output_parameter {
                Some(super::channel(
                    &output.producer_task,
                    &output.output_parameter_key,
                ))
            } else if claim.component_input_parameter.is_empty() {
                None
            } else {
                Some(super::input(claim.component_input_parameter.clone()))
            }
        });
        let name = sources
            .name(&setting("pvcName"), parameter.as_ref(), &claim.constant)?
            .ok_or_else(|| invalid(&setting("pvcNameParameter"), "has no value"))?;
        let mut mount = at(&setting("mountPath"), &claim.mount_path)?;
        if !claim.sub_path.is_empty() {
            mount["subPath"] = json!(claim.sub_path);
        }
        volumes.add(
            &name,
            json!({"persistentVolumeClaim": {"claimName": name}}),
            mount,
            true,
        );
    }
    for (index, secret) in config.secret_as_volume.iter().enumerate() {
        let setting = |field: &str| format!("secretAsVolume[{index}].{field}");
        let parameter = secret.secret_name_parameter.as_ref();
        if let Some(name) = sources.name(&setting("secretName"), parameter, &secret.secret_name)? {
            let optional = secret.optional.unwrap_or_default();
            let source = json!({"secret": {"secretName": name, "optional": optional}});
            volumes.add(
                &name,
                source,
                at(&setting("mountPath"), &secret.mount_path)?,
                true,
            );
        }
    }
    for (index, map) in config.config_map_as_volume.iter().enumerate() {
        let setting = |field: &str| format!("configMapAsVolume[{index}].{field}");
        let parameter = map.config_map_name_parameter.as_ref();
        if let Some(name) = sources.name(&setting("configMapName"), parameter, &map.config_map_name)? {
            let optional = map.optional.unwrap_or_default();
            let source = json!({"configMap": {"name": name, "optional": optional}});
            volumes.add(&name, source, at(&setting("mountPath"), &map.mount_path)?, true);
        }
    }
    of_the_pod_alone(config, volumes)
}

fn of_the_pod_alone(config: &KubernetesExecutorConfig, volumes: &mut Volumes) -> Result<(), Failure> {
    for (index, claim) in config.generic_ephemeral_volume.iter().enumerate() {
        let setting = |field: &str| format!("genericEphemeralVolume[{index}].{field}");
        let name = named(&setting("volumeName"), &claim.volume_name)?;
        let mut spec = json!({
            "accessModes": claim.access_modes,
            "resources": {"requests": {"storage": quantity(&setting("size"), &claim.size)?}},
        });
        if !claim.default_storage_class {
            spec["storageClassName"] = json!(claim.storage_class_name);
        }
        let mut metadata = Map::new();
        for (field, entries) in [
            ("labels", &claim.metadata.labels),
            ("annotations", &claim.metadata.annotations),
        ] {
            if !entries.is_empty() {
                metadata.insert(field.to_owned(), json!(entries));
            }
        }
        let source = json!({"ephemeral": {"volumeClaimTemplate": {"metadata": metadata, "spec": spec}}});
        volumes.add(name, source, at(&setting("mountPath"), &claim.mount_path)?, false);
    }
    for (index, folder) in config.empty_dir_mounts.iter().enumerate() {
        let setting = |field: &str| format!("emptyDirMounts[{index}].{field}");
        let name = named(&setting("volumeName"), &folder.volume_name)?;
        let mut source = Map::new();
        if let Some(medium) = folder.medium.as_ref().filter(|medium| !medium.is_empty()) {
            source.insert("medium".to_owned(), json!(medium));
        }
        if let Some(limit) = folder.size_limit.as_ref().filter(|limit| !limit.is_empty()) {
            source.insert(
                "sizeLimit".to_owned(),
                json!(quantity(&setting("sizeLimit"), limit)?),
            );
        }
        let mount = at(&setting("mountPath"), &folder.mount_path)?;
        volumes.add(name, json!({"emptyDir": source}), mount, false);
    }
    if let Some(memory) = &config.enabled_shared_memory {
        let name = match memory.volume_name.as_str() {
            "" => "shm",
            name => name,
        };
        let mut source = json!({"medium": "Memory"});
        if !memory.size.is_empty() {
            source["sizeLimit"] = json!(quantity("enabledSharedMemory.size", &memory.size)?);
        }
        volumes.add(
            name,
            json!({"emptyDir": source}),
            json!({"mountPath": "/dev/shm"}),
            false,
        );
    }
    Ok(())
}

fn at(setting: &str, path: &str) -> Result<Value, Failure> {
    if path.starts_with('/') {
        return Ok(json!({"mountPath": path}));
    }
    let why = if path.is_empty() {
        "is missing".to_owned()
    } else {
        format!("is `{path}`, which is no absolute path")
    };
    Err(invalid(setting, &why))
}

fn named<'a>(setting: &str, name: &'a str) -> Result<&'a str, Failure> {
    if name.is_empty() {
        return Err(invalid(setting, "is missing"));
    }
    Ok(name)
}

fn quantity<'a>(setting: &str, text: &'a str) -> Result<&'a str, Failure> {
    match text.parse::<Quantity>() {
        Ok(amount) if amount.milli() >= 0 => Ok(text),
        Ok(_) => Err(invalid(setting, &format!("is {text}; it cannot be negative"))),
        Err(error) => Err(invalid(setting, &format!("is no amount: {error}"))),
    }
}
