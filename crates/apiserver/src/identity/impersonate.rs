//! Acting as somebody else: what `kubectl --as` asks for. Pure, but for the questions that it
//! hands back: each must be allowed before the other user is let in.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};

use super::{
    attributes::Attributes,
    user::{ANONYMOUS, AUTHENTICATED, User, as_service_account, service_account_groups},
};
use crate::request::decode;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Somebody else, and what must be allowed to act as them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) user: User,
    pub(crate) needs: Vec<Attributes>,
}

/// The headers ask for something that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("groups, a uid or extra values were requested to be impersonated, without impersonating a user")]
pub(crate) struct NoUser;

/// Who the headers ask to act as. They are taken away: nobody behind this needs them.
pub(crate) fn wish(headers: &mut HeaderMap) -> Result<Option<Wish>, NoUser> {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    if names.is_empty() {
        return Ok(None);
    }
    let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in names {
        let values = headers.get_all(&name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        given.entry(name.as_str().to_owned()).or_default().extend(values);
        headers.remove(&name);
    }
    let first = |name: &str| {
        given
            .get(name)
            .and_then(|values| values.first())
            .cloned()
            .unwrap_or_default()
    };
    let name = first(USER);
    if name.is_empty() {
        return Err(NoUser);
    }
    let ask = |group: &str, resource: &str, part: &str, namespace: &str, name: &str| Attributes {
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: part.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        path: String::new(),
    };
    let account = as_service_account(&name);
    let mut needs = vec![match account {
        Some((namespace, name)) => ask("", "serviceaccounts", "", namespace, name),
        None => ask("", "users", "", "", &name),
    }];
    let mut groups = given.get(GROUP).cloned().unwrap_or_default();
    needs.extend(groups.iter().map(|group| ask("", "groups", "", "", group)));
    if let Some((namespace, _)) = account.filter(|_| groups.is_empty()) {
        groups = service_account_groups(namespace);
    }
    if name != ANONYMOUS && !groups.iter().any(|group| group == AUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    let uid = first(UID);
    const AUTHENTICATION: &str = "authentication.k8s.io";
    if !uid.is_empty() {
        needs.push(ask(AUTHENTICATION, "uids", "", "", &uid));
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, values) in &given {
        let Some(key) = header.strip_prefix(EXTRA) else {
            continue;
        };
        let key = decode(key).unwrap_or_else(|| key.to_owned()).to_lowercase();
        needs.extend(
            values
                .iter()
                .map(|value| ask(AUTHENTICATION, "userextras", &key, "", value)),
        );
        extra.insert(key, values.clone());
    }
    Ok(Some(Wish {
        user: User {
            name,
            uid,
            groups,
            extra,
        },
        needs,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wished(pairs: &[(&'static str, &str)]) -> Result<Option<Wish>, NoUser> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let wish = wish(&mut headers);
        assert!(
            headers
                .keys()
                .all(|name| !name.as_str().starts_with("impersonate"))
        );
        wish
    }

    #[test]
    fn to_act_as_somebody_each_part_of_them_must_be_allowed() {
        let wish = wished(&[
            ("impersonate-user", "alice"),
            ("impersonate-group", "devs"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-example.com%2fscope", "all"),
        ]);
        let wish = wish.unwrap().unwrap();
        assert_eq!(wish.user.groups, ["devs", "ops", "system:authenticated"]);
        assert_eq!(wish.user.extra["example.com/scope"], ["all"]);
        let needs = wish
            .needs
            .iter()
            .map(|need| format!("{} {}", need.combined_resource(), need.name));
        assert_eq!(
            needs.collect::<Vec<_>>(),
            [
                "users alice",
                "groups devs",
                "groups ops",
                "uids 7",
                "userextras/example.com/scope all"
            ]
        );
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let wish = wished(&[("impersonate-user", "system:serviceaccount:team:builder")]);
        let wish = wish.unwrap().unwrap();
        assert_eq!(
            wish.user.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:team",
                "system:authenticated"
            ]
        );
        assert_eq!(
            (wish.needs[0].resource.as_str(), wish.needs[0].namespace.as_str()),
            ("serviceaccounts", "team")
        );
    }

    #[test]
    fn a_group_alone_is_nobody() {
        assert_eq!(wished(&[]), Ok(None));
        assert_eq!(wished(&[("impersonate-group", "devs")]), Err(NoUser));
    }
}
