//! Logs through the Kubernetes API.

use futures::{AsyncBufReadExt, TryStreamExt};
use kube::api::LogParams;
use serde_json::json;

use crate::machine::{Machine, patient, shell};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_from_its_first_line_to_the_containers_end() {
    let machine = Machine::start().await;
    let go = machine.artifacts().join("go");
    let status = std::process::Command::new("mkfifo").arg(&go).status().unwrap();
    assert!(status.success());
    let script = format!("echo one; read x < {}; echo $x >&2; printf end", go.display());
    machine.create(shell("p", &script)).await;
    machine.until_phase("p", "Running").await;
    let parameters = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = machine.pods().log_stream("p", &parameters).await.unwrap().lines();
    assert_eq!(patient(lines.try_next()).await.unwrap().as_deref(), Some("one"));
    tokio::fs::write(&go, "two\n").await.unwrap();
    assert_eq!(patient(lines.try_next()).await.unwrap().as_deref(), Some("two"));
    assert_eq!(patient(lines.try_next()).await.unwrap().as_deref(), Some("end"));
    assert_eq!(patient(lines.try_next()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_log_can_be_asked_for() {
    let machine = Machine::start().await;
    machine
        .script("p", "for i in 1 2 3 4 5; do echo line $i; done")
        .await;
    let ask = async |parameters: LogParams| machine.pods().logs("p", &parameters).await.unwrap();
    let tail = LogParams {
        tail_lines: Some(2),
        ..LogParams::default()
    };
    assert_eq!(ask(tail).await, "line 4\nline 5\n");
    let limited = LogParams {
        limit_bytes: Some(9),
        ..LogParams::default()
    };
    assert_eq!(ask(limited).await, "line 1\nli");
    let timed = LogParams {
        timestamps: true,
        tail_lines: Some(1),
        ..LogParams::default()
    };
    let line = ask(timed).await;
    let (time, text) = line.split_once(' ').unwrap();
    time.parse::<jiff::Timestamp>().unwrap();
    assert_eq!(text, "line 5\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_waits_has_no_log_and_says_so() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "true");
    pod["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "none"}}]);
    machine.create(pod).await;
    let waits = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.status
            .as_ref()
            .is_some_and(|status| status.container_statuses.is_some())
    };
    machine.until("p", "waiting", waits).await;
    let error = machine
        .pods()
        .logs("p", &LogParams::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("waiting to start: CreateContainerConfigError"),
        "{error}"
    );
    machine.delete("p", 0).await;
}
