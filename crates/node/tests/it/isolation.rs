//! What a Pod sees of the host, and what the host sees of a Pod.

use std::path::Path;

use coracle_node::Isolation;
use serde_json::json;

use crate::{
    ends::{runs, until_log},
    machine::{Machine, end, shell},
};

#[tokio::test(flavor = "multi_thread")]
async fn tmp_is_private_to_each_pod() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let mark = tempfile::Builder::new()
        .prefix("coracle-mark")
        .tempfile_in("/tmp")
        .unwrap();
    // Not all of /tmp is compared: what is mounted, such as a binary built there, shows in it.
    let look = "ls -A /tmp | grep -e coracle-mark -e left";
    assert_eq!(
        machine
            .script("one", &format!("{look}; echo mine > /tmp/left; pwd; echo $HOME"))
            .await,
        "/tmp/home\n/tmp/home\n"
    );
    assert_eq!(
        machine
            .script("two", &format!("ls -A /dev/shm; {look}; true"))
            .await,
        ""
    );
    assert!(!Path::new("/tmp/left").exists());
    drop(mark);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_outside_volumes_does_not_reach_the_host() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    // Where we are not root the root folder's content may be read-only, which is as good.
    let script = "(echo x > /etc/coracle-mark && cat /etc/coracle-mark) 2>/dev/null || echo refused; \
                  mkdir -p /coracle-mark && echo made; rm -f /etc/hostname 2>/dev/null; true";
    let said = machine.script("p", script).await;
    assert!(said == "x\nmade\n" || said == "refused\nmade\n", "{said}");
    assert!(!Path::new("/etc/coracle-mark").exists());
    assert!(!Path::new("/coracle-mark").exists());
    let again = machine
        .script("q", "ls -d /etc/coracle-mark /coracle-mark 2>/dev/null | wc -l")
        .await;
    assert_eq!(again.trim(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_sees_only_its_own_processes() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let said = machine
        .script("p", "ls -d /proc/[0-9]* | wc -l; cat /proc/sys/kernel/ostype")
        .await;
    let count: usize = said.lines().next().unwrap().trim().parse().unwrap();
    assert!(count <= 5, "{said}");
    assert!(said.ends_with("Linux\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_is_hidden_except_for_what_is_to_be_written() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    std::fs::write(machine.data_dir().join("coracle.db"), "secret").unwrap();
    let (data, artifacts) = (machine.data_dir(), machine.artifacts());
    let script = format!(
        "ls -A {}; echo kept > {}/result; ls -A {}",
        data.display(),
        artifacts.display(),
        artifacts.display()
    );
    assert_eq!(machine.script("p", &script).await, "artifacts\nresult\n");
    assert_eq!(
        std::fs::read_to_string(artifacts.join("result")).unwrap(),
        "kept\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_clean_and_the_containers_own() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "env | cut -d= -f1 | sort; echo '$(NAME)/$(MISSING)' $0 $1");
    pod["spec"]["containers"][0]["args"] = json!(["zero", "$(NAME)"]);
    pod["spec"]["containers"][0]["env"] = json!([
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]);
    machine.run(pod).await;
    let log = machine.log("p").await;
    assert!(!log.contains("CARGO_MANIFEST_DIR"), "{log}");
    for name in ["HOME", "PATH", "TMPDIR", "NAME", "HOSTNAME"] {
        assert!(log.lines().any(|line| line == name), "{name}: {log}");
    }
    assert!(log.ends_with("p/$(MISSING) zero p\n"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_isolation_pods_run_and_say_what_is_missing() {
    let machine = Machine::start_with(Isolation::Off).await;
    let pod = machine.run(shell("p", "sleep 86396.5 & echo hi; exit 3")).await;
    assert_eq!(end(&pod), "3 Error");
    assert_eq!(machine.log("p").await, "hi\n");
    assert!(
        machine
            .until_event("p", "NotIsolated")
            .await
            .contains("no namespaces")
    );
    assert!(!runs("86396.5"));
    let mut pod = shell("q", "true");
    pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/coracle-v"}]);
    let pod = machine.run(pod).await;
    assert!(
        end(&pod).contains("VolumeNotReady nothing can be mounted at `/coracle-v`"),
        "{}",
        end(&pod)
    );
    assert!(!Path::new("/coracle-v").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_working_directory_is_the_containers_and_made_if_missing() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let mut pod = shell("p", "pwd");
    pod["spec"]["containers"][0]["workingDir"] = json!("/coracle-work/deep");
    machine.run(pod).await;
    assert_eq!(machine.log("p").await, "/coracle-work/deep\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_isolation_everything_of_a_pod_ends_with_it() {
    let machine = Machine::start_with(Isolation::Off).await;
    let script =
        "trap '' TERM; (setsid sleep 86391.5 &); sleep 86391.5 & echo up; while true; do sleep 0.05; done";
    machine.create(shell("killed", script)).await;
    until_log(&machine, "killed", "up").await;
    assert!(runs("86391.5"));
    machine.delete("killed", 1).await;
    machine.until_gone("killed").await;
    assert!(!runs("86391.5"));
}
