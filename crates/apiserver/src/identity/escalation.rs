//! Nobody grants what they do not have: checked when a role or a binding is written. Whoever may
//! `escalate` a role, or `bind` one, is free to.

use std::collections::BTreeMap;

use coracle_store::resources::{self, At, GroupResource, Resources};
use serde_json::Value;

use super::{
    User,
    attributes::Attributes,
    policy::{GROUP, Grants},
    rbac::{self, Rule},
    user::MASTERS,
};
use crate::{object, server::Call, status::Error};

const VERSION: &str = "rbac.authorization.k8s.io/v1";

/// Everything there is.
fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Rule::default()
        },
        Rule {
            verbs: all(),
            non_resource_urls: all(),
            ..Rule::default()
        },
    ]
}

/// What a user has, to be held against what they write.
#[derive(Debug)]
pub(crate) struct Guard {
    user: User,
    plural: String,
    namespace: String,
    held: Vec<Rule>,
    /// By kind and name; only where bindings are written.
    roles: BTreeMap<(String, String), Vec<Rule>>,
}

/// Why a role or binding was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It grants too much.
    Grants(String),
    /// The role that is bound is not there: its kind and name.
    NoRole(String, String),
}

/// What a write is held against; often nothing.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    call: &'a Call,
    guard: Option<Guard>,
}

/// For the write that a call asks for.
pub(crate) async fn guard(call: &Call) -> Result<Check<'_>, Error> {
    let kind = call.kind();
    let namespace = &call.target.namespace;
    let guard = Guard::new(call.resources(), &call.user, &kind.group, &kind.plural, namespace).await?;
    Ok(Check { call, guard })
}

impl Check<'_> {
    /// Checks an object as it is to be stored.
    pub(crate) fn check(&self, old: Option<&Value>, new: &Value) -> Result<(), Error> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let kind = self.call.kind();
        guard.check(old, new).map_err(|refusal| match refusal {
            Refusal::Grants(why) => Error::Forbidden {
                subject: kind.subject(object::name(new)),
                why,
                cause: None,
            },
            Refusal::NoRole(role, name) => match self.call.server.catalogue.named(VERSION, &role) {
                Some(kind) => Error::not_found(&kind, name),
                None => Error::NoSuchPath,
            },
        })
    }
}

impl Guard {
    /// For a write to objects of a kind in a namespace; none where nothing has to be checked.
    pub(crate) async fn new(
        resources: &Resources,
        user: &User,
        group: &str,
        plural: &str,
        namespace: &str,
    ) -> resources::Result<Option<Self>> {
        if group != GROUP || user.is_in(MASTERS) {
            return Ok(None);
        }
        let held = Grants::of(resources, user, namespace).await?.rules();
        let mut roles = BTreeMap::new();
        if plural.ends_with("bindings") {
            let mut kinds = vec![("ClusterRole", "clusterroles", None)];
            if !namespace.is_empty() {
                kinds.push(("Role", "roles", Some(namespace)));
            }
            for (kind, plural, scope) in kinds {
                let key = GroupResource::new(GROUP, plural);
                for role in resources.list(&key, scope, At::Latest, None, None).await?.objects {
                    let rules = Rule::of_role(&role.body);
                    roles.insert((kind.to_owned(), role.key.name), rules);
                }
            }
        }
        Ok(Some(Self {
            user: user.clone(),
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            held,
            roles,
        }))
    }

    /// Checks an object as it is to be stored.
    pub(crate) fn check(&self, old: Option<&Value>, new: &Value) -> Result<(), Refusal> {
        if self.plural.ends_with("bindings") {
            self.check_binding(old, new)
        } else {
            self.check_role(old, new)
        }
    }

    fn check_role(&self, old: Option<&Value>, new: &Value) -> Result<(), Refusal> {
        let same = |field: &str| old.is_some_and(|old| old.get(field) == new.get(field));
        if self.may("escalate", &self.plural, object::name(new)) {
            return Ok(());
        }
        if new.get("aggregationRule").is_some_and(|rule| !rule.is_null())
            && !same("aggregationRule")
            && !rbac::missing(&self.held, &everything()).is_empty()
        {
            return Err(Refusal::Grants(
                "must have cluster-admin privileges to use an aggregationRule".to_owned(),
            ));
        }
        if same("rules") {
            return Ok(());
        }
        self.check_rules(&Rule::of_role(new))
    }

    fn check_binding(&self, old: Option<&Value>, new: &Value) -> Result<(), Refusal> {
        let same = |field: &str| old.is_some_and(|old| old.get(field) == new.get(field));
        let kind = object::text(new, "/roleRef/kind").to_owned();
        let name = object::text(new, "/roleRef/name").to_owned();
        let plural = if kind == "Role" { "roles" } else { "clusterroles" };
        if (same("roleRef") && same("subjects")) || self.may("bind", plural, &name) {
            return Ok(());
        }
        match self.roles.get(&(kind.clone(), name.clone())) {
            Some(rules) => self.check_rules(rules),
            None => Err(Refusal::NoRole(kind, name)),
        }
    }

    fn may(&self, verb: &str, plural: &str, name: &str) -> bool {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            resource: plural.to_owned(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        self.held.iter().any(|rule| rule.allows(&asked))
    }

    fn check_rules(&self, wanted: &[Rule]) -> Result<(), Refusal> {
        let missing = rbac::missing(&self.held, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let groups = self.user.groups.iter().map(|group| format!("{group:?}"));
        let missing = missing.iter().map(ToString::to_string).collect::<Vec<_>>();
        Err(Refusal::Grants(format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            self.user.name,
            groups.collect::<Vec<_>>().join(" "),
            missing.join("\n")
        )))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn guard(plural: &str, held: Value) -> Guard {
        let rules = |value: Value| Rule::of_role(&json!({"rules": value}));
        let secrets = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
        Guard {
            user: User {
                name: "bob".to_owned(),
                groups: vec!["system:authenticated".to_owned()],
                ..User::default()
            },
            plural: plural.to_owned(),
            namespace: "team".to_owned(),
            held: rules(held),
            roles: BTreeMap::from([(("Role".to_owned(), "reader".to_owned()), rules(secrets))]),
        }
    }

    #[test]
    fn a_role_grants_what_its_writer_has() {
        let held = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        let guard = guard("roles", held.clone());
        let role = |rules: Value| json!({"metadata": {"name": "r"}, "rules": rules});
        assert_eq!(guard.check(None, &role(held)), Ok(()));
        let more = role(json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]));
        let message = "user \"bob\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions \
                       not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}";
        assert_eq!(guard.check(None, &more), Err(Refusal::Grants(message.to_owned())));
        assert_eq!(guard.check(Some(&more), &more), Ok(()));
        let sum = json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
        assert!(guard.check(None, &sum).is_err());
    }

    #[test]
    fn who_may_escalate_or_bind_is_free_to() {
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        let role = json!({"metadata": {"name": "r"}, "rules": all});
        let free = json!([{"verbs": ["escalate"], "apiGroups": [GROUP], "resources": ["roles"], "resourceNames": ["r"]}]);
        assert_eq!(guard("roles", free).check(None, &role), Ok(()));
        let binding =
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "reader"}, "subjects": []});
        assert!(guard("rolebindings", json!([])).check(None, &binding).is_err());
        let free = json!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["roles"]}]);
        assert_eq!(guard("rolebindings", free).check(None, &binding), Ok(()));
        let none = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "x"}, "subjects": []});
        assert_eq!(
            guard("rolebindings", json!([])).check(None, &none),
            Err(Refusal::NoRole("ClusterRole".to_owned(), "x".to_owned()))
        );
    }
}
