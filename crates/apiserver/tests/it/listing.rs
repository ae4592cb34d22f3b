//! Get and list: selectors, pages, representations.

use std::pin::pin;

use futures::poll;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{Api, CONFIG_MAPS, PODS, accepting, config_map, get, pod};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn pages_show_the_moment_of_the_first() {
    let api = Api::new().await;
    for name in ["a", "b", "c", "d"] {
        api.create(CONFIG_MAPS, &config_map(name)).await;
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    assert_eq!(names(&first), ["a", "b"]);
    api.create(CONFIG_MAPS, &config_map("bb")).await;
    api.delete(&format!("{CONFIG_MAPS}/d")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"].get("continue"), None);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );

    let revision = api.resources().revision().await.unwrap();
    api.resources().compact(revision + 1).await.unwrap();
    let gone = api
        .expect(410, get(&format!("{CONFIG_MAPS}?continue={token}")))
        .await;
    assert_eq!(gone["reason"], "Expired");
    api.expect(400, get(&format!("{CONFIG_MAPS}?continue=nonsense")))
        .await;
}

#[tokio::test]
async fn pages_are_of_what_is_selected() {
    let api = Api::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        api.create(PODS, &pod(name)).await;
    }
    let selector = "labelSelector=app%20in%20(b,d,e)";
    let first = api.get(&format!("{PODS}?limit=2&{selector}")).await;
    assert_eq!(names(&first), ["b", "d"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api
        .get(&format!("{PODS}?limit=2&{selector}&continue={token}"))
        .await;
    assert_eq!(names(&second), ["e"]);
}

#[tokio::test]
async fn lists_are_of_one_namespace_or_all_and_of_one_moment() {
    let api = Api::new().await;
    let first = api.create(CONFIG_MAPS, &config_map("c")).await;
    api.create("/api/v1/namespaces/kube-system/configmaps", &config_map("k"))
        .await;
    assert_eq!(names(&api.get("/api/v1/configmaps").await), ["c", "k"]);
    assert_eq!(names(&api.get(CONFIG_MAPS).await), ["c"]);
    let fields = "fieldSelector=metadata.namespace!%3Ddefault";
    assert_eq!(
        names(&api.get(&format!("/api/v1/configmaps?{fields}")).await),
        ["k"]
    );
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let old = format!("/api/v1/configmaps?resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(names(&api.get(&old).await), ["c"]);
}

/// A revision that is some writes away.
async fn ahead(api: &Api, writes: u64) -> u64 {
    api.resources().revision().await.unwrap() + writes
}

#[tokio::test]
async fn a_revision_that_is_not_there_yet_is_waited_for() {
    let api = Api::new().await;
    for path in [
        CONFIG_MAPS,
        "/api/v1/configmaps",
        "/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
        "/api/v1/namespaces/default",
    ] {
        let next = ahead(&api, 1).await;
        let asked = format!("{path}?resourceVersion={next}");
        let mut asked = pin!(api.send(get(&asked)));
        assert!(poll!(&mut asked).is_pending(), "{path}");
        api.create(CONFIG_MAPS, &json!({"metadata": {"generateName": "c-"}}))
            .await;
        let (code, answer) = asked.await;
        assert!(code == 200 || code == 404, "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_revision_that_does_not_come_is_a_timeout_with_a_cause() {
    let api = Api::new().await;
    api.create(CONFIG_MAPS, &config_map("a")).await;
    let far = ahead(&api, 1_000_000).await;
    // From here on only the request's own patience is waited for.
    tokio::time::pause();
    let one = format!("{CONFIG_MAPS}/a");
    for (path, rest) in [
        (CONFIG_MAPS, ""),
        (CONFIG_MAPS, "&resourceVersionMatch=NotOlderThan"),
        (CONFIG_MAPS, "&fieldSelector=metadata.name%3Da"),
        (&one, ""),
    ] {
        let begun = Instant::now();
        let response = api.raw(get(&format!("{path}?resourceVersion={far}{rest}"))).await;
        assert_eq!(begun.elapsed().as_secs(), 3, "{path} {rest}");
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()["retry-after"], "1");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&bytes).unwrap();
        let current = ahead(&api, 0).await;
        assert_eq!(
            status["message"],
            format!("Too large resource version: {far}, current: {current}")
        );
        assert_eq!(status["reason"], "Timeout");
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        let details = json!({"causes": [cause], "retryAfterSeconds": 1});
        assert_eq!(status["details"], details);
    }
}

#[tokio::test]
async fn one_object_is_selected_by_its_name() {
    let api = Api::new().await;
    api.create(PODS, &pod("a")).await;
    api.create(PODS, &pod("b")).await;
    assert_eq!(
        names(&api.get(&format!("{PODS}?fieldSelector=metadata.name%3Db")).await),
        ["b"]
    );
    let none = "fieldSelector=metadata.name%3Db,status.phase%3DRunning";
    assert!(names(&api.get(&format!("{PODS}?{none}")).await).is_empty());
    api.expect(400, get(&format!("{PODS}?fieldSelector=spec.color%3Dred")))
        .await;
    api.expect(400, get(&format!("{PODS}?labelSelector=a%20is%20b")))
        .await;
}

#[tokio::test]
async fn tables_and_metadata_are_given_to_those_who_ask() {
    let api = Api::new().await;
    api.running_pod("p").await;
    for path in [PODS.to_owned(), format!("{PODS}/p")] {
        let table = api.expect(200, accepting(&path, TABLE)).await;
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["rows"][0]["cells"][0], "p");
        assert_eq!(table["rows"][0]["cells"][2], "Running");
        assert_eq!(table["rows"][0]["object"]["metadata"]["namespace"], "default");
    }
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = api.expect(200, accepting(PODS, metadata)).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    assert_eq!(list["items"][0].get("spec"), None);
    api.expect(406, accepting(PODS, "application/vnd.kubernetes.protobuf"))
        .await;
}

#[tokio::test]
async fn answers_are_pretty_on_request() {
    let api = Api::new().await;
    let response = api.raw(get("/api/v1/namespaces/default?pretty=true")).await;
    let bytes = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(bytes.starts_with(b"{\n  \"kind\": \"Namespace\""));
}

#[tokio::test]
async fn an_empty_list_has_items() {
    let api = Api::new().await;
    let list = api.get("/apis/coordination.k8s.io/v1/leases").await;
    assert_eq!((&list["kind"], &list["items"]), (&json!("LeaseList"), &json!([])));
}
