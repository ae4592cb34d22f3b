//! Events have two forms, of `v1` and of `events.k8s.io/v1`, which name the same things
//! differently. They are stored in the first.

use serde_json::Value;

use crate::object;

/// What `v1` calls it, and what `events.k8s.io/v1` does.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// From `v1` to `events.k8s.io/v1`.
pub(super) fn from_core(event: &mut Value) {
    for (core, named) in NAMES {
        rename(event, core, named);
    }
}

/// From `events.k8s.io/v1` to `v1`.
pub(super) fn to_core(event: &mut Value) {
    for (core, named) in NAMES {
        rename(event, named, core);
    }
}

fn rename(event: &mut Value, from: &str, to: &str) {
    let event = object::as_map(event);
    if let Some(value) = event.shift_remove(from) {
        event.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_survives_the_way_there_and_back() {
        let core = json!({
            "involvedObject": {"kind": "Pod"},
            "message": "m",
            "reason": "r",
            "source": {"component": "c"},
            "count": 2,
        });
        let mut event = core.clone();
        from_core(&mut event);
        assert_eq!(event["note"], "m");
        assert_eq!(event["deprecatedCount"], 2);
        assert_eq!(event.get("involvedObject"), None);
        to_core(&mut event);
        assert_eq!(event, core);
    }
}
