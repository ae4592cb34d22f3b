//! The controllers end in the middle of things, and others take over.

use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1::Pod};
use serde_json::json;

use crate::harness::{Cluster, Fate, is_ready, template};

#[tokio::test]
async fn killed_at_any_moment_nothing_runs_twice_and_everything_is_counted() {
    let mut cluster = Cluster::start(|_| Fate::Succeeds).await;
    let template =
        json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}});
    cluster
        .create::<Job>(json!({
            "metadata": {"name": "plain"},
            "spec": {"completions": 30, "parallelism": 4, "template": template},
        }))
        .await;
    cluster
        .create::<Job>(json!({
            "metadata": {"name": "indexed"},
            "spec": {"completions": 30, "parallelism": 4, "completionMode": "Indexed", "template": template},
        }))
        .await;
    let succeeded = |job: &Job| {
        job.status
            .as_ref()
            .and_then(|status| status.succeeded)
            .unwrap_or(0)
    };
    for round in 1..8 {
        let some = move |job: &Job| succeeded(job) >= 3 * round;
        cluster.until::<Job>("plain", "a bit further", some).await;
        cluster.kill_controllers().await;
        cluster.start_controllers();
    }
    cluster
        .until::<Job>("indexed", "further", move |job| succeeded(job) >= 10)
        .await;
    cluster.stop_controllers().await;
    cluster.start_controllers();
    for name in ["plain", "indexed"] {
        let over = |job: &Job| {
            job.status
                .as_ref()
                .is_some_and(|status| status.completion_time.is_some())
        };
        let done = cluster.until::<Job>(name, "complete", over).await;
        let status = done.status.unwrap();
        assert_eq!((status.succeeded, status.failed), (Some(30), None), "{name}");
    }
    assert_eq!(cluster.pods_ever(), 60);
    cluster
        .until_pods("free", |pods| {
            pods.iter().all(|pod| pod.metadata.finalizers.is_none())
        })
        .await;
}

#[tokio::test]
async fn a_rollout_goes_on_after_a_restart() {
    let mut cluster = Cluster::start(|_| Fate::Serves).await;
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "template": template("web", "one")},
    });
    cluster.create::<Deployment>(deployment).await;
    cluster
        .until_pods("four", |pods| {
            pods.iter().filter(|pod| is_ready(pod)).count() == 4
        })
        .await;
    cluster
        .patch::<Deployment>("web", json!({"spec": {"template": template("web", "two")}}))
        .await;
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    for new in 1..4 {
        cluster
            .until_pods("further", |pods| {
                pods.iter().filter(|pod| image(pod) == "two").count() >= new
            })
            .await;
        cluster.kill_controllers().await;
        cluster.start_controllers();
    }
    cluster
        .until_pods("new", |pods| {
            pods.len() == 4 && pods.iter().all(|pod| image(pod) == "two")
        })
        .await;
}
