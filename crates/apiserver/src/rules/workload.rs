//! Rules of what keeps a number of Pods running: Deployments, ReplicaSets and StatefulSets.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use serde_json::{Value, json};

use super::{Rules, claim, each, pod, shape, syntax};
use crate::{
    object,
    validation::{self, Problems},
};

pub(crate) const DEPLOYMENT: Rules = Rules {
    shape: shape::<Deployment>,
    default: default_deployment,
    initial_status: Some(|_| json!({})),
    check: check_deployment,
    check_change: |old, new, problems| syntax::check_unchanged(old, new, "spec.selector", problems),
    ..Rules::NONE
};

pub(crate) const REPLICA_SET: Rules = Rules {
    shape: shape::<ReplicaSet>,
    default: |set| {
        pod::default_template(template_of(set));
        object::default(object::section(set, "spec"), "replicas", 1);
    },
    initial_status: Some(|_| json!({"replicas": 0})),
    check: |set, problems| {
        syntax::check_not_negative(set, "/spec/replicas", "spec.replicas", problems);
        check_ready_time(set, problems);
        check_selector(set, "deployment", problems);
        check_always(set, &[], problems);
    },
    check_change: |old, new, problems| syntax::check_unchanged(old, new, "spec.selector", problems),
    ..Rules::NONE
};

pub(crate) const STATEFUL_SET: Rules = Rules {
    shape: shape::<StatefulSet>,
    default: default_stateful_set,
    initial_status: Some(|_| json!({"replicas": 0, "availableReplicas": 0})),
    check: check_stateful_set,
    check_change: check_stateful_set_change,
    ..Rules::NONE
};

fn template_of(object: &mut Value) -> &mut Value {
    object::section(object, "spec")
        .entry("template")
        .or_insert_with(|| json!({}))
}

fn default_deployment(deployment: &mut Value) {
    pod::default_template(template_of(deployment));
    let spec = object::section(deployment, "spec");
    object::default(spec, "replicas", 1);
    object::default(spec, "revisionHistoryLimit", 10);
    object::default(spec, "progressDeadlineSeconds", 600);
    let strategy = object::as_map(spec.entry("strategy").or_insert_with(|| json!({})));
    syntax::default_zero(strategy, "type", "RollingUpdate");
    if strategy.get("type") == Some(&Value::from("RollingUpdate")) {
        let rolling = object::as_map(strategy.entry("rollingUpdate").or_insert_with(|| json!({})));
        object::default(rolling, "maxSurge", "25%");
        object::default(rolling, "maxUnavailable", "25%");
    }
}

fn check_deployment(deployment: &Value, problems: &mut Problems) {
    syntax::check_not_negative(deployment, "/spec/replicas", "spec.replicas", problems);
    check_selector(deployment, "deployment", problems);
    check_always(deployment, &[], problems);
    check_strategy(deployment, problems);
    check_ready_time(deployment, problems);
    check_history(deployment, problems);
    let deadline = deployment
        .pointer("/spec/progressDeadlineSeconds")
        .and_then(Value::as_i64);
    if let Some(deadline) = deadline {
        let field = "spec.progressDeadlineSeconds";
        if deadline < 0 {
            problems.invalid(field, deadline, syntax::NEGATIVE);
        }
        if deadline <= object::number(deployment, "/spec/minReadySeconds") {
            problems.invalid(field, deadline, "must be greater than minReadySeconds");
        }
    }
}

fn check_ready_time(object: &Value, problems: &mut Problems) {
    syntax::check_not_negative(object, "/spec/minReadySeconds", "spec.minReadySeconds", problems);
}

fn check_history(object: &Value, problems: &mut Problems) {
    let (pointer, field) = ("/spec/revisionHistoryLimit", "spec.revisionHistoryLimit");
    syntax::check_not_negative(object, pointer, field, problems);
}

fn check_strategy(deployment: &Value, problems: &mut Problems) {
    let rolling = deployment
        .pointer("/spec/strategy/rollingUpdate")
        .filter(|rolling| !rolling.is_null());
    match object::text(deployment, "/spec/strategy/type") {
        "Recreate" if rolling.is_some() => problems.forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        "Recreate" => {}
        "RollingUpdate" => {
            let Some(rolling) = rolling else {
                return;
            };
            let field = "spec.strategy.rollingUpdate";
            let part = |name: &str| rolling.get(name).cloned().unwrap_or_default();
            let (unavailable, surge) = (part("maxUnavailable"), part("maxSurge"));
            check_share(&unavailable, &format!("{field}.maxUnavailable"), problems);
            check_share(&surge, &format!("{field}.maxSurge"), problems);
            if is_nothing(&unavailable) && is_nothing(&surge) {
                let field = format!("{field}.maxUnavailable");
                problems.invalid(field, unavailable, "may not be 0 when `maxSurge` is 0");
            } else if percent(&unavailable).is_some_and(|percent| percent > 100) {
                let field = format!("{field}.maxUnavailable");
                problems.invalid(field, unavailable, "must not be greater than 100%");
            }
        }
        other => problems.unsupported("spec.strategy.type", other, &["Recreate", "RollingUpdate"]),
    }
}

fn percent(share: &Value) -> Option<i64> {
    share.as_str()?.strip_suffix('%')?.parse().ok()
}

fn is_nothing(share: &Value) -> bool {
    share.as_i64() == Some(0) || percent(share) == Some(0)
}

/// Problems with a number or a percentage.
pub(super) fn check_share(share: &Value, field: &str, problems: &mut Problems) {
    match share {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  \
                     or '93%', regex used for validation is '[0-9]+%')";
                problems.invalid(field, text.as_str(), detail);
            }
        }
        number => {
            let number = number.as_i64().unwrap_or_default();
            if number < 0 {
                problems.invalid(field, number, syntax::NEGATIVE);
            }
        }
    }
}

/// Problems with a selector as such, which messages call `field`.
pub(super) fn check_label_selector(selector: &Value, field: &str, problems: &mut Problems) {
    syntax::check_labels(
        selector,
        "/matchLabels",
        &format!("{field}.matchLabels"),
        problems,
    );
    for (index, expression) in object::list(selector, "/matchExpressions").iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        let has_values = !object::list(expression, "/values").is_empty();
        match object::text(expression, "/operator") {
            "In" | "NotIn" if !has_values => problems.required(
                format!("{field}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if has_values => problems.forbidden(
                format!("{field}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => problems.invalid(
                format!("{field}.operator"),
                other,
                "not a valid selector operator",
            ),
        }
        let key = object::text(expression, "/key");
        if let Some(problem) = validation::qualified_name_problem(key) {
            problems.invalid(format!("{field}.key"), key, problem);
        }
    }
}

/// Whether a selector takes in an object with these labels.
pub(crate) fn selects(selector: &Value, labels: Option<&Value>) -> bool {
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    syntax::map(selector, "/matchLabels").all(|(key, value)| label(key) == value.as_str())
        && object::list(selector, "/matchExpressions")
            .iter()
            .all(|expression| {
                let is = label(object::text(expression, "/key"));
                let is_named = object::list(expression, "/values")
                    .iter()
                    .any(|value| is.is_some() && value.as_str() == is);
                match object::text(expression, "/operator") {
                    "In" => is_named,
                    "NotIn" => !is_named,
                    "Exists" => is.is_some(),
                    "DoesNotExist" => is.is_none(),
                    _ => false,
                }
            })
}

/// Problems with a selector that must be there and fit the template.
fn check_selector(object: &Value, noun: &str, problems: &mut Problems) {
    let Some(selector) = object.pointer("/spec/selector") else {
        problems.required("spec.selector", "");
        return;
    };
    check_label_selector(selector, "spec.selector", problems);
    let is_empty = syntax::map(selector, "/matchLabels").next().is_none()
        && object::list(selector, "/matchExpressions").is_empty();
    if is_empty {
        let detail = format!("empty selector is invalid for {noun}");
        problems.invalid("spec.selector", selector.clone(), &detail);
        return;
    }
    let labels = object.pointer("/spec/template/metadata/labels");
    if !selects(selector, labels) {
        let labels = labels.cloned().unwrap_or_default();
        let detail = "`selector` does not match template `labels`";
        problems.invalid("spec.template.metadata.labels", labels, detail);
    }
}

/// Problems with the template of Pods that always run.
fn check_always(object: &Value, mountable: &[&str], problems: &mut Problems) {
    let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
    let field = "spec.template";
    pod::check_template(template, field, mountable, problems);
    let policy = object::text(template, "/spec/restartPolicy");
    if policy != "Always" {
        problems.unsupported(format!("{field}.spec.restartPolicy"), policy, &["Always"]);
    }
    if syntax::is_set(template, "/spec/activeDeadlineSeconds") {
        problems.forbidden(
            format!("{field}.spec.activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

fn default_stateful_set(set: &mut Value) {
    pod::default_template(template_of(set));
    each(set, "/spec/volumeClaimTemplates", |template| {
        claim::default_spec(template);
        let template = object::as_map(template);
        object::default(template, "apiVersion", "v1");
        object::default(template, "kind", "PersistentVolumeClaim");
        object::default(template, "status", json!({"phase": "Pending"}));
    });
    let spec = object::section(set, "spec");
    object::default(spec, "replicas", 1);
    object::default(spec, "revisionHistoryLimit", 10);
    syntax::default_zero(spec, "podManagementPolicy", "OrderedReady");
    let keep = object::as_map(
        spec.entry("persistentVolumeClaimRetentionPolicy")
            .or_insert_with(|| json!({})),
    );
    syntax::default_zero(keep, "whenDeleted", "Retain");
    syntax::default_zero(keep, "whenScaled", "Retain");
    let strategy = object::as_map(spec.entry("updateStrategy").or_insert_with(|| json!({})));
    syntax::default_zero(strategy, "type", "RollingUpdate");
    if strategy.get("type") == Some(&Value::from("RollingUpdate")) {
        let rolling = object::as_map(strategy.entry("rollingUpdate").or_insert_with(|| json!({})));
        object::default(rolling, "partition", 0);
    }
}

fn check_stateful_set(set: &Value, problems: &mut Problems) {
    let policy = object::text(set, "/spec/podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy) {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        problems.invalid("spec.podManagementPolicy", policy, detail);
    }
    let rolling = set.pointer("/spec/updateStrategy/rollingUpdate");
    match object::text(set, "/spec/updateStrategy/type") {
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                problems.invalid("spec.updateStrategy.rollingUpdate", rolling.clone(), detail);
            }
        }
        "RollingUpdate" => syntax::check_not_negative(
            set,
            "/spec/updateStrategy/rollingUpdate/partition",
            "spec.updateStrategy.rollingUpdate.partition",
            problems,
        ),
        _ => {
            let strategy = set.pointer("/spec/updateStrategy").cloned().unwrap_or_default();
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            problems.invalid("spec.updateStrategy", strategy, detail);
        }
    }
    for when in ["whenDeleted", "whenScaled"] {
        let name = format!("persistentVolumeClaimRetentionPolicy.{when}");
        let pointer = format!("/spec/{}", name.replace('.', "/"));
        syntax::check_one_of(
            set,
            &pointer,
            format!("spec.{name}"),
            &["Delete", "Retain"],
            problems,
        );
    }
    syntax::check_not_negative(set, "/spec/replicas", "spec.replicas", problems);
    check_ready_time(set, problems);
    check_history(set, problems);
    let claims = object::list(set, "/spec/volumeClaimTemplates");
    for (index, template) in claims.iter().enumerate() {
        let field = format!("spec.volumeClaimTemplates[{index}]");
        claim::check_template_name(template, &field, problems);
        claim::check_spec(template, &format!("{field}.spec"), problems);
    }
    check_selector(set, "statefulset", problems);
    let mountable = claims.iter().map(object::name).collect::<Vec<_>>();
    check_always(set, &mountable, problems);
}

fn check_stateful_set_change(old: &Value, new: &Value, problems: &mut Problems) {
    let fixed = |set: &Value| {
        let mut spec = set.get("spec").cloned().unwrap_or_default();
        for free in [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ] {
            object::put(object::as_map(&mut spec), free, None);
        }
        spec
    };
    if fixed(old) != fixed(new) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
             forbidden";
        problems.forbidden("spec", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Value {
        json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]},
            },
        }})
    }

    fn problems(rules: &Rules, change: impl Fn(&mut Value)) -> String {
        let mut object = object();
        change(&mut object);
        (rules.default)(&mut object);
        let mut problems = Problems::default();
        (rules.check)(&object, &mut problems);
        problems.to_string()
    }

    #[test]
    fn a_deployment_is_filled_in() {
        let mut deployment = object();
        (DEPLOYMENT.default)(&mut deployment);
        let spec = &deployment["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(spec["revisionHistoryLimit"], 10);
        assert_eq!(spec["progressDeadlineSeconds"], 600);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(problems(&DEPLOYMENT, |_| {}), "[]");
    }

    #[test]
    fn a_stateful_set_is_filled_in() {
        let mut set = object();
        set["spec"]["volumeClaimTemplates"] = json!([{
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }]);
        set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "data", "mountPath": "/data"}]);
        (STATEFUL_SET.default)(&mut set);
        assert_eq!(set["spec"]["podManagementPolicy"], "OrderedReady");
        assert_eq!(
            set["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        assert_eq!(
            set["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"],
            "Filesystem"
        );
        let mut problems = Problems::default();
        (STATEFUL_SET.check)(&set, &mut problems);
        assert!(problems.is_empty(), "{problems}");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (rules, pointer, value, expected) in [
            (
                &DEPLOYMENT,
                "/spec/selector",
                Value::Null,
                "spec.selector: Required value",
            ),
            (
                &DEPLOYMENT,
                "/spec/selector",
                json!({}),
                "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
            ),
            (
                &REPLICA_SET,
                "/spec/template/metadata/labels",
                json!({"app": "y"}),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"y\"}: `selector` does not match template \
                 `labels`",
            ),
            (
                &STATEFUL_SET,
                "/spec/template/spec",
                json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                &DEPLOYMENT,
                "/spec/template/spec/containers/0/name",
                json!("C"),
                "spec.template.spec.containers[0].name: Invalid value: \"C\"",
            ),
        ] {
            let message = problems(rules, |object| {
                let value = value.clone();
                if value.is_null() {
                    object::put(object::section(object, "spec"), "selector", None);
                } else {
                    *object.pointer_mut(pointer).unwrap() = value;
                }
            });
            assert!(message.contains(expected), "{message}");
        }
        let nothing_moves = problems(&DEPLOYMENT, |object| {
            object["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}});
        });
        assert_eq!(
            nothing_moves,
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"
        );
    }

    #[test]
    fn a_selector_never_changes() {
        let (mut old, mut new) = (object(), object());
        new["spec"]["selector"]["matchLabels"]["app"] = json!("y");
        (DEPLOYMENT.default)(&mut old);
        (DEPLOYMENT.default)(&mut new);
        let mut problems = Problems::default();
        (DEPLOYMENT.check_change)(&old, &new, &mut problems);
        assert_eq!(
            problems.to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"y\"}}: field is immutable"
        );
        let mut problems = Problems::default();
        (STATEFUL_SET.check_change)(&old, &new, &mut problems);
        assert!(
            problems
                .to_string()
                .starts_with("spec: Forbidden: updates to statefulset spec")
        );
    }
}
