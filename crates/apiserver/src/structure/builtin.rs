//! How the fields of the kinds that Kubernetes defines are merged, type by type: only what differs
//! from the rule (maps and objects field by field, lists as a whole) is here, and the way there.
//! From the `listType`, `mapType`, `structType` and `patchMergeKey` markers of Kubernetes' types.

use super::{Field, Keys, Relation};

/// One type of an API: those of its fields that are not merged by the rule, or lead to such.
#[derive(Debug)]
pub(crate) struct Type(&'static [Field]);

impl Type {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.0.iter().find(|field| field.name == name)
    }
}

/// The type of a kind's objects.
pub(crate) fn of(group: &str, kind: &str) -> &'static Type {
    let found = KINDS
        .iter()
        .find(|(of_group, of_kind, _)| (*of_group, *of_kind) == (group, kind));
    found.map_or(&OBJECT, |(_, _, found)| found)
}

const fn field(name: &'static str, relation: Relation<'static>, of: &'static Type) -> Field {
    Field {
        name,
        relation,
        patch: None,
        of,
    }
}

/// An object or map on the way to such a field.
const fn of_type(name: &'static str, of: &'static Type) -> Field {
    field(name, Relation::Granular, of)
}

/// Always set as a whole.
const fn atomic(name: &'static str) -> Field {
    field(name, Relation::Atomic, &LEAF)
}

/// A list without order or repetition.
const fn set(name: &'static str) -> Field {
    field(name, Relation::Set, &LEAF)
}

/// A list of objects that the keys identify, in a strategic merge patch the first of them.
const fn keyed(name: &'static str, keys: &'static [&'static str], of: &'static Type) -> Field {
    Field {
        patch: Some(keys[0]),
        ..field(name, Relation::Keyed(Keys::Fixed(keys)), of)
    }
}

/// A list that is one piece but in a strategic merge patch.
const fn patched(name: &'static str, key: &'static str, of: &'static Type) -> Field {
    Field {
        patch: Some(key),
        ..field(name, Relation::Granular, of)
    }
}

impl Field {
    /// A set is merged in a strategic merge patch as well.
    const fn merged(self) -> Self {
        Self {
            patch: Some(""),
            ..self
        }
    }

    /// A strategic merge patch replaces the list.
    const fn replaced(self) -> Self {
        Self { patch: None, ..self }
    }
}

pub(crate) static LEAF: Type = Type(&[]);

/// An object with nothing but metadata to tell of.
pub(super) static OBJECT: Type = Type(&[of_type("metadata", &OBJECT_META)]);

static CUSTOM_RESOURCE_DEFINITION: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("status", &CUSTOM_RESOURCE_DEFINITION_STATUS),
]);

static CUSTOM_RESOURCE_DEFINITION_STATUS: Type = Type(&[keyed("conditions", &["type"], &LEAF).replaced()]);

static NAMESPACE: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("status", &NAMESPACE_STATUS),
]);

pub(super) static OBJECT_META: Type = Type(&[
    set("finalizers").merged(),
    keyed("ownerReferences", &["uid"], &LEAF),
]);

static NAMESPACE_STATUS: Type = Type(&[keyed("conditions", &["type"], &LEAF)]);

static POD: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &POD_SPEC),
    of_type("status", &POD_STATUS),
]);

static POD_SPEC: Type = Type(&[
    of_type("affinity", &AFFINITY),
    keyed("containers", &["name"], &CONTAINER),
    keyed("ephemeralContainers", &["name"], &EPHEMERAL_CONTAINER),
    keyed("hostAliases", &["ip"], &LEAF),
    keyed("imagePullSecrets", &["name"], &LEAF),
    keyed("initContainers", &["name"], &CONTAINER),
    atomic("nodeSelector"),
    keyed("resourceClaims", &["name"], &LEAF),
    of_type("resources", &RESOURCE_REQUIREMENTS),
    keyed("schedulingGates", &["name"], &LEAF),
    keyed(
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
        &TOPOLOGY_SPREAD_CONSTRAINT,
    ),
    keyed("volumes", &["name"], &VOLUME),
]);

static AFFINITY: Type = Type(&[of_type("nodeAffinity", &NODE_AFFINITY)]);

static NODE_AFFINITY: Type = Type(&[atomic("requiredDuringSchedulingIgnoredDuringExecution")]);

static CONTAINER: Type = Type(&[
    keyed("env", &["name"], &ENV_VAR),
    keyed("ports", &["containerPort", "protocol"], &LEAF),
    of_type("resources", &RESOURCE_REQUIREMENTS),
    keyed("volumeDevices", &["devicePath"], &LEAF),
    keyed("volumeMounts", &["mountPath"], &LEAF),
]);

static ENV_VAR: Type = Type(&[of_type("valueFrom", &ENV_VAR_SOURCE)]);

static ENV_VAR_SOURCE: Type = Type(&[
    atomic("configMapKeyRef"),
    atomic("fieldRef"),
    atomic("fileKeyRef"),
    atomic("resourceFieldRef"),
    atomic("secretKeyRef"),
]);

static RESOURCE_REQUIREMENTS: Type = Type(&[keyed("claims", &["name"], &LEAF).replaced()]);

static EPHEMERAL_CONTAINER: Type = Type(&[
    keyed("env", &["name"], &ENV_VAR),
    keyed("ports", &["containerPort", "protocol"], &LEAF),
    of_type("resources", &RESOURCE_REQUIREMENTS),
    keyed("volumeDevices", &["devicePath"], &LEAF),
    keyed("volumeMounts", &["mountPath"], &LEAF),
]);

static TOPOLOGY_SPREAD_CONSTRAINT: Type = Type(&[atomic("labelSelector")]);

static VOLUME: Type = Type(&[
    of_type("cephfs", &CEPH_FS_VOLUME_SOURCE),
    of_type("cinder", &CINDER_VOLUME_SOURCE),
    of_type("csi", &CSI_VOLUME_SOURCE),
    of_type("ephemeral", &EPHEMERAL_VOLUME_SOURCE),
    of_type("flexVolume", &FLEX_VOLUME_SOURCE),
    of_type("iscsi", &ISCSI_VOLUME_SOURCE),
    of_type("rbd", &RBD_VOLUME_SOURCE),
    of_type("scaleIO", &SCALE_IO_VOLUME_SOURCE),
    of_type("storageos", &STORAGE_OS_VOLUME_SOURCE),
]);

static CEPH_FS_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static CINDER_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static CSI_VOLUME_SOURCE: Type = Type(&[atomic("nodePublishSecretRef")]);

static EPHEMERAL_VOLUME_SOURCE: Type =
    Type(&[of_type("volumeClaimTemplate", &PERSISTENT_VOLUME_CLAIM_TEMPLATE)]);

static PERSISTENT_VOLUME_CLAIM_TEMPLATE: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &PERSISTENT_VOLUME_CLAIM_SPEC),
]);

static PERSISTENT_VOLUME_CLAIM_SPEC: Type = Type(&[atomic("dataSource"), atomic("selector")]);

static FLEX_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static ISCSI_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static RBD_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static SCALE_IO_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static STORAGE_OS_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static POD_STATUS: Type = Type(&[
    keyed("conditions", &["type"], &LEAF),
    patched("hostIPs", "ip", &LEAF),
    keyed("podIPs", &["ip"], &LEAF),
    keyed("resourceClaimStatuses", &["name"], &LEAF),
    of_type("resources", &RESOURCE_REQUIREMENTS),
]);

static SERVICE: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &SERVICE_SPEC),
    of_type("status", &SERVICE_STATUS),
]);

static SERVICE_SPEC: Type = Type(&[keyed("ports", &["port", "protocol"], &LEAF), atomic("selector")]);

static SERVICE_STATUS: Type = Type(&[keyed("conditions", &["type"], &LEAF)]);

static EVENT: Type = Type(&[
    atomic("involvedObject"),
    of_type("metadata", &OBJECT_META),
    atomic("related"),
]);

static SERVICE_ACCOUNT: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    keyed("secrets", &["name"], &LEAF),
]);

static PERSISTENT_VOLUME_CLAIM: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &PERSISTENT_VOLUME_CLAIM_SPEC),
    of_type("status", &PERSISTENT_VOLUME_CLAIM_STATUS),
]);

static PERSISTENT_VOLUME_CLAIM_STATUS: Type = Type(&[keyed("conditions", &["type"], &LEAF)]);

static PERSISTENT_VOLUME: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &PERSISTENT_VOLUME_SPEC),
]);

static PERSISTENT_VOLUME_SPEC: Type = Type(&[
    of_type("cephfs", &CEPH_FS_PERSISTENT_VOLUME_SOURCE),
    of_type("cinder", &CINDER_PERSISTENT_VOLUME_SOURCE),
    atomic("claimRef"),
    of_type("csi", &CSI_PERSISTENT_VOLUME_SOURCE),
    of_type("flexVolume", &FLEX_PERSISTENT_VOLUME_SOURCE),
    of_type("iscsi", &ISCSI_PERSISTENT_VOLUME_SOURCE),
    of_type("nodeAffinity", &VOLUME_NODE_AFFINITY),
    of_type("rbd", &RBD_PERSISTENT_VOLUME_SOURCE),
    of_type("scaleIO", &SCALE_IO_PERSISTENT_VOLUME_SOURCE),
    of_type("storageos", &STORAGE_OS_PERSISTENT_VOLUME_SOURCE),
]);

static CEPH_FS_PERSISTENT_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static CINDER_PERSISTENT_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static CSI_PERSISTENT_VOLUME_SOURCE: Type = Type(&[
    atomic("controllerExpandSecretRef"),
    atomic("controllerPublishSecretRef"),
    atomic("nodeExpandSecretRef"),
    atomic("nodePublishSecretRef"),
    atomic("nodeStageSecretRef"),
]);

static FLEX_PERSISTENT_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static ISCSI_PERSISTENT_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static VOLUME_NODE_AFFINITY: Type = Type(&[atomic("required")]);

static RBD_PERSISTENT_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static SCALE_IO_PERSISTENT_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static STORAGE_OS_PERSISTENT_VOLUME_SOURCE: Type = Type(&[atomic("secretRef")]);

static NODE: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &NODE_SPEC),
    of_type("status", &NODE_STATUS),
]);

static NODE_SPEC: Type = Type(&[set("podCIDRs").merged()]);

static NODE_STATUS: Type = Type(&[
    keyed("addresses", &["type"], &LEAF),
    keyed("conditions", &["type"], &LEAF),
]);

static RESOURCE_QUOTA: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &RESOURCE_QUOTA_SPEC),
]);

static RESOURCE_QUOTA_SPEC: Type = Type(&[atomic("scopeSelector")]);

static POD_TEMPLATE: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("template", &POD_TEMPLATE_SPEC),
]);

static POD_TEMPLATE_SPEC: Type = Type(&[of_type("metadata", &OBJECT_META), of_type("spec", &POD_SPEC)]);

static DEPLOYMENT: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &DEPLOYMENT_SPEC),
    of_type("status", &DEPLOYMENT_STATUS),
]);

static DEPLOYMENT_SPEC: Type = Type(&[atomic("selector"), of_type("template", &POD_TEMPLATE_SPEC)]);

static DEPLOYMENT_STATUS: Type = Type(&[keyed("conditions", &["type"], &LEAF)]);

static REPLICA_SET: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &REPLICA_SET_SPEC),
    of_type("status", &REPLICA_SET_STATUS),
]);

static REPLICA_SET_SPEC: Type = Type(&[atomic("selector"), of_type("template", &POD_TEMPLATE_SPEC)]);

static REPLICA_SET_STATUS: Type = Type(&[keyed("conditions", &["type"], &LEAF)]);

static STATEFUL_SET: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &STATEFUL_SET_SPEC),
    of_type("status", &STATEFUL_SET_STATUS),
]);

static STATEFUL_SET_SPEC: Type = Type(&[atomic("selector"), of_type("template", &POD_TEMPLATE_SPEC)]);

static STATEFUL_SET_STATUS: Type = Type(&[keyed("conditions", &["type"], &LEAF)]);

static DAEMON_SET: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &DAEMON_SET_SPEC),
    of_type("status", &DAEMON_SET_STATUS),
]);

static DAEMON_SET_SPEC: Type = Type(&[atomic("selector"), of_type("template", &POD_TEMPLATE_SPEC)]);

static DAEMON_SET_STATUS: Type = Type(&[keyed("conditions", &["type"], &LEAF)]);

static CONTROLLER_REVISION: Type = Type(&[atomic("data"), of_type("metadata", &OBJECT_META)]);

static JOB: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &JOB_SPEC),
    of_type("status", &JOB_STATUS),
]);

static JOB_SPEC: Type = Type(&[atomic("selector"), of_type("template", &POD_TEMPLATE_SPEC)]);

static JOB_STATUS: Type = Type(&[
    patched("conditions", "type", &LEAF),
    of_type("uncountedTerminatedPods", &UNCOUNTED_TERMINATED_PODS),
]);

static UNCOUNTED_TERMINATED_PODS: Type = Type(&[set("failed"), set("succeeded")]);

static CRON_JOB: Type = Type(&[of_type("metadata", &OBJECT_META), of_type("spec", &CRON_JOB_SPEC)]);

static CRON_JOB_SPEC: Type = Type(&[of_type("jobTemplate", &JOB_TEMPLATE_SPEC)]);

static JOB_TEMPLATE_SPEC: Type = Type(&[of_type("metadata", &OBJECT_META), of_type("spec", &JOB_SPEC)]);

static ROLE_BINDING: Type = Type(&[of_type("metadata", &OBJECT_META), atomic("roleRef")]);

static CLUSTER_ROLE_BINDING: Type = Type(&[of_type("metadata", &OBJECT_META), atomic("roleRef")]);

static GROUP_EVENT: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    atomic("regarding"),
    atomic("related"),
]);

static INGRESS: Type = Type(&[of_type("metadata", &OBJECT_META), of_type("spec", &INGRESS_SPEC)]);

static INGRESS_SPEC: Type = Type(&[of_type("defaultBackend", &INGRESS_BACKEND)]);

static INGRESS_BACKEND: Type = Type(&[atomic("resource"), of_type("service", &INGRESS_SERVICE_BACKEND)]);

static INGRESS_SERVICE_BACKEND: Type = Type(&[atomic("port")]);

static NETWORK_POLICY: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &NETWORK_POLICY_SPEC),
]);

static NETWORK_POLICY_SPEC: Type = Type(&[atomic("podSelector")]);

static POD_DISRUPTION_BUDGET: Type = Type(&[
    of_type("metadata", &OBJECT_META),
    of_type("spec", &POD_DISRUPTION_BUDGET_SPEC),
    of_type("status", &POD_DISRUPTION_BUDGET_STATUS),
]);

static POD_DISRUPTION_BUDGET_SPEC: Type = Type(&[atomic("selector")]);

static POD_DISRUPTION_BUDGET_STATUS: Type = Type(&[keyed("conditions", &["type"], &LEAF)]);

/// Kinds and their types; the others are as [`OBJECT`].
static KINDS: &[(&str, &str, &Type)] = &[
    (
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        &CUSTOM_RESOURCE_DEFINITION,
    ),
    ("", "Namespace", &NAMESPACE),
    ("", "Pod", &POD),
    ("", "Service", &SERVICE),
    ("", "Event", &EVENT),
    ("", "ServiceAccount", &SERVICE_ACCOUNT),
    ("", "PersistentVolumeClaim", &PERSISTENT_VOLUME_CLAIM),
    ("", "PersistentVolume", &PERSISTENT_VOLUME),
    ("", "Node", &NODE),
    ("", "ResourceQuota", &RESOURCE_QUOTA),
    ("", "PodTemplate", &POD_TEMPLATE),
    ("apps", "Deployment", &DEPLOYMENT),
    ("apps", "ReplicaSet", &REPLICA_SET),
    ("apps", "StatefulSet", &STATEFUL_SET),
    ("apps", "DaemonSet", &DAEMON_SET),
    ("apps", "ControllerRevision", &CONTROLLER_REVISION),
    ("batch", "Job", &JOB),
    ("batch", "CronJob", &CRON_JOB),
    ("rbac.authorization.k8s.io", "RoleBinding", &ROLE_BINDING),
    (
        "rbac.authorization.k8s.io",
        "ClusterRoleBinding",
        &CLUSTER_ROLE_BINDING,
    ),
    ("events.k8s.io", "Event", &GROUP_EVENT),
    ("networking.k8s.io", "Ingress", &INGRESS),
    ("networking.k8s.io", "NetworkPolicy", &NETWORK_POLICY),
    ("policy", "PodDisruptionBudget", &POD_DISRUPTION_BUDGET),
];
