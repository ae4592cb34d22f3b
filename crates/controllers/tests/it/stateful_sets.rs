//! StatefulSets.

use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetStatus},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::harness::{Cluster, Fate, is_ready, template};

fn set(replicas: i32, spec: Value) -> Value {
    let mut set = json!({
        "metadata": {"name": "db"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template("db", "one"),
        },
    });
    for (name, value) in spec.as_object().unwrap() {
        set["spec"][name] = value.clone();
    }
    set
}

fn status(set: &StatefulSet) -> StatefulSetStatus {
    set.status.clone().unwrap_or_default()
}

fn is_rolled_out(set: &StatefulSet) -> bool {
    let status = status(set);
    let wanted = set.spec.as_ref().unwrap().replicas;
    status.observed_generation >= set.metadata.generation
        && Some(status.replicas) == wanted
        && status.ready_replicas == wanted
        && status.current_revision == status.update_revision
        && status.updated_replicas == wanted
}

fn names(pods: &[Pod]) -> Vec<String> {
    let mut names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
    names.sort();
    names
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

#[tokio::test]
async fn pods_come_in_order_each_with_its_claim() {
    let cluster = Cluster::start(|_| Fate::Runs).await;
    let claims = json!({"volumeClaimTemplates": [{
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }]});
    cluster.create::<StatefulSet>(set(3, claims)).await;
    for place in 0..3 {
        let there = usize::try_from(place).unwrap() + 1;
        let pods = cluster.until_pods("next", |pods| pods.len() == there).await;
        assert_eq!(
            names(&pods),
            (0..=place).map(|place| format!("db-{place}")).collect::<Vec<_>>()
        );
        cluster
            .until::<Pod>(&format!("db-{place}"), "running", |pod| {
                pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
            })
            .await;
        cluster.meet(&format!("db-{place}"), Fate::Serves).await;
    }
    cluster
        .until::<StatefulSet>("db", "rolled out", is_rolled_out)
        .await;
    let pod = cluster.api::<Pod>().get("db-2").await.unwrap();
    let spec = pod.spec.clone().unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("db-2"), Some("db"))
    );
    assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "2");
    let volumes = spec.volumes.unwrap();
    let claim = volumes
        .iter()
        .find_map(|volume| volume.persistent_volume_claim.as_ref())
        .unwrap();
    assert_eq!(claim.claim_name, "data-db-2");
    let claims: Vec<String> = cluster
        .list::<PersistentVolumeClaim>()
        .await
        .iter()
        .map(|claim| claim.name_any())
        .collect();
    assert_eq!(claims, ["data-db-0", "data-db-1", "data-db-2"]);
}

#[tokio::test]
async fn pods_go_in_reverse_order_and_claims_stay() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    cluster.create::<StatefulSet>(set(3, json!({}))).await;
    cluster
        .until::<StatefulSet>("db", "rolled out", is_rolled_out)
        .await;
    cluster
        .patch::<StatefulSet>("db", json!({"spec": {"replicas": 1}}))
        .await;
    let left = |pods: &[Pod]| {
        let names = names(pods);
        assert_eq!(names[0], "db-0");
        assert!(names.len() != 2 || names[1] == "db-1", "{names:?}");
        names.len() == 1
    };
    cluster.until_pods("one", left).await;
    cluster
        .until::<StatefulSet>("db", "rolled out", is_rolled_out)
        .await;
}

#[tokio::test]
async fn a_new_template_is_taken_over_from_the_last_place_down_to_the_partition() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    cluster.create::<StatefulSet>(set(3, json!({}))).await;
    let first = cluster
        .until::<StatefulSet>("db", "rolled out", is_rolled_out)
        .await;
    let mut change = json!({"spec": {"template": template("db", "two")}});
    change["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    cluster.patch::<StatefulSet>("db", change).await;
    let images = |pods: &[Pod]| {
        let mut images: Vec<String> = pods
            .iter()
            .filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none())
            .map(|pod| format!("{}={}", pod.name_any(), image(pod)))
            .collect();
        images.sort();
        images
    };
    cluster
        .until_pods("partly new", |pods| {
            images(pods) == ["db-0=one", "db-1=two", "db-2=two"]
        })
        .await;
    let partly = cluster
        .until::<StatefulSet>("db", "partly new", |set| status(set).updated_replicas == Some(2))
        .await;
    assert_eq!(status(&partly).current_revision, status(&first).current_revision);
    assert_ne!(status(&partly).current_revision, status(&partly).update_revision);
    // One below the partition comes back as it was.
    let uid = |pods: &[Pod]| {
        pods.iter()
            .find(|pod| pod.name_any() == "db-0")
            .and_then(|pod| pod.uid())
    };
    let before = uid(&cluster.list::<Pod>().await);
    cluster.delete::<Pod>("db-0").await;
    let again = |pods: &[Pod]| uid(pods) != before && images(pods) == ["db-0=one", "db-1=two", "db-2=two"];
    cluster.until_pods("back", again).await;
    cluster
        .patch::<StatefulSet>(
            "db",
            json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}),
        )
        .await;
    cluster
        .until_pods("new", |pods| images(pods) == ["db-0=two", "db-1=two", "db-2=two"])
        .await;
    cluster
        .until::<StatefulSet>("db", "rolled out", is_rolled_out)
        .await;
}

#[tokio::test]
async fn parallel_pods_wait_for_nobody_and_claims_go_when_they_are_to() {
    let cluster = Cluster::start(|_| Fate::Runs).await;
    let spec = json!({
        "podManagementPolicy": "Parallel",
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"},
        "volumeClaimTemplates": [{
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }],
    });
    cluster.create::<StatefulSet>(set(3, spec)).await;
    cluster
        .until_pods("three", |pods| names(pods) == ["db-0", "db-1", "db-2"])
        .await;
    cluster
        .patch::<StatefulSet>("db", json!({"spec": {"replicas": 2}}))
        .await;
    cluster.until_gone::<PersistentVolumeClaim>("data-db-2").await;
    cluster
        .until_pods("two", |pods| names(pods) == ["db-0", "db-1"])
        .await;
    cluster.delete::<StatefulSet>("db").await;
    cluster.until_gone::<PersistentVolumeClaim>("data-db-0").await;
    cluster.until_pods("gone", <[Pod]>::is_empty).await;
}
