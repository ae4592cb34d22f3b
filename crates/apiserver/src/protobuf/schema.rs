//! The messages that are read: numbers and names of their fields, from kubernetes'
//! `generated.proto` files. Fields that only the server writes are left out.

/// One field of a message.
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) name: &'static str,
    pub(super) form: Form,
}

/// A message.
pub(super) type Message = [Field];

/// How often a field occurs.
#[derive(Clone, Copy)]
pub(super) enum Form {
    One(Type),
    List(Type),
    /// By text.
    Map(Type),
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Text,
    Bytes,
    Number,
    Flag,
    Time,
    Message(&'static Message),
}

use Form::{List, Map, One};
use Type::{Bytes, Flag, Number, Text, Time};

const fn field(number: u64, name: &'static str, form: Form) -> Field {
    Field { number, name, form }
}

const fn of(message: &'static Message) -> Form {
    One(Type::Message(message))
}

const fn many(message: &'static Message) -> Form {
    List(Type::Message(message))
}

/// The message of a kind.
pub(super) fn message(kind: &str) -> Option<&'static Message> {
    Some(match kind {
        "ConfigMap" => CONFIG_MAP,
        "DeleteOptions" => DELETE_OPTIONS,
        "Event" => EVENT,
        "Lease" => LEASE,
        "Namespace" => NAMESPACE,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        _ => return None,
    })
}

const METADATA: &Message = &[
    field(1, "name", One(Text)),
    field(2, "generateName", One(Text)),
    field(3, "namespace", One(Text)),
    field(5, "uid", One(Text)),
    field(6, "resourceVersion", One(Text)),
    field(7, "generation", One(Number)),
    field(8, "creationTimestamp", One(Time)),
    field(9, "deletionTimestamp", One(Time)),
    field(10, "deletionGracePeriodSeconds", One(Number)),
    field(11, "labels", Map(Text)),
    field(12, "annotations", Map(Text)),
    field(13, "ownerReferences", many(OWNER)),
    field(14, "finalizers", List(Text)),
];

const OWNER: &Message = &[
    field(1, "kind", One(Text)),
    field(3, "name", One(Text)),
    field(4, "uid", One(Text)),
    field(5, "apiVersion", One(Text)),
    field(6, "controller", One(Flag)),
    field(7, "blockOwnerDeletion", One(Flag)),
];

const DELETE_OPTIONS: &Message = &[
    field(1, "gracePeriodSeconds", One(Number)),
    field(
        2,
        "preconditions",
        of(&[field(1, "uid", One(Text)), field(2, "resourceVersion", One(Text))]),
    ),
    field(3, "orphanDependents", One(Flag)),
    field(4, "propagationPolicy", One(Text)),
    field(5, "dryRun", List(Text)),
];

const NAMESPACE: &Message = &[
    field(1, "metadata", of(METADATA)),
    field(2, "spec", of(&[field(1, "finalizers", List(Text))])),
];

const CONFIG_MAP: &Message = &[
    field(1, "metadata", of(METADATA)),
    field(2, "data", Map(Text)),
    field(3, "binaryData", Map(Bytes)),
    field(4, "immutable", One(Flag)),
];

const SECRET: &Message = &[
    field(1, "metadata", of(METADATA)),
    field(2, "data", Map(Bytes)),
    field(3, "type", One(Text)),
    field(4, "stringData", Map(Text)),
    field(5, "immutable", One(Flag)),
];

const SERVICE_ACCOUNT: &Message = &[
    field(1, "metadata", of(METADATA)),
    field(2, "secrets", many(REFERENCE)),
    field(3, "imagePullSecrets", many(&[field(1, "name", One(Text))])),
    field(4, "automountServiceAccountToken", One(Flag)),
];

const REFERENCE: &Message = &[
    field(1, "kind", One(Text)),
    field(2, "namespace", One(Text)),
    field(3, "name", One(Text)),
    field(4, "uid", One(Text)),
    field(5, "apiVersion", One(Text)),
    field(6, "resourceVersion", One(Text)),
    field(7, "fieldPath", One(Text)),
];

const EVENT: &Message = &[
    field(1, "metadata", of(METADATA)),
    field(2, "involvedObject", of(REFERENCE)),
    field(3, "reason", One(Text)),
    field(4, "message", One(Text)),
    field(
        5,
        "source",
        of(&[field(1, "component", One(Text)), field(2, "host", One(Text))]),
    ),
    field(6, "firstTimestamp", One(Time)),
    field(7, "lastTimestamp", One(Time)),
    field(8, "count", One(Number)),
    field(9, "type", One(Text)),
    field(10, "eventTime", One(Time)),
    field(
        11,
        "series",
        of(&[
            field(1, "count", One(Number)),
            field(2, "lastObservedTime", One(Time)),
        ]),
    ),
    field(12, "action", One(Text)),
    field(13, "related", of(REFERENCE)),
    field(14, "reportingComponent", One(Text)),
    field(15, "reportingInstance", One(Text)),
];

const LEASE: &Message = &[
    field(1, "metadata", of(METADATA)),
    field(
        2,
        "spec",
        of(&[
            field(1, "holderIdentity", One(Text)),
            field(2, "leaseDurationSeconds", One(Number)),
            field(3, "acquireTime", One(Time)),
            field(4, "renewTime", One(Time)),
            field(5, "leaseTransitions", One(Number)),
            field(6, "strategy", One(Text)),
            field(7, "preferredHolder", One(Text)),
        ]),
    ),
];
