//! A node that starts later goes on where an earlier one stopped.

use crate::{
    ends::runs,
    machine::{Machine, end, patient, phase, shell, shim_pid},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_still_runs_is_taken_up_and_never_run_twice() {
    let mut machine = Machine::start().await;
    let runs = machine.artifacts().join("runs");
    let go = machine.artifacts().join("go");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&go)
            .status()
            .unwrap()
            .success()
    );
    let script = format!(
        "echo run >> {}; read x < {}; exit 6",
        runs.display(),
        go.display()
    );
    machine.create(shell("p", &script)).await;
    let pod = machine.until_phase("p", "Running").await;
    machine.stop_node().await;
    machine.start_node();
    // The new node is at work when it runs another Pod.
    machine.script("q", "true").await;
    assert_eq!(phase(&machine.pods().get("p").await.unwrap()), "Running");
    tokio::fs::write(&go, "x\n").await.unwrap();
    let over = machine.until_over("p").await;
    assert_eq!(end(&over), "6 Error");
    assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n");
    assert_eq!(over.metadata.uid, pod.metadata.uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ended_meanwhile_gets_its_status_from_its_record() {
    let mut machine = Machine::start().await;
    let go = machine.artifacts().join("go");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&go)
            .status()
            .unwrap()
            .success()
    );
    let script = format!("read x < {}; exit 8", go.display());
    machine.create(shell("p", &script)).await;
    let pod = machine.until_phase("p", "Running").await;
    machine.stop_node().await;
    tokio::fs::write(&go, "x\n").await.unwrap();
    let record = machine.pod_dir(&pod).join("main/0/exit.json");
    patient(async {
        while !record.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    machine.start_node();
    assert_eq!(end(&machine.until_over("p").await), "8 Error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_helper_was_killed_fails_and_says_so() {
    let machine = Machine::start().await;
    machine.create(shell("p", "sleep 86395.5")).await;
    let pod = machine.until_phase("p", "Running").await;
    let pid = shim_pid(&machine.pod_dir(&pod).join("main/0")).unwrap();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let over = machine.until_over("p").await;
    assert_eq!(phase(&over), "Failed");
    assert!(
        end(&over).starts_with("137 KilledBySignal its sandbox ended without a record"),
        "{}",
        end(&over)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_deleted_meanwhile_is_ended_and_cleaned_up() {
    let mut machine = Machine::start().await;
    machine.create(shell("p", "sleep 86394.5")).await;
    let pod = machine.until_phase("p", "Running").await;
    let folder = machine.pod_dir(&pod);
    machine.stop_node().await;
    assert!(runs("86394.5"));
    machine.delete("p", 0).await;
    machine.until_gone("p").await;
    machine.start_node();
    patient(async {
        while folder.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!runs("86394.5"));
}
