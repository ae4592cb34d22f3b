//! Binding, and what waiting Pods are told.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde_json::{Value, json};

use crate::machine::{Machine, phase, shell};

fn with_request(name: &str, script: &str, resources: Value) -> Value {
    let mut pod = shell(name, script);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": resources});
    pod
}

fn scheduled(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled")
}

fn is_refused(pod: &Pod) -> bool {
    scheduled(pod).is_some_and(|condition| condition.status == "False")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_machine_has_not_is_told_with_numbers() {
    let machine = Machine::start().await;
    let mut wanting = with_request("p", "true", json!({"example.com/gpu": "1"}));
    wanting["spec"]["containers"][0]["resources"]["limits"] = json!({"example.com/gpu": "1"});
    machine.create(wanting).await;
    let pod = machine.until("p", "refused", is_refused).await;
    let condition = scheduled(&pod).unwrap();
    assert_eq!(condition.reason.as_deref(), Some("RequestExceedsNode"));
    assert_eq!(
        condition.message.as_deref(),
        Some("needs 1 example.com/gpu; this machine has 0")
    );
    assert_eq!(phase(&pod), "Pending");
    assert_eq!(
        machine.until_event("p", "FailedScheduling").await,
        "RequestExceedsNode: needs 1 example.com/gpu; this machine has 0"
    );
    machine.script("other", "true").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_what_another_holds_and_starts_when_it_is_free() {
    let machine = Machine::start().await;
    let cores = std::thread::available_parallelism().unwrap().get();
    let all = json!({"cpu": cores.to_string()});
    machine
        .create(with_request("first", "sleep 86393.5", all.clone()))
        .await;
    machine.until_phase("first", "Running").await;
    machine.create(with_request("second", "true", all)).await;
    let pod = machine.until("second", "refused", is_refused).await;
    let condition = scheduled(&pod).unwrap();
    assert_eq!(condition.reason.as_deref(), Some("InsufficientResources"));
    assert_eq!(
        condition.message.as_deref(),
        Some(format!("needs {cores} cpu; 0 of {cores} free, held by default/first ({cores})").as_str())
    );
    machine.delete("first", 0).await;
    let pod = machine.until_over("second").await;
    assert_eq!(phase(&pod), "Succeeded");
    assert_eq!(scheduled(&pod).unwrap().status, "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_all_run_although_few_run_at_once() {
    let machine = Machine::start().await;
    for index in 0..60 {
        machine.create(shell(&format!("p{index}"), "true")).await;
    }
    for index in 0..60 {
        let pod = machine.until_over(&format!("p{index}")).await;
        assert_eq!(phase(&pod), "Succeeded");
    }
}
