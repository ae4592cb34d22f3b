//! Volume claims: bound to folders, copied, removed.

use k8s_openapi::api::core::v1::PersistentVolumeClaim as Claim;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};

use crate::machine::{Machine, end, patient, phase, shell};

fn claim(name: &str, extra: Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

fn using(name: &str, script: &str, claim: &str) -> Value {
    let mut pod = shell(name, script);
    pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/data"}]);
    pod
}

fn claims(machine: &Machine) -> Api<Claim> {
    Api::default_namespaced(machine.client.clone())
}

async fn until_bound(machine: &Machine, name: &str) -> Claim {
    let is_bound = |claim: Option<&Claim>| {
        claim
            .and_then(|claim| claim.status.as_ref()?.phase.as_deref())
            .is_some_and(|phase| phase == "Bound")
    };
    let claim = patient(await_condition(claims(machine), name, is_bound)).await;
    claim.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_bound_before_any_pod_uses_it_whatever_its_class() {
    let machine = Machine::start().await;
    let wanted = claim("data", json!({"storageClassName": "fast"}));
    machine.object("persistentvolumeclaims", wanted).await;
    let bound = until_bound(&machine, "data").await;
    assert_eq!(
        bound.status.unwrap().capacity.unwrap()["storage"].0,
        "1Gi".to_owned()
    );
    assert!(machine.data_dir().join("volumes/default/data").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_takes_its_folder_along_once_no_pod_uses_it() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let data = || machine.object("persistentvolumeclaims", claim("data", json!({})));
    data().await;
    let gate = machine.artifacts().join("gate");
    let script = format!(
        "echo old > /data/file; while [ ! -e {} ]; do sleep 0.05; done; cat /data/file",
        gate.display()
    );
    machine.create(using("user", &script, "data")).await;
    machine.until_phase("user", "Running").await;
    claims(&machine)
        .delete("data", &DeleteParams::default())
        .await
        .unwrap();
    // A new claim of the name is empty, and the Pod keeps the old one's files.
    data().await;
    until_bound(&machine, "data").await;
    let new = machine.run(using("new", "ls /data | wc -l", "data")).await;
    assert_eq!(machine.log("new").await, "0\n", "{}", end(&new));
    std::fs::write(&gate, "").unwrap();
    assert_eq!(phase(&machine.until_over("user").await), "Succeeded");
    assert_eq!(machine.log("user").await, "old\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_may_begin_as_a_copy_of_another() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    machine
        .object("persistentvolumeclaims", claim("first", json!({})))
        .await;
    machine
        .run(using("writer", "mkdir /data/a; echo x > /data/a/file", "first"))
        .await;
    let source = json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "first"}});
    machine
        .object("persistentvolumeclaims", claim("second", source))
        .await;
    let pod = machine
        .run(using(
            "reader",
            "cat /data/a/file; echo y > /data/a/file",
            "second",
        ))
        .await;
    assert_eq!(machine.log("reader").await, "x\n", "{}", end(&pod));
    let original = machine.data_dir().join("volumes/default/first/a/file");
    assert_eq!(std::fs::read_to_string(original).unwrap(), "x\n");
    let snapshot =
        json!({"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}});
    machine
        .object("persistentvolumeclaims", claim("third", snapshot))
        .await;
    let said = machine.until_event("third", "ProvisioningFailed").await;
    assert!(said.contains("a copy of VolumeSnapshot `s`"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_volume_is_a_claim_that_goes_with_its_pod() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let mut pod = using("p", "echo here > /data/file; cat /data/file", "none");
    pod["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {
        "metadata": {"labels": {"kind": "scratch"}}, "spec": claim("x", json!({}))["spec"],
    }}}]);
    let pod = machine.run(pod).await;
    assert_eq!(machine.log("p").await, "here\n", "{}", end(&pod));
    let made = claims(&machine)
        .list(&ListParams::default().labels("kind=scratch"))
        .await
        .unwrap()
        .items
        .remove(0);
    assert_eq!(made.metadata.name.as_deref(), Some("p-v"));
    assert_eq!(
        made.metadata.owner_references.unwrap()[0].uid,
        pod.metadata.uid.unwrap()
    );
    // A Pod that has the name and not the claim cannot use it.
    machine
        .object("persistentvolumeclaims", claim("q-v", json!({})))
        .await;
    let mut other = using("q", "true", "none");
    other["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {
        "spec": claim("x", json!({}))["spec"],
    }}}]);
    let other = end(&machine.run(other).await);
    assert!(
        other.starts_with("128 VolumeNotReady volume `v` needs the claim `q-v` for itself"),
        "{other}"
    );
}
