//! The API as controllers use it: a typed client, its watcher and its waiting.

use futures::{StreamExt as _, TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::{
    Api as Objects, Error,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{
        WatchStreamExt as _,
        wait::{await_condition, conditions},
        watcher,
    },
};
use serde_json::json;

use crate::harness::{Api, pod};

fn typed(name: &str) -> Pod {
    serde_json::from_value(pod(name)).unwrap()
}

#[tokio::test]
async fn a_typed_client_does_all_that_it_can() {
    let api = Api::new().await;
    let pods: Objects<Pod> = Objects::default_namespaced(api.client());
    let created = pods.create(&PostParams::default(), &typed("p")).await.unwrap();
    assert_eq!(created.status.unwrap().phase.as_deref(), Some("Pending"));

    let labels = json!({"metadata": {"labels": {"tier": "x"}}});
    pods.patch("p", &PatchParams::default(), &Patch::Merge(&labels))
        .await
        .unwrap();
    let image = json!({"spec": {"containers": [{"name": "main", "image": "python:3.13"}]}});
    let patched = pods
        .patch("p", &PatchParams::default(), &Patch::Strategic(&image))
        .await
        .unwrap();
    assert_eq!(
        patched.spec.as_ref().unwrap().containers[0].image.as_deref(),
        Some("python:3.13")
    );

    let listed = pods
        .list(&ListParams::default().labels("tier in (x)"))
        .await
        .unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&patched));
    let metadata = pods.get_metadata("p").await.unwrap();
    assert_eq!(metadata.metadata, patched.metadata);

    let mut stale = patched;
    stale.metadata.resource_version = Some("1".to_owned());
    let conflict = pods
        .replace("p", &PostParams::default(), &stale)
        .await
        .unwrap_err();
    assert!(matches!(conflict, Error::Api(status) if status.code == 409 && status.is_conflict()));
    assert_eq!(pods.logs("p", &LogParams::default()).await.unwrap(), "");
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
}

#[tokio::test]
async fn a_missing_object_is_told_from_other_errors() {
    let api = Api::new().await;
    let maps: Objects<ConfigMap> = Objects::namespaced(api.client(), "default");
    assert!(maps.get_opt("gone").await.unwrap().is_none());
    let status = maps.delete("gone", &DeleteParams::default()).await.unwrap_err();
    assert!(matches!(status, Error::Api(status) if status.is_not_found()));
    let deleted = Objects::<Namespace>::all(api.client())
        .delete("default", &DeleteParams::default())
        .await;
    assert!(matches!(deleted.unwrap_err(), Error::Api(status) if status.is_forbidden()));
}

#[tokio::test]
async fn a_typed_watch_sees_changes_in_order() {
    let api = Api::new().await;
    let pods: Objects<Pod> = Objects::default_namespaced(api.client());
    let events = pods.watch(&WatchParams::default(), "0").await.unwrap();
    pin_mut!(events);
    pods.create(&PostParams::default(), &typed("p")).await.unwrap();
    assert!(matches!(
        events.try_next().await.unwrap(),
        Some(WatchEvent::Added(_))
    ));
    let phase = json!({"status": {"phase": "Running"}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(&phase))
        .await
        .unwrap();
    assert!(matches!(
        events.try_next().await.unwrap(),
        Some(WatchEvent::Modified(_))
    ));
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(matches!(
        events.try_next().await.unwrap(),
        Some(WatchEvent::Deleted(_))
    ));
}

#[tokio::test]
async fn a_watcher_follows_through_every_way_of_listing() {
    let streaming = watcher::Config::default().streaming_lists();
    for config in [
        watcher::Config::default(),
        watcher::Config::default().page_size(1),
        streaming,
    ] {
        let api = Api::new().await;
        let pods: Objects<Pod> = Objects::default_namespaced(api.client());
        for name in ["a", "b"] {
            pods.create(&PostParams::default(), &typed(name)).await.unwrap();
        }
        let seen = watcher(pods.clone(), config)
            .applied_objects()
            .map(|pod| pod.unwrap().metadata.name.unwrap());
        pin_mut!(seen);
        assert_eq!(
            (seen.next().await.unwrap(), seen.next().await.unwrap()),
            ("a".to_owned(), "b".to_owned())
        );
        pods.create(&PostParams::default(), &typed("c")).await.unwrap();
        assert_eq!(seen.next().await.unwrap(), "c");
    }
}

#[tokio::test]
async fn one_can_wait_for_a_pod() {
    let api = Api::new().await;
    let pods: Objects<Pod> = Objects::default_namespaced(api.client());
    pods.create(&PostParams::default(), &typed("p")).await.unwrap();
    let running = tokio::spawn(await_condition(pods.clone(), "p", conditions::is_pod_running()));
    let phase = json!({"status": {"phase": "Running"}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(&phase))
        .await
        .unwrap();
    assert!(running.await.unwrap().unwrap().is_some());
}
