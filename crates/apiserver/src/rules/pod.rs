//! Rules of Pods. Defaults are those of kubernetes `pkg/apis/core/v1/defaults.go`, as far as
//! something here reads them; what needs other objects (service accounts, priorities) is left out.

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use super::{Rules, check_names, check_quantities, each, quantities, shape};
use crate::{object, validation::Problems};

pub(crate) const RULES: Rules = Rules {
    shape: shape::<Pod>,
    default,
    initial_status: Some(|pod| json!({"phase": "Pending", "qosClass": quality(pod)})),
    check,
    check_change,
    grace,
    ..Rules::NONE
};

const CONTAINERS: [&str; 2] = ["/spec/initContainers", "/spec/containers"];

/// None for a Pod that runs nowhere: no node has to let it go.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let is_over = matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed");
    if is_over || object::text(pod, "/spec/nodeName").is_empty() {
        return 0;
    }
    let of_pod = || {
        pod.pointer("/spec/terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
    };
    match asked.or_else(of_pod).unwrap_or(30) {
        ..0 => 1,
        seconds => seconds,
    }
}

fn default(pod: &mut Value) {
    for pointer in CONTAINERS {
        each(pod, pointer, default_container);
    }
    each(pod, "/spec/volumes", default_volume);
    let spec = object::section(pod, "spec");
    object::default(spec, "restartPolicy", "Always");
    object::default(spec, "terminationGracePeriodSeconds", 30);
    object::default(spec, "dnsPolicy", "ClusterFirst");
    object::default(spec, "securityContext", json!({}));
    object::default(spec, "schedulerName", "default-scheduler");
    object::default(spec, "enableServiceLinks", true);
}

fn default_container(container: &mut Value) {
    quantities(container, "/resources/limits");
    quantities(container, "/resources/requests");
    let policy = pull_policy(object::text(container, "/image"));
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(Value::Object(probe)) = container.get_mut(probe) {
            object::default(probe, "timeoutSeconds", 1);
            object::default(probe, "periodSeconds", 10);
            object::default(probe, "successThreshold", 1);
            object::default(probe, "failureThreshold", 3);
        }
    }
    each(container, "/ports", |port| {
        object::default(object::as_map(port), "protocol", "TCP")
    });
    each(container, "/env", |variable| {
        if let Some(Value::Object(reference)) = variable.pointer_mut("/valueFrom/fieldRef") {
            object::default(reference, "apiVersion", "v1");
        }
    });
    let container = object::as_map(container);
    object::default(container, "imagePullPolicy", policy);
    object::default(container, "terminationMessagePath", "/dev/termination-log");
    object::default(container, "terminationMessagePolicy", "File");
    let resources = object::as_map(container.entry("resources").or_insert_with(|| json!({})));
    // What is limited and not requested is requested up to the limit.
    if let Some(Value::Object(limits)) = resources.get("limits").cloned() {
        let requests = object::as_map(resources.entry("requests").or_insert_with(|| json!({})));
        for (resource, amount) in limits {
            requests.entry(resource).or_insert(amount);
        }
    }
}

fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or_default();
    let is_pinned = last.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    if is_pinned { "IfNotPresent" } else { "Always" }
}

fn default_volume(volume: &mut Value) {
    let volume = object::as_map(volume);
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(Value::Object(source)) = volume.get_mut(source) {
            object::default(source, "defaultMode", 0o644);
        }
    }
    if let Some(Value::Object(path)) = volume.get_mut("hostPath") {
        object::default(path, "type", "");
    }
    if let Some(Value::Object(folder)) = volume.get_mut("emptyDir")
        && let Some(Value::Number(limit)) = folder.get("sizeLimit")
    {
        let limit = limit.to_string();
        folder.insert("sizeLimit".to_owned(), limit.into());
    }
}

fn check(pod: &Value, problems: &mut Problems) {
    if object::list(pod, "/spec/containers").is_empty() {
        problems.required("spec.containers", "");
    }
    for pointer in CONTAINERS {
        let containers = object::list(pod, pointer);
        let field = pointer.trim_start_matches('/').replace('/', ".");
        check_names(containers, &field, problems);
        for (index, container) in containers.iter().enumerate() {
            check_container(container, &format!("{field}[{index}]"), pod, problems);
        }
    }
    check_names(object::list(pod, "/spec/volumes"), "spec.volumes", problems);
    let policy = object::text(pod, "/spec/restartPolicy");
    let policies = ["Always", "OnFailure", "Never"];
    if !policies.contains(&policy) {
        problems.unsupported("spec.restartPolicy", policy, &policies);
    }
    if object::number(pod, "/spec/terminationGracePeriodSeconds") < 0 {
        let grace = object::number(pod, "/spec/terminationGracePeriodSeconds");
        problems.invalid(
            "spec.terminationGracePeriodSeconds",
            grace,
            "must be greater than or equal to 0",
        );
    }
}

fn check_container(container: &Value, field: &str, pod: &Value, problems: &mut Problems) {
    if object::text(container, "/image").is_empty() {
        problems.required(format!("{field}.image"), "");
    }
    check_quantities(
        container,
        "/resources/limits",
        &format!("{field}.resources.limits"),
        problems,
    );
    check_quantities(
        container,
        "/resources/requests",
        &format!("{field}.resources.requests"),
        problems,
    );
    check_order(container, field, problems);
    for (index, variable) in object::list(container, "/env").iter().enumerate() {
        if object::text(variable, "/name").is_empty() {
            problems.required(format!("{field}.env[{index}].name"), "");
        }
    }
    for (index, mount) in object::list(container, "/volumeMounts").iter().enumerate() {
        let name = object::text(mount, "/name");
        let volumes = object::list(pod, "/spec/volumes");
        if !volumes.iter().any(|volume| object::text(volume, "/name") == name) {
            let field = format!("{field}.volumeMounts[{index}].name");
            problems.invalid(field, name, "no volume of the Pod has this name");
        }
        if object::text(mount, "/mountPath").is_empty() {
            problems.required(format!("{field}.volumeMounts[{index}].mountPath"), "");
        }
    }
}

/// Nothing is requested beyond its limit.
fn check_order(container: &Value, field: &str, problems: &mut Problems) {
    let requests = container
        .pointer("/resources/requests")
        .and_then(Value::as_object);
    for (resource, request) in requests.into_iter().flatten() {
        let limit = container
            .pointer("/resources/limits")
            .and_then(|limits| limits.get(resource));
        let text = |amount: &Value| amount.as_str().unwrap_or_default().to_owned();
        let (request, limit) = (text(request), limit.map(text).unwrap_or_default());
        if let (Ok(wanted), Ok(most)) = (request.parse::<Quantity>(), limit.parse::<Quantity>())
            && wanted > most
        {
            let detail = format!("must be less than or equal to {resource} limit of {limit}");
            problems.invalid(format!("{field}.resources.requests"), request.as_str(), &detail);
        }
    }
}

fn check_change(old: &Value, new: &Value, problems: &mut Problems) {
    if fixed_spec(old) != fixed_spec(new) {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`, \
             `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only \
             additions to existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be \
             set to 1 if it was previously negative)";
        problems.forbidden("spec", detail);
        return;
    }
    let kept = object::list(new, "/spec/tolerations");
    if !object::list(old, "/spec/tolerations")
        .iter()
        .all(|toleration| kept.contains(toleration))
    {
        problems.forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

/// The spec without the fields that may change.
fn fixed_spec(pod: &Value) -> Value {
    let mut pod = json!({"spec": pod.get("spec").cloned().unwrap_or_default()});
    for pointer in CONTAINERS {
        each(&mut pod, pointer, |container| {
            object::put(object::as_map(container), "image", None);
            // It follows from the image when it was left out.
            object::put(object::as_map(container), "imagePullPolicy", None);
        });
    }
    let spec = object::section(&mut pod, "spec");
    for free in ["activeDeadlineSeconds", "tolerations"] {
        object::put(spec, free, None);
    }
    pod
}

/// The quality of service class.
fn quality(pod: &Value) -> &'static str {
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
        let limits = container.pointer("/resources/limits").and_then(Value::as_object);
        let requests = container
            .pointer("/resources/requests")
            .and_then(Value::as_object);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        let mut pod = json!({"spec": {"containers": [{"name": "main", "image": "python:3.12"}]}});
        default(&mut pod);
        pod
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let mut pod = json!({"spec": {
            "containers": [{"name": "a", "image": "x", "resources": {"limits": {"cpu": 1}}}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}],
        }});
        default(&mut pod);
        assert_eq!(pod.pointer("/spec/restartPolicy"), Some(&json!("Always")));
        assert_eq!(
            pod.pointer("/spec/containers/0/imagePullPolicy"),
            Some(&json!("Always"))
        );
        let resources = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}});
        assert_eq!(pod.pointer("/spec/containers/0/resources"), Some(&resources));
        assert_eq!(pod.pointer("/spec/volumes/0/emptyDir"), Some(&json!({})));
        assert_eq!(
            pod.pointer("/spec/volumes/1/secret/defaultMode"),
            Some(&json!(420))
        );
        let again = pod.clone();
        default(&mut pod);
        assert_eq!(pod, again);
    }

    #[test]
    fn images_without_a_tag_are_always_pulled() {
        for (image, policy) in [
            ("python", "Always"),
            ("python:latest", "Always"),
            ("python:3.12", "IfNotPresent"),
            ("registry:5000/python", "Always"),
            ("registry:5000/python:3", "IfNotPresent"),
            ("python@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_pod_without_a_volume_that_it_mounts_is_invalid() {
        let mut pod = pod();
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "gone", "mountPath": "/x"}]);
        let mut problems = Problems::default();
        check(&pod, &mut problems);
        assert_eq!(
            problems.to_string(),
            "spec.containers[0].volumeMounts[0].name: Invalid value: \"gone\": no volume of the Pod has this name"
        );
    }

    #[test]
    fn a_request_above_its_limit_is_invalid() {
        let mut pod = pod();
        pod["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}});
        let mut problems = Problems::default();
        check(&pod, &mut problems);
        assert_eq!(
            problems.to_string(),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of \
             1500m"
        );
    }

    #[test]
    fn the_image_may_change_and_the_command_may_not() {
        let (old, mut new) = (pod(), pod());
        new["spec"]["containers"][0]["image"] = json!("python:3.13");
        let mut problems = Problems::default();
        check_change(&old, &new, &mut problems);
        assert!(problems.is_empty());
        new["spec"]["containers"][0]["command"] = json!(["sh"]);
        check_change(&old, &new, &mut problems);
        assert!(
            problems
                .to_string()
                .starts_with("spec: Forbidden: pod updates may not change fields")
        );
    }

    #[test]
    fn quality_follows_requests_and_limits() {
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        ] {
            let mut pod = json!({"spec": {"containers": [{"resources": resources}]}});
            default(&mut pod);
            assert_eq!(quality(&pod), expected);
        }
    }
}
