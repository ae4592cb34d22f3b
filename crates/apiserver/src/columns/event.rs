//! Cells of Events.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, since};
use crate::object;

/// When it was seen last; series and repeated events know better than the event itself.
pub(super) fn last_seen(event: &Value, now: Timestamp) -> Value {
    for pointer in ["/series/lastObservedTime", "/lastTimestamp"] {
        if let Some(then) = object::time_at(event, pointer) {
            return age(then, now).into();
        }
    }
    first_seen(event, now)
}

/// When it was seen first.
pub(super) fn first_seen(event: &Value, now: Timestamp) -> Value {
    if let Some(then) = object::time_at(event, "/firstTimestamp") {
        return age(then, now).into();
    }
    since(event, "/eventTime", now)
}

/// `pod/web`.
pub(super) fn subject(event: &Value) -> String {
    let kind = object::text(event, "/involvedObject/kind").to_lowercase();
    let name = object::text(event, "/involvedObject/name");
    if name.is_empty() {
        kind
    } else {
        format!("{kind}/{name}")
    }
}

/// `kubelet, node1`.
pub(super) fn source(event: &Value) -> String {
    let part = |old: &str, new: &str| {
        let text = object::text(event, old);
        if text.is_empty() {
            object::text(event, new).to_owned()
        } else {
            text.to_owned()
        }
    };
    let component = part("/source/component", "/reportingComponent");
    let instance = part("/source/host", "/reportingInstance");
    if instance.is_empty() {
        component
    } else {
        format!("{component}, {instance}")
    }
}

/// How often it was seen.
pub(super) fn count(event: &Value) -> i64 {
    match (
        object::number(event, "/series/count"),
        object::number(event, "/count"),
    ) {
        (0, count) => count.max(1),
        (series, _) => series,
    }
}
