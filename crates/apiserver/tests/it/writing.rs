//! Create, replace and patch.

use axum::body::Body;
use http::{Request, header};
use serde_json::json;

use crate::harness::{Api, CONFIG_MAPS, JSON_PATCH, MERGE, PODS, STRATEGIC, config_map, get, pod, with_body};

const JSON: &str = "application/json";

#[tokio::test]
async fn a_created_object_is_read_back_as_it_was_answered() {
    let api = Api::new().await;
    let created = api.create(PODS, &pod("p")).await;
    assert_eq!(created["status"]["phase"], "Pending");
    assert_eq!(api.get(&format!("{PODS}/p")).await, created);
    let again = api.expect(409, with_body("POST", PODS, JSON, &pod("p"))).await;
    assert_eq!(again["reason"], "AlreadyExists");
    assert_eq!(again["details"], json!({"name": "p", "kind": "pods"}));
}

#[tokio::test]
async fn an_object_needs_its_namespace() {
    let api = Api::new().await;
    let status = api
        .expect(
            404,
            with_body("POST", "/api/v1/namespaces/gone/pods", JSON, &pod("p")),
        )
        .await;
    assert_eq!(status["message"], "namespaces \"gone\" not found");
    api.expect(405, with_body("POST", "/api/v1/pods", JSON, &pod("p")))
        .await;
}

#[tokio::test]
async fn names_are_generated_anew_for_each_object() {
    let api = Api::new().await;
    let mut nameless = config_map("");
    nameless["metadata"] = json!({"generateName": "run-"});
    let first = api.create(CONFIG_MAPS, &nameless).await;
    let second = api.create(CONFIG_MAPS, &nameless).await;
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
    assert!(first["metadata"]["name"].as_str().unwrap().starts_with("run-"));
}

#[tokio::test]
async fn a_replacement_of_an_old_revision_is_a_conflict() {
    let api = Api::new().await;
    let old = api.create(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    let mut new = old.clone();
    new["data"]["a"] = json!("2");
    let replaced = api.expect(200, with_body("PUT", &path, JSON, &new)).await;
    assert_ne!(
        replaced["metadata"]["resourceVersion"],
        old["metadata"]["resourceVersion"]
    );
    let conflict = api.expect(409, with_body("PUT", &path, JSON, &new)).await;
    assert_eq!(
        conflict["message"],
        "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
    api.expect(
        404,
        with_body("PUT", &format!("{CONFIG_MAPS}/gone"), JSON, &config_map("gone")),
    )
    .await;
    api.expect(400, with_body("PUT", &path, JSON, &config_map("other")))
        .await;
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_no_new_revision() {
    let api = Api::new().await;
    let created = api.create(PODS, &pod("p")).await;
    let replaced = api
        .expect(200, with_body("PUT", &format!("{PODS}/p"), JSON, &created))
        .await;
    assert_eq!(replaced, created);
}

#[tokio::test]
async fn each_kind_of_patch_changes_what_it_says() {
    let api = Api::new().await;
    api.create(PODS, &pod("p")).await;
    let path = format!("{PODS}/p");
    let labels = json!({"metadata": {"labels": {"app": null, "tier": "x"}}});
    assert_eq!(
        api.patch(&path, MERGE, &labels).await["metadata"]["labels"],
        json!({"tier": "x"})
    );
    let add = json!([{"op": "add", "path": "/metadata/labels/n", "value": "1"}]);
    assert_eq!(
        api.patch(&path, JSON_PATCH, &add).await["metadata"]["labels"],
        json!({"tier": "x", "n": "1"})
    );
    let image = json!({"spec": {"containers": [{"name": "main", "image": "python:3.13"}]}});
    let patched = api.patch(&path, STRATEGIC, &image).await;
    assert_eq!(patched["spec"]["containers"][0]["image"], "python:3.13");
    assert_eq!(
        patched["spec"]["containers"][0]["terminationMessagePolicy"],
        "File"
    );
    assert_eq!(patched["metadata"]["generation"], 2);
    let pinned = json!({"metadata": {"resourceVersion": "1", "labels": {"x": "y"}}});
    api.expect(409, with_body("PATCH", &path, MERGE, &pinned)).await;
    let failing = json!([{"op": "test", "path": "/kind", "value": "Node"}]);
    api.expect(422, with_body("PATCH", &path, JSON_PATCH, &failing))
        .await;
}

#[tokio::test]
async fn conditions_patched_by_two_writers_are_all_kept() {
    let api = Api::new().await;
    api.running_pod("p").await;
    let path = format!("{PODS}/p/status");
    let condition = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True"}]}});
    let (ready, initialized) = (condition("Ready"), condition("Initialized"));
    tokio::join!(
        api.patch(&path, STRATEGIC, &ready),
        api.patch(&path, STRATEGIC, &initialized)
    );
    let pod = api.get(&format!("{PODS}/p")).await;
    let mut kinds = pod["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|condition| condition["type"].as_str().unwrap())
        .collect::<Vec<_>>();
    kinds.sort_unstable();
    assert_eq!(kinds, ["Initialized", "PodScheduled", "Ready"]);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = Api::new().await;
    let pod = api.running_pod("p").await;
    assert_eq!(pod["spec"]["nodeName"], "here");
    let binding = json!({"target": {"name": "elsewhere"}});
    let status = api
        .expect(
            409,
            with_body("POST", &format!("{PODS}/p/binding"), JSON, &binding),
        )
        .await;
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("already assigned to node \"here\"")
    );
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let api = Api::new().await;
    let before = api.get(CONFIG_MAPS).await;
    api.create(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("c"))
        .await;
    assert_eq!(api.get(CONFIG_MAPS).await, before);
    api.expect(
        422,
        with_body(
            "POST",
            &format!("{CONFIG_MAPS}?dryRun=Some"),
            JSON,
            &config_map("c"),
        ),
    )
    .await;
    let created = api.create(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c?dryRun=All");
    let patched = api.patch(&path, MERGE, &json!({"data": {"a": "2"}})).await;
    assert_eq!(patched["data"]["a"], "2");
    api.delete(&path).await;
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/c")).await, created);
}

#[tokio::test]
async fn bodies_are_read_in_the_formats_that_are_known() {
    let api = Api::new().await;
    let send = |media: &str, body: String| {
        Request::post(CONFIG_MAPS)
            .header(header::CONTENT_TYPE, media)
            .body(Body::from(body))
            .unwrap()
    };
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  a: 'on'\n".to_owned();
    assert_eq!(
        api.expect(201, send("application/yaml", yaml)).await["data"]["a"],
        "on"
    );
    api.expect(415, send("text/csv", "a,b".to_owned())).await;
    api.expect(400, send(JSON, "{".to_owned())).await;
    api.expect(400, send(JSON, "[]".to_owned())).await;
    api.expect(400, send(JSON, String::new())).await;
    let status = api.expect(413, send(JSON, " ".repeat(3 * 1024 * 1024 + 1))).await;
    assert_eq!(status["reason"], "RequestEntityTooLarge");
}

#[tokio::test]
async fn a_misspelt_field_is_named_to_those_who_ask() {
    let api = Api::new().await;
    let mut object = pod("p");
    object["spec"]["restartpolicy"] = json!("Never");
    let path = format!("{PODS}?fieldValidation=Strict");
    let status = api.expect(400, with_body("POST", &path, JSON, &object)).await;
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .ends_with("unknown field \"spec.restartpolicy\"")
    );
    let created = api.create(PODS, &object).await;
    assert_eq!(created["spec"].get("restartpolicy"), None);
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let api = Api::new().await;
    assert_eq!(
        api.expect(404, get(&format!("{PODS}/p"))).await["message"],
        "pods \"p\" not found"
    );
    let nothing = api.expect(404, get("/apis/apps/v1beta1/deployments")).await;
    assert_eq!(
        nothing["message"],
        "the server could not find the requested resource"
    );
    api.expect(405, with_body("POST", &format!("{PODS}/p"), JSON, &pod("p")))
        .await;
}
