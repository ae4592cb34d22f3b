//! The OpenAPI document, which clients are made from.

use std::{env, fs, path::Path};

use axum::{Router, body::Body, http::Request, routing::get};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::server::{Server, read};

#[test]
fn the_checked_in_document_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi/pipelines.json");
    let made = coracle_gateway::openapi().to_pretty_json().unwrap() + "\n";
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/openapi/pipelines.json is not what the code says: run this test with UPDATE=1"
    );
}

#[tokio::test]
async fn the_document_is_served_and_names_paths_as_clients_do() {
    let server = Server::start().await;
    let document = server.ok("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/apis/v2beta1/healthz",
        "/apis/v2beta1/runs/{run_id}:terminate",
        "/apis/v2beta1/runs/{run_id}:watch",
        "/apis/v2beta1/pipelines/upload",
        "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log",
        "/launch/v1/report",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
}

#[tokio::test]
async fn the_api_answers_under_both_prefixes_and_beside_a_kubernetes_api() {
    let server = Server::start().await;
    let kubernetes = Router::new()
        .route("/apis", get(async || "groups"))
        .route("/apis/{group}/{version}", get(async || "kubernetes"))
        .route("/apis/{group}/{version}/{*rest}", get(async || "kubernetes"));
    let router = server.router.clone().merge(kubernetes);
    let ask = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        read(router.clone().oneshot(request).await.unwrap()).await.1
    };
    let healthz =
        json!({"commit_sha": "abc", "tag_name": "1.2.3", "multi_user": false, "pipeline_store": "database"});
    assert_eq!(ask("/apis/v2beta1/healthz").await, healthz);
    assert_eq!(ask("/pipeline/apis/v2beta1/healthz").await, healthz);
    assert_eq!(ask("/apis/batch/v1/jobs").await, Value::from("kubernetes"));
    assert_eq!(ask("/apis/v2beta1/nonsense").await["code"], 5);
    assert_eq!(ask("/apis").await, Value::from("groups"));
}
