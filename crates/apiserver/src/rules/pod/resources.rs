//! What is wrong with what a container asks for, and the class that its Pod has by that.

use coracle_api::quantity::Quantity;
use serde_json::{Map, Value};

use super::CONTAINERS;
use crate::{
    object,
    rules::{check_quantities, syntax},
    validation::{self, Problems},
};

/// Resources that every machine has.
const STANDARD: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];

/// Problems with `resources` of a container.
pub(super) fn check(container: &Value, field: &str, problems: &mut Problems) {
    for part in ["limits", "requests"] {
        let pointer = format!("/resources/{part}");
        let field = format!("{field}.resources.{part}");
        check_quantities(container, &pointer, &field, problems);
        for (name, amount) in syntax::map(container, &pointer) {
            check_name(name, &field, problems);
            let amount = amount.as_str().and_then(|text| text.parse::<Quantity>().ok());
            if !is_overcommitted(name) && amount.is_some_and(|amount| amount.milli() % 1000 != 0) {
                let text = object::text(container, &format!("{pointer}/{}", escape(name)));
                problems.invalid(format!("{field}[{name}]"), text, "must be an integer");
            }
        }
    }
    check_order(container, field, problems);
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn check_name(name: &str, field: &str, problems: &mut Problems) {
    let is_standard = STANDARD.contains(&name) || name.starts_with("hugepages-");
    if let Some(problem) = validation::qualified_name_problem(name) {
        problems.invalid(field, name, problem);
    } else if !is_standard && !name.contains('/') {
        problems.invalid(field, name, "must be a standard resource type or fully qualified");
        problems.invalid(field, name, "must be a standard resource for containers");
    }
}

/// Whether more may be promised of it than there is.
fn is_overcommitted(name: &str) -> bool {
    !name.contains('/') && !name.starts_with("hugepages-")
}

/// Nothing is requested beyond its limit, and devices exactly up to it.
fn check_order(container: &Value, field: &str, problems: &mut Problems) {
    let requests = object::at(container, "/resources/requests");
    let limits = object::at(container, "/resources/limits");
    for (resource, request) in syntax::map(container, "/resources/requests") {
        let field = format!("{field}.resources.requests");
        let request = request.as_str().unwrap_or_default();
        let Some(wanted) = syntax::amount(requests, resource) else {
            continue;
        };
        let Some(most) = syntax::amount(limits, resource) else {
            if !is_overcommitted(resource) {
                problems.required(field, "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        if !is_overcommitted(resource) && wanted.quantity != most.quantity {
            let detail = format!("must be equal to {resource} limit of {most}");
            problems.invalid(field, request, &detail);
        } else if wanted.quantity > most.quantity {
            let detail = format!("must be less than or equal to {resource} limit of {most}");
            problems.invalid(field, request, &detail);
        }
    }
}

/// The quality of service class.
pub(crate) fn quality(pod: &Value) -> &'static str {
    let containers = CONTAINERS.iter().flat_map(|pointer| object::list(pod, pointer));
    let amount = |amounts: Option<&Map<String, Value>>, resource: &str| {
        let text = amounts
            .and_then(|amounts| amounts.get(resource))
            .and_then(Value::as_str);
        text.and_then(|text| text.parse::<Quantity>().ok())
            .filter(|amount| amount.milli() > 0)
    };
    let (mut is_guaranteed, mut is_best_effort) = (true, true);
    for container in containers {
        let limits = object::at(container, "/resources/limits").and_then(Value::as_object);
        let requests = object::at(container, "/resources/requests").and_then(Value::as_object);
        for resource in ["cpu", "memory"] {
            let (limit, request) = (amount(limits, resource), amount(requests, resource));
            is_best_effort &= limit.is_none() && request.is_none();
            is_guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (is_best_effort, is_guaranteed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}
