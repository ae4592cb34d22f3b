//! Who has which rules: reads the bindings and the roles that they name as they are now, so that
//! a binding counts from the next request on. Members of `system:masters` need none.

use coracle_store::resources::{self, At, GroupResource, Key, Resources};
use serde_json::Value;

use super::{
    attributes::Attributes,
    rbac::{Rule, is_subject},
    user::{MASTERS, User},
};
use crate::object;

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// What a binding gives to a user.
#[derive(Debug)]
pub(crate) struct Grant {
    /// `ClusterRoleBinding "a" of ClusterRole "b" to Group "c"`.
    by: String,
    rules: Vec<Rule>,
}

/// What all bindings together give to a user.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    grants: Vec<Grant>,
    /// Roles that are bound and not there.
    missing: Vec<String>,
}

/// Whether something may be done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) is_allowed: bool,
    /// May be empty.
    pub(crate) reason: String,
}

impl Grants {
    /// What the user has in the namespace; when it is empty, what it has everywhere.
    pub(crate) async fn of(resources: &Resources, user: &User, namespace: &str) -> resources::Result<Self> {
        let mut all = Self::default();
        all.add(resources, user, "clusterrolebindings", "").await?;
        if !namespace.is_empty() {
            all.add(resources, user, "rolebindings", namespace).await?;
        }
        Ok(all)
    }

    async fn add(
        &mut self,
        resources: &Resources,
        user: &User,
        bindings: &str,
        namespace: &str,
    ) -> resources::Result<()> {
        let kind = GroupResource::new(GROUP, bindings);
        let scope = (!namespace.is_empty()).then_some(namespace);
        let list = resources.list(&kind, scope, At::Latest, None, None).await?;
        for object in &list.objects {
            let binding: &Value = &object.body;
            let mut subjects = object::list(binding, "/subjects").iter();
            let Some(subject) = subjects.find(|subject| is_subject(subject, namespace, user)) else {
                continue;
            };
            let (kind, name) = (
                object::text(binding, "/roleRef/kind"),
                object::text(binding, "/roleRef/name"),
            );
            match role(resources, kind, namespace, name).await? {
                Some(rules) => self.grants.push(Grant {
                    by: describe(binding, subject),
                    rules,
                }),
                None => {
                    let kind = kind.to_ascii_lowercase();
                    self.missing.push(format!("{kind}.{GROUP} \"{name}\" not found"));
                }
            }
        }
        Ok(())
    }

    /// Every rule that the user has.
    pub(crate) fn rules(self) -> Vec<Rule> {
        self.grants.into_iter().flat_map(|grant| grant.rules).collect()
    }

    pub(crate) fn decide(&self, asked: &Attributes) -> Decision {
        let mut grants = self.grants.iter();
        if let Some(grant) = grants.find(|grant| grant.rules.iter().any(|rule| rule.allows(asked))) {
            return Decision {
                is_allowed: true,
                reason: format!("RBAC: allowed by {}", grant.by),
            };
        }
        let reason = match self.missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Decision {
            is_allowed: false,
            reason,
        }
    }
}

/// The rules of a role, none when there is no such role.
async fn role(
    resources: &Resources,
    kind: &str,
    namespace: &str,
    name: &str,
) -> resources::Result<Option<Vec<Rule>>> {
    let (plural, namespace) = match kind {
        "ClusterRole" => ("clusterroles", ""),
        "Role" => ("roles", namespace),
        _ => return Ok(None),
    };
    let key = Key {
        resource: GroupResource::new(GROUP, plural),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let role = resources.get(&key).await?;
    Ok(role.map(|role| Rule::of_role(&role.body)))
}

fn describe(binding: &Value, subject: &Value) -> String {
    let name = object::name(binding);
    let namespace = object::namespace(binding);
    let (kind, name) = if namespace.is_empty() {
        ("ClusterRoleBinding", name.to_owned())
    } else {
        ("RoleBinding", format!("{name}/{namespace}"))
    };
    let subject_name = match object::text(subject, "/kind") {
        "ServiceAccount" => format!(
            "{}/{}",
            object::text(subject, "/name"),
            object::text(subject, "/namespace")
        ),
        _ => object::text(subject, "/name").to_owned(),
    };
    format!(
        "{kind} {name:?} of {} {:?} to {} {subject_name:?}",
        object::text(binding, "/roleRef/kind"),
        object::text(binding, "/roleRef/name"),
        object::text(subject, "/kind"),
    )
}

/// Whether the user may do what is asked.
pub(crate) async fn authorize(
    resources: &Resources,
    user: &User,
    asked: &Attributes,
) -> resources::Result<Decision> {
    if user.is_in(MASTERS) {
        return Ok(Decision {
            is_allowed: true,
            reason: String::new(),
        });
    }
    Ok(Grants::of(resources, user, &asked.namespace).await?.decide(asked))
}
