//! Whether a Pod wants a machine like this one: labels it selects, and node affinity. Pure.
//!
//! Taints are none of this machine's, so tolerations mean nothing here; nor do preferences, with one machine.

use std::collections::BTreeMap;

use coracle_api::reason::Reason;
use k8s_openapi::api::core::v1::{Affinity, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use super::fit::Refusal;

/// A machine, as Pods choose it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Why the Pod wants another machine; `None` if this one will do.
pub(crate) fn mismatch(pod: &Pod, machine: &Machine) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let mut parts = Vec::new();
    for (key, value) in spec.node_selector.iter().flatten() {
        match machine.labels.get(key) {
            Some(has) if has == value => {}
            Some(has) => parts.push(format!(
                "selects machines labelled `{key}={value}`; this machine has `{key}={has}`"
            )),
            None => parts.push(format!(
                "selects machines labelled `{key}={value}`; this machine has no label `{key}`"
            )),
        }
    }
    let terms = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|nodes| nodes.required_during_scheduling_ignored_during_execution.as_ref())
        .map(|required| required.node_selector_terms.as_slice());
    if let Some(terms) = terms
        && !terms.iter().any(|term| holds(term, machine))
    {
        let wanted: Vec<String> = terms.iter().map(show).collect();
        let wanted = wanted.join(", or ");
        parts.push(format!(
            "its affinity wants a machine where {wanted}; this machine has {}",
            labels(terms, machine)
        ));
    }
    (!parts.is_empty()).then(|| Refusal {
        reason: Reason::NodeSelectorMismatch,
        message: parts.join("; "),
    })
}

/// What a Pod's affinity asks for that is not looked at here, in a sentence.
pub(crate) fn ignored(affinity: &Affinity) -> Option<&'static str> {
    let required = affinity
        .pod_affinity
        .as_ref()
        .is_some_and(|pods| pods.required_during_scheduling_ignored_during_execution.is_some());
    let kept_apart = affinity
        .pod_anti_affinity
        .as_ref()
        .is_some_and(|pods| pods.required_during_scheduling_ignored_during_execution.is_some());
    (required || kept_apart).then_some(
        "affinity to other Pods, or away from them, is not looked at: there is one machine, and all Pods are on it",
    )
}

/// A term without requirements holds nowhere.
fn holds(term: &NodeSelectorTerm, machine: &Machine) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| machine.labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(machine.name.as_str());
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|requirement| is_met(requirement, label(&requirement.key)))
        && fields
            .iter()
            .all(|requirement| is_met(requirement, field(&requirement.key)))
}

fn is_met(requirement: &NodeSelectorRequirement, has: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_in = has.is_some_and(|has| values.iter().any(|value| value == has));
    let compared = |holds: fn(i64, i64) -> bool| {
        let numbers = has
            .and_then(|has| has.parse().ok())
            .zip(values.first().and_then(|value| value.parse().ok()));
        numbers.is_some_and(|(has, value)| holds(has, value))
    };
    match requirement.operator.as_str() {
        "In" => is_in,
        "NotIn" => !is_in,
        "Exists" => has.is_some(),
        "DoesNotExist" => has.is_none(),
        "Gt" => compared(|has, value| has > value),
        "Lt" => compared(|has, value| has < value),
        _ => false,
    }
}

fn requirements(term: &NodeSelectorTerm) -> impl Iterator<Item = &NodeSelectorRequirement> {
    let lists = [&term.match_expressions, &term.match_fields];
    lists.into_iter().flatten().flatten()
}

fn show(term: &NodeSelectorTerm) -> String {
    let parts: Vec<String> = requirements(term)
        .map(|requirement| {
            let values = requirement.values.as_deref().unwrap_or_default().join(", ");
            let (key, operator) = (&requirement.key, &requirement.operator);
            if values.is_empty() {
                format!("`{key} {operator}`")
            } else {
                format!("`{key} {operator} ({values})`")
            }
        })
        .collect();
    if parts.is_empty() {
        "nothing can hold (the term is empty)".to_owned()
    } else {
        parts.join(" and ")
    }
}

/// This machine's values of what the terms name.
fn labels(terms: &[NodeSelectorTerm], machine: &Machine) -> String {
    let mut keys: Vec<&str> = terms
        .iter()
        .flat_map(requirements)
        .map(|requirement| requirement.key.as_str())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let found: Vec<String> = keys
        .iter()
        .filter_map(|key| {
            let value = match *key {
                "metadata.name" => Some(&machine.name),
                key => machine.labels.get(key),
            };
            Some(format!("`{key}={}`", value?))
        })
        .collect();
    if found.is_empty() {
        "none of these labels".to_owned()
    } else {
        found.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, expected: &str) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let machine = Machine {
            name: "here".to_owned(),
            labels: BTreeMap::from([label("disk", "ssd"), label("cores", "8")]),
        };
        let found = mismatch(&pod, &machine).map_or_else(
            || "fits".to_owned(),
            |refusal| format!("{}: {}", refusal.reason, refusal.message),
        );
        assert_eq!(found, expected);
    }

    fn affinity(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": terms,
        }}}})
    }

    fn term(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn a_selector_must_match_every_label() {
        check(json!({}), "fits");
        check(json!({"nodeSelector": {"disk": "ssd"}}), "fits");
        check(
            json!({"nodeSelector": {"disk": "hdd", "zone": "a"}}),
            "NodeSelectorMismatch: selects machines labelled `disk=hdd`; this machine has `disk=ssd`; \
             selects machines labelled `zone=a`; this machine has no label `zone`",
        );
    }

    #[test]
    fn one_term_of_an_affinity_must_hold() {
        for (term, holds) in [
            (term("disk", "In", &["hdd", "ssd"]), true),
            (term("disk", "NotIn", &["ssd"]), false),
            (term("zone", "NotIn", &["a"]), true),
            (term("zone", "Exists", &[]), false),
            (term("zone", "DoesNotExist", &[]), true),
            (term("cores", "Gt", &["7"]), true),
            (term("cores", "Lt", &["8"]), false),
            (term("disk", "Gt", &["1"]), false),
            (json!({}), false),
            (
                json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["here"]}]}),
                true,
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({"spec": {
                "containers": [], "affinity": affinity(json!([term]))["affinity"],
            }}))
            .unwrap();
            let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            let machine = Machine {
                name: "here".to_owned(),
                labels: BTreeMap::from([label("disk", "ssd"), label("cores", "8")]),
            };
            assert_eq!(mismatch(&pod, &machine).is_none(), holds, "{term}");
        }
        check(
            affinity(json!([
                term("disk", "In", &["hdd"]),
                term("disk", "In", &["ssd"])
            ])),
            "fits",
        );
        check(
            affinity(json!([term("disk", "In", &["hdd"]), term("gpu", "Exists", &[])])),
            "NodeSelectorMismatch: its affinity wants a machine where `disk In (hdd)`, or `gpu Exists`; this machine \
             has `disk=ssd`",
        );
    }

    #[test]
    fn a_preference_keeps_no_pod_away() {
        check(
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": term("disk", "In", &["hdd"])},
            ]}}}),
            "fits",
        );
    }
}
