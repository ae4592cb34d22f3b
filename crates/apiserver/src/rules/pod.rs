//! Rules of Pods, and of the templates that other kinds make Pods from. What needs other objects
//! (service accounts, priorities, limits) is in [`crate::reserve`].

mod containers;
mod defaults;
mod resources;
mod update;
mod volumes;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

pub(crate) use self::{
    defaults::{canonical, template as default_template},
    resources::quality,
};
use super::{Rules, shape, syntax};
use crate::{
    object,
    validation::{self, Problems},
};

pub(crate) const RULES: Rules = Rules {
    shape: shape::<Pod>,
    default: defaults::pod,
    initial_status: Some(|pod| json!({"phase": "Pending", "qosClass": quality(pod)})),
    check: |pod, problems| check_spec(pod.get("spec").unwrap_or(&Value::Null), "spec", &[], problems),
    check_change: update::check,
    carry,
    grace,
    ..Rules::NONE
};

pub(crate) const CONTAINERS: [&str; 2] = ["/spec/initContainers", "/spec/containers"];
const EPHEMERAL: &str = "/spec/ephemeralContainers";

/// What its priority class gave it stays.
fn carry(old: &Value, new: &mut Value) {
    for field in ["priority", "preemptionPolicy"] {
        if let Some(value) = old.pointer(&format!("/spec/{field}")) {
            object::default(object::section(new, "spec"), field, value.clone());
        }
    }
}

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

/// Problems with a template, which `field` names. `mountable` are names of volumes that its Pods
/// will have beside those it lists.
pub(crate) fn check_template(template: &Value, field: &str, mountable: &[&str], problems: &mut Problems) {
    syntax::check_labels(template, "/metadata/labels", &format!("{field}.labels"), problems);
    let spec = template.get("spec").unwrap_or(&Value::Null);
    check_spec(spec, &format!("{field}.spec"), mountable, problems);
    if !object::list(spec, "/ephemeralContainers").is_empty() {
        let field = format!("{field}.spec.ephemeralContainers");
        problems.forbidden(field, "ephemeral containers not allowed in pod template");
    }
}

fn check_spec(spec: &Value, field: &str, mountable: &[&str], problems: &mut Problems) {
    let at = |name: &str| format!("{field}.{name}");
    volumes::check(spec, field, problems);
    containers::check(spec, field, mountable, problems);
    let policies = ["Always", "OnFailure", "Never"];
    syntax::check_one_of(spec, "/restartPolicy", at("restartPolicy"), &policies, problems);
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    syntax::check_one_of(spec, "/dnsPolicy", at("dnsPolicy"), &policies, problems);
    update::check_range(spec, field, problems);
    syntax::check_labels(spec, "/nodeSelector", &at("nodeSelector"), problems);
    for name in [
        "nodeName",
        "serviceAccountName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        syntax::check_subdomain(spec, &format!("/{name}"), at(name), problems);
    }
    for name in ["hostname", "subdomain"] {
        let text = object::text(spec, &format!("/{name}"));
        if !text.is_empty() && !validation::is_label(text) {
            problems.invalid(at(name), text, validation::LABEL);
        }
    }
    for (index, alias) in object::list(spec, "/hostAliases").iter().enumerate() {
        let ip = object::text(alias, "/ip");
        if ip.parse::<std::net::IpAddr>().is_err() {
            let field = format!("{field}.hostAliases[{index}].ip");
            problems.invalid(
                field,
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
    check_tolerations(spec, field, problems);
}

fn check_tolerations(spec: &Value, field: &str, problems: &mut Problems) {
    for (index, toleration) in object::list(spec, "/tolerations").iter().enumerate() {
        let field = format!("{field}.tolerations[{index}]");
        let (key, operator) = (
            object::text(toleration, "/key"),
            object::text(toleration, "/operator"),
        );
        if key.is_empty() && operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            problems.invalid(format!("{field}.operator"), operator, detail);
        } else if operator == "Exists" && !object::text(toleration, "/value").is_empty() {
            let detail = "value must be empty when `operator` is 'Exists'";
            problems.invalid(format!("{field}.operator"), "Exists", detail);
        } else if !["", "Equal", "Exists"].contains(&operator) {
            problems.unsupported(format!("{field}.operator"), operator, &["Equal", "Exists"]);
        }
        if let Some(problem) = (!key.is_empty())
            .then(|| validation::qualified_name_problem(key))
            .flatten()
        {
            problems.invalid(format!("{field}.key"), key, problem);
        }
        let effects = ["", "NoSchedule", "PreferNoSchedule", "NoExecute"];
        let effect = object::text(toleration, "/effect");
        if !effects.contains(&effect) {
            problems.unsupported(format!("{field}.effect"), effect, &effects[1..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{defaults::pod as default, *};

    fn check(pod: &Value, problems: &mut Problems) {
        (RULES.check)(pod, problems);
    }

    fn check_change(old: &Value, new: &Value, problems: &mut Problems) {
        (RULES.check_change)(old, new, problems);
    }

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
            assert_eq!(defaults::pull_policy(image), policy, "{image}");
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
            "spec.containers[0].volumeMounts[0].name: Not found: \"gone\""
        );
    }

    #[test]
    fn what_was_left_out_is_filled_in_everywhere() {
        let mut pod = json!({"spec": {
            "serviceAccount": "sa",
            "initContainers": [{"name": "i", "image": "x:1", "ports": [{"containerPort": 1}]}],
            "containers": [{
                "name": "c",
                "image": "x:1",
                "env": [
                    {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                ],
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
                "lifecycle": {"preStop": {"httpGet": {"port": "http"}}},
                "resources": {"requests": {"cpu": 0.5, "memory": "1024Mi"}},
            }],
            "volumes": [
                {"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                {"name": "b", "emptyDir": {"sizeLimit": "2048Ki"}},
                {"name": "c", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.uid"}}]}},
            ],
        }});
        default(&mut pod);
        for (pointer, expected) in [
            ("/spec/serviceAccountName", json!("sa")),
            ("/spec/initContainers/0/ports/0/protocol", json!("TCP")),
            (
                "/spec/containers/0/env/0/valueFrom/fieldRef/apiVersion",
                json!("v1"),
            ),
            (
                "/spec/containers/0/env/1/valueFrom/resourceFieldRef/divisor",
                json!("0"),
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({
                    "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "periodSeconds": 10,
                    "timeoutSeconds": 1,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                }),
            ),
            (
                "/spec/containers/0/lifecycle/preStop/httpGet",
                json!({"port": "http", "path": "/", "scheme": "HTTP"}),
            ),
            (
                "/spec/containers/0/resources/requests",
                json!({"cpu": "500m", "memory": "1Gi"}),
            ),
            ("/spec/volumes/0/projected/defaultMode", json!(420)),
            (
                "/spec/volumes/0/projected/sources/0/serviceAccountToken/expirationSeconds",
                json!(3600),
            ),
            ("/spec/volumes/1/emptyDir/sizeLimit", json!("2Mi")),
            (
                "/spec/volumes/2/downwardAPI/items/0/fieldRef/apiVersion",
                json!("v1"),
            ),
        ] {
            assert_eq!(pod.pointer(pointer), Some(&expected), "{pointer}");
        }
        let mut problems = Problems::default();
        check(&pod, &mut problems);
        assert!(problems.is_empty(), "{problems}");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (pointer, value, expected) in [
            ("/spec/containers", json!([]), "spec.containers: Required value"),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 70000, "name": "x"}, {"containerPort": 1, "name": "x"}]),
                "[spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, \
                 inclusive, spec.containers[0].ports[1].name: Duplicate value: \"x\"]",
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A=B"}, {"name": "C", "valueFrom": {}}]),
                "[spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must \
                 consist only of printable ASCII characters other than '=', spec.containers[0].env[1].valueFrom: \
                 Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or \
                 `secretKeyRef`]",
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"successThreshold": 2}),
                "[spec.containers[0].livenessProbe: Required value: must specify a handler type, \
                 spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1]",
            ),
            (
                "/spec/containers/0/restartPolicy",
                json!("Always"),
                "spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers",
            ),
            (
                "/spec/initContainers",
                json!([{"name": "main", "image": "x", "readinessProbe": {"exec": {"command": ["a"]}}}]),
                "[spec.initContainers[0].name: Duplicate value: \"main\", spec.initContainers[0].readinessProbe: \
                 Forbidden: may not be set for init containers without restartPolicy=Always]",
            ),
            (
                "/spec/volumes",
                json!([{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]),
                "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "/spec/volumes",
                json!([{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "../x"}]}}]),
                "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
            ),
            (
                "/spec/restartPolicy",
                json!("Sometimes"),
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \
                 \"Never\"",
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(0),
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"nvidia.com/gpu": "1"}}),
                "spec.containers[0].resources.requests: Required value: Limit must be set for non overcommitable \
                 resources",
            ),
        ] {
            let mut pod = json!({"spec": {"containers": [{"name": "main", "image": "x"}]}});
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            object::as_map(pod.pointer_mut(parent).unwrap()).insert(field.to_owned(), value);
            default(&mut pod);
            let mut problems = Problems::default();
            check(&pod, &mut problems);
            assert_eq!(problems.to_string(), expected, "{pointer}");
        }
    }

    #[test]
    fn a_deadline_comes_nearer_and_gates_only_go() {
        let mut old = pod();
        old["spec"]["activeDeadlineSeconds"] = json!(10);
        old["spec"]["schedulingGates"] = json!([{"name": "a"}]);
        let changed = |field: &str, value: Value| {
            let mut new = old.clone();
            new["spec"][field] = value;
            let mut problems = Problems::default();
            check_change(&old, &new, &mut problems);
            problems.to_string()
        };
        assert_eq!(changed("activeDeadlineSeconds", json!(5)), "[]");
        assert!(changed("activeDeadlineSeconds", json!(15)).contains("less than or equal to previous value"));
        assert_eq!(changed("schedulingGates", json!([])), "[]");
        assert!(changed("schedulingGates", json!([{"name": "b"}])).contains("only deletion is allowed"));
        assert_eq!(changed("nodeSelector", json!({"a": "b"})), "[]");
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
