//! The columns that `kubectl get` shows for each kind: what kubernetes' `pkg/printers` shows.
//! Cells are pure functions of an object and the time.

mod event;
pub(crate) mod network;
mod node;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{crd, object};

/// One column.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// `string` or `integer`.
    pub(crate) kind: &'static str,
    /// `name` for the column that names the object.
    pub(crate) format: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub(crate) priority: u8,
    pub(crate) cell: fn(&Value, Timestamp) -> Value,
}

/// The columns of a kind.
#[derive(Debug, Clone)]
pub(crate) enum Columns {
    /// Those of a kind that comes with the server.
    Fixed(&'static [Column]),
    /// Those that a definition adds to the name.
    Custom(Vec<crd::columns::Column>),
}

impl Columns {
    /// What they are called, as a table says it.
    pub(crate) fn definitions(&self) -> Value {
        let definition = |name: &str, kind: &str, format: &str, priority: i64| json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority});
        match self {
            Self::Custom(columns) => crd::columns::definitions(columns),
            Self::Fixed(columns) => {
                let definitions = columns.iter().map(|column| {
                    definition(column.name, column.kind, column.format, column.priority.into())
                });
                definitions.collect()
            }
        }
    }

    /// What they show of an object.
    pub(crate) fn cells(&self, object: &Value, now: Timestamp) -> Value {
        match self {
            Self::Custom(columns) => crd::columns::cells(columns, object, now),
            Self::Fixed(columns) => columns.iter().map(|column| (column.cell)(object, now)).collect(),
        }
    }
}

const fn column(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        priority: 0,
        cell,
    }
}

const fn wide(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        priority: 1,
        ..column(name, cell)
    }
}

const fn integer(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        kind: "integer",
        ..column(name, cell)
    }
}

const NAME: Column = Column {
    format: "name",
    ..column("Name", |object, _| object::name(object).into())
};
const AGE: Column = column("Age", |object, now| {
    since(object, "/metadata/creationTimestamp", now)
});

/// For kinds with nothing better to show.
pub(crate) const PLAIN: &[Column] = &[NAME, AGE];

pub(crate) const DEFINITIONS: &[Column] = &[
    NAME,
    column("Created At", |object, _| {
        object::text(object, "/metadata/creationTimestamp").into()
    }),
];

pub(crate) const REVISIONS: &[Column] = &[
    NAME,
    column("Controller", |revision, _| {
        let owners = object::list(revision, "/metadata/ownerReferences").iter();
        let mut controllers = owners.filter(|owner| owner.get("controller") == Some(&Value::Bool(true)));
        let Some(controller) = controllers.next() else {
            return "<none>".into();
        };
        let (kind, name) = (
            object::text(controller, "/kind"),
            object::text(controller, "/name"),
        );
        let group = object::text(controller, "/apiVersion").split_once('/');
        let group = group.map(|(group, _)| format!(".{group}")).unwrap_or_default();
        format!("{}{group}/{name}", kind.to_lowercase()).into()
    }),
    integer("Revision", |revision, _| {
        object::number(revision, "/revision").into()
    }),
    AGE,
];

pub(crate) const NAMESPACES: &[Column] = &[
    NAME,
    column("Status", |object, _| object::text(object, "/status/phase").into()),
    AGE,
];

pub(crate) const CONFIG_MAPS: &[Column] = &[
    NAME,
    integer("Data", |object, _| {
        (size(object, "/data") + size(object, "/binaryData")).into()
    }),
    AGE,
];

pub(crate) const SECRETS: &[Column] = &[
    NAME,
    column("Type", |object, _| object::text(object, "/type").into()),
    integer("Data", |object, _| size(object, "/data").into()),
    AGE,
];

pub(crate) const SERVICE_ACCOUNTS: &[Column] = &[
    NAME,
    integer("Secrets", |object, _| {
        object::list(object, "/secrets").len().into()
    }),
    AGE,
];

pub(crate) const LEASES: &[Column] = &[
    NAME,
    column("Holder", |object, _| {
        object::text(object, "/spec/holderIdentity").into()
    }),
    AGE,
];

pub(crate) const CLAIMS: &[Column] = &[
    NAME,
    column("Status", |claim, _| {
        let phase = object::text(claim, "/status/phase");
        if object::is_terminating(claim) {
            "Terminating".into()
        } else {
            phase.into()
        }
    }),
    column("Volume", |claim, _| {
        object::text(claim, "/spec/volumeName").into()
    }),
    column("Capacity", |claim, _| {
        object::text(claim, "/status/capacity/storage").into()
    }),
    column("Access Modes", |claim, _| access_modes(claim).into()),
    column("StorageClass", |claim, _| {
        object::text(claim, "/spec/storageClassName").into()
    }),
    column("VolumeAttributesClass", |claim, _| {
        or_unset(object::text(claim, "/spec/volumeAttributesClassName")).into()
    }),
    AGE,
    wide("VolumeMode", |claim, _| {
        or_unset(object::text(claim, "/spec/volumeMode")).into()
    }),
];

pub(crate) const EVENTS: &[Column] = &[
    column("Last Seen", event::last_seen),
    column("Type", |event, _| object::text(event, "/type").into()),
    column("Reason", |event, _| object::text(event, "/reason").into()),
    column("Object", |event, _| event::subject(event).into()),
    wide("Subobject", |event, _| {
        object::text(event, "/involvedObject/fieldPath").into()
    }),
    wide("Source", |event, _| event::source(event).into()),
    column("Message", |event, _| {
        object::text(event, "/message").trim().into()
    }),
    wide("First Seen", event::first_seen),
    wide("Count", |event, _| event::count(event).into()),
    Column { priority: 1, ..NAME },
];

pub(crate) const NODES: &[Column] = &[
    NAME,
    column("Status", |node, _| node::status(node).into()),
    column("Roles", |node, _| node::roles(node).into()),
    AGE,
    column("Version", |node, _| {
        object::text(node, "/status/nodeInfo/kubeletVersion").into()
    }),
    wide("Internal-IP", |node, _| node::address(node, "InternalIP").into()),
    wide("External-IP", |node, _| node::address(node, "ExternalIP").into()),
    wide("OS-Image", |node, _| node::info(node, "osImage").into()),
    wide("Kernel-Version", |node, _| {
        node::info(node, "kernelVersion").into()
    }),
    wide("Container-Runtime", |node, _| {
        node::info(node, "containerRuntimeVersion").into()
    }),
];

pub(crate) const PODS: &[Column] = &[
    NAME,
    column("Ready", |pod, _| pod::ready(pod).into()),
    column("Status", |pod, _| pod::status(pod).into()),
    column("Restarts", |pod, now| pod::restarts(pod, now).into()),
    AGE,
    wide("IP", |pod, _| or_none(object::text(pod, "/status/podIP")).into()),
    wide("Node", |pod, _| {
        or_none(object::text(pod, "/spec/nodeName")).into()
    }),
    wide("Nominated Node", |pod, _| {
        or_none(object::text(pod, "/status/nominatedNodeName")).into()
    }),
    wide("Readiness Gates", |pod, _| pod::gates(pod).into()),
];

fn access_modes(claim: &Value) -> String {
    let bound = object::list(claim, "/status/accessModes");
    let modes = if bound.is_empty() {
        object::list(claim, "/spec/accessModes")
    } else {
        bound
    };
    let short = modes.iter().filter_map(Value::as_str).map(|mode| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    short.collect::<Vec<_>>().join(",")
}

fn size(object: &Value, pointer: &str) -> usize {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

/// `a=b,c=d`.
fn labels(labels: Option<&Value>) -> String {
    let mut all = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect::<Vec<_>>();
    all.sort_unstable();
    or_none(&all.join(",")).to_owned()
}

/// A label selector as it is written on a command line.
fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else {
        return or_none("").to_owned();
    };
    let mut all = Vec::new();
    if selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .is_some_and(|labels| !labels.is_empty())
    {
        all.push(labels(selector.get("matchLabels")));
    }
    for expression in object::list(selector, "/matchExpressions") {
        let key = object::text(expression, "/key");
        let values = object::list(expression, "/values")
            .iter()
            .filter_map(Value::as_str);
        let values = values.collect::<Vec<_>>().join(",");
        all.push(match object::text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    or_none(&all.join(",")).to_owned()
}

/// How long ago the time at the pointer is.
fn since(object: &Value, pointer: &str, now: Timestamp) -> Value {
    object::time_at(object, pointer)
        .map_or_else(|| "<unknown>".to_owned(), |then| age(then, now))
        .into()
}

/// How long ago that was, for people: kubernetes' `duration.HumanDuration`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    // Up to a bound, the larger unit is followed by the smaller one, unless that is 0.
    let pair = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        let then = Timestamp::from_second(1_000_000_000).unwrap();
        let (minute, hour, day, year) = (60, 3600, 86400, 365 * 86400);
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * minute, "2m"),
            (9 * minute + 59, "9m59s"),
            (10 * minute + 1, "10m"),
            (3 * hour, "3h"),
            (3 * hour + minute, "3h1m"),
            (9 * hour, "9h"),
            (47 * hour, "47h"),
            (2 * day, "2d"),
            (2 * day + hour, "2d1h"),
            (8 * day, "8d"),
            (729 * day, "729d"),
            (2 * year, "2y"),
            (2 * year + day, "2y1d"),
            (9 * year, "9y"),
        ] {
            let now = Timestamp::from_second(1_000_000_000 + seconds).unwrap();
            assert_eq!(age(then, now), expected);
        }
    }
}
