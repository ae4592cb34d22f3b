//! The ClusterRoles and bindings that are there from the start, as Kubernetes has them. What is
//! missing of them is put back at each start, unless an object says
//! `rbac.authorization.kubernetes.io/autoupdate: "false"`; what was added to them stays.

use coracle_store::resources::{self, GroupResource, Key, Resources};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    aggregate,
    policy::GROUP,
    rbac::Rule,
    user::{AUTHENTICATED, MASTERS, SERVICE_ACCOUNTS},
};
use crate::object;

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const VERSION: &str = "rbac.authorization.k8s.io/v1";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const BOTH: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];

/// Verbs, groups and resources of one rule; without groups, the resources are URLs.
type Line = (
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

struct Role {
    name: &'static str,
    /// The role whose rules these become part of.
    part_of: Option<&'static str>,
    /// Whether its rules are those of its parts.
    is_sum: bool,
    rules: &'static [Line],
}

const fn role(name: &'static str, rules: &'static [Line]) -> Role {
    Role {
        name,
        part_of: None,
        is_sum: false,
        rules,
    }
}

const ROLES: &[Role] = &[
    role(
        "cluster-admin",
        &[(&["*"], &["*"], &["*"]), (&["*"], &[], &["*"])],
    ),
    role(
        "system:discovery",
        &[(
            GET,
            &[],
            &[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
        )],
    ),
    role(
        "system:basic-user",
        &[
            (
                CREATE,
                &["authorization.k8s.io"],
                &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            ),
            (CREATE, &["authentication.k8s.io"], &["selfsubjectreviews"]),
        ],
    ),
    role(
        "system:public-info-viewer",
        &[(
            GET,
            &[],
            &["/healthz", "/livez", "/readyz", "/version", "/version/"],
        )],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[(
            GET,
            &[],
            &[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ],
        )],
    ),
    role(
        "system:auth-delegator",
        &[
            (CREATE, &["authentication.k8s.io"], &["tokenreviews"]),
            (CREATE, &["authorization.k8s.io"], &["subjectaccessreviews"]),
        ],
    ),
    Role {
        is_sum: true,
        ..role("admin", &[])
    },
    Role {
        part_of: Some("admin"),
        is_sum: true,
        ..role("edit", &[])
    },
    Role {
        part_of: Some("edit"),
        is_sum: true,
        ..role("view", &[])
    },
    Role {
        part_of: Some("admin"),
        ..role(
            "system:aggregate-to-admin",
            &[
                (CREATE, &["authorization.k8s.io"], &["localsubjectaccessreviews"]),
                (BOTH, &[GROUP], &["rolebindings", "roles"]),
            ],
        )
    },
    Role {
        part_of: Some("edit"),
        ..role(
            "system:aggregate-to-edit",
            &[
                (
                    READ,
                    &[""],
                    &[
                        "pods/attach",
                        "pods/exec",
                        "pods/portforward",
                        "pods/proxy",
                        "secrets",
                        "services/proxy",
                    ],
                ),
                (&["impersonate"], &[""], &["serviceaccounts"]),
                (
                    WRITE,
                    &[""],
                    &[
                        "pods",
                        "pods/attach",
                        "pods/exec",
                        "pods/portforward",
                        "pods/proxy",
                    ],
                ),
                (CREATE, &[""], &["pods/eviction", "serviceaccounts/token"]),
                (
                    WRITE,
                    &[""],
                    &[
                        "configmaps",
                        "events",
                        "persistentvolumeclaims",
                        "secrets",
                        "serviceaccounts",
                        "services",
                        "services/proxy",
                    ],
                ),
                (
                    WRITE,
                    &["apps"],
                    &[
                        "deployments",
                        "deployments/rollback",
                        "deployments/scale",
                        "replicasets",
                        "replicasets/scale",
                        "statefulsets",
                        "statefulsets/scale",
                    ],
                ),
                (WRITE, &["batch"], &["cronjobs", "jobs"]),
                (WRITE, &["policy"], &["poddisruptionbudgets"]),
                (BOTH, &["coordination.k8s.io"], &["leases"]),
            ],
        )
    },
    Role {
        part_of: Some("view"),
        ..role(
            "system:aggregate-to-view",
            &[
                (
                    READ,
                    &[""],
                    &[
                        "configmaps",
                        "endpoints",
                        "persistentvolumeclaims",
                        "persistentvolumeclaims/status",
                        "pods",
                        "serviceaccounts",
                        "services",
                        "services/status",
                    ],
                ),
                (
                    READ,
                    &[""],
                    &[
                        "bindings",
                        "events",
                        "limitranges",
                        "namespaces/status",
                        "pods/log",
                        "pods/status",
                        "resourcequotas",
                        "resourcequotas/status",
                    ],
                ),
                (READ, &[""], &["namespaces"]),
                (READ, &["discovery.k8s.io"], &["endpointslices"]),
                (
                    READ,
                    &["apps"],
                    &[
                        "controllerrevisions",
                        "deployments",
                        "deployments/scale",
                        "deployments/status",
                        "replicasets",
                        "replicasets/scale",
                        "replicasets/status",
                        "statefulsets",
                        "statefulsets/scale",
                        "statefulsets/status",
                    ],
                ),
                (
                    READ,
                    &["batch"],
                    &["cronjobs", "cronjobs/status", "jobs", "jobs/status"],
                ),
                (
                    READ,
                    &["policy"],
                    &["poddisruptionbudgets", "poddisruptionbudgets/status"],
                ),
            ],
        )
    },
];

/// Role, and the groups that have it everywhere. The bindings are called as the roles are.
const BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &[MASTERS]),
    ("system:discovery", &[AUTHENTICATED]),
    ("system:basic-user", &[AUTHENTICATED]),
    (
        "system:public-info-viewer",
        &[AUTHENTICATED, "system:unauthenticated"],
    ),
    ("system:service-account-issuer-discovery", &[SERVICE_ACCOUNTS]),
];

impl Role {
    fn object(&self) -> Value {
        let mut metadata = metadata(self.name);
        if let Some(whole) = self.part_of {
            metadata["labels"][label(whole)] = "true".into();
        }
        let mut object = json!({"kind": "ClusterRole", "apiVersion": VERSION, "metadata": metadata});
        if self.is_sum {
            let selector = json!({"matchLabels": {label(self.name): "true"}});
            object["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
        }
        let rules = self.rules.iter().map(|(verbs, groups, resources)| {
            let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let mut rule = Rule {
                verbs: own(verbs),
                ..Rule::default()
            };
            if groups.is_empty() {
                rule.non_resource_urls = own(resources);
            } else {
                (rule.api_groups, rule.resources) = (own(groups), own(resources));
            }
            rule
        });
        object["rules"] = json!(rules.collect::<Vec<_>>());
        object
    }
}

/// The label of what is to become part of a role.
fn label(role: &str) -> String {
    format!("{GROUP}/aggregate-to-{role}")
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {AUTO_UPDATE: "true"},
    })
}

fn binding(role: &str, groups: &[&str]) -> Value {
    let subjects = groups
        .iter()
        .map(|group| json!({"kind": "Group", "apiGroup": GROUP, "name": group}));
    json!({
        "kind": "ClusterRoleBinding",
        "apiVersion": VERSION,
        "metadata": metadata(role),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": subjects.collect::<Value>(),
    })
}

/// Makes what is missing.
pub(crate) async fn reconcile(resources: &Resources, now: Timestamp) -> resources::Result<()> {
    for role in ROLES {
        ensure(resources, "clusterroles", role.object(), "rules", now).await?;
    }
    for (role, groups) in BINDINGS {
        ensure(
            resources,
            "clusterrolebindings",
            binding(role, groups),
            "subjects",
            now,
        )
        .await?;
    }
    aggregate::aggregate(resources).await
}

/// Makes the object, or adds to it what is missing in its list `field`.
async fn ensure(
    resources: &Resources,
    plural: &str,
    mut wanted: Value,
    field: &str,
    now: Timestamp,
) -> resources::Result<()> {
    let key = Key {
        resource: GroupResource::new(GROUP, plural),
        namespace: String::new(),
        name: object::name(&wanted).to_owned(),
    };
    let Some(current) = resources.get(&key).await? else {
        let metadata = object::metadata(&mut wanted);
        metadata.insert("uid".to_owned(), Uuid::now_v7().to_string().into());
        metadata.insert("creationTimestamp".to_owned(), object::time(now));
        return match resources.create(key, wanted).await {
            Ok(_) | Err(resources::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error),
        };
    };
    let Some(merged) = merged(&current.body, &wanted, field) else {
        return Ok(());
    };
    match resources.update(key, merged, current.revision).await {
        Ok(_) | Err(resources::Error::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The object with what is missing in its list; none when nothing is, or when it is to stay.
fn merged(current: &Value, wanted: &Value, field: &str) -> Option<Value> {
    let annotations = current.pointer("/metadata/annotations");
    let keeps = annotations
        .and_then(|all| all.get(AUTO_UPDATE))
        .and_then(Value::as_str)
        == Some("false");
    let is_other = current.get("roleRef") != wanted.get("roleRef");
    if keeps || is_other || wanted.get("aggregationRule").is_some() {
        return None;
    }
    let pointer = format!("/{field}");
    let mut all = object::list(current, &pointer).to_vec();
    let before = all.len();
    for item in object::list(wanted, &pointer) {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
    if all.len() == before {
        return None;
    }
    let mut merged = current.clone();
    merged[field] = Value::Array(all);
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added_and_what_was_added_stays() {
        let wanted = json!({"rules": [{"verbs": ["get"]}]});
        let changed = json!({"rules": [{"verbs": ["own"]}]});
        let merged_rules = merged(&changed, &wanted, "rules").unwrap();
        assert_eq!(
            merged_rules["rules"],
            json!([{"verbs": ["own"]}, {"verbs": ["get"]}])
        );
        assert_eq!(merged(&merged_rules, &wanted, "rules"), None);
        let kept = json!({"metadata": {"annotations": {AUTO_UPDATE: "false"}}, "rules": []});
        assert_eq!(merged(&kept, &wanted, "rules"), None);
    }

    #[test]
    fn every_role_is_named_once_and_every_binding_names_one() {
        for (index, role) in ROLES.iter().enumerate() {
            assert!(
                ROLES[..index].iter().all(|other| other.name != role.name),
                "{}",
                role.name
            );
        }
        for (name, _) in BINDINGS {
            assert!(ROLES.iter().any(|role| role.name == *name), "{name}");
        }
    }
}
