//! Rules of PodDisruptionBudgets and PriorityClasses.

use k8s_openapi::api::{policy::v1::PodDisruptionBudget, scheduling::v1::PriorityClass};
use serde_json::{Value, json};

use super::{Rules, shape, syntax, workload};
use crate::{object, validation::Problems};

pub(crate) const BUDGET: Rules = Rules {
    shape: shape::<PodDisruptionBudget>,
    initial_status: Some(
        |_| json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
    ),
    check: check_budget,
    ..Rules::NONE
};

pub(crate) const PRIORITY: Rules = Rules {
    shape: shape::<PriorityClass>,
    default: |class| {
        syntax::default_zero(object::as_map(class), "preemptionPolicy", "PreemptLowerPriority");
    },
    check: check_priority,
    check_change: |old, new, problems| {
        if old.get("value") != new.get("value") {
            problems.forbidden("value", "may not be changed in an update.");
        }
        syntax::check_unchanged(old, new, "preemptionPolicy", problems);
    },
    protection: |name| {
        let is_ours = SYSTEM.iter().any(|(system, _, _)| *system == name);
        is_ours.then_some("this is a system priority class and cannot be deleted")
    },
    ..Rules::NONE
};

/// Priorities above are the system's.
const MOST: i64 = 1_000_000_000;
/// Classes that are always there: name, value, what they are for.
pub(crate) const SYSTEM: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

fn check_budget(budget: &Value, problems: &mut Problems) {
    let spec = budget.get("spec").unwrap_or(&Value::Null);
    if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        problems.invalid("spec", spec.clone(), detail);
    }
    for name in ["minAvailable", "maxUnavailable"] {
        if let Some(share) = spec.get(name) {
            workload::check_share(share, &format!("spec.{name}"), problems);
        }
    }
    if let Some(selector) = spec.get("selector") {
        workload::check_label_selector(selector, "spec.selector", problems);
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    let name = "unhealthyPodEvictionPolicy";
    let pointer = format!("/spec/{name}");
    syntax::check_one_of(budget, &pointer, format!("spec.{name}"), &policies, problems);
}

fn check_priority(class: &Value, problems: &mut Problems) {
    let (name, value) = (object::name(class), object::number(class, "/value"));
    if name.starts_with("system-") {
        let is_ours = SYSTEM
            .iter()
            .any(|(system, priority, _)| *system == name && *priority == value);
        if !is_ours {
            let detail = "priority class names with 'system-' prefix are reserved for system use only";
            problems.forbidden("metadata.name", detail);
        }
    } else if value > MOST {
        let detail = format!("maximum allowed value of a user defined priority is {MOST}");
        problems.forbidden("value", &detail);
    }
    let policies = ["Never", "PreemptLowerPriority"];
    let field = "preemptionPolicy";
    syntax::check_one_of(class, "/preemptionPolicy", field, &policies, problems);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_of_the_system_are_its_own() {
        for (name, value, expected) in [
            ("high", 1_000_000_000, "[]"),
            (
                "high",
                1_000_000_001,
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            ),
            ("system-cluster-critical", 2_000_000_000, "[]"),
            (
                "system-mine",
                1,
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only",
            ),
        ] {
            let mut problems = Problems::default();
            check_priority(
                &json!({"metadata": {"name": name}, "value": value}),
                &mut problems,
            );
            assert_eq!(problems.to_string(), expected);
        }
    }

    #[test]
    fn a_budget_counts_what_stays_or_what_goes() {
        let mut problems = Problems::default();
        check_budget(
            &json!({"spec": {"minAvailable": 1, "maxUnavailable": "x"}}),
            &mut problems,
        );
        let message = problems.to_string();
        assert!(message.contains("minAvailable and maxUnavailable cannot be both set"));
        assert!(message.contains("a valid percent string"));
    }
}
