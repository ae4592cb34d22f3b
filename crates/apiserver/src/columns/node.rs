//! Cells of Nodes.

use serde_json::Value;

use super::or_none;
use crate::object;

/// `Ready,SchedulingDisabled`.
pub(super) fn status(node: &Value) -> String {
    let conditions = object::list(node, "/status/conditions");
    let ready = conditions
        .iter()
        .find(|condition| object::text(condition, "/type") == "Ready");
    let status = match ready.map(|condition| object::text(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let is_cordoned = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    if is_cordoned {
        format!("{status},SchedulingDisabled")
    } else {
        status.to_owned()
    }
}

/// The roles that its labels give it.
pub(super) fn roles(node: &Value) -> String {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let mut roles = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect::<Vec<_>>();
    roles.sort_unstable();
    roles.dedup();
    or_none(&roles.join(",")).to_owned()
}

/// Its first address of the kind.
pub(super) fn address(node: &Value, kind: &str) -> String {
    let addresses = object::list(node, "/status/addresses");
    let address = addresses
        .iter()
        .find(|address| object::text(address, "/type") == kind);
    or_none(address.map_or("", |address| object::text(address, "/address"))).to_owned()
}

/// What it says of itself.
pub(super) fn info(node: &Value, field: &str) -> String {
    let text = object::text(node, &format!("/status/nodeInfo/{field}"));
    if text.is_empty() {
        "<unknown>".to_owned()
    } else {
        text.to_owned()
    }
}
