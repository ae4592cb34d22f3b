//! What LimitRanges say of Pods and claims: kubernetes' `plugin/pkg/admission/limitranger`.

use coracle_api::{
    quantity::{Amount, Quantity},
    quota::{self, Amounts},
};
use coracle_store::resources::Body;
use serde_json::{Map, Value};

use crate::{
    object,
    rules::{each, pod::CONTAINERS, syntax},
};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn limits<'a>(ranges: &'a [Body], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    ranges
        .iter()
        .flat_map(|range| object::list(range, "/spec/limits"))
        .filter(move |limit| object::text(limit, "/type") == kind)
}

/// Gives containers what they do not say. Whether that was anything.
pub(super) fn fill_in(ranges: &[Body], pod: &mut Value) -> bool {
    let mut notes = Vec::new();
    for limit in limits(ranges, "Container") {
        // Containers first, as the note lists them.
        for pointer in CONTAINERS.into_iter().rev() {
            let noun = if pointer.ends_with("initContainers") {
                "init container"
            } else {
                "container"
            };
            each(pod, pointer, |container| {
                let name = object::text(container, "/name").to_owned();
                let resources = object::section(container, "resources");
                for (part, from, word) in [
                    ("requests", "defaultRequest", "request"),
                    ("limits", "default", "limit"),
                ] {
                    let mut set = Vec::new();
                    for (resource, amount) in syntax::map(limit, &format!("/{from}")) {
                        let amounts = resources.entry(part).or_insert_with(|| Value::Object(Map::new()));
                        let amounts = object::as_map(amounts);
                        if !amounts.contains_key(resource) {
                            amounts.insert(resource.clone(), amount.clone());
                            set.push(resource.as_str());
                        }
                    }
                    if !set.is_empty() {
                        set.sort_unstable();
                        notes.push(format!("{} {word} for {noun} {name}", set.join(", ")));
                    }
                }
            });
        }
    }
    if notes.is_empty() {
        return false;
    }
    let note = format!("LimitRanger plugin set: {}", notes.join("; "));
    let annotations = object::metadata(pod)
        .entry("annotations")
        .or_insert_with(|| Value::Object(Map::new()));
    object::as_map(annotations).insert(ANNOTATION.to_owned(), note.into());
    true
}

/// Refuses a Pod that leaves the bounds.
pub(super) fn check_pod(ranges: &[Body], pod: &Value) -> Result<(), String> {
    let mut wrong = Vec::new();
    for limit in limits(ranges, "Container") {
        for pointer in CONTAINERS.into_iter().rev() {
            for container in object::list(pod, pointer) {
                let amounts = |part: &str| -> Amounts {
                    syntax::map(container, &format!("/resources/{part}"))
                        .filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?)))
                        .collect()
                };
                check(
                    "Container",
                    limit,
                    &amounts("requests"),
                    &amounts("limits"),
                    &mut wrong,
                );
            }
        }
    }
    for limit in limits(ranges, "Pod") {
        let (requests, limited) = (
            quota::pod_amounts(pod, "requests"),
            quota::pod_amounts(pod, "limits"),
        );
        check("Pod", limit, &requests, &limited, &mut wrong);
    }
    outcome(wrong)
}

/// Refuses a claim that leaves the bounds.
pub(super) fn check_claim(ranges: &[Body], claim: &Value) -> Result<(), String> {
    let requests = claim.pointer("/spec/resources/requests");
    let mut wrong = Vec::new();
    let noun = "PersistentVolumeClaim";
    for limit in limits(ranges, noun) {
        for (resource, least) in amounts(limit, "min") {
            match syntax::amount(requests, &resource) {
                None => wrong.push(unsaid("minimum", &resource, noun, least, "request")),
                Some(asked) if asked.quantity < least.quantity => {
                    wrong.push(outside("minimum", &resource, noun, least, "request", asked));
                }
                Some(_) => {}
            }
        }
        for (resource, most) in amounts(limit, "max") {
            match syntax::amount(requests, &resource) {
                None => wrong.push(unsaid("maximum", &resource, noun, most, "request")),
                Some(asked) if asked.quantity > most.quantity => {
                    wrong.push(outside("maximum", &resource, noun, most, "request", asked));
                }
                Some(_) => {}
            }
        }
    }
    outcome(wrong)
}

fn outcome(wrong: Vec<String>) -> Result<(), String> {
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn amounts(limit: &Value, part: &str) -> Amounts {
    syntax::map(limit, &format!("/{part}"))
        .filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?)))
        .collect()
}

fn unsaid(bound: &str, resource: &str, noun: &str, enforced: Amount, what: &str) -> String {
    format!("{bound} {resource} usage per {noun} is {enforced}.  No {what} is specified")
}

fn outside(bound: &str, resource: &str, noun: &str, enforced: Amount, what: &str, is: Amount) -> String {
    format!("{bound} {resource} usage per {noun} is {enforced}, but {what} is {is}")
}

fn check(noun: &str, limit: &Value, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    for (resource, least) in amounts(limit, "min") {
        let (request, limited) = (requests.get(&resource), limits.get(&resource));
        match (request, limited) {
            (None, _) => wrong.push(unsaid("minimum", &resource, noun, least, "request")),
            (Some(request), _) if request.quantity < least.quantity => {
                wrong.push(outside("minimum", &resource, noun, least, "request", *request));
            }
            (_, Some(limited)) if limited.quantity < least.quantity => {
                wrong.push(outside("minimum", &resource, noun, least, "limit", *limited));
            }
            _ => {}
        }
    }
    for (resource, most) in amounts(limit, "max") {
        let (request, limited) = (requests.get(&resource), limits.get(&resource));
        match (request, limited) {
            (_, None) => wrong.push(unsaid("maximum", &resource, noun, most, "limit")),
            (_, Some(limited)) if limited.quantity > most.quantity => {
                wrong.push(outside("maximum", &resource, noun, most, "limit", *limited));
            }
            (Some(request), _) if request.quantity > most.quantity => {
                wrong.push(outside("maximum", &resource, noun, most, "request", *request));
            }
            _ => {}
        }
    }
    for (resource, most) in amounts(limit, "maxLimitRequestRatio") {
        check_ratio(
            noun,
            &resource,
            most,
            requests.get(&resource),
            limits.get(&resource),
            wrong,
        );
    }
}

fn check_ratio(
    noun: &str,
    resource: &str,
    most: Amount,
    request: Option<&Amount>,
    limit: Option<&Amount>,
    wrong: &mut Vec<String>,
) {
    let is_given = |amount: &&Amount| amount.quantity > Quantity::default();
    let start = format!("{resource} max limit to request ratio per {noun} is {most}, but");
    let Some(request) = request.filter(is_given) else {
        wrong.push(format!("{start} no request is specified or request is 0"));
        return;
    };
    let Some(limit) = limit.filter(is_given) else {
        wrong.push(format!("{start} no limit is specified or limit is 0"));
        return;
    };
    // Compared in whole numbers; the ratio is only shown.
    if limit.quantity.milli().saturating_mul(1000)
        > request.quantity.milli().saturating_mul(most.quantity.milli())
    {
        #[expect(clippy::cast_precision_loss, reason = "it is shown to people with six digits")]
        let ratio = limit.quantity.milli() as f64 / request.quantity.milli() as f64;
        wrong.push(format!("{start} provided ratio is {ratio:.6}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limit: Value) -> Vec<Body> {
        vec![json!({"spec": {"limits": [limit]}}).into()]
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let ranges = range(json!({
            "type": "Container",
            "default": {"cpu": "1", "memory": "1Gi"},
            "defaultRequest": {"cpu": "500m"},
        }));
        let mut pod = pod(json!({"limits": {"cpu": "2"}}));
        assert!(fill_in(&ranges, &mut pod));
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; memory limit for container c"
        );
        assert!(!fill_in(&ranges, &mut pod));
    }

    #[test]
    fn what_leaves_the_bounds_is_refused() {
        let both = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}});
        for (limit, resources, expected) in [
            (
                json!({"type": "Container", "min": {"cpu": "2"}}),
                both.clone(),
                "minimum cpu usage per Container is 2, but request is 1",
            ),
            (
                json!({"type": "Container", "max": {"cpu": "2"}}),
                both.clone(),
                "maximum cpu usage per Container is 2, but limit is 3",
            ),
            (
                json!({"type": "Container", "max": {"memory": "1Gi"}}),
                both.clone(),
                "maximum memory usage per Container is 1Gi.  No limit is specified",
            ),
            (
                json!({"type": "Pod", "min": {"memory": "1Gi"}}),
                both.clone(),
                "minimum memory usage per Pod is 1Gi.  No request is specified",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                both,
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
        ] {
            assert_eq!(check_pod(&range(limit), &pod(resources)).unwrap_err(), expected);
        }
    }

    #[test]
    fn claims_have_bounds_too() {
        let claim = json!({"spec": {"resources": {"requests": {"storage": "10Gi"}}}});
        let ranges = range(json!({"type": "PersistentVolumeClaim", "max": {"storage": "5Gi"}}));
        assert_eq!(
            check_claim(&ranges, &claim).unwrap_err(),
            "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 10Gi"
        );
    }
}
