//! Rules of ResourceQuotas and LimitRanges themselves. What they do to other objects is in
//! [`crate::reserve`].

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use serde_json::{Map, Value, json};

use super::{Rules, each, quantities, shape, syntax};
use crate::{
    object,
    validation::{self, Problems},
};

pub(crate) const QUOTA: Rules = Rules {
    shape: shape::<ResourceQuota>,
    default: |quota| quantities(quota, "/spec/hard"),
    initial_status: Some(|_| json!({})),
    check: check_quota,
    check_change: |old, new, problems| syntax::check_unchanged(old, new, "spec.scopes", problems),
    ..Rules::NONE
};

pub(crate) const LIMITS: Rules = Rules {
    shape: shape::<LimitRange>,
    default: default_limits,
    check: check_limits,
    ..Rules::NONE
};

/// What a quota limits beside `requests.*`, `limits.*`, `count/*` and classes of storage.
const STANDARD: [&str; 14] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
    "requests.storage",
    "storage",
];
const SCOPES: [&str; 6] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
];

fn is_counted(name: &str) -> bool {
    STANDARD[3..12].contains(&name)
}

fn is_standard(name: &str) -> bool {
    let inner = name
        .strip_prefix("requests.")
        .or_else(|| name.strip_prefix("limits."))
        .unwrap_or(name);
    STANDARD.contains(&name)
        || ["cpu", "memory", "ephemeral-storage"].contains(&inner)
        || inner.starts_with("hugepages-")
}

fn check_quota(quota: &Value, problems: &mut Problems) {
    for (name, amount) in syntax::map(quota, "/spec/hard") {
        let field = format!("spec.hard[{name}]");
        if let Some(problem) = validation::qualified_name_problem(name) {
            problems.invalid(field.clone(), name.as_str(), problem);
        } else if !name.contains('/') && !is_standard(name) {
            problems.invalid(
                field.clone(),
                name.as_str(),
                "must be a standard resource for quota",
            );
        }
        let text = amount.as_str().unwrap_or_default();
        match text.parse::<Quantity>() {
            Err(problem) => problems.invalid(field, text, &problem.to_string()),
            Ok(amount) if amount.milli() < 0 => problems.invalid(field, text, syntax::NEGATIVE),
            Ok(amount) if is_counted(name) && amount.milli() % 1000 != 0 => {
                problems.invalid(field, text, "must be an integer");
            }
            Ok(_) => {}
        }
    }
    let scopes = object::list(quota, "/spec/scopes");
    let scopes = scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>();
    let all = || Value::from(scopes.clone());
    if scopes.iter().any(|scope| !SCOPES.contains(scope)) {
        problems.invalid("spec.scopes", all(), "unsupported scope");
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            problems.invalid("spec.scopes", all(), "conflicting scopes");
        }
    }
    let expressions = object::list(quota, "/spec/scopeSelector/matchExpressions");
    for (index, expression) in expressions.iter().enumerate() {
        let field = format!("spec.scopeSelector.matchExpressions[{index}]");
        let scope = object::text(expression, "/scopeName");
        let operator = object::text(expression, "/operator");
        let has_values = !object::list(expression, "/values").is_empty();
        if !SCOPES.contains(&scope) {
            problems.invalid(format!("{field}.scopeName"), scope, "unsupported scope");
        }
        if scope != "PriorityClass" && operator != "Exists" {
            let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                 ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity";
            problems.invalid(format!("{field}.operator"), operator, detail);
        }
        match operator {
            "In" | "NotIn" if !has_values => problems.required(
                format!("{field}.values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if has_values => problems.invalid(
                format!("{field}.values"),
                expression.get("values").cloned().unwrap_or_default(),
                "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => problems.invalid(
                format!("{field}.operator"),
                other,
                "not a valid selector operator",
            ),
        }
    }
}

fn default_limits(range: &mut Value) {
    each(range, "/spec/limits", |limit| {
        let parts = ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"];
        for part in parts {
            quantities(limit, &format!("/{part}"));
        }
        if object::text(limit, "/type") != "Container" {
            return;
        }
        let limit = object::as_map(limit);
        // What was not said follows from what was.
        for (part, from) in [
            ("default", "max"),
            ("defaultRequest", "default"),
            ("defaultRequest", "min"),
        ] {
            let Some(Value::Object(from)) = limit.get(from).cloned() else {
                continue;
            };
            let amounts = limit.entry(part).or_insert_with(|| Value::Object(Map::new()));
            for (resource, amount) in from {
                object::default(object::as_map(amounts), &resource, amount);
            }
        }
    });
}

fn check_limits(range: &Value, problems: &mut Problems) {
    let limits = object::list(range, "/spec/limits");
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("spec.limits[{index}]");
        let kind = object::text(limit, "/type");
        if kind.is_empty() {
            problems.required(format!("{field}.type"), "");
        } else if limits[..index]
            .iter()
            .any(|other| object::text(other, "/type") == kind)
        {
            problems.duplicate(format!("{field}.type"), kind);
        }
        if kind == "Pod" {
            for part in ["default", "defaultRequest"] {
                if syntax::map(limit, &format!("/{part}")).next().is_some() {
                    let field = format!("{field}.{part}");
                    problems.forbidden(field, "may not be specified when `type` is 'Pod'");
                }
            }
        }
        if kind == "PersistentVolumeClaim"
            && !syntax::is_set(limit, "/min/storage")
            && !syntax::is_set(limit, "/max/storage")
        {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            problems.required(format!("{field}.limits"), detail);
        }
        check_limit(limit, &field, problems);
    }
}

fn check_limit(limit: &Value, field: &str, problems: &mut Problems) {
    let amounts = |part: &str| limit.get(part);
    let resources = limit
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, amounts)| amounts.as_object())
        .flat_map(Map::keys);
    let mut resources = resources.collect::<Vec<_>>();
    resources.sort_unstable();
    resources.dedup();
    for name in resources {
        let amount = |part: &str| syntax::amount(amounts(part), name);
        let (min, max) = (amount("min"), amount("max"));
        let (request, default) = (amount("defaultRequest"), amount("default"));
        let mut order = |low: Option<_>, high: Option<_>, part: &str, low_is: &str, high_is: &str| {
            if let (Some(low), Some(high)) = (low, high) {
                let (low, high): (coracle_api::quantity::Amount, coracle_api::quantity::Amount) = (low, high);
                if low.quantity > high.quantity {
                    let detail = format!("{low_is} value {low} is greater than {high_is} value {high}");
                    let shown = if part == "min" {
                        low
                    } else {
                        amount(part).unwrap_or(low)
                    };
                    problems.invalid(format!("{field}.{part}[{name}]"), shown.to_string(), &detail);
                }
            }
        };
        order(min, max, "min", "min", "max");
        order(min, request, "defaultRequest", "min", "default request");
        order(request, max, "defaultRequest", "default request", "max");
        order(
            request,
            default,
            "defaultRequest",
            "default request",
            "default limit",
        );
        order(min, default, "default", "min", "default");
        order(default, max, "default", "default", "max");
        if let Some(ratio) = amount("maxLimitRequestRatio")
            && ratio.quantity < Quantity::from_units(1)
        {
            let field = format!("{field}.maxLimitRequestRatio[{name}]");
            problems.invalid(field, ratio.to_string(), "ratio 1 or greater is required");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_name_what_can_be_limited() {
        let mut problems = Problems::default();
        let quota = json!({"spec": {
            "hard": {
                "pods": "1.5",
                "count/jobs.batch": "3",
                "requests.nvidia.com/gpu": "1",
                "requests.cpu": "1",
                "apples": "2",
            },
            "scopes": ["Terminating", "NotTerminating"],
        }});
        check_quota(&quota, &mut problems);
        assert_eq!(
            problems.to_string(),
            "[spec.hard[pods]: Invalid value: \"1.5\": must be an integer, \
             spec.hard[apples]: Invalid value: \"apples\": must be a standard resource for quota, \
             spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes]"
        );
    }

    #[test]
    fn defaults_follow_from_bounds() {
        let mut range = json!({"spec": {"limits": [
            {"type": "Container", "max": {"cpu": "2", "memory": "1Gi"}, "min": {"cpu": "100m"}, "default": {"cpu": 1}},
        ]}});
        default_limits(&mut range);
        let limit = &range["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(limit["defaultRequest"], json!({"cpu": "1", "memory": "1Gi"}));
        let mut problems = Problems::default();
        check_limits(&range, &mut problems);
        assert!(problems.is_empty(), "{problems}");
        range["spec"]["limits"][0]["min"]["cpu"] = json!("3");
        check_limits(&range, &mut problems);
        assert!(
            problems.to_string().contains(
                "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2"
            ),
            "{problems}"
        );
    }
}
