//! Rules of PersistentVolumeClaims.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::{Rules, check_quantities, quantities, shape};
use crate::{object, validation::Problems};

const ACCESS_MODES: [&str; 4] = [
    "ReadWriteOnce",
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOncePod",
];

pub(crate) const RULES: Rules = Rules {
    shape: shape::<PersistentVolumeClaim>,
    default: |claim| {
        object::default(object::section(claim, "spec"), "volumeMode", "Filesystem");
        quantities(claim, "/spec/resources/requests");
        quantities(claim, "/spec/resources/limits");
    },
    initial_status: Some(|_| json!({"phase": "Pending"})),
    check,
    check_change,
    ..Rules::NONE
};

fn check(claim: &Value, problems: &mut Problems) {
    let modes = object::list(claim, "/spec/accessModes");
    if modes.is_empty() {
        problems.required("spec.accessModes", "at least 1 access mode is required");
    }
    for mode in modes
        .iter()
        .filter_map(Value::as_str)
        .filter(|mode| !ACCESS_MODES.contains(mode))
    {
        problems.unsupported("spec.accessModes", mode, &ACCESS_MODES);
    }
    if claim.pointer("/spec/resources/requests/storage").is_none() {
        problems.required("spec.resources[storage]", "");
    }
    check_quantities(
        claim,
        "/spec/resources/requests",
        "spec.resources.requests",
        problems,
    );
}

fn check_change(old: &Value, new: &Value, problems: &mut Problems) {
    // A binder fills in the volume; more may be asked for; nothing else moves.
    let fixed = |claim: &Value| {
        let mut spec = claim.get("spec").cloned().unwrap_or_default();
        for free in ["resources", "volumeName", "volumeAttributesClassName"] {
            object::put(object::as_map(&mut spec), free, None);
        }
        spec
    };
    let bound = object::text(old, "/spec/volumeName");
    let moved = !bound.is_empty() && bound != object::text(new, "/spec/volumeName");
    if moved || fixed(old) != fixed(new) {
        let detail = "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims";
        problems.forbidden("spec", detail);
    }
}
