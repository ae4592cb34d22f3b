//! Every way a container can end, and that nothing is left of it.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::machine::{Machine, end, phase, shell};

/// Whether any process of the host has this text in its command line.
pub(crate) fn runs(marker: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut command_lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    command_lines.any(|line| {
        line.windows(marker.len())
            .any(|window| window == marker.as_bytes())
    })
}

async fn end_of(machine: &Machine, name: &str, script: &str) -> String {
    end(&machine.run(shell(name, script)).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_told_apart() {
    let machine = Machine::start().await;
    assert_eq!(end_of(&machine, "fails", "exit 3").await, "3 Error");
    assert_eq!(end_of(&machine, "like-a-signal", "exit 139").await, "139 Error");
    // Kubernetes makes one dollar sign of two.
    assert_eq!(
        end_of(&machine, "crashes", "kill -SEGV $$$$").await,
        "139 KilledBySignal killed by SIGSEGV"
    );
    // With a limit the kernel counts for it alone: who runs out of memory beside it does not matter.
    let mut pod = shell("is-killed", "kill -KILL $$$$");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi"}});
    assert_eq!(
        end(&machine.run(pod).await),
        "137 KilledBySignal killed by SIGKILL"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_run_says_why() {
    let machine = Machine::start().await;
    let run = async |name: &str, command: &str| {
        let mut pod = shell(name, "");
        pod["spec"]["containers"][0]["command"] = json!([command]);
        end(&machine.run(pod).await)
    };
    let not_found = run("absent", "no-such-program").await;
    assert!(
        not_found
            .starts_with("127 CommandNotFound the command `no-such-program` does not exist in any folder"),
        "{not_found}"
    );
    assert_eq!(
        run("absent-path", "/no/such/program").await,
        "127 CommandNotFound the command `/no/such/program` does not exist"
    );
    assert_eq!(
        run("closed", "/etc/passwd").await,
        "126 CommandNotExecutable `/etc/passwd` may not be executed"
    );
    assert_eq!(
        run("folder", "/etc").await,
        "126 CommandNotExecutable `/etc` is a folder"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_environment_fails_with_a_hint() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "true");
    pod["spec"]["containers"][0]["image"] = json!("tensorflow/tensorflow:2.17.0");
    let pod = machine.run(pod).await;
    assert_eq!(phase(&pod), "Failed");
    assert!(end(&pod).starts_with("128 ImageNeedsContainerRuntime image `tensorflow/tensorflow:2.17.0`"));
    assert!(end(&pod).contains("environments.yaml"), "{}", end(&pod));
}

#[tokio::test(flavor = "multi_thread")]
async fn background_children_end_with_the_container() {
    let machine = Machine::start().await;
    let pod = machine
        .run(shell("p", "sleep 86399.25 & (setsid sleep 86399.25 &) ; exit 0"))
        .await;
    assert_eq!(end(&pod), "0 Completed");
    assert!(!runs("86399.25"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_heeds_sigterm_ends_by_itself() {
    let machine = Machine::start().await;
    let script = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.05; done";
    machine.create(shell("p", script)).await;
    let run = machine.until_phase("p", "Running").await;
    until_log(&machine, "p", "up").await;
    let log = machine.pod_dir(&run).join("main/0/log");
    let watched = tokio::spawn({
        let pods = machine.pods();
        async move {
            let over = |pod: Option<&Pod>| pod.is_none_or(|pod| matches!(phase(pod), "Succeeded" | "Failed"));
            kube::runtime::wait::await_condition(pods, "p", over)
                .await
                .unwrap()
        }
    });
    // The folder goes with the Pod, an open file stays.
    let mut log = std::fs::File::open(log).unwrap();
    machine.delete("p", 30).await;
    machine.until_gone("p").await;
    let _ = watched.await.unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut log, &mut said).unwrap();
    assert!(said.contains(" bye\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ignores_sigterm_is_killed_with_its_children_after_the_grace() {
    let machine = Machine::start().await;
    let script = "trap '' TERM; sleep 86398.75 & sleep 86398.75 & echo up; while true; do sleep 0.05; done";
    machine.create(shell("p", script)).await;
    until_log(&machine, "p", "up").await;
    assert!(runs("86398.75"));
    machine.delete("p", 1).await;
    machine.until_gone("p").await;
    assert!(!runs("86398.75"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_by_force_leaves_nothing() {
    let machine = Machine::start().await;
    let pod = machine.create(shell("p", "echo up; sleep 86397.5")).await;
    until_log(&machine, "p", "up").await;
    machine.delete("p", 0).await;
    machine.until_gone("p").await;
    // The API forgets it first; then its processes and its folder go.
    let folder = machine.pod_dir(&pod);
    crate::machine::patient(async {
        while folder.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!runs("86397.5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_is_told_as_such() {
    let machine = Machine::start().await;
    let script = "x=0123456789abcdef; while true; do x=$x$x; done";
    let mut pod = shell("p", script);
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi"}});
    // Where the limit does not hold, the script would take the whole machine.
    let probe = {
        let mut probe = pod.clone();
        probe["metadata"]["name"] = json!("probe");
        probe["spec"]["containers"][0]["command"] = json!(["true"]);
        probe
    };
    machine.run(probe).await;
    if !machine.events("probe", "LimitNotEnforced").await.is_empty() {
        eprintln!("LEFT OUT: this machine gives us no control group for memory");
        return;
    }
    let pod = machine.run(pod).await;
    assert_eq!(
        end(&pod),
        "137 OOMKilled killed for using more memory than its limit of 64Mi"
    );
}

/// Waits until a container has said something.
pub(crate) async fn until_log(machine: &Machine, name: &str, text: &str) {
    use futures::{AsyncBufReadExt, TryStreamExt};

    machine.until_phase(name, "Running").await;
    let parameters = kube::api::LogParams {
        follow: true,
        ..Default::default()
    };
    let lines = machine
        .pods()
        .log_stream(name, &parameters)
        .await
        .unwrap()
        .lines();
    let mut lines = std::pin::pin!(lines);
    crate::machine::patient(async {
        while let Some(line) = lines.try_next().await.unwrap() {
            if line.contains(text) {
                return;
            }
        }
        panic!("the log ended without `{text}`");
    })
    .await;
}
