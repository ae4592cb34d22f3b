//! Columns of what limits and allows: volumes, classes, quotas, roles and bindings.

use coracle_api::quantity::Amount;
use serde_json::Value;

use super::{AGE, Column, NAME, access_modes, column, integer, or_unset, wide};
use crate::{object, rules::roles::subjects};

const CREATED: Column = column("Created At", |object, _| {
    object::text(object, "/metadata/creationTimestamp").into()
});

/// Of kinds that say no more of themselves.
pub(crate) const DATED: &[Column] = &[NAME, CREATED];

pub(crate) const VOLUMES: &[Column] = &[
    NAME,
    column("Capacity", |volume, _| {
        object::text(volume, "/spec/capacity/storage").into()
    }),
    column("Access Modes", |volume, _| access_modes(volume).into()),
    column("Reclaim Policy", |volume, _| {
        object::text(volume, "/spec/persistentVolumeReclaimPolicy").into()
    }),
    column("Status", |volume, _| {
        if object::is_terminating(volume) {
            "Terminating".into()
        } else {
            object::text(volume, "/status/phase").into()
        }
    }),
    column("Claim", |volume, _| {
        let name = object::text(volume, "/spec/claimRef/name");
        if name.is_empty() {
            return "".into();
        }
        format!("{}/{name}", object::text(volume, "/spec/claimRef/namespace")).into()
    }),
    column("StorageClass", |volume, _| {
        object::text(volume, "/spec/storageClassName").into()
    }),
    column("VolumeAttributesClass", |volume, _| {
        or_unset(object::text(volume, "/spec/volumeAttributesClassName")).into()
    }),
    column("Reason", |volume, _| {
        object::text(volume, "/status/reason").into()
    }),
    AGE,
    wide("VolumeMode", |volume, _| {
        or_unset(object::text(volume, "/spec/volumeMode")).into()
    }),
];

/// The annotations that make a class the one for claims without a class.
pub(crate) const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

pub(crate) const CLASSES: &[Column] = &[
    Column {
        format: "name",
        ..column("Name", |class, _| {
            let annotations = class.pointer("/metadata/annotations");
            let is_default = DEFAULT_CLASS
                .iter()
                .any(|key| annotations.and_then(|all| all.get(*key)) == Some(&Value::from("true")));
            let name = object::name(class);
            if is_default {
                format!("{name} (default)").into()
            } else {
                name.into()
            }
        })
    },
    column("Provisioner", |class, _| {
        object::text(class, "/provisioner").into()
    }),
    column("ReclaimPolicy", |class, _| {
        object::text(class, "/reclaimPolicy").into()
    }),
    column("VolumeBindingMode", |class, _| {
        object::text(class, "/volumeBindingMode").into()
    }),
    column("AllowVolumeExpansion", |class, _| {
        (class.get("allowVolumeExpansion") == Some(&Value::Bool(true))).into()
    }),
    AGE,
];

pub(crate) const QUOTAS: &[Column] = &[
    NAME,
    column("Request", |quota, _| usage(quota, false).into()),
    column("Limit", |quota, _| usage(quota, true).into()),
    AGE,
];

pub(crate) const PRIORITIES: &[Column] = &[
    NAME,
    integer("Value", |class, _| object::number(class, "/value").into()),
    Column {
        kind: "boolean",
        ..column("Global-Default", |class, _| {
            (class.get("globalDefault") == Some(&Value::Bool(true))).into()
        })
    },
    AGE,
    column("PreemptionPolicy", |class, _| {
        or_unset(object::text(class, "/preemptionPolicy")).into()
    }),
];

pub(crate) const BUDGETS: &[Column] = &[
    NAME,
    column("Min Available", |budget, _| share(budget, "/spec/minAvailable")),
    column("Max Unavailable", |budget, _| {
        share(budget, "/spec/maxUnavailable")
    }),
    integer("Allowed Disruptions", |budget, _| {
        object::number(budget, "/status/disruptionsAllowed").into()
    }),
    AGE,
];

pub(crate) const BINDINGS: &[Column] = &[
    NAME,
    column("Role", |binding, _| {
        let part = |name: &str| object::text(binding, name).to_owned();
        format!("{}/{}", part("/roleRef/kind"), part("/roleRef/name")).into()
    }),
    AGE,
    wide("Users", |binding, _| subjects(binding, "User").into()),
    wide("Groups", |binding, _| subjects(binding, "Group").into()),
    wide("ServiceAccounts", |binding, _| {
        subjects(binding, "ServiceAccount").into()
    }),
];

/// A number or a percentage.
fn share(object: &Value, pointer: &str) -> Value {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.as_str().into(),
        Some(number) => number.to_string().into(),
        None => "N/A".into(),
    }
}

/// `pods: 1/2, requests.cpu: 500m/2`.
fn usage(quota: &Value, of_limits: bool) -> String {
    let amounts = |pointer: &str| quota.pointer(pointer).and_then(Value::as_object);
    let mut hard = amounts("/status/hard").into_iter().flatten().collect::<Vec<_>>();
    hard.sort_by_key(|(name, _)| *name);
    let shown = hard
        .into_iter()
        .filter(|(name, _)| name.starts_with("limits") == of_limits)
        .map(|(name, hard)| {
            let used = amounts("/status/used").and_then(|used| used.get(name));
            let text = |amount: &Value| {
                let text = amount.as_str().unwrap_or_default();
                text.parse::<Amount>()
                    .map_or_else(|_| text.to_owned(), |amount| amount.to_string())
            };
            format!(
                "{name}: {}/{}",
                used.map_or_else(|| "0".to_owned(), text),
                text(hard)
            )
        });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quota_shows_what_is_used() {
        let quota = json!({"status": {
            "hard": {"requests.cpu": "2", "limits.cpu": "4", "pods": "10"},
            "used": {"requests.cpu": "500m", "pods": "1"},
        }});
        assert_eq!(usage(&quota, false), "pods: 1/10, requests.cpu: 500m/2");
        assert_eq!(usage(&quota, true), "limits.cpu: 0/4");
    }
}
