//! What the rules of roles allow. Pure: rules and what is asked are passed in, and who has which
//! rules is [`super::policy`]'s to find out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    attributes::Attributes,
    user::{User, service_account_name},
};
use crate::object;

const ALL: &str = "*";

/// One rule of a role, as `rbac.authorization.k8s.io` writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) non_resource_urls: Vec<String>,
}

impl Rule {
    /// The rules in the `rules` of a role. What cannot be read allows nothing.
    pub(crate) fn of_role(role: &Value) -> Vec<Self> {
        object::list(role, "/rules")
            .iter()
            .filter_map(|rule| Self::deserialize(rule).ok())
            .collect()
    }

    /// Whether the rule allows what is asked.
    pub(crate) fn allows(&self, asked: &Attributes) -> bool {
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.is_resource() {
            return self
                .non_resource_urls
                .iter()
                .any(|url| covers_url(url, &asked.path));
        }
        has(&self.api_groups, &asked.group)
            && self.has_resource(&asked.combined_resource())
            && (self.resource_names.is_empty() || self.resource_names.contains(&asked.name))
    }

    /// `combined` is `pods` or `pods/log`.
    fn has_resource(&self, combined: &str) -> bool {
        let part = combined.split_once('/').map(|(_, part)| part);
        self.resources.iter().any(|resource| {
            resource == ALL
                || resource == combined
                || part.is_some_and(|part| resource.strip_prefix("*/") == Some(part))
        })
    }

    /// Whether whoever has this rule has the other one, which is one of [`Self::atoms`].
    fn covers(&self, atom: &Self) -> bool {
        let all = |own: &[String], others: &[String]| others.iter().all(|other| has(own, other));
        let names = if atom.resource_names.is_empty() {
            self.resource_names.is_empty()
        } else {
            self.resource_names.is_empty()
                || atom
                    .resource_names
                    .iter()
                    .all(|name| self.resource_names.contains(name))
        };
        all(&self.verbs, &atom.verbs)
            && all(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(|resource| self.has_resource(resource))
            && names
            && atom
                .non_resource_urls
                .iter()
                .all(|url| self.non_resource_urls.iter().any(|own| covers_url(own, url)))
    }

    /// The rule taken apart into rules of one verb on one thing each.
    fn atoms(&self) -> Vec<Self> {
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    let atom = Self {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Self::default()
                    };
                    let named = self.resource_names.iter().map(|name| Self {
                        resource_names: vec![name.clone()],
                        ..atom.clone()
                    });
                    let before = atoms.len();
                    atoms.extend(named);
                    if atoms.len() == before {
                        atoms.push(atom);
                    }
                }
            }
            atoms.extend(self.non_resource_urls.iter().map(|url| Self {
                verbs: vec![verb.clone()],
                non_resource_urls: vec![url.clone()],
                ..Self::default()
            }));
        }
        atoms
    }
}

impl std::fmt::Display for Rule {
    /// As Kubernetes names a rule in messages.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.non_resource_urls),
            ("Verbs", &self.verbs),
        ];
        let fields = fields.iter().filter(|(_, values)| !values.is_empty());
        let fields = fields.map(|(name, values)| {
            let values = values
                .iter()
                .map(|value| format!("{value:?}"))
                .collect::<Vec<_>>();
            format!("{name}:[{}]", values.join(" "))
        });
        write!(f, "{{{}}}", fields.collect::<Vec<_>>().join(", "))
    }
}

fn has(own: &[String], other: &str) -> bool {
    own.iter().any(|one| one == ALL || one == other)
}

fn covers_url(own: &str, other: &str) -> bool {
    own == other
        || own
            .strip_suffix('*')
            .is_some_and(|prefix| other.starts_with(prefix))
}

/// What of the rules `wanted` is not in the rules `held`, in few words.
pub(crate) fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    let mut missing: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for atom in atoms.filter(|atom| !held.iter().any(|own| own.covers(atom))) {
        let what = Rule {
            verbs: Vec::new(),
            ..atom.clone()
        };
        let verbs = missing.entry(what).or_default();
        verbs.extend(
            atom.verbs
                .into_iter()
                .filter(|verb| !verbs.contains(verb))
                .collect::<Vec<_>>(),
        );
    }
    missing
        .into_iter()
        .map(|(what, verbs)| Rule { verbs, ..what })
        .collect()
}

/// Whether a binding's subject is the user. `namespace` is the binding's, empty when it has none.
pub(crate) fn is_subject(subject: &Value, namespace: &str, user: &User) -> bool {
    let name = object::text(subject, "/name");
    match object::text(subject, "/kind") {
        "User" => name == user.name,
        "Group" => user.is_in(name),
        "ServiceAccount" => {
            let own = object::text(subject, "/namespace");
            let namespace = if own.is_empty() { namespace } else { own };
            !namespace.is_empty() && service_account_name(namespace, name) == user.name
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(value: Value) -> Rule {
        serde_json::from_value(value).unwrap()
    }

    /// `verb group resource namespace name`, with `-` for nothing.
    fn asked(text: &str) -> Attributes {
        let word = |index| match text.split(' ').nth(index) {
            None | Some("-") => String::new(),
            Some(word) => word.to_owned(),
        };
        let (resource, subresource) = match word(2).split_once('/') {
            Some((resource, part)) => (resource.to_owned(), part.to_owned()),
            None => (word(2), String::new()),
        };
        Attributes {
            verb: word(0),
            group: word(1),
            resource,
            subresource,
            namespace: word(3),
            name: word(4),
            ..Attributes::default()
        }
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]});
        let logs = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]});
        let status = json!({"verbs": ["patch"], "apiGroups": ["apps"], "resources": ["*/status"]});
        let one = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]});
        let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
        for (given, request, expected) in [
            (&pods, "get - pods a p", true),
            (&pods, "list - pods a -", true),
            (&pods, "delete - pods a p", false),
            (&pods, "get apps pods a p", false),
            (&pods, "get - pods/log a p", false),
            (&logs, "get - pods/log a p", true),
            (&logs, "get - pods a p", false),
            (&status, "patch apps deployments/status a d", true),
            (&status, "patch apps deployments/scale a d", false),
            (&status, "patch apps deployments a d", false),
            (&one, "get - secrets a s", true),
            (&one, "get - secrets a t", false),
            (&one, "list - secrets a -", false),
            (&all, "bind rbac.authorization.k8s.io clusterroles - x", true),
            (&all, "get - pods/log a p", true),
        ] {
            let given = rule(given.clone());
            assert_eq!(given.allows(&asked(request)), expected, "{given} {request}");
        }
    }

    #[test]
    fn paths_match_whole_or_by_their_beginning() {
        let at = |path: &str| Attributes {
            verb: "get".to_owned(),
            path: path.to_owned(),
            ..Attributes::default()
        };
        for (url, path, expected) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz/*", "/healthz/ping", true),
            ("/healthz/*", "/healthz", false),
            ("*", "/anything", true),
        ] {
            let given = rule(json!({"verbs": ["get"], "nonResourceURLs": [url]}));
            assert_eq!(given.allows(&at(path)), expected, "{url} {path}");
        }
        let resources = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        assert!(!resources.allows(&at("/healthz")));
    }

    #[test]
    fn what_somebody_lacks_is_said_in_few_words() {
        let held = [
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/log"]})),
            rule(json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]})),
            rule(
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]}),
            ),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]})),
        ];
        for (wanted, expected) in [
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]}),
                "",
            ),
            (
                json!({"verbs": ["delete", "bind"], "apiGroups": ["apps"], "resources": ["deployments", "x/y"]}),
                "",
            ),
            (json!({"verbs": ["get"], "nonResourceURLs": ["/metrics/a"]}), ""),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["b"]}),
                "",
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["b", "c"]}),
                r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["c"], Verbs:["get"]}"#,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}),
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
            ),
            (
                json!({"verbs": ["get", "create", "delete"], "apiGroups": [""], "resources": ["pods"]}),
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["create" "delete"]}"#,
            ),
            (
                json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}),
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["*"]}),
                r#"{NonResourceURLs:["*"], Verbs:["get"]}"#,
            ),
        ] {
            let lacking = missing(&held, &[rule(wanted.clone())]);
            let lacking = lacking.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(lacking.join("\n"), expected, "{wanted}");
        }
    }

    #[test]
    fn a_subject_is_a_user_a_group_or_a_service_account() {
        let account = User::service_account("team", "builder", "");
        let admin = User::admin();
        for (subject, user, expected) in [
            (json!({"kind": "User", "name": "system:admin"}), &admin, true),
            (json!({"kind": "User", "name": "system:masters"}), &admin, false),
            (json!({"kind": "Group", "name": "system:masters"}), &admin, true),
            (
                json!({"kind": "Group", "name": "system:serviceaccounts:team"}),
                &account,
                true,
            ),
            (
                json!({"kind": "Group", "name": "system:serviceaccounts:other"}),
                &account,
                false,
            ),
            (
                json!({"kind": "ServiceAccount", "name": "builder", "namespace": "team"}),
                &account,
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "name": "builder", "namespace": "x"}),
                &account,
                false,
            ),
            (
                json!({"kind": "ServiceAccount", "name": "builder"}),
                &account,
                true,
            ),
            (
                json!({"kind": "User", "name": "system:serviceaccount:team:builder"}),
                &account,
                true,
            ),
        ] {
            assert_eq!(is_subject(&subject, "team", user), expected, "{subject}");
        }
    }
}
