//! What objects use of what a ResourceQuota limits: Kubernetes' `pkg/quota/v1`. Both who refuses objects over a
//! quota and who writes its status count with this. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::{Amount, Quantity};

/// Amounts by the names that quotas have for them.
pub type Amounts = BTreeMap<String, Amount>;

/// Resources of the core group that are counted under their own names too.
const NAMED: [&str; 6] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// Resources of a Pod whose requests are counted under their own names too.
const PLAIN: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// What every container must say when a quota limits it.
const DEMANDED: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";

/// What `spec.hard` allows.
#[must_use]
pub fn hard(quota: &Value) -> Amounts {
    amounts(quota.pointer("/spec/hard"))
}

/// Group and plural of the resources that the quota limits, once each. Objects of these are to be counted.
#[must_use]
pub fn resources(quota: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in hard(quota).keys() {
        let resource = match name.strip_prefix("count/") {
            Some(counted) => match counted.split_once('.') {
                Some((plural, group)) => (group.to_owned(), plural.to_owned()),
                None => (String::new(), counted.to_owned()),
            },
            None if NAMED.contains(&name.as_str()) => (String::new(), name.clone()),
            None if name.starts_with("services.") => (String::new(), "services".to_owned()),
            None if name == "requests.storage" || name.contains(STORAGE_CLASS) => {
                (String::new(), "persistentvolumeclaims".to_owned())
            }
            None => (String::new(), "pods".to_owned()),
        };
        if !found.contains(&resource) {
            found.push(resource);
        }
    }
    found
}

/// What these objects use of what the quota limits; each comes with its group and plural.
pub fn used<'a>(quota: &Value, objects: impl Iterator<Item = (&'a str, &'a str, &'a Value)>) -> Amounts {
    let hard = hard(quota);
    let mut used: Amounts = hard
        .keys()
        .map(|name| (name.clone(), Amount::default()))
        .collect();
    for (group, plural, object) in objects {
        if !concerns(quota, group, plural, object) {
            continue;
        }
        for (name, amount) in charges(group, plural, object) {
            if let Some(sum) = used.get_mut(&name) {
                *sum = *sum + amount;
            }
        }
    }
    used
}

/// Whether the quota's scopes take in the object.
#[must_use]
pub fn concerns(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let is_pod = group.is_empty() && plural == "pods";
    let simple = list(quota, "/spec/scopes")
        .iter()
        .filter_map(Value::as_str)
        .all(|scope| is_pod && is_in_scope(object, scope, "Exists", &[]));
    let selected = list(quota, "/spec/scopeSelector/matchExpressions")
        .iter()
        .all(|expression| {
            let (scope, operator) = (text(expression, "/scopeName"), text(expression, "/operator"));
            is_pod && is_in_scope(object, scope, operator, list(expression, "/values"))
        });
    simple && selected
}

fn is_in_scope(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let ends = pod
        .pointer("/spec/activeDeadlineSeconds")
        .and_then(Value::as_i64)
        .is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = text(pod, "/spec/priorityClassName");
            let is_named = values.iter().any(|value| value == class);
            match operator {
                "In" => !class.is_empty() && is_named,
                "NotIn" => !is_named,
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                _ => false,
            }
        }
        _ => false,
    }
}

fn is_best_effort(pod: &Value) -> bool {
    ["requests", "limits"].iter().all(|part| {
        containers(pod).all(|container| {
            let amounts = amounts(container.pointer(&format!("/resources/{part}")));
            ["cpu", "memory"].iter().all(|name| {
                amounts
                    .get(*name)
                    .is_none_or(|amount| amount.quantity <= Quantity::default())
            })
        })
    })
}

/// What one object uses, whatever a quota limits of it.
#[must_use]
pub fn charges(group: &str, plural: &str, object: &Value) -> Amounts {
    let mut charges = Amounts::new();
    let one = Amount::count(1);
    let name = if group.is_empty() {
        format!("count/{plural}")
    } else {
        format!("count/{plural}.{group}")
    };
    charges.insert(name, one);
    if !group.is_empty() {
        return charges;
    }
    if NAMED.contains(&plural) {
        charges.insert(plural.to_owned(), one);
    }
    match plural {
        "pods" => charge_pod(object, &mut charges),
        "services" => charge_service(object, &mut charges),
        "persistentvolumeclaims" => charge_claim(object, &mut charges),
        _ => {}
    }
    charges
}

/// A Pod that is over uses nothing but its name.
fn charge_pod(pod: &Value, charges: &mut Amounts) {
    if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return;
    }
    charges.insert("pods".to_owned(), Amount::count(1));
    for (name, amount) in pod_amounts(pod, "requests") {
        if PLAIN.contains(&name.as_str()) || name.starts_with("hugepages-") {
            charges.insert(name.clone(), amount);
        }
        charges.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_amounts(pod, "limits") {
        if PLAIN.contains(&name.as_str()) {
            charges.insert(format!("limits.{name}"), amount);
        }
    }
}

/// What a Pod asks for at its highest: its containers together, or one of those that prepare it beside those that
/// stay.
#[must_use]
pub fn pod_amounts(pod: &Value, part: &str) -> Amounts {
    let of = |container: &Value| amounts(container.pointer(&format!("/resources/{part}")));
    let mut sum = Amounts::new();
    for container in list(pod, "/spec/containers") {
        add(&mut sum, of(container));
    }
    let (mut staying, mut highest) = (Amounts::new(), Amounts::new());
    for container in list(pod, "/spec/initContainers") {
        let mut now = staying.clone();
        add(&mut now, of(container));
        if text(container, "/restartPolicy") == "Always" {
            add(&mut sum, of(container));
            staying.clone_from(&now);
        }
        raise(&mut highest, now);
    }
    raise(&mut sum, highest);
    add(&mut sum, amounts(pod.pointer("/spec/overhead")));
    sum
}

fn add(to: &mut Amounts, more: Amounts) {
    for (name, amount) in more {
        let sum = to.entry(name).or_default();
        *sum = *sum + amount;
    }
}

fn raise(to: &mut Amounts, at_least: Amounts) {
    for (name, amount) in at_least {
        let highest = to.entry(name).or_insert(amount);
        if highest.quantity < amount.quantity {
            *highest = amount;
        }
    }
}

fn charge_service(service: &Value, charges: &mut Amounts) {
    let ports = list(service, "/spec/ports");
    let kind = text(service, "/spec/type");
    let open = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer"
            if service.pointer("/spec/allocateLoadBalancerNodePorts") == Some(&Value::Bool(false)) =>
        {
            ports
                .iter()
                .filter(|port| port.get("nodePort").and_then(Value::as_i64).unwrap_or_default() != 0)
                .count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    charges.insert("services.nodeports".to_owned(), Amount::count(open));
    let balanced = usize::from(kind == "LoadBalancer");
    charges.insert("services.loadbalancers".to_owned(), Amount::count(balanced));
}

fn charge_claim(claim: &Value, charges: &mut Amounts) {
    let class = text(claim, "/spec/storageClassName").to_owned();
    let in_class = |name: &str| format!("{class}{STORAGE_CLASS}{name}");
    if !class.is_empty() {
        charges.insert(in_class("persistentvolumeclaims"), Amount::count(1));
    }
    let requested = amounts(claim.pointer("/spec/resources/requests"));
    let Some(size) = requested.get("storage").copied() else {
        return;
    };
    charges.insert("requests.storage".to_owned(), size);
    if !class.is_empty() {
        charges.insert(in_class("requests.storage"), size);
    }
}

/// What containers of the Pod do not say although the quota limits it: each with the names of those containers.
#[must_use]
pub fn unsaid(quota: &Value, pod: &Value) -> Vec<(String, Vec<String>)> {
    let mut unsaid = Vec::new();
    for name in hard(quota).into_keys() {
        if !DEMANDED.contains(&name.as_str()) {
            continue;
        }
        let (part, resource) = match name.split_once('.') {
            Some((part, resource)) => (part, resource),
            None => ("requests", name.as_str()),
        };
        let pointer = format!("/resources/{part}/{resource}");
        let mut silent = containers(pod)
            .filter(|container| container.pointer(&pointer).is_none())
            .map(|container| text(container, "/name").to_owned())
            .collect::<Vec<_>>();
        if !silent.is_empty() {
            silent.sort();
            unsaid.push((name, silent));
        }
    }
    unsaid
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "/spec/containers")
        .iter()
        .chain(list(pod, "/spec/initContainers"))
}

/// The amounts of a map of texts; what is no quantity counts as nothing.
fn amounts(map: Option<&Value>) -> Amounts {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(name, amount)| {
        let amount = match amount {
            Value::String(text) => text.parse().ok()?,
            number => number.to_string().parse().ok()?,
        };
        Some((name.clone(), amount))
    })
    .collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, cpu: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu, "nvidia.com/gpu": "1"}, "limits": {"cpu": cpu}}},
        ]}})
    }

    fn shown(amounts: &Amounts) -> Vec<String> {
        amounts
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect()
    }

    #[test]
    fn a_pod_uses_what_it_asks_for_until_it_is_over() {
        let mut one = pod("a", "500m");
        assert_eq!(
            shown(&charges("", "pods", &one)),
            [
                "count/pods=1",
                "cpu=500m",
                "limits.cpu=500m",
                "pods=1",
                "requests.cpu=500m",
                "requests.nvidia.com/gpu=1",
            ]
        );
        one["status"] = json!({"phase": "Succeeded"});
        assert_eq!(shown(&charges("", "pods", &one)), ["count/pods=1"]);
    }

    #[test]
    fn containers_that_prepare_count_at_their_highest_and_those_that_stay_always() {
        let cpu = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut stays = cpu("1");
        stays["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {
            "initContainers": [cpu("2"), stays, cpu("4")],
            "containers": [cpu("1"), cpu("1")],
        }});
        assert_eq!(shown(&pod_amounts(&pod, "requests")), ["cpu=5"]);
    }

    #[test]
    fn objects_are_counted_by_group() {
        let quota = json!({"spec": {"hard": {"count/jobs.batch": "3", "configmaps": "2", "services.nodeports": "1"}}});
        assert_eq!(
            resources(&quota),
            [("", "configmaps"), ("batch", "jobs"), ("", "services")]
                .map(|(g, p)| (g.to_owned(), p.to_owned()))
        );
        let service = json!({"spec": {"type": "NodePort", "ports": [{}, {}]}});
        let job = json!({});
        let objects = [("batch", "jobs", &job), ("", "services", &service)];
        assert_eq!(
            shown(&used(&quota, objects.into_iter())),
            ["configmaps=0", "count/jobs.batch=1", "services.nodeports=2"]
        );
    }

    #[test]
    fn scopes_take_in_pods_only() {
        let mut short = pod("a", "1");
        short["spec"]["activeDeadlineSeconds"] = json!(5);
        short["spec"]["priorityClassName"] = json!("high");
        let best = json!({"spec": {"containers": [{"name": "c"}]}});
        let scoped = |scopes: &[&str]| json!({"spec": {"scopes": scopes}});
        for (scope, takes_short, takes_best) in [
            ("Terminating", true, false),
            ("NotTerminating", false, true),
            ("BestEffort", false, true),
            ("NotBestEffort", true, false),
            ("PriorityClass", true, false),
        ] {
            let quota = scoped(&[scope]);
            assert_eq!(concerns(&quota, "", "pods", &short), takes_short, "{scope}");
            assert_eq!(concerns(&quota, "", "pods", &best), takes_best, "{scope}");
            assert!(!concerns(&quota, "", "secrets", &best), "{scope}");
        }
        let by_class = json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]},
        ]}}});
        assert!(!concerns(&by_class, "", "pods", &short));
        assert!(concerns(&by_class, "", "pods", &best));
    }

    #[test]
    fn what_is_limited_must_be_said_by_every_container() {
        let quota = json!({"spec": {"hard": {"limits.memory": "1Gi", "cpu": "1", "pods": "1"}}});
        assert_eq!(
            unsaid(&quota, &pod("a", "1")),
            [("limits.memory".to_owned(), vec!["c".to_owned()])]
        );
    }

    #[test]
    fn a_claim_uses_storage_of_its_class() {
        let claim =
            json!({"spec": {"storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            shown(&charges("", "persistentvolumeclaims", &claim)),
            [
                "count/persistentvolumeclaims=1",
                "local.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "local.storageclass.storage.k8s.io/requests.storage=1Gi",
                "persistentvolumeclaims=1",
                "requests.storage=1Gi",
            ]
        );
    }
}
