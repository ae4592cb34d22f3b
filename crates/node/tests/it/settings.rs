//! What a Pod's own settings do: users, init containers and sidecars, memory, limits, machines.

use serde_json::json;

use crate::machine::{Machine, end, first, patient, phase, shell};

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_who_the_pod_says_and_still_reach_their_files() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let script = format!(
        "id -u; id -g; echo x > {0}/made && cat {0}/made && echo y > $HOME/z && stat -c %u {0}/made",
        machine.artifacts().display()
    );
    let mut pod = shell("p", &script);
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1234, "runAsGroup": 56});
    let pod = machine.run(pod).await;
    assert_eq!(machine.log("p").await, "1234\n56\nx\n1234\n", "{}", end(&pod));
    let mut refused = shell("q", "id -u");
    refused["spec"]["securityContext"] = json!({"runAsUser": 0, "runAsNonRoot": true});
    let refused = machine.run(refused).await;
    assert_eq!(
        end(&refused),
        "128 SettingInvalid `runAsNonRoot` is set, and `runAsUser` is 0 (root)"
    );
    let mut anybody = shell("r", "test $(id -u) != 0 && echo fine");
    anybody["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    machine.run(anybody).await;
    assert_eq!(machine.log("r").await, "fine\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_runs_beside_and_ends_after() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let mount = json!([{"name": "v", "mountPath": "/shared"}]);
    let mut pod = shell(
        "p",
        "while [ ! -e /shared/ready ]; do sleep 0.05; done; cat /shared/ready /shared/first; stat -f -c %T /shared",
    );
    pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {"medium": "Memory"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = mount.clone();
    pod["spec"]["initContainers"] = json!([
        {"name": "side", "image": "busybox", "restartPolicy": "Always", "volumeMounts": mount,
            "command": ["sh", "-c", "while [ ! -e /shared/first ]; do sleep 0.05; done; echo side > /shared/ready; exec sleep 600"]},
        {"name": "first", "image": "busybox", "volumeMounts": mount,
            "command": ["sh", "-c", "echo first > /shared/first"]},
    ]);
    let pod = machine.run(pod).await;
    assert_eq!(phase(&pod), "Succeeded", "{}", end(&pod));
    assert_eq!(machine.log("p").await, "side\nfirst\ntmpfs\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_memory_holds_what_it_may_and_no_more() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let mut pod = shell(
        "p",
        "stat -f -c %T /m /dev/shm; echo x > /m/sub/x; cat /again/sub/x; \
         head -c 3000000 /dev/zero > /m/big 2>/dev/null || echo full",
    );
    pod["spec"]["volumes"] = json!([
        {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "m", "mountPath": "/m"},
        {"name": "m", "mountPath": "/m/sub/deeper", "subPath": "part"},
        {"name": "m", "mountPath": "/again"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]);
    let pod = machine.run(pod).await;
    assert_eq!(machine.log("p").await, "tmpfs\ntmpfs\nx\nfull\n", "{}", end(&pod));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_overfills_its_folder_is_evicted() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let mut pod = shell("p", "head -c 3000000 /dev/zero > /d/big; exec sleep 600");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    pod["spec"]["volumes"] = json!([{"name": "d", "emptyDir": {"sizeLimit": "1Mi"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "d", "mountPath": "/d"}]);
    let status = machine.run(pod).await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    let message = status.message.unwrap();
    assert!(message.starts_with("the emptyDir volume `d` holds"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_for_another_machine_waits_until_this_one_has_the_label() {
    use k8s_openapi::api::core::v1::Node;
    use kube::{
        Api,
        api::{Patch, PatchParams},
    };

    let machine = Machine::start().await;
    let mut pod = shell("p", "echo ran");
    pod["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    machine.create(pod).await;
    let refused = |pod: &k8s_openapi::api::core::v1::Pod| {
        let conditions = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref());
        conditions.is_some_and(|all| {
            all.iter()
                .any(|one| one.reason.as_deref() == Some("NodeSelectorMismatch"))
        })
    };
    let pod = machine.until("p", "refused", refused).await;
    let message = pod.status.unwrap().conditions.unwrap()[0]
        .message
        .clone()
        .unwrap();
    assert_eq!(
        message,
        "selects machines labelled `disk=ssd`; this machine has no label `disk`"
    );
    let nodes: Api<Node> = Api::all(machine.client.clone());
    let label = json!({"metadata": {"labels": {"disk": "ssd"}}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(&label));
    patient(nodes.patch(crate::machine::NODE, &params, &patch))
        .await
        .unwrap();
    assert_eq!(phase(&machine.until_over("p").await), "Succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_init_container_is_the_pods_failure() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "echo never");
    pod["spec"]["initContainers"] = json!([
        {"name": "side", "image": "busybox", "restartPolicy": "Always", "command": ["sleep", "600"]},
        {"name": "bad", "image": "busybox", "command": ["sh", "-c", "echo why; exit 3"]},
    ]);
    let pod = machine.run(pod).await;
    assert_eq!(phase(&pod), "Failed");
    assert!(first(&pod).state.unwrap().waiting.is_some());
    let init = pod.status.unwrap().init_container_statuses.unwrap().remove(1);
    assert_eq!(init.state.unwrap().terminated.unwrap().exit_code, 3);
}
