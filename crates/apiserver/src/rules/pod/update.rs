//! What may change of a Pod once it is there.

use serde_json::{Value, json};

use super::CONTAINERS;
use crate::{
    object,
    rules::{each, syntax},
    validation::Problems,
};

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Problems with a change, old first.
pub(super) fn check(old: &Value, new: &Value, problems: &mut Problems) {
    for (pointer, field) in CONTAINERS.iter().zip(["spec.initContainers", "spec.containers"]) {
        if object::list(old, pointer).len() != object::list(new, pointer).len() {
            problems.forbidden(field, "pod updates may not add or remove containers");
            return;
        }
    }
    check_deadline(old, new, problems);
    check_tolerations(old, new, problems);
    check_gates(old, new, problems);
    let is_gated = !object::list(old, "/spec/schedulingGates").is_empty();
    if fixed_spec(old, is_gated) != fixed_spec(new, is_gated) {
        problems.forbidden("spec", FIXED);
    }
}

fn check_deadline(old: &Value, new: &Value, problems: &mut Problems) {
    let of = |pod: &Value| pod.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64);
    let field = "spec.activeDeadlineSeconds";
    match (of(old), of(new)) {
        (Some(was), Some(is)) if is > was => {
            problems.invalid(field, is, "must be less than or equal to previous value");
        }
        (Some(_), None) => {
            problems.invalid(
                field,
                Value::Null,
                "must not update from a positive integer to nil value",
            );
        }
        _ => {}
    }
}

/// Tolerations are added; of those that are there only the time changes.
fn check_tolerations(old: &Value, new: &Value, problems: &mut Problems) {
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        object::put(object::as_map(&mut toleration), "tolerationSeconds", None);
        toleration
    };
    let kept = object::list(new, "/spec/tolerations")
        .iter()
        .map(timeless)
        .collect::<Vec<_>>();
    let is_kept = |toleration: &Value| kept.contains(&timeless(toleration));
    if !object::list(old, "/spec/tolerations").iter().all(is_kept) {
        problems.forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn check_gates(old: &Value, new: &Value, problems: &mut Problems) {
    let before = object::list(old, "/spec/schedulingGates");
    for (index, gate) in object::list(new, "/spec/schedulingGates").iter().enumerate() {
        if !before.contains(gate) {
            let name = object::text(gate, "/name");
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            problems.forbidden(format!("spec.schedulingGates[{index}]"), &detail);
        }
    }
}

/// The spec without the fields that may change.
fn fixed_spec(pod: &Value, is_gated: bool) -> Value {
    let mut pod = json!({"spec": pod.get("spec").cloned().unwrap_or_default()});
    for pointer in CONTAINERS {
        each(&mut pod, pointer, |container| {
            object::put(object::as_map(container), "image", None);
            // It follows from the image when it was left out.
            object::put(object::as_map(container), "imagePullPolicy", None);
        });
    }
    let spec = object::section(&mut pod, "spec");
    for free in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        object::put(spec, free, None);
    }
    if is_gated {
        // Where it is to run may be narrowed until it is let go.
        for free in ["nodeSelector", "affinity"] {
            object::put(spec, free, None);
        }
    }
    // What was negative may be set to 1.
    if object::number(&pod, "/spec/terminationGracePeriodSeconds") < 0 {
        object::section(&mut pod, "spec").insert("terminationGracePeriodSeconds".to_owned(), 1.into());
    }
    pod
}

/// Whether a Pod's deadline is set, which makes it one that ends by itself.
pub(super) fn check_range(spec: &Value, field: &str, problems: &mut Problems) {
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        problems.invalid(format!("{field}.activeDeadlineSeconds"), seconds, detail);
    }
    let grace = object::number(spec, "/terminationGracePeriodSeconds");
    if grace < 0 {
        problems.invalid(
            format!("{field}.terminationGracePeriodSeconds"),
            grace,
            syntax::NEGATIVE,
        );
    }
}
