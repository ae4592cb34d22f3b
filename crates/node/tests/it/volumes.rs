//! Volumes inside a sandbox.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use serde_json::{Value, json};

use crate::machine::{Machine, end, first, phase, shell};

fn with_volume(name: &str, script: &str, volume: Value, mount: Value) -> Value {
    let (mut volume, mut mount) = (volume, mount);
    volume["name"] = json!("v");
    mount["name"] = json!("v");
    let mut pod = shell(name, script);
    pod["spec"]["volumes"] = json!([volume]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([mount]);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_a_file_with_its_mode_at_its_path() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    machine
        .object(
            "secrets",
            json!({"metadata": {"name": "s"}, "stringData": {"token": "hidden"}}),
        )
        .await;
    let pod = with_volume(
        "p",
        "stat -c %a /very/secret/token; cat /very/secret/token; echo; touch /very/secret/x 2>/dev/null || echo read-only",
        json!({"secret": {"secretName": "s", "defaultMode": 0o400}}),
        json!({"mountPath": "/very/secret"}),
    );
    let pod = machine.run(pod).await;
    assert_eq!(
        machine.log("p").await,
        "400\nhidden\nread-only\n",
        "{}",
        end(&pod)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_outlives_the_pods_that_use_it_and_becomes_bound() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    machine
        .object(
            "persistentvolumeclaims",
            json!({"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            }}),
        )
        .await;
    let claim = || json!({"persistentVolumeClaim": {"claimName": "data"}});
    let write = with_volume(
        "w",
        "echo kept > /data/file",
        claim(),
        json!({"mountPath": "/data", "subPath": "sub"}),
    );
    assert_eq!(phase(&machine.run(write).await), "Succeeded");
    machine.delete("w", 0).await;
    machine.until_gone("w").await;
    let read = with_volume(
        "r",
        "cat /data/sub/file",
        claim(),
        json!({"mountPath": "/data", "readOnly": true}),
    );
    machine.run(read).await;
    assert_eq!(machine.log("r").await, "kept\n");
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(machine.client.clone());
    let status = claims.get("data").await.unwrap().status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Bound"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_waited_for() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "echo $TOKEN");
    pod["spec"]["containers"][0]["env"] =
        json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "late", "key": "token"}}}]);
    machine.create(pod).await;
    let waits = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.status
            .as_ref()
            .is_some_and(|status| status.container_statuses.is_some())
            && first(pod).state.and_then(|state| state.waiting).is_some()
    };
    let pod = machine.until("p", "waiting", waits).await;
    let waiting = first(&pod).state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CreateContainerConfigError"));
    assert_eq!(
        waiting.message.as_deref(),
        Some("VolumeNotReady: Secret `late` does not exist")
    );
    machine
        .object(
            "secrets",
            json!({"metadata": {"name": "late"}, "stringData": {"token": "here"}}),
        )
        .await;
    assert_eq!(phase(&machine.until_over("p").await), "Succeeded");
    assert_eq!(machine.log("p").await, "here\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_of_the_host_is_shown_for_reading_only_folder_or_file() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let show = |name: &str, script: &str, path: &std::path::Path| {
        with_volume(
            name,
            script,
            json!({"hostPath": {"path": path}}),
            json!({"mountPath": "/host"}),
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    std::fs::write(&file, "1,2\n").unwrap();
    let script = "cat /host/rows.csv; touch /host/new 2>/dev/null || echo refused";
    machine.run(show("folder", script, folder.path())).await;
    assert_eq!(machine.log("folder").await, "1,2\nrefused\n");
    machine.run(show("file", "cat /host", &file)).await;
    assert_eq!(machine.log("file").await, "1,2\n");
    let gone = machine
        .run(show("gone", "true", std::path::Path::new("/no/such/folder")))
        .await;
    assert!(end(&gone).contains("VolumeNotReady"), "{}", end(&gone));
}
