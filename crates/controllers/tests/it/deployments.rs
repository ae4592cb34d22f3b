//! Deployments and their ReplicaSets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::StreamExt as _;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    core::v1::Pod,
};
use kube::{
    ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};

use crate::harness::{Cluster, Fate, is_ready, template};

const REVISION: &str = "deployment.kubernetes.io/revision";

fn deployment(replicas: i32, spec: Value) -> Value {
    let mut deployment = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template("web", "one"),
        },
    });
    for (name, value) in spec.as_object().unwrap() {
        deployment["spec"][name] = value.clone();
    }
    deployment
}

fn status(deployment: &Deployment) -> DeploymentStatus {
    deployment.status.clone().unwrap_or_default()
}

fn reason(deployment: &Deployment, condition: &str) -> String {
    let conditions = status(deployment).conditions.unwrap_or_default();
    let found = conditions.into_iter().find(|one| one.type_ == condition);
    found.and_then(|one| one.reason).unwrap_or_default()
}

/// As `kubectl rollout status` asks.
fn is_rolled_out(deployment: &Deployment) -> bool {
    let status = status(deployment);
    let wanted = deployment.spec.as_ref().unwrap().replicas;
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

fn with_image(image: &str) -> Value {
    json!({"spec": {"template": template("web", image)}})
}

async fn revisions(cluster: &Cluster) -> Vec<(String, i32)> {
    let mut revisions: Vec<(String, i32)> = cluster
        .list::<ReplicaSet>()
        .await
        .iter()
        .map(|set| {
            (
                set.annotations()[REVISION].clone(),
                set.spec.as_ref().unwrap().replicas.unwrap(),
            )
        })
        .collect();
    revisions.sort();
    revisions
}

#[tokio::test]
async fn a_deployment_rolls_without_ever_having_too_few_or_too_many_pods() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    let strategy =
        json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}});
    cluster.create::<Deployment>(deployment(4, strategy)).await;
    let first = cluster
        .until::<Deployment>("web", "rolled out", is_rolled_out)
        .await;
    assert_eq!(reason(&first, "Progressing"), "NewReplicaSetAvailable");
    assert_eq!(reason(&first, "Available"), "MinimumReplicasAvailable");
    assert_eq!(first.annotations().get(REVISION).map(String::as_str), Some("1"));

    let was_wrong = Arc::new(AtomicBool::new(false));
    let seen_wrong = Arc::clone(&was_wrong);
    let pods = cluster.api::<Pod>();
    let watching = tokio::spawn(async move {
        let mut known = std::collections::BTreeMap::new();
        let mut is_listed = false;
        let mut changes = std::pin::pin!(watcher(pods, watcher::Config::default()).default_backoff());
        while let Some(Ok(event)) = changes.next().await {
            match event {
                watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                    known.insert(pod.name_any(), pod);
                }
                watcher::Event::Delete(pod) => {
                    known.remove(&pod.name_any());
                }
                watcher::Event::Init => {}
                watcher::Event::InitDone => is_listed = true,
            }
            let alive = || {
                known
                    .values()
                    .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            };
            let ready = alive().filter(|pod| is_ready(pod)).count();
            if is_listed && (ready < 3 || alive().count() > 5) {
                seen_wrong.store(true, Ordering::Relaxed);
            }
        }
    });
    cluster.patch::<Deployment>("web", with_image("two")).await;
    let second = cluster
        .until::<Deployment>("web", "rolled out again", |one| {
            is_rolled_out(one)
                && one
                    .annotations()
                    .get(REVISION)
                    .is_some_and(|revision| revision == "2")
        })
        .await;
    assert_eq!(status(&second).unavailable_replicas, None);
    let pods = cluster
        .until_pods("new", |pods| {
            pods.len() == 4 && pods.iter().all(|pod| image(pod) == "two")
        })
        .await;
    assert!(
        pods.iter()
            .all(|pod| pod.labels().contains_key("pod-template-hash"))
    );
    watching.abort();
    assert!(
        !was_wrong.load(Ordering::Relaxed),
        "there were too few or too many Pods"
    );
    assert_eq!(
        revisions(&cluster).await,
        [("1".to_owned(), 0), ("2".to_owned(), 4)]
    );
}

#[tokio::test]
async fn a_rollback_takes_the_old_set_up_again_as_the_newest() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    cluster.create::<Deployment>(deployment(2, json!({}))).await;
    cluster
        .until::<Deployment>("web", "rolled out", is_rolled_out)
        .await;
    cluster.patch::<Deployment>("web", with_image("two")).await;
    let is_second = |one: &Deployment| is_rolled_out(one) && one.annotations()[REVISION] == "2";
    cluster
        .until::<Deployment>("web", "rolled out again", is_second)
        .await;
    // As `kubectl rollout undo` does.
    cluster.patch::<Deployment>("web", with_image("one")).await;
    let is_third = |one: &Deployment| is_rolled_out(one) && one.annotations()[REVISION] == "3";
    cluster.until::<Deployment>("web", "rolled back", is_third).await;
    assert_eq!(
        revisions(&cluster).await,
        [("2".to_owned(), 0), ("3".to_owned(), 2)]
    );
    let sets = cluster.list::<ReplicaSet>().await;
    let back = sets
        .iter()
        .find(|set| set.annotations()[REVISION] == "3")
        .unwrap();
    assert_eq!(
        back.annotations()["deployment.kubernetes.io/revision-history"],
        "1"
    );
}

#[tokio::test]
async fn a_rollout_that_does_not_get_on_is_told_after_its_deadline() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    cluster
        .create::<Deployment>(deployment(2, json!({"progressDeadlineSeconds": 60})))
        .await;
    cluster
        .until::<Deployment>("web", "rolled out", is_rolled_out)
        .await;
    cluster.script(|_| Fate::Runs);
    cluster.patch::<Deployment>("web", with_image("broken")).await;
    cluster
        .until_pods("stuck", |pods| {
            pods.iter().any(|pod| image(pod) == "broken" && !is_ready(pod))
        })
        .await;
    cluster
        .until::<Deployment>("web", "rolling", |one| {
            reason(one, "Progressing") == "ReplicaSetUpdated"
        })
        .await;
    cluster.advance(62);
    let late = cluster
        .until::<Deployment>("web", "late", |one| {
            reason(one, "Progressing") == "ProgressDeadlineExceeded"
        })
        .await;
    assert_eq!(reason(&late, "Available"), "MinimumReplicasAvailable");
    assert_eq!(status(&late).available_replicas, Some(2));
}

#[tokio::test]
async fn a_deployment_that_recreates_never_mixes_templates() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    cluster
        .create::<Deployment>(deployment(3, json!({"strategy": {"type": "Recreate"}})))
        .await;
    cluster
        .until::<Deployment>("web", "rolled out", is_rolled_out)
        .await;
    cluster.patch::<Deployment>("web", with_image("two")).await;
    let only_new = |pods: &[Pod]| {
        let old = pods.iter().filter(|pod| image(pod) == "one").count();
        let new = pods.iter().filter(|pod| image(pod) == "two").count();
        assert!(old == 0 || new == 0, "{old} old and {new} new Pods at once");
        new == 3
    };
    cluster.until_pods("new", only_new).await;
}

#[tokio::test]
async fn a_paused_deployment_scales_and_does_not_roll() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    cluster.create::<Deployment>(deployment(2, json!({}))).await;
    cluster
        .until::<Deployment>("web", "rolled out", is_rolled_out)
        .await;
    let mut change = with_image("two");
    change["spec"]["paused"] = json!(true);
    change["spec"]["replicas"] = json!(4);
    cluster.patch::<Deployment>("web", change).await;
    let pods = cluster
        .until_pods("four", |pods| {
            pods.iter().filter(|pod| is_ready(pod)).count() == 4
        })
        .await;
    assert!(pods.iter().all(|pod| image(pod) == "one"));
    cluster
        .until::<Deployment>("web", "paused", |one| {
            reason(one, "Progressing") == "DeploymentPaused"
        })
        .await;
    cluster
        .patch::<Deployment>("web", json!({"spec": {"paused": false}}))
        .await;
    cluster
        .until_pods("new", |pods| {
            pods.len() == 4 && pods.iter().all(|pod| image(pod) == "two")
        })
        .await;
}

#[tokio::test]
async fn old_sets_are_kept_as_long_as_the_history_is() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    cluster
        .create::<Deployment>(deployment(1, json!({"revisionHistoryLimit": 1})))
        .await;
    for (revision, image) in [("1", "one"), ("2", "two"), ("3", "three")] {
        cluster.patch::<Deployment>("web", with_image(image)).await;
        let is_next = |one: &Deployment| {
            is_rolled_out(one)
                && one
                    .annotations()
                    .get(REVISION)
                    .is_some_and(|there| there == revision)
        };
        cluster.until::<Deployment>("web", "rolled out", is_next).await;
    }
    loop {
        let there = revisions(&cluster).await;
        if there.len() == 2 {
            assert_eq!(there, [("2".to_owned(), 0), ("3".to_owned(), 1)]);
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_replica_set_replaces_what_is_gone_and_lets_go_what_is_relabelled() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    let set = json!({
        "metadata": {"name": "set"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template("a", "one")},
    });
    cluster.create::<ReplicaSet>(set).await;
    let two_ready = |set: &ReplicaSet| {
        set.status
            .as_ref()
            .is_some_and(|status| status.ready_replicas == Some(2))
    };
    cluster.until::<ReplicaSet>("set", "ready", two_ready).await;
    let pods = cluster.list::<Pod>().await;
    cluster
        .patch::<Pod>(&pods[0].name_any(), json!({"metadata": {"labels": {"app": "b"}}}))
        .await;
    cluster.delete::<Pod>(&pods[1].name_any()).await;
    let count = |pods: &[Pod], app: &str| {
        let of = |pod: &&Pod| {
            pod.labels()["app"] == app && is_ready(pod) && pod.metadata.deletion_timestamp.is_none()
        };
        pods.iter().filter(of).count()
    };
    let pods = cluster
        .until_pods("three", |pods| {
            count(pods, "a") == 2 && count(pods, "b") == 1 && pods.len() == 3
        })
        .await;
    let free = cluster
        .until::<Pod>(
            &pods
                .iter()
                .find(|pod| pod.labels()["app"] == "b")
                .unwrap()
                .name_any(),
            "free",
            |pod| pod.owner_references().is_empty(),
        )
        .await;
    // Labelled back, it is one too many.
    cluster
        .patch::<Pod>(&free.name_any(), json!({"metadata": {"labels": {"app": "a"}}}))
        .await;
    cluster
        .until_pods("two", |pods| pods.len() == 2 && count(pods, "a") == 2)
        .await;
}
