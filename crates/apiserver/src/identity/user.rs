//! Who makes a request.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Members may do everything, whatever the roles say.
pub(crate) const MASTERS: &str = "system:masters";
/// Everybody who is known is a member.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// Every ServiceAccount is a member.
pub(crate) const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Nobody in particular.
pub(crate) const ANONYMOUS: &str = "system:anonymous";

const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Who makes a request. In-process callers put it into the extensions of their requests; for all
/// others the API finds it out and puts it there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// `system:admin`, `system:serviceaccount:default:builder`.
    pub name: String,
    /// Tells users of the same name apart; may be empty.
    pub uid: String,
    /// What the user is a member of.
    pub groups: Vec<String>,
    /// What else is known, e.g. the Pod that a token was made for.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Whoever uses this machine as the server's own user.
    #[must_use]
    pub fn admin() -> Self {
        Self::system("system:admin")
    }

    /// A part of the system itself, which may do everything.
    #[must_use]
    pub fn system(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            groups: vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// A ServiceAccount, as its tokens make it known.
    pub(crate) fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let mut groups = service_account_groups(namespace);
        groups.push(AUTHENTICATED.to_owned());
        Self {
            name: service_account_name(namespace, name),
            uid: uid.to_owned(),
            groups,
            extra: BTreeMap::new(),
        }
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|member| member == group)
    }

    /// As `authentication.k8s.io` writes a `UserInfo`.
    pub(crate) fn info(&self) -> Value {
        let mut info = json!({"username": self.name});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        if !self.groups.is_empty() {
            info["groups"] = json!(self.groups);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }
}

/// The name of a ServiceAccount as a user.
pub(crate) fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The groups that ServiceAccounts of a namespace are members of.
pub(crate) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        SERVICE_ACCOUNTS.to_owned(),
        format!("{SERVICE_ACCOUNTS}:{namespace}"),
    ]
}

/// Namespace and name of the ServiceAccount that a user's name is of.
pub(crate) fn as_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    let is_whole = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    is_whole.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_service_account_is_read_as_it_is_written() {
        let user = User::service_account("team", "builder", "7");
        assert_eq!(user.name, "system:serviceaccount:team:builder");
        assert!(user.is_in("system:serviceaccounts:team"));
        assert_eq!(as_service_account(&user.name), Some(("team", "builder")));
        for other in [
            "alice",
            "system:serviceaccount:team",
            "system:serviceaccount:a:b:c",
        ] {
            assert_eq!(as_service_account(other), None, "{other}");
        }
    }
}
