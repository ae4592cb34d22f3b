//! The garbage collector. Each test waits for the event that says that it has done its work.

use coracle_apiserver::collect_garbage;
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, MERGE, PODS, config_map, get, owner, pod, with_body};

fn owned(name: &str, by: &Value) -> Value {
    let mut object = config_map(name);
    object["metadata"]["ownerReferences"] = owner(by);
    object
}

#[tokio::test]
async fn dependents_go_after_their_owner_and_theirs_after_them() {
    let api = Api::collecting().await;
    let root = api.create(PODS, &pod("root")).await;
    let child = api.create(CONFIG_MAPS, &owned("child", &root)).await;
    api.create(CONFIG_MAPS, &owned("grandchild", &child)).await;
    api.create(CONFIG_MAPS, &config_map("stranger")).await;
    let mut events = api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    api.delete(&format!("{PODS}/root")).await;
    events.until_deleted("child").await;
    events.until_deleted("grandchild").await;
    api.get(&format!("{CONFIG_MAPS}/stranger")).await;
}

#[tokio::test]
async fn what_lost_its_owner_before_the_start_is_found() {
    let api = Api::new().await;
    let root = api.create(PODS, &pod("root")).await;
    api.create(CONFIG_MAPS, &owned("child", &root)).await;
    api.delete(&format!("{PODS}/root")).await;
    // One of the same name is not the same.
    api.create(PODS, &pod("root")).await;
    let mut events = api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    tokio::spawn(collect_garbage(
        api.resources().clone(),
        api.catalogue.clone(),
        api.stop.clone(),
    ));
    events.until_deleted("child").await;
}

#[tokio::test]
async fn an_object_created_for_an_owner_that_is_gone_goes_too() {
    let api = Api::collecting().await;
    let root = api.create(PODS, &pod("root")).await;
    api.delete(&format!("{PODS}/root")).await;
    let mut events = api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    api.create(CONFIG_MAPS, &owned("child", &root)).await;
    events.until_deleted("child").await;
}

#[tokio::test]
async fn one_owner_of_two_is_enough_to_stay() {
    let api = Api::collecting().await;
    let (first, second) = (
        api.create(PODS, &pod("first")).await,
        api.create(PODS, &pod("second")).await,
    );
    let mut child = owned("child", &first);
    child["metadata"]["ownerReferences"]
        .as_array_mut()
        .unwrap()
        .push(owner(&second)[0].clone());
    api.create(CONFIG_MAPS, &child).await;
    let mut events = api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(events.summary().await.0, "ADDED");
    api.delete(&format!("{PODS}/first")).await;
    // It stays, and does not name the first any more.
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "MODIFIED");
    assert_eq!(event["object"]["metadata"]["ownerReferences"], owner(&second));
    api.delete(&format!("{PODS}/second")).await;
    events.until_deleted("child").await;
}

#[tokio::test]
async fn an_owner_deleted_in_the_foreground_goes_last() {
    let api = Api::collecting().await;
    let root = api.create(CONFIG_MAPS, &config_map("root")).await;
    let mut child = owned("child", &root);
    child["metadata"]["finalizers"] = json!(["a.io/hold"]);
    api.create(CONFIG_MAPS, &child).await;
    let mut events = api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    let options = json!({"propagationPolicy": "Foreground"});
    let path = format!("{CONFIG_MAPS}/root");
    let root = api
        .expect(200, with_body("DELETE", &path, "application/json", &options))
        .await;
    assert_eq!(root["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    loop {
        let event = events.next().await.unwrap();
        assert_ne!(event["type"], "DELETED");
        if event["object"]["metadata"]["name"] == "child" && event["type"] == "MODIFIED" {
            break;
        }
    }
    api.get(&path).await;
    api.patch(
        &format!("{CONFIG_MAPS}/child"),
        MERGE,
        &json!({"metadata": {"finalizers": null}}),
    )
    .await;
    events.until_deleted("child").await;
    events.until_deleted("root").await;
}

#[tokio::test]
async fn orphans_stay() {
    let api = Api::collecting().await;
    let root = api.create(PODS, &pod("root")).await;
    api.create(CONFIG_MAPS, &owned("child", &root)).await;
    let mut pods = api.watch(&format!("{PODS}?watch=true")).await;
    api.expect(
        200,
        with_body(
            "DELETE",
            &format!("{PODS}/root?propagationPolicy=Orphan"),
            "application/json",
            &json!({}),
        ),
    )
    .await;
    pods.until_deleted("root").await;
    let child = api.get(&format!("{CONFIG_MAPS}/child")).await;
    assert_eq!(child["metadata"].get("ownerReferences"), None);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_empty() {
    let api = Api::collecting().await;
    api.create("/api/v1/namespaces", &json!({"metadata": {"name": "team"}}))
        .await;
    let pods = "/api/v1/namespaces/team/pods";
    let mut running = pod("p");
    running["spec"]["nodeName"] = json!("here");
    api.create(pods, &running).await;
    api.create("/api/v1/namespaces/team/configmaps", &config_map("c"))
        .await;
    let mut namespaces = api.watch("/api/v1/namespaces?watch=true").await;
    let mut configs = api.watch("/api/v1/namespaces/team/configmaps?watch=true").await;
    let leaving = api.delete("/api/v1/namespaces/team").await;
    assert_eq!(leaving["status"]["phase"], "Terminating");
    configs.until_deleted("c").await;
    let refused = api
        .expect(403, with_body("POST", pods, "application/json", &pod("q")))
        .await;
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    // The node is done with the Pod.
    api.expect(
        200,
        with_body(
            "DELETE",
            &format!("{pods}/p"),
            "application/json",
            &json!({"gracePeriodSeconds": 0}),
        ),
    )
    .await;
    namespaces.until_deleted("team").await;
    api.expect(404, get("/api/v1/namespaces/team")).await;
}
