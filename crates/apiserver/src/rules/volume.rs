//! Rules of PersistentVolumes and StorageClasses.

use k8s_openapi::api::{core::v1::PersistentVolume, storage::v1::StorageClass};
use serde_json::{Value, json};

use super::{Rules, check_quantities, claim, quantities, shape, syntax};
use crate::{object, validation::Problems};

pub(crate) const VOLUME: Rules = Rules {
    shape: shape::<PersistentVolume>,
    default: default_volume,
    initial_status: Some(|_| json!({"phase": "Pending"})),
    check: check_volume,
    check_change: check_volume_change,
    ..Rules::NONE
};

pub(crate) const CLASS: Rules = Rules {
    shape: shape::<StorageClass>,
    default: |class| {
        let class = object::as_map(class);
        syntax::default_zero(class, "reclaimPolicy", "Delete");
        syntax::default_zero(class, "volumeBindingMode", "Immediate");
    },
    check: check_class,
    check_change: check_class_change,
    ..Rules::NONE
};

/// What a volume has beside its source.
const FIELDS: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn default_volume(volume: &mut Value) {
    quantities(volume, "/spec/capacity");
    let spec = object::section(volume, "spec");
    syntax::default_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
    syntax::default_zero(spec, "volumeMode", "Filesystem");
    if let Some(Value::Object(path)) = spec.get_mut("hostPath") {
        object::default(path, "type", "");
    }
}

fn check_volume(volume: &Value, problems: &mut Problems) {
    let modes = object::list(volume, "/spec/accessModes");
    if modes.is_empty() {
        problems.required("spec.accessModes", "");
    }
    claim::check_modes(modes, "spec.accessModes", problems);
    if syntax::map(volume, "/spec/capacity").next().is_none() {
        problems.required("spec.capacity", "");
    } else if volume.pointer("/spec/capacity/storage").is_none() {
        let capacity = volume.pointer("/spec/capacity").cloned().unwrap_or_default();
        let named = capacity.as_object().into_iter().flat_map(serde_json::Map::keys);
        for name in named {
            problems.unsupported("spec.capacity", name, &["storage"]);
        }
    }
    check_quantities(volume, "/spec/capacity", "spec.capacity", problems);
    let policies = ["Delete", "Recycle", "Retain"];
    let name = "persistentVolumeReclaimPolicy";
    let pointer = format!("/spec/{name}");
    syntax::check_one_of(volume, &pointer, format!("spec.{name}"), &policies, problems);
    let modes = ["Block", "Filesystem"];
    syntax::check_one_of(volume, "/spec/volumeMode", "spec.volumeMode", &modes, problems);
    let field = "spec.storageClassName";
    syntax::check_subdomain(volume, "/spec/storageClassName", field, problems);
    let spec = volume.get("spec").unwrap_or(&Value::Null);
    let mut sources = syntax::others(spec, &FIELDS);
    match sources.next() {
        None => problems.required("spec", "must specify a volume type"),
        Some(source) => {
            for more in sources {
                let field = format!("spec.{more}");
                problems.forbidden(field, "may not specify more than 1 volume type");
            }
            let path = object::text(spec, &format!("/{source}/path"));
            if matches!(source.as_str(), "hostPath" | "local" | "nfs") && path.is_empty() {
                problems.required(format!("spec.{source}.path"), "");
            }
            syntax::check_no_way_up(format!("spec.{source}.path"), path, problems);
        }
    }
}

fn check_volume_change(old: &Value, new: &Value, problems: &mut Problems) {
    let source = |volume: &Value| {
        let mut spec = volume.get("spec").cloned().unwrap_or_default();
        for field in FIELDS {
            object::put(object::as_map(&mut spec), field, None);
        }
        spec
    };
    if source(old) != source(new) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        problems.forbidden("spec.persistentvolumesource", detail);
    }
    syntax::check_unchanged(old, new, "spec.volumeMode", problems);
}

fn check_class(class: &Value, problems: &mut Problems) {
    if object::text(class, "/provisioner").is_empty() {
        problems.required("provisioner", "");
    }
    let policies = ["Delete", "Retain"];
    syntax::check_one_of(class, "/reclaimPolicy", "reclaimPolicy", &policies, problems);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    let field = "volumeBindingMode";
    syntax::check_one_of(class, "/volumeBindingMode", field, &modes, problems);
}

fn check_class_change(old: &Value, new: &Value, problems: &mut Problems) {
    for field in ["provisioner", "parameters", "reclaimPolicy"] {
        if old.get(field) != new.get(field) {
            problems.forbidden(field, &format!("updates to {field} are forbidden."));
        }
    }
    syntax::check_unchanged(old, new, "volumeBindingMode", problems);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_a_size_a_mode_and_a_source() {
        let problems = |spec: Value| {
            let mut volume = json!({"spec": spec});
            default_volume(&mut volume);
            let mut problems = Problems::default();
            check_volume(&volume, &mut problems);
            problems.to_string()
        };
        assert_eq!(
            problems(json!({})),
            "[spec.accessModes: Required value, spec.capacity: Required value, \
             spec: Required value: must specify a volume type]"
        );
        let sound = json!({
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/data"},
        });
        assert_eq!(problems(sound.clone()), "[]");
        let mut two = sound;
        two["nfs"] = json!({"server": "s", "path": "/"});
        assert_eq!(
            problems(two),
            "spec.nfs: Forbidden: may not specify more than 1 volume type"
        );
    }
}
