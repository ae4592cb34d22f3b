//! Rules of Roles, ClusterRoles and their bindings. What they allow is decided elsewhere.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::Value;

use super::{Rules, each, shape, syntax, workload};
use crate::{
    object,
    validation::{self, Problems},
};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) const ROLE: Rules = Rules {
    shape: shape::<Role>,
    check: |role, problems| check_rules(role, true, problems),
    name_problem: syntax::segment_problem,
    ..Rules::NONE
};

pub(crate) const CLUSTER_ROLE: Rules = Rules {
    shape: shape::<ClusterRole>,
    check: |role, problems| {
        check_rules(role, false, problems);
        check_aggregation(role, problems);
    },
    name_problem: syntax::segment_problem,
    ..Rules::NONE
};

pub(crate) const ROLE_BINDING: Rules = Rules {
    shape: shape::<RoleBinding>,
    check: |binding, problems| check_binding(binding, &["ClusterRole", "Role"], problems),
    ..BINDING
};

pub(crate) const CLUSTER_ROLE_BINDING: Rules = Rules {
    shape: shape::<ClusterRoleBinding>,
    check: |binding, problems| check_binding(binding, &["ClusterRole"], problems),
    ..BINDING
};

const BINDING: Rules = Rules {
    default: default_binding,
    check_change: |old, new, problems| {
        if old.get("roleRef") != new.get("roleRef") {
            let role = new.get("roleRef").cloned().unwrap_or_default();
            problems.invalid("roleRef", role, "cannot change roleRef");
        }
    },
    name_problem: syntax::segment_problem,
    ..Rules::NONE
};

fn default_binding(binding: &mut Value) {
    if let Some(Value::Object(role)) = binding.get_mut("roleRef") {
        syntax::default_zero(role, "apiGroup", GROUP);
    }
    each(binding, "/subjects", |subject| {
        let is_person = matches!(object::text(subject, "/kind"), "User" | "Group");
        if is_person {
            syntax::default_zero(object::as_map(subject), "apiGroup", GROUP);
        }
    });
}

fn check_rules(role: &Value, is_namespaced: bool, problems: &mut Problems) {
    for (index, rule) in object::list(role, "/rules").iter().enumerate() {
        let field = format!("rules[{index}]");
        let has = |part: &str| !object::list(rule, &format!("/{part}")).is_empty();
        if !has("verbs") {
            let detail = "verbs must contain at least one value";
            problems.required(format!("{field}.verbs"), detail);
        }
        if has("nonResourceURLs") {
            let name = format!("{field}.nonResourceURLs");
            let urls = rule.get("nonResourceURLs").cloned().unwrap_or_default();
            if is_namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                problems.invalid(name, urls, detail);
            } else if has("apiGroups") || has("resources") || has("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                problems.invalid(name, urls, detail);
            }
            continue;
        }
        if !has("apiGroups") {
            let detail = "resource rules must supply at least one api group";
            problems.required(format!("{field}.apiGroups"), detail);
        }
        if !has("resources") {
            let detail = "resource rules must supply at least one resource";
            problems.required(format!("{field}.resources"), detail);
        }
    }
}

fn check_aggregation(role: &Value, problems: &mut Problems) {
    if !syntax::is_set(role, "/aggregationRule") {
        return;
    }
    let field = "aggregationRule.clusterRoleSelectors";
    let selectors = object::list(role, "/aggregationRule/clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        problems.required(field, detail);
    }
    for (index, selector) in selectors.iter().enumerate() {
        workload::check_label_selector(selector, &format!("{field}[{index}]"), problems);
    }
}

fn check_binding(binding: &Value, kinds: &[&str], problems: &mut Problems) {
    let group = object::text(binding, "/roleRef/apiGroup");
    if group != GROUP {
        problems.unsupported("roleRef.apiGroup", group, &[GROUP]);
    }
    let kind = object::text(binding, "/roleRef/kind");
    if !kinds.contains(&kind) {
        problems.unsupported("roleRef.kind", kind, kinds);
    }
    let name = object::text(binding, "/roleRef/name");
    if name.is_empty() {
        problems.required("roleRef.name", "");
    } else if let Some(problem) = syntax::segment_problem(name) {
        problems.invalid("roleRef.name", name, problem);
    }
    for (index, subject) in object::list(binding, "/subjects").iter().enumerate() {
        check_subject(subject, &format!("subjects[{index}]"), problems);
    }
}

fn check_subject(subject: &Value, field: &str, problems: &mut Problems) {
    let (name, group) = (object::text(subject, "/name"), object::text(subject, "/apiGroup"));
    if name.is_empty() {
        problems.required(format!("{field}.name"), "");
    }
    let expected = match object::text(subject, "/kind") {
        "ServiceAccount" => {
            if !name.is_empty() && !validation::is_subdomain(name) {
                problems.invalid(format!("{field}.name"), name, validation::SUBDOMAIN);
            }
            if object::text(subject, "/namespace").is_empty() {
                problems.required(format!("{field}.namespace"), "");
            }
            ""
        }
        "User" | "Group" => GROUP,
        other => {
            let kinds = ["Group", "ServiceAccount", "User"];
            problems.unsupported(format!("{field}.kind"), other, &kinds);
            return;
        }
    };
    if group != expected {
        problems.unsupported(format!("{field}.apiGroup"), group, &[expected]);
    }
}

/// What `kubectl get -o wide` shows of the subjects of one kind.
pub(crate) fn subjects(binding: &Value, kind: &str) -> String {
    let subjects = object::list(binding, "/subjects").iter();
    let names = subjects
        .filter(|subject| object::text(subject, "/kind") == kind)
        .map(|subject| {
            let name = object::text(subject, "/name");
            if kind == "ServiceAccount" {
                format!("{}/{name}", object::text(subject, "/namespace"))
            } else {
                name.to_owned()
            }
        });
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(rules: &Rules, mut object: Value) -> String {
        (rules.default)(&mut object);
        let mut problems = Problems::default();
        (rules.check)(&object, &mut problems);
        problems.to_string()
    }

    #[test]
    fn rules_say_what_may_be_done_to_what() {
        for (rules, object, expected) in [
            (
                &ROLE,
                json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
                "[]",
            ),
            (
                &ROLE,
                json!({"rules": [{"verbs": ["get"]}]}),
                "[rules[0].apiGroups: Required value: resource rules must supply at least one api group, \
                 rules[0].resources: Required value: resource rules must supply at least one resource]",
            ),
            (
                &ROLE,
                json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            ),
            (
                &CLUSTER_ROLE,
                json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
                "[]",
            ),
            (
                &ROLE_BINDING,
                json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]}),
                "[]",
            ),
            (
                &CLUSTER_ROLE_BINDING,
                json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]}),
                "[roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\", \
                 subjects[0].namespace: Required value]",
            ),
        ] {
            assert_eq!(problems(rules, object), expected);
        }
    }

    #[test]
    fn a_binding_stays_with_its_role() {
        let old = json!({"roleRef": {"kind": "Role", "name": "a"}});
        let mut new = old.clone();
        new["roleRef"]["name"] = json!("b");
        let mut problems = Problems::default();
        (ROLE_BINDING.check_change)(&old, &new, &mut problems);
        assert_eq!(
            problems.to_string(),
            "roleRef: Invalid value: {\"kind\":\"Role\",\"name\":\"b\"}: cannot change roleRef"
        );
    }
}
