//! What a Pod's status says through its life.

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::json;

use crate::machine::{Machine, NODE, end, first, phase, shell};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_and_its_status_is_a_kubelets() {
    let machine = Machine::start().await;
    let pod = machine.run(shell("p", "echo hello; exit 0")).await;
    assert_eq!(phase(&pod), "Succeeded");
    assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some(NODE));
    let status = pod.status.as_ref().unwrap();
    let address = status.pod_ip.as_deref().unwrap().parse().unwrap();
    assert!(machine.block().pods().contains(address), "{address}");
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert!(status.start_time.is_some());
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .flatten()
        .map(|condition| format!("{}={}", condition.type_, condition.status))
        .collect();
    assert_eq!(
        conditions,
        [
            "PodScheduled=True",
            "PodReadyToStartContainers=False",
            "Initialized=True",
            "Ready=False",
            "ContainersReady=False",
        ]
    );
    let container = first(&pod);
    let ended = container.state.unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (0, Some("Completed")));
    assert!(ended.started_at.unwrap().0 <= ended.finished_at.unwrap().0);
    assert_eq!(machine.log("p").await, "hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_is_ready() {
    let machine = Machine::start().await;
    machine.create(shell("p", "sleep 1000")).await;
    let pod = machine.until_phase("p", "Running").await;
    assert!(first(&pod).ready);
    assert!(first(&pod).state.unwrap().running.is_some());
    machine.delete("p", 0).await;
    machine.until_gone("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_in_order_before_the_others() {
    let machine = Machine::start().await;
    let step = |name: &str| {
        json!({
            "name": name, "image": "busybox", "command": ["sh", "-c", format!("echo {name} >> /v/order")],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        })
    };
    if !machine.is_isolated().await {
        return;
    }
    let mut last = step("main");
    last["command"] = json!(["cat", "/v/order"]);
    let pod = machine
        .run(json!({
            "metadata": {"name": "p"},
            "spec": {
                "restartPolicy": "Never",
                "volumes": [{"name": "v", "emptyDir": {}}],
                "initContainers": [step("one"), step("two")],
                "containers": [last],
            },
        }))
        .await;
    assert_eq!(phase(&pod), "Succeeded");
    assert_eq!(machine.log("p").await, "one\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_init_container_fails_the_pod() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "echo never");
    pod["spec"]["initContainers"] =
        json!([{"name": "i", "image": "busybox", "command": ["sh", "-c", "exit 4"]}]);
    let pod = machine.run(pod).await;
    assert_eq!(phase(&pod), "Failed");
    assert!(first(&pod).state.unwrap().waiting.is_some());
    let init = pod.status.unwrap().init_container_statuses.unwrap();
    assert_eq!(
        init[0]
            .state
            .as_ref()
            .unwrap()
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_run_together_and_one_failure_fails_it() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "exit 0");
    pod["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "other", "image": "busybox", "command": ["sh", "-c", "exit 7"]}));
    let pod = machine.run(pod).await;
    assert_eq!(phase(&pod), "Failed");
    let codes: Vec<i32> = pod
        .status
        .unwrap()
        .container_statuses
        .unwrap()
        .into_iter()
        .map(|status| status.state.unwrap().terminated.unwrap().exit_code)
        .collect();
    assert_eq!(codes, [0, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_restart_policy_waits_before_it_starts_again() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "exit 5");
    pod["spec"]["restartPolicy"] = json!("OnFailure");
    machine.create(pod).await;
    let waits = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.status
            .as_ref()
            .is_some_and(|status| status.container_statuses.is_some())
            && first(pod)
                .state
                .and_then(|state| state.waiting)
                .is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
    };
    let pod = machine.until("p", "waiting to start again", waits).await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(first(&pod).last_state.unwrap().terminated.unwrap().exit_code, 5);
    machine.delete("p", 0).await;
    machine.until_gone("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_the_message_of_the_end() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let pod = machine
        .run(shell("own", "echo accuracy=0.9 > /dev/termination-log"))
        .await;
    assert_eq!(end(&pod), "0 Completed accuracy=0.9");
    let mut pod = shell("from-log", "echo Traceback; exit 1");
    pod["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    assert_eq!(end(&machine.run(pod).await), "1 Error Traceback");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_is_a_node_that_is_ready() {
    let machine = Machine::start().await;
    machine.script("any", "true").await;
    let nodes: Api<Node> = Api::all(machine.client.clone());
    let status = nodes.get(NODE).await.unwrap().status.unwrap();
    assert_eq!(status.capacity.as_ref().unwrap()["pods"].0, "20");
    assert!(status.allocatable.unwrap().contains_key("memory"));
    let ready = status
        .conditions
        .unwrap()
        .into_iter()
        .find(|condition| condition.type_ == "Ready");
    assert_eq!(ready.unwrap().status, "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_past_its_deadline_is_ended() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "sleep 1000");
    pod["spec"]["activeDeadlineSeconds"] = json!(1);
    let pod = machine.run(pod).await;
    assert_eq!(phase(&pod), "Failed");
    assert_eq!(pod.status.unwrap().reason.as_deref(), Some("DeadlineExceeded"));
}
