//! Containers that run before the task's own, or beside it.

use std::collections::BTreeSet;

use coracle_api::{ir::platform::InitContainer, launch::Failure, quantity::Quantity};
use serde_json::{Map, Value, json};

use super::{invalid, volumes::Volumes};

pub(super) fn containers(wanted: &[InitContainer], volumes: &Volumes) -> Result<Vec<Value>, Failure> {
    let mut names = BTreeSet::from(["main"]);
    wanted
        .iter()
        .enumerate()
        .map(|(index, container)| {
            let setting = |field: &str| format!("initContainers[{index}].{field}");
            if container.name.is_empty() {
                return Err(invalid(&setting("name"), "is missing"));
            }
            if !names.insert(&container.name) {
                let why = format!("is `{}`, as another container's", container.name);
                return Err(invalid(&setting("name"), &why));
            }
            one(container, &setting, volumes)
        })
        .collect()
}

fn one(
    wanted: &InitContainer,
    setting: &dyn Fn(&str) -> String,
    volumes: &Volumes,
) -> Result<Value, Failure> {
    if wanted.image.is_empty() {
        return Err(invalid(&setting("image"), "is missing"));
    }
    let mut container = json!({
        "name": wanted.name,
        "image": wanted.image,
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    for (field, list) in [("command", &wanted.command), ("args", &wanted.args)] {
        if !list.is_empty() {
            container[field] = json!(list);
        }
    }
    if wanted.env.iter().any(|variable| variable.name.is_empty()) {
        return Err(invalid(&setting("env"), "holds a variable without a name"));
    }
    let env = wanted
        .env
        .iter()
        .map(|variable| json!({"name": variable.name, "value": variable.value}));
    container["env"] = env.collect();
    let mut mounts = Vec::new();
    for mount in &wanted.volume_mounts {
        let name = volumes.named(&mount.volume_name).ok_or_else(|| {
            let why = format!("mounts `{}`, and the task has no such volume", mount.volume_name);
            invalid(&setting("volumeMounts"), &why)
        })?;
        if !mount.mount_path.starts_with('/') {
            let why = format!(
                "mounts `{}` at `{}`, which is no absolute path",
                mount.volume_name, mount.mount_path
            );
            return Err(invalid(&setting("volumeMounts"), &why));
        }
        mounts.push(json!({"name": name, "mountPath": mount.mount_path}));
    }
    container["volumeMounts"] = json!(mounts);
    match wanted.restart_policy.as_deref() {
        None | Some("") => {}
        Some("Always") => container["restartPolicy"] = json!("Always"),
        Some(other) => {
            let why = format!("is `{other}`; it can only be `Always`");
            return Err(invalid(&setting("restartPolicy"), &why));
        }
    }
    let mut resources = Map::new();
    for (field, amounts) in [
        ("requests", &wanted.resources.requests),
        ("limits", &wanted.resources.limits),
    ] {
        for (resource, amount) in amounts {
            amount.parse::<Quantity>().map_err(|error| {
                invalid(
                    &setting(&format!("resources.{field}.{resource}")),
                    &format!("is no amount: {error}"),
                )
            })?;
        }
        if !amounts.is_empty() {
            resources.insert(field.to_owned(), json!(amounts));
        }
    }
    if !resources.is_empty() {
        container["resources"] = Value::Object(resources);
    }
    Ok(container)
}
