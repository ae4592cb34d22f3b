//! What a Pod asks for that makes no difference on this machine. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::schedule::placement;

/// Each in a sentence.
pub(crate) fn ignored(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if let Some(sentence) = spec.affinity.as_ref().and_then(placement::ignored) {
        found.push(sentence.to_owned());
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let fields = of_container(container);
        if !fields.is_empty() {
            found.push(format!(
                "container `{}`: {} mean nothing to processes here",
                container.name,
                fields.join(", ")
            ));
        }
    }
    found
}

fn of_container(container: &Container) -> Vec<&'static str> {
    let context = container.security_context.as_ref();
    let is_set = |flag: Option<bool>| flag == Some(true);
    let fields = [
        (
            "`privileged`",
            context.is_some_and(|context| is_set(context.privileged)),
        ),
        (
            "`readOnlyRootFilesystem`",
            context.is_some_and(|context| is_set(context.read_only_root_filesystem)),
        ),
        (
            "added capabilities",
            context
                .and_then(|context| context.capabilities.as_ref()?.add.as_ref())
                .is_some_and(|added| !added.is_empty()),
        ),
    ];
    fields
        .into_iter()
        .filter_map(|(name, is_asked_for)| is_asked_for.then_some(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, expected: &[&str]) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        assert_eq!(ignored(&pod), expected);
    }

    #[test]
    fn only_what_makes_a_difference_elsewhere_is_told() {
        check(
            json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 5, "capabilities": {"drop": ["ALL"]}}}]}),
            &[],
        );
        check(
            json!({
                "containers": [{"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["X"]}}}],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}},
            }),
            &[
                "affinity to other Pods, or away from them, is not looked at: there is one machine, and all Pods are on it",
                "container `a`: `privileged`, added capabilities mean nothing to processes here",
            ],
        );
    }
}
