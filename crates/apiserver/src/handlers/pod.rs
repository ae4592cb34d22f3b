//! What can be done to a Pod beside reading and writing it: binding it to a node, evicting it.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    body,
    deletion::{self, Options},
    handlers::write,
    object,
    server::Call,
    status::{self, Error},
};

/// Answers POST of a Binding: the Pod is to run on the node that it names.
pub(crate) async fn bind(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let binding = body::decode_object(&call.headers, bytes)?;
    let node = object::text(&binding, "/target/name");
    let target = object::text(&binding, "/target/kind");
    if node.is_empty() || !(target.is_empty() || target == "Node") {
        return Err(Error::bad_request(
            "target: Required value: a Binding must name a Node",
        ));
    }
    let uid = object::uid(&binding);
    let is_dry = call.parameters.dry_run("CreateOptions")?;
    let kind = call.kind();
    write::mutate(call.resources(), kind, &call.key(), is_dry, |pod| {
        let name = object::name(pod);
        if !uid.is_empty() && uid != object::uid(pod) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(pod)
            );
            return Err(Error::conflict(kind, name, why));
        }
        if object::is_terminating(pod) {
            return Err(Error::conflict(
                kind,
                name,
                format!("pod {name} is being deleted, cannot be assigned to a host"),
            ));
        }
        let bound = object::text(pod, "/spec/nodeName");
        if !bound.is_empty() {
            return Err(Error::conflict(
                kind,
                name,
                format!("pod {name} is already assigned to node \"{bound}\""),
            ));
        }
        Ok(bound_to(pod, node, object::time(call.now)))
    })
    .await?;
    Ok(call.reply(StatusCode::CREATED, &status::success(None)))
}

fn bound_to(pod: &Value, node: &str, now: Value) -> Value {
    let mut pod = pod.clone();
    object::section(&mut pod, "spec").insert("nodeName".to_owned(), node.into());
    let status = object::section(&mut pod, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Value::Array(conditions) = conditions {
        conditions.retain(|condition| object::text(condition, "/type") != "PodScheduled");
        conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now}));
    }
    pod
}

/// Answers POST of an Eviction: the Pod is deleted, since nothing here sets a disruption budget.
pub(crate) async fn evict(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let eviction = body::decode_object(&call.headers, bytes)?;
    let options = Options::parse(eviction.get("deleteOptions"), &call.parameters)?;
    deletion::execute(call.resources(), call.kind(), &call.key(), &options, call.now).await?;
    Ok(call.reply(StatusCode::CREATED, &status::success(None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_pod_says_that_it_is_scheduled() {
        let pod = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}});
        let bound = bound_to(&pod, "here", json!("2026-11-22T10:00:00Z"));
        assert_eq!(bound["spec"]["nodeName"], "here");
        let condition =
            json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-22T10:00:00Z"});
        assert_eq!(bound["status"]["conditions"], json!([condition]));
    }
}
