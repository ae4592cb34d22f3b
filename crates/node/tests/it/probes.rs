//! Probes and hooks of containers that run.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::machine::{Machine, first, phase, shell};

/// A server in Python that answers with the status in the file `status`.
const SERVER: &str = r#"
import http.server, os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int((folder / "status").read_text()))
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer((os.environ["ADDRESS"], 0), Handler)
(folder / "port.new").write_text(str(server.server_port))
(folder / "port.new").rename(folder / "port")
server.serve_forever()
"#;

fn is_ready(pod: &Pod) -> bool {
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    containers.is_some_and(|containers| containers.iter().all(|container| container.ready))
}

fn condition(pod: &Pod, kind: &str) -> String {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone());
    let all = conditions.unwrap_or_default();
    let found = all.iter().find(|condition| condition.type_ == kind).unwrap();
    format!(
        "{} {} {}",
        found.status,
        found.reason.clone().unwrap_or_default(),
        found.message.clone().unwrap_or_default()
    )
    .trim()
    .to_owned()
}

fn with(mut pod: Value, fields: &[(&str, Value)]) -> Value {
    for (name, value) in fields {
        pod["spec"]["containers"][0][*name] = value.clone();
    }
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_ready_as_long_as_its_server_says_so() {
    let machine = Machine::start().await;
    let folder = machine.artifacts();
    std::fs::write(folder.join("status"), "503").unwrap();
    // A port that is free, for a server that starts a moment later.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let script = SERVER.replace(", 0), Handler", &format!(", {port}), Handler"));
    let run = format!(
        "exec python3 -c '{}' {}",
        script.replace('\'', "\"").trim(),
        folder.display()
    );
    let probe = json!({"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1, "failureThreshold": 1});
    let pod = with(
        shell("web", &run),
        &[
            ("ports", json!([{"name": "web", "containerPort": port}])),
            ("readinessProbe", probe),
            (
                "env",
                json!([{"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]),
            ),
        ],
    );
    machine.create(pod).await;
    let said = machine.until_event("web", "Unhealthy").await;
    assert!(said.starts_with("Readiness probe failed: "), "{said}");
    let pod = machine.until_phase("web", "Running").await;
    assert!(!is_ready(&pod));
    assert_eq!(
        condition(&pod, "Ready"),
        "False ContainersNotReady containers with unready status: [main]"
    );
    std::fs::write(folder.join("status"), "200").unwrap();
    let pod = machine.until("web", "ready", is_ready).await;
    assert_eq!(condition(&pod, "Ready"), "True");
    std::fs::write(folder.join("status"), "500").unwrap();
    machine.until("web", "not ready", |pod| !is_ready(pod)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_found_dead_starts_again() {
    let machine = Machine::start().await;
    let folder = machine.artifacts();
    let alive = folder.join("alive");
    // The second life is well.
    let script = format!("touch {}-$HOSTNAME; sleep 300", alive.display());
    let check = format!("test -e {}", folder.join("restarted").display());
    let mut pod = with(
        shell("p", &script),
        &[(
            "livenessProbe",
            json!({"exec": {"command": ["sh", "-c", check]}, "periodSeconds": 1, "failureThreshold": 1,
                "terminationGracePeriodSeconds": 1}),
        )],
    );
    pod["spec"]["restartPolicy"] = json!("Always");
    machine.create(pod).await;
    let killing = machine.until_event("p", "Killing").await;
    assert_eq!(
        killing,
        "Container main failed its liveness probe, and is stopped"
    );
    std::fs::write(folder.join("restarted"), "").unwrap();
    let pod = machine
        .until("p", "ready again", |pod| {
            is_ready(pod) && first(pod).restart_count >= 1
        })
        .await;
    assert_eq!(phase(&pod), "Running");
    let last = first(&pod).last_state.unwrap().terminated.unwrap();
    assert_ne!(last.exit_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_started_is_neither_probed_for_life_nor_ready() {
    let machine = Machine::start().await;
    let started = machine.artifacts().join("started");
    let check = format!("test -e {}", started.display());
    let pod = with(
        shell("p", "sleep 300"),
        &[
            (
                "startupProbe",
                json!({"exec": {"command": ["sh", "-c", check]}, "periodSeconds": 1, "failureThreshold": 100}),
            ),
            (
                "livenessProbe",
                json!({"exec": {"command": ["sh", "-c", check]}, "failureThreshold": 1}),
            ),
        ],
    );
    machine.create(pod).await;
    let said = machine.until_event("p", "Unhealthy").await;
    assert!(said.starts_with("Startup probe failed"), "{said}");
    let pod = machine.until_phase("p", "Running").await;
    assert_eq!((first(&pod).started, first(&pod).ready), (Some(false), false));
    std::fs::write(&started, "").unwrap();
    let pod = machine.until("p", "ready", is_ready).await;
    assert_eq!(first(&pod).started, Some(true));
    assert_eq!(first(&pod).restart_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_after_the_start_and_before_the_end() {
    let machine = Machine::start().await;
    let file = machine.artifacts().join("said");
    let say =
        |word: &str| json!({"exec": {"command": ["sh", "-c", format!("echo {word} >> {}", file.display())]}});
    let script = format!(
        "trap 'echo term >> {0}; exit 0' TERM; while true; do sleep 0.1; done",
        file.display()
    );
    let pod = with(
        shell("p", &script),
        &[(
            "lifecycle",
            json!({"postStart": say("hello"), "preStop": say("goodbye")}),
        )],
    );
    machine.create(pod).await;
    machine.until("p", "ready", is_ready).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello\n");
    machine
        .pods()
        .delete("p", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    machine.until_gone("p").await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello\ngoodbye\nterm\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_after_the_start_ends_the_container() {
    let machine = Machine::start().await;
    let hook = json!({"postStart": {"exec": {"command": ["sh", "-c", "echo no way >&2; exit 3"]}}});
    let mut pod = with(shell("p", "sleep 300"), &[("lifecycle", hook)]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    machine.create(pod).await;
    let said = machine.until_event("p", "FailedPostStartHook").await;
    assert!(said.contains("no way"), "{said}");
    assert_eq!(phase(&machine.until_over("p").await), "Failed");
}
