//! The kinds that come with the server: one row each.

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::{apps::v1 as apps, core::v1 as core};

use super::{
    Field, Handling, Kind, KindRef, Scale, ScaleSelector, Scope, Storage, Subresource, Text, absent, event,
    field,
};
use crate::{
    columns::{self, Columns},
    crd,
    identity::reviews,
    rules::{self, Rules},
};

/// The kind whose objects are namespaces.
pub(crate) static NAMESPACES: LazyLock<KindRef> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: texts(["ns"]),
        scope: Scope::Cluster,
        handling: Handling::StoredSingly,
        subresources: vec![Subresource::Status, Subresource::Finalize],
        columns: Columns::Fixed(columns::NAMESPACES),
        fields: vec![field("status.phase", "/status/phase")],
        rules: rules::namespace::RULES,
        ..Kind::new(("", "v1"), "namespaces", "namespace", "Namespace")
    })
});

/// The kind that nodes run.
pub(crate) static PODS: LazyLock<KindRef> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: texts(["po"]),
        categories: texts(["all"]),
        subresources: vec![
            Subresource::Status,
            Subresource::Log,
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::Exec,
            Subresource::Attach,
            Subresource::PortForward,
        ],
        columns: Columns::Fixed(columns::PODS),
        fields: vec![
            field("spec.nodeName", "/spec/nodeName"),
            field("spec.restartPolicy", "/spec/restartPolicy"),
            field("spec.schedulerName", "/spec/schedulerName"),
            field("spec.serviceAccountName", "/spec/serviceAccountName"),
            absent("spec.hostNetwork", "/spec/hostNetwork", "false"),
            field("status.phase", "/status/phase"),
            field("status.podIP", "/status/podIP"),
            field("status.nominatedNodeName", "/status/nominatedNodeName"),
        ],
        has_generation: true,
        returns_deleted: true,
        row_conditions: columns::pod::conditions,
        rules: rules::pod::RULES,
        ..Kind::new(("", "v1"), "pods", "pod", "Pod")
    })
});

/// What leaders hold.
pub(crate) static LEASES: LazyLock<KindRef> = LazyLock::new(|| {
    Arc::new(Kind {
        columns: Columns::Fixed(columns::LEASES),
        rules: rules::endpoints::LEASE,
        ..Kind::new(("coordination.k8s.io", "v1"), "leases", "lease", "Lease")
    })
});

/// What makes a kind of its own.
pub(crate) static CUSTOM_RESOURCE_DEFINITIONS: LazyLock<KindRef> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: texts(["crd", "crds"]),
        categories: texts(["api-extensions"]),
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        columns: Columns::Fixed(columns::DEFINITIONS),
        has_generation: true,
        rules: crd::RULES,
        ..Kind::new(
            ("apiextensions.k8s.io", "v1"),
            "customresourcedefinitions",
            "customresourcedefinition",
            "CustomResourceDefinition",
        )
    })
});

/// Every kind, in the order that discovery lists them.
pub(super) fn built_in() -> Vec<KindRef> {
    let own = [
        core_kinds(),
        apps_kinds(),
        batch_kinds(),
        access_kinds(),
        review_kinds(),
        other_kinds(),
    ];
    let shared = [&NAMESPACES, &PODS, &LEASES, &CUSTOM_RESOURCE_DEFINITIONS].map(|kind| Arc::clone(kind));
    shared
        .into_iter()
        .chain(own.into_iter().flatten().map(Arc::new))
        .collect()
}

fn core_kinds() -> Vec<Kind> {
    let core = |plural: &'static str, singular: &'static str, kind: &'static str| {
        Kind::new(("", "v1"), plural, singular, kind)
    };
    vec![
        Kind {
            short_names: texts(["cm"]),
            columns: Columns::Fixed(columns::CONFIG_MAPS),
            rules: rules::settings::CONFIG_MAP,
            ..core("configmaps", "configmap", "ConfigMap")
        },
        Kind {
            short_names: texts(["ep"]),
            columns: Columns::Fixed(columns::network::ENDPOINTS),
            rules: rules::endpoints::ENDPOINTS,
            ..core("endpoints", "endpoints", "Endpoints")
        },
        Kind {
            short_names: texts(["ev"]),
            columns: Columns::Fixed(columns::EVENTS),
            fields: event_fields(["involvedObject", "reportingComponent"], "source"),
            rules: Rules::of(rules::shape::<core::Event>),
            ..core("events", "event", "Event")
        },
        Kind {
            short_names: texts(["limits"]),
            columns: Columns::Fixed(columns::policy::DATED),
            rules: rules::quota::LIMITS,
            ..core("limitranges", "limitrange", "LimitRange")
        },
        Kind {
            short_names: texts(["no"]),
            scope: Scope::Cluster,
            subresources: vec![Subresource::Status],
            columns: Columns::Fixed(columns::NODES),
            fields: vec![absent("spec.unschedulable", "/spec/unschedulable", "false")],
            // A kubelet registers its node together with what it knows of it.
            rules: Rules::of(rules::shape::<core::Node>),
            ..core("nodes", "node", "Node")
        },
        Kind {
            short_names: texts(["pvc"]),
            subresources: vec![Subresource::Status],
            columns: Columns::Fixed(columns::CLAIMS),
            returns_deleted: true,
            rules: rules::claim::RULES,
            ..core(
                "persistentvolumeclaims",
                "persistentvolumeclaim",
                "PersistentVolumeClaim",
            )
        },
        Kind {
            short_names: texts(["pv"]),
            scope: Scope::Cluster,
            subresources: vec![Subresource::Status],
            returns_deleted: true,
            columns: Columns::Fixed(columns::policy::VOLUMES),
            rules: rules::volume::VOLUME,
            ..core("persistentvolumes", "persistentvolume", "PersistentVolume")
        },
        Kind {
            short_names: texts(["quota"]),
            subresources: vec![Subresource::Status],
            returns_deleted: true,
            columns: Columns::Fixed(columns::policy::QUOTAS),
            rules: rules::quota::QUOTA,
            ..core("resourcequotas", "resourcequota", "ResourceQuota")
        },
        Kind {
            columns: Columns::Fixed(columns::SECRETS),
            fields: vec![field("type", "/type")],
            rules: rules::settings::SECRET,
            ..core("secrets", "secret", "Secret")
        },
        Kind {
            short_names: texts(["sa"]),
            subresources: vec![Subresource::Token],
            columns: Columns::Fixed(columns::SERVICE_ACCOUNTS),
            returns_deleted: true,
            rules: Rules::of(rules::shape::<core::ServiceAccount>),
            ..core("serviceaccounts", "serviceaccount", "ServiceAccount")
        },
        Kind {
            short_names: texts(["svc"]),
            categories: texts(["all"]),
            subresources: vec![Subresource::Status],
            fields: vec![
                field("spec.clusterIP", "/spec/clusterIP"),
                field("spec.type", "/spec/type"),
            ],
            returns_deleted: true,
            columns: Columns::Fixed(columns::network::SERVICES),
            rules: rules::service::RULES,
            ..core("services", "service", "Service")
        },
    ]
}

fn apps_kinds() -> Vec<Kind> {
    let scaled =
        |plural: &'static str, singular: &'static str, kind: &'static str, short: &'static str| Kind {
            short_names: texts([short]),
            categories: texts(["all"]),
            subresources: vec![Subresource::Status, Subresource::Scale],
            has_generation: true,
            scale: Some(Scale {
                replicas: Text::Borrowed("/spec/replicas"),
                current: Text::Borrowed("/status/replicas"),
                selector: Some(ScaleSelector::Labels(Text::Borrowed("/spec/selector"))),
            }),
            ..Kind::new(("apps", "v1"), plural, singular, kind)
        };
    vec![
        Kind {
            columns: Columns::Fixed(columns::REVISIONS),
            rules: Rules::of(rules::shape::<apps::ControllerRevision>),
            ..Kind::new(
                ("apps", "v1"),
                "controllerrevisions",
                "controllerrevision",
                "ControllerRevision",
            )
        },
        Kind {
            columns: Columns::Fixed(columns::workload::DEPLOYMENTS),
            rules: rules::workload::DEPLOYMENT,
            ..scaled("deployments", "deployment", "Deployment", "deploy")
        },
        Kind {
            fields: vec![absent("status.replicas", "/status/replicas", "0")],
            columns: Columns::Fixed(columns::workload::REPLICA_SETS),
            rules: rules::workload::REPLICA_SET,
            ..scaled("replicasets", "replicaset", "ReplicaSet", "rs")
        },
        Kind {
            columns: Columns::Fixed(columns::workload::STATEFUL_SETS),
            rules: rules::workload::STATEFUL_SET,
            ..scaled("statefulsets", "statefulset", "StatefulSet", "sts")
        },
    ]
}

fn batch_kinds() -> Vec<Kind> {
    let batch = |plural: &'static str, singular: &'static str, kind: &'static str| Kind {
        categories: texts(["all"]),
        subresources: vec![Subresource::Status],
        has_generation: true,
        ..Kind::new(("batch", "v1"), plural, singular, kind)
    };
    vec![
        Kind {
            short_names: texts(["cj"]),
            columns: Columns::Fixed(columns::workload::CRON_JOBS),
            rules: rules::cron_job::RULES,
            ..batch("cronjobs", "cronjob", "CronJob")
        },
        Kind {
            fields: vec![absent("status.successful", "/status/succeeded", "0")],
            columns: Columns::Fixed(columns::workload::JOBS),
            rules: rules::job::RULES,
            ..batch("jobs", "job", "Job")
        },
    ]
}

fn access_kinds() -> Vec<Kind> {
    let rbac = |plural: &'static str, singular: &'static str, kind: &'static str| {
        Kind::new(("rbac.authorization.k8s.io", "v1"), plural, singular, kind)
    };
    vec![
        Kind {
            scope: Scope::Cluster,
            columns: Columns::Fixed(columns::policy::BINDINGS),
            rules: rules::roles::CLUSTER_ROLE_BINDING,
            ..rbac("clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding")
        },
        Kind {
            scope: Scope::Cluster,
            columns: Columns::Fixed(columns::policy::DATED),
            rules: rules::roles::CLUSTER_ROLE,
            ..rbac("clusterroles", "clusterrole", "ClusterRole")
        },
        Kind {
            columns: Columns::Fixed(columns::policy::BINDINGS),
            rules: rules::roles::ROLE_BINDING,
            ..rbac("rolebindings", "rolebinding", "RoleBinding")
        },
        Kind {
            columns: Columns::Fixed(columns::policy::DATED),
            rules: rules::roles::ROLE,
            ..rbac("roles", "role", "Role")
        },
    ]
}

/// Questions about who somebody is and what they may do.
fn review_kinds() -> Vec<Kind> {
    let authentication = ("authentication.k8s.io", "v1");
    let authorization = ("authorization.k8s.io", "v1");
    vec![
        Kind {
            scope: Scope::Cluster,
            handling: Handling::Answered(|call, review| Box::pin(reviews::whoami(call, review))),
            ..Kind::new(
                authentication,
                "selfsubjectreviews",
                "selfsubjectreview",
                "SelfSubjectReview",
            )
        },
        Kind {
            scope: Scope::Cluster,
            handling: Handling::Answered(|call, review| Box::pin(reviews::token(call, review))),
            ..Kind::new(authentication, "tokenreviews", "tokenreview", "TokenReview")
        },
        Kind {
            handling: Handling::Answered(|call, review| Box::pin(reviews::local_access(call, review))),
            ..Kind::new(
                authorization,
                "localsubjectaccessreviews",
                "localsubjectaccessreview",
                "LocalSubjectAccessReview",
            )
        },
        Kind {
            scope: Scope::Cluster,
            handling: Handling::Answered(|call, review| Box::pin(reviews::own_access(call, review))),
            ..Kind::new(
                authorization,
                "selfsubjectaccessreviews",
                "selfsubjectaccessreview",
                "SelfSubjectAccessReview",
            )
        },
        Kind {
            scope: Scope::Cluster,
            handling: Handling::Answered(|call, review| Box::pin(reviews::own_rules(call, review))),
            ..Kind::new(
                authorization,
                "selfsubjectrulesreviews",
                "selfsubjectrulesreview",
                "SelfSubjectRulesReview",
            )
        },
        Kind {
            scope: Scope::Cluster,
            handling: Handling::Answered(|call, review| Box::pin(reviews::access(call, review))),
            ..Kind::new(
                authorization,
                "subjectaccessreviews",
                "subjectaccessreview",
                "SubjectAccessReview",
            )
        },
    ]
}

fn other_kinds() -> Vec<Kind> {
    vec![
        Kind {
            columns: Columns::Fixed(columns::network::SLICES),
            rules: rules::endpoints::SLICE,
            ..Kind::new(
                ("discovery.k8s.io", "v1"),
                "endpointslices",
                "endpointslice",
                "EndpointSlice",
            )
        },
        Kind {
            short_names: texts(["ev"]),
            columns: Columns::Fixed(columns::EVENTS),
            fields: event_fields(["regarding", "reportingController"], "deprecatedSource"),
            rules: Rules::of(rules::shape::<k8s_openapi::api::events::v1::Event>),
            storage: Some(Storage {
                group: Text::Borrowed(""),
                api_version: "v1".to_owned(),
                read: event::from_core,
                write: event::to_core,
            }),
            ..Kind::new(("events.k8s.io", "v1"), "events", "event", "Event")
        },
        Kind {
            short_names: texts(["pdb"]),
            subresources: vec![Subresource::Status],
            has_generation: true,
            columns: Columns::Fixed(columns::policy::BUDGETS),
            rules: rules::budget::BUDGET,
            ..Kind::new(
                ("policy", "v1"),
                "poddisruptionbudgets",
                "poddisruptionbudget",
                "PodDisruptionBudget",
            )
        },
        Kind {
            short_names: texts(["pc"]),
            scope: Scope::Cluster,
            columns: Columns::Fixed(columns::policy::PRIORITIES),
            rules: rules::budget::PRIORITY,
            ..Kind::new(
                ("scheduling.k8s.io", "v1"),
                "priorityclasses",
                "priorityclass",
                "PriorityClass",
            )
        },
        Kind {
            short_names: texts(["sc"]),
            scope: Scope::Cluster,
            returns_deleted: true,
            columns: Columns::Fixed(columns::policy::CLASSES),
            rules: rules::volume::CLASS,
            ..Kind::new(
                ("storage.k8s.io", "v1"),
                "storageclasses",
                "storageclass",
                "StorageClass",
            )
        },
    ]
}

fn texts<const N: usize>(texts: [&'static str; N]) -> Vec<Text> {
    texts.map(Text::Borrowed).into()
}

/// The fields of an event, as the version that names two of them so calls them.
fn event_fields([regarding, controller]: [&'static str; 2], source: &'static str) -> Vec<Field> {
    let parts = [
        ("kind", "/involvedObject/kind"),
        ("namespace", "/involvedObject/namespace"),
        ("name", "/involvedObject/name"),
        ("uid", "/involvedObject/uid"),
        ("apiVersion", "/involvedObject/apiVersion"),
        ("resourceVersion", "/involvedObject/resourceVersion"),
        ("fieldPath", "/involvedObject/fieldPath"),
    ];
    let parts = parts.map(|(part, pointer)| Field {
        name: format!("{regarding}.{part}").into(),
        ..field("", pointer)
    });
    let others = [
        field("reason", "/reason"),
        field(controller, "/reportingComponent"),
        field(source, "/source/component"),
        field("type", "/type"),
    ];
    parts.into_iter().chain(others).collect()
}
