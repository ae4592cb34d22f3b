//! The kinds that this server serves: one row of a table each. The engine knows no kind by name;
//! what a kind has of its own is in its row, as data or as a function of [`crate::rules`] and
//! [`crate::columns`].

use coracle_store::resources::{GroupResource, Key};
use k8s_openapi::api::{coordination::v1 as coordination, core::v1 as core};
use serde_json::Value;

use crate::{
    columns::{self, Column},
    rules::{self, Rules},
    status::Subject,
};

/// Whether a kind's objects live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Namespaced,
    Cluster,
}

/// A part of an object with a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subresource {
    Status,
    Log,
    Binding,
    Eviction,
    Finalize,
}

impl Subresource {
    /// Its segment of the path.
    pub(crate) const fn segment(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Log => "log",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Finalize => "finalize",
        }
    }
}

/// A field that field selectors may name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// As selectors name it.
    pub(crate) name: &'static str,
    /// Where it is.
    pub(crate) pointer: &'static str,
    /// What its absence means.
    pub(crate) absent: &'static str,
}

const fn field(name: &'static str, pointer: &'static str) -> Field {
    Field {
        name,
        pointer,
        absent: "",
    }
}

/// One kind.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) categories: &'static [&'static str],
    pub(crate) scope: Scope,
    pub(crate) subresources: &'static [Subresource],
    pub(crate) columns: &'static [Column],
    pub(crate) fields: &'static [Field],
    /// Whether `metadata.generation` counts changes of the spec.
    pub(crate) has_generation: bool,
    /// Whether DELETE answers with the object rather than with a `Status`.
    pub(crate) returns_deleted: bool,
    /// The `conditions` of an object's row in a table.
    pub(crate) row_conditions: fn(&Value) -> Option<Value>,
    pub(crate) rules: Rules,
}

impl Kind {
    /// `v1`, `coordination.k8s.io/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `PodList`.
    pub(crate) fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    pub(crate) fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub(crate) fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The kind as the store names it.
    pub(crate) fn resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.plural)
    }

    /// An object of this kind as the store names it.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        Key {
            resource: self.resource(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// An object of this kind as errors name it.
    pub(crate) fn subject(&'static self, name: impl Into<String>) -> Subject {
        Subject {
            kind: self,
            name: name.into(),
        }
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.plural) == (other.group, other.plural)
    }
}

/// What most rows share.
const ROW: Kind = Kind {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    subresources: &[],
    columns: columns::PLAIN,
    fields: &[],
    has_generation: false,
    returns_deleted: false,
    row_conditions: |_| None,
    rules: Rules::NONE,
};

/// The kind whose objects are namespaces.
pub(crate) static NAMESPACES: Kind = Kind {
    plural: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    short_names: &["ns"],
    scope: Scope::Cluster,
    subresources: &[Subresource::Status, Subresource::Finalize],
    columns: columns::NAMESPACES,
    fields: &[field("status.phase", "/status/phase")],
    rules: rules::namespace::RULES,
    ..ROW
};

/// The kind that nodes run.
pub(crate) static PODS: Kind = Kind {
    plural: "pods",
    singular: "pod",
    kind: "Pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource::Status,
        Subresource::Log,
        Subresource::Binding,
        Subresource::Eviction,
    ],
    columns: columns::PODS,
    fields: &[
        field("spec.nodeName", "/spec/nodeName"),
        field("spec.restartPolicy", "/spec/restartPolicy"),
        field("spec.schedulerName", "/spec/schedulerName"),
        field("spec.serviceAccountName", "/spec/serviceAccountName"),
        Field {
            name: "spec.hostNetwork",
            pointer: "/spec/hostNetwork",
            absent: "false",
        },
        field("status.phase", "/status/phase"),
        field("status.podIP", "/status/podIP"),
        field("status.nominatedNodeName", "/status/nominatedNodeName"),
    ],
    has_generation: true,
    returns_deleted: true,
    row_conditions: columns::pod::conditions,
    rules: rules::pod::RULES,
    ..ROW
};

static CONFIG_MAPS: Kind = Kind {
    plural: "configmaps",
    singular: "configmap",
    kind: "ConfigMap",
    short_names: &["cm"],
    columns: columns::CONFIG_MAPS,
    rules: rules::settings::CONFIG_MAP,
    ..ROW
};

static SECRETS: Kind = Kind {
    plural: "secrets",
    singular: "secret",
    kind: "Secret",
    columns: columns::SECRETS,
    fields: &[field("type", "/type")],
    rules: rules::settings::SECRET,
    ..ROW
};

static SERVICE_ACCOUNTS: Kind = Kind {
    plural: "serviceaccounts",
    singular: "serviceaccount",
    kind: "ServiceAccount",
    short_names: &["sa"],
    columns: columns::SERVICE_ACCOUNTS,
    returns_deleted: true,
    rules: Rules {
        shape: rules::shape::<core::ServiceAccount>,
        ..Rules::NONE
    },
    ..ROW
};

static EVENTS: Kind = Kind {
    plural: "events",
    singular: "event",
    kind: "Event",
    short_names: &["ev"],
    columns: columns::EVENTS,
    fields: &[
        field("involvedObject.kind", "/involvedObject/kind"),
        field("involvedObject.namespace", "/involvedObject/namespace"),
        field("involvedObject.name", "/involvedObject/name"),
        field("involvedObject.uid", "/involvedObject/uid"),
        field("involvedObject.apiVersion", "/involvedObject/apiVersion"),
        field(
            "involvedObject.resourceVersion",
            "/involvedObject/resourceVersion",
        ),
        field("involvedObject.fieldPath", "/involvedObject/fieldPath"),
        field("reason", "/reason"),
        field("reportingComponent", "/reportingComponent"),
        field("source", "/source/component"),
        field("type", "/type"),
    ],
    rules: Rules {
        shape: rules::shape::<core::Event>,
        ..Rules::NONE
    },
    ..ROW
};

static CLAIMS: Kind = Kind {
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    kind: "PersistentVolumeClaim",
    short_names: &["pvc"],
    subresources: &[Subresource::Status],
    columns: columns::CLAIMS,
    returns_deleted: true,
    rules: rules::claim::RULES,
    ..ROW
};

static NODES: Kind = Kind {
    plural: "nodes",
    singular: "node",
    kind: "Node",
    short_names: &["no"],
    scope: Scope::Cluster,
    subresources: &[Subresource::Status],
    columns: columns::NODES,
    fields: &[Field {
        name: "spec.unschedulable",
        pointer: "/spec/unschedulable",
        absent: "false",
    }],
    // A kubelet registers its node together with what it knows of it.
    rules: Rules {
        shape: rules::shape::<core::Node>,
        ..Rules::NONE
    },
    ..ROW
};

/// What leaders hold.
pub(crate) static LEASES: Kind = Kind {
    group: "coordination.k8s.io",
    plural: "leases",
    singular: "lease",
    kind: "Lease",
    columns: columns::LEASES,
    rules: Rules {
        shape: rules::shape::<coordination::Lease>,
        ..Rules::NONE
    },
    ..ROW
};

/// Every kind, in the order that discovery lists them.
pub(crate) static KINDS: &[&Kind] = &[
    &CONFIG_MAPS,
    &EVENTS,
    &NAMESPACES,
    &NODES,
    &CLAIMS,
    &PODS,
    &SECRETS,
    &SERVICE_ACCOUNTS,
    &LEASES,
];

/// The kind served at this path.
pub(crate) fn at_path(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .copied()
        .find(|kind| (kind.group, kind.version, kind.plural) == (group, version, plural))
}

/// The kind that an object or an owner reference names.
pub(crate) fn named(api_version: &str, name: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .copied()
        .find(|kind| kind.kind == name && kind.api_version() == api_version)
}

/// The kinds of one version of one group.
pub(crate) fn of(group: &str, version: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS
        .iter()
        .copied()
        .filter(move |kind| (kind.group, kind.version) == (group, version))
}

/// Every group but the core's, with its versions, in order of first appearance.
pub(crate) fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    for kind in KINDS.iter().filter(|kind| !kind.group.is_empty()) {
        match groups.iter_mut().find(|(group, _)| *group == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version) => {}
            Some((_, versions)) => versions.push(kind.version),
            None => groups.push((kind.group, vec![kind.version])),
        }
    }
    groups
}
