//! Delete.

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::harness::{Api, CONFIG_MAPS, JSON_PATCH, MERGE, PODS, config_map, get, pod, with_body};

const JSON: &str = "application/json";

#[tokio::test]
async fn a_deleted_object_is_gone() {
    let api = Api::new().await;
    let created = api.create(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    let status = api.delete(&path).await;
    assert_eq!(
        (&status["kind"], &status["status"]),
        (&json!("Status"), &json!("Success"))
    );
    assert_eq!(status["details"]["uid"], created["metadata"]["uid"]);
    api.expect(404, get(&path)).await;
    api.expect(404, Request::delete(&path).body(Body::empty()).unwrap())
        .await;
}

#[tokio::test]
async fn a_running_pod_leaves_when_its_node_says_so() {
    let api = Api::new().await;
    let pod = api.running_pod("p").await;
    let path = format!("{PODS}/p");
    let mut events = api
        .watch(&format!("{PODS}?watch=true&labelSelector=app%3Dp"))
        .await;
    let leaving = api.delete(&path).await;
    assert_eq!(leaving["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(api.get(&path).await["metadata"]["deletionTimestamp"].is_string());
    let uid = pod["metadata"]["uid"].clone();
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
    api.expect(200, with_body("DELETE", &path, JSON, &options)).await;
    api.expect(404, get(&path)).await;
    events.until_deleted("p").await;
}

#[tokio::test]
async fn an_unbound_pod_leaves_at_once() {
    let api = Api::new().await;
    api.create(PODS, &pod("p")).await;
    assert_eq!(api.delete(&format!("{PODS}/p")).await["kind"], "Pod");
    api.expect(404, get(&format!("{PODS}/p"))).await;
}

#[tokio::test]
async fn the_last_finalizer_lets_an_object_go() {
    let api = Api::new().await;
    let mut object = config_map("c");
    object["metadata"]["finalizers"] = json!(["a.io/x", "a.io/y"]);
    api.create(CONFIG_MAPS, &object).await;
    let path = format!("{CONFIG_MAPS}/c");
    assert!(api.delete(&path).await["metadata"]["deletionTimestamp"].is_string());
    let remove = json!([{"op": "remove", "path": "/metadata/finalizers/0"}]);
    api.patch(&path, JSON_PATCH, &remove).await;
    api.get(&path).await;
    api.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}}))
        .await;
    api.expect(404, get(&path)).await;
}

#[tokio::test]
async fn a_deletion_with_a_false_precondition_is_a_conflict() {
    let api = Api::new().await;
    api.create(CONFIG_MAPS, &config_map("c")).await;
    for precondition in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        let options = json!({"preconditions": precondition});
        api.expect(
            409,
            with_body("DELETE", &format!("{CONFIG_MAPS}/c"), JSON, &options),
        )
        .await;
    }
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.create(PODS, &pod(name)).await;
    }
    let deleted = api
        .delete(&format!("{PODS}?labelSelector=app%20notin%20(b)"))
        .await;
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = api.get(PODS).await;
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    api.expect(405, Request::delete("/api/v1/pods").body(Body::empty()).unwrap())
        .await;
}

#[tokio::test]
async fn an_evicted_pod_is_deleted() {
    let api = Api::new().await;
    api.create(PODS, &pod("p")).await;
    api.create(&format!("{PODS}/p/eviction"), &json!({"metadata": {"name": "p"}}))
        .await;
    api.expect(404, get(&format!("{PODS}/p"))).await;
}
