//! Cells of Pods: `printPod` of kubernetes `pkg/printers/internalversion/printers.go`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, or_none};
use crate::object;

/// What a Pod's row says of it.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// `1/2`.
pub(super) fn ready(pod: &Value) -> String {
    let summary = summarize(pod);
    format!("{}/{}", summary.ready, summary.total)
}

/// Its phase, or the reason that tells more.
pub(super) fn status(pod: &Value) -> String {
    summarize(pod).reason
}

/// `3 (5m ago)`.
pub(super) fn restarts(pod: &Value, now: Timestamp) -> String {
    let summary = summarize(pod);
    match summary.last_restart {
        Some(then) if summary.restarts > 0 => format!("{} ({} ago)", summary.restarts, age(then, now)),
        _ => summary.restarts.to_string(),
    }
}

/// `1/1` of its readiness gates.
pub(super) fn gates(pod: &Value) -> String {
    let gates = object::list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return or_none("").to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| is_condition_true(pod, object::text(gate, "/conditionType")))
        .count();
    format!("{open}/{}", gates.len())
}

/// Rows of Pods that are over say so.
pub(crate) fn conditions(pod: &Value) -> Option<Value> {
    let phase = object::text(pod, "/status/phase");
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]))
}

fn is_condition_true(pod: &Value, kind: &str) -> bool {
    object::list(pod, "/status/conditions").iter().any(|condition| {
        object::text(condition, "/type") == kind && object::text(condition, "/status") == "True"
    })
}

fn summarize(pod: &Value) -> Summary {
    let phase = object::text(pod, "/status/phase");
    let why = object::text(pod, "/status/reason");
    let mut summary = Summary {
        reason: if why.is_empty() { phase } else { why }.to_owned(),
        ready: 0,
        total: object::list(pod, "/spec/containers").len(),
        restarts: 0,
        last_restart: None,
    };
    let is_gated = object::list(pod, "/status/conditions").iter().any(|condition| {
        object::text(condition, "/type") == "PodScheduled"
            && object::text(condition, "/reason") == "SchedulingGated"
    });
    if is_gated {
        "SchedulingGated".clone_into(&mut summary.reason);
    }
    let is_initializing = initializing(pod, &mut summary);
    if !is_initializing || is_condition_true(pod, "Initialized") {
        containers(pod, &mut summary);
    }
    if object::is_terminating(pod) {
        if why == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.reason);
        }
    }
    summary
}

fn is_sidecar(pod: &Value, name: &str) -> bool {
    object::list(pod, "/spec/initContainers").iter().any(|container| {
        object::text(container, "/name") == name && object::text(container, "/restartPolicy") == "Always"
    })
}

/// Whether the first container that is not done is one of the init containers.
fn initializing(pod: &Value, summary: &mut Summary) -> bool {
    let inits = object::list(pod, "/spec/initContainers");
    summary.total += inits
        .iter()
        .filter(|init| object::text(init, "/restartPolicy") == "Always")
        .count();
    for (index, container) in object::list(pod, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        summary.count_restarts(container);
        let is_sidecar = is_sidecar(pod, object::text(container, "/name"));
        let terminated = container.pointer("/state/terminated");
        if terminated.is_some() && object::number(container, "/state/terminated/exitCode") == 0 {
            continue;
        }
        if is_sidecar && container.get("started") == Some(&Value::Bool(true)) {
            if is_ready(container) {
                summary.ready += 1;
            }
            continue;
        }
        let waiting = object::text(container, "/state/waiting/reason");
        summary.reason = match terminated {
            Some(end) => format!("Init:{}", end_of(end)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", inits.len()),
        };
        return true;
    }
    false
}

fn containers(pod: &Value, summary: &mut Summary) {
    let mut has_running = false;
    // The first container's reason is the one that stays.
    for container in object::list(pod, "/status/containerStatuses").iter().rev() {
        summary.count_restarts(container);
        let waiting = object::text(container, "/state/waiting/reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.reason);
        } else if let Some(end) = container.pointer("/state/terminated") {
            summary.reason = end_of(end);
        } else if is_ready(container) && container.pointer("/state/running").is_some() {
            has_running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && has_running {
        let reason = if is_condition_true(pod, "Ready") {
            "Running"
        } else {
            "NotReady"
        };
        reason.clone_into(&mut summary.reason);
    }
}

/// How a container ended.
fn end_of(terminated: &Value) -> String {
    let reason = object::text(terminated, "/reason");
    match object::number(terminated, "/signal") {
        _ if !reason.is_empty() => reason.to_owned(),
        0 => format!("ExitCode:{}", object::number(terminated, "/exitCode")),
        signal => format!("Signal:{signal}"),
    }
}

fn is_ready(container: &Value) -> bool {
    container.get("ready") == Some(&Value::Bool(true))
}

impl Summary {
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += object::number(container, "/restartCount");
        let end = object::time_at(container, "/lastState/terminated/finishedAt");
        self.last_restart = self.last_restart.max(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: &Value, metadata: &Value, expected: (&str, &str)) {
        let pod = json!({
            "metadata": metadata,
            "spec": {
                "containers": [{"name": "a"}, {"name": "b"}],
                "initContainers": [{"name": "i"}, {"name": "j"}],
            },
            "status": status,
        });
        assert_eq!(
            (ready(&pod).as_str(), super::status(&pod).as_str()),
            expected,
            "{status}"
        );
    }

    #[test]
    fn a_row_says_what_matters_most() {
        let none = json!({});
        let running = json!({"ready": true, "state": {"running": {}}});
        let failed = json!({"state": {"terminated": {"exitCode": 2}}});
        let completed = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        check(&json!({"phase": "Pending"}), &none, ("0/2", "Pending"));
        check(
            &json!({"phase": "Failed", "reason": "Evicted"}),
            &none,
            ("0/2", "Evicted"),
        );
        check(
            &json!({"phase": "Running", "containerStatuses": [running, running]}),
            &none,
            ("2/2", "Running"),
        );
        check(
            &json!({"phase": "Failed", "containerStatuses": [failed, completed]}),
            &none,
            ("0/2", "ExitCode:2"),
        );
        check(
            &json!({"phase": "Running", "containerStatuses": [completed, running]}),
            &none,
            ("1/2", "NotReady"),
        );
        check(
            &json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
            &none,
            ("0/2", "ImagePullBackOff"),
        );
        check(
            &json!({"phase": "Pending", "initContainerStatuses": [completed, {"state": {"running": {}}}]}),
            &none,
            ("0/2", "Init:1/2"),
        );
        check(
            &json!({"phase": "Failed", "initContainerStatuses": [failed]}),
            &none,
            ("0/2", "Init:ExitCode:2"),
        );
        let going = json!({"deletionTimestamp": "2026-11-22T10:00:00Z"});
        check(
            &json!({"phase": "Running", "containerStatuses": [running]}),
            &going,
            ("1/2", "Terminating"),
        );
    }

    #[test]
    fn restarts_say_when_the_last_was() {
        let now = "2026-11-22T10:05:00Z".parse().unwrap();
        let pod = json!({"status": {"containerStatuses": [
            {"restartCount": 3, "lastState": {"terminated": {"finishedAt": "2026-11-22T10:00:00Z"}}},
        ]}});
        assert_eq!(restarts(&pod, now), "3 (5m ago)");
        assert_eq!(restarts(&json!({}), now), "0");
    }
}
