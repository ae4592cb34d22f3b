//! Pipelines and versions that arrive as JSON.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::{Server, pipeline, refused};

fn id<'a>(body: &'a Value, field: &str) -> &'a str {
    body[field].as_str().unwrap()
}

#[tokio::test]
async fn a_pipeline_gets_versions_and_goes_with_them() {
    let server = Server::start().await;
    let (status, made) = server
        .post(
            "/pipelines",
            json!({"display_name": "Small one", "name": "small", "tags": {"team": "ml"}}),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let path = format!("/pipelines/{}", id(&made, "pipeline_id"));
    assert_eq!(server.ok(&path).await, made);
    assert_eq!(server.ok("/pipelines/names/small").await, made);
    assert_eq!(
        server.ok(&format!("{path}/versions")).await,
        json!({"total_size": 0})
    );

    let versions = format!("{path}/versions");
    let (status, version) = server
        .post(
            &versions,
            json!({"display_name": "v1", "pipeline_spec": pipeline()}),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{version}");
    assert_eq!(version["pipeline_spec"], pipeline());
    let version_path = format!("{versions}/{}", id(&version, "pipeline_version_id"));
    assert_eq!(server.ok(&version_path).await, version);
    assert_eq!(server.ok(&versions).await["pipeline_versions"], json!([version]));

    refused(server.delete(&path).await, 400, 9, "cascade=true");
    assert_eq!(server.delete(&version_path).await.0, StatusCode::OK);
    refused(server.get(&version_path).await, 404, 5, "was not found");
    server
        .post(
            &versions,
            json!({"display_name": "v2", "pipeline_spec": pipeline()}),
        )
        .await;
    assert_eq!(
        server.delete(&format!("{path}?cascade=true")).await,
        (StatusCode::OK, json!({}))
    );
    refused(server.get(&path).await, 404, 5, "was not found");
    assert_eq!(server.ok("/pipelines").await, json!({"total_size": 0}));
}

#[tokio::test]
async fn a_pipeline_and_its_version_are_made_together_or_not_at_all() {
    let server = Server::start().await;
    let body =
        |spec: Value| json!({"pipeline": {"display_name": "p"}, "pipeline_version": {"pipeline_spec": spec}});
    let mut broken = pipeline();
    broken["root"]["dag"]["tasks"]["say"]["componentRef"]["name"] = json!("comp-none");
    refused(
        server.post("/pipelines/create", body(broken)).await,
        400,
        3,
        "root.dag.tasks.say",
    );
    assert_eq!(server.ok("/pipelines").await["total_size"], 0);

    let (status, made) = server.post("/pipelines/create", body(pipeline())).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let versions = server
        .ok(&format!("/pipelines/{}/versions", id(&made, "pipeline_id")))
        .await;
    assert_eq!(versions["pipeline_versions"][0]["name"], "p");
    refused(
        server.post("/pipelines/create", body(pipeline())).await,
        409,
        6,
        "already exists",
    );
}

#[tokio::test]
async fn what_is_no_pipeline_or_version_is_refused() {
    let server = Server::start().await;
    let (_, made) = server.post("/pipelines", json!({"name": "p"})).await;
    assert_eq!(made["display_name"], "p");
    let versions = format!("/pipelines/{}/versions", id(&made, "pipeline_id"));
    refused(
        server.post("/pipelines", json!({"name": "p"})).await,
        409,
        6,
        "already exists",
    );
    refused(
        server.post("/pipelines", json!({"description": "x"})).await,
        400,
        3,
        "no name",
    );
    refused(
        server.post(&versions, json!({"name": "v"})).await,
        400,
        3,
        "no pipeline",
    );
    refused(
        server.post(&versions, json!({"pipeline_spec": pipeline()})).await,
        400,
        3,
        "no name",
    );
    refused(
        server
            .post(&versions, json!({"name": "v", "pipeline_spec": {"a": 1}}))
            .await,
        400,
        3,
        "pipelineInfo",
    );
    let url = json!({"name": "v", "package_url": {"pipeline_url": "http://localhost/p.yaml"}});
    refused(server.post(&versions, url).await, 400, 9, "private network");
    let absent = "/pipelines/0198c0de-0000-7000-8000-000000000000/versions";
    refused(
        server
            .post(absent, json!({"name": "v", "pipeline_spec": pipeline()}))
            .await,
        404,
        5,
        "was not found",
    );
    refused(server.get(absent).await, 404, 5, "was not found");
    refused(server.get("/pipelines/names/none").await, 404, 5, "`none`");
    assert_eq!(server.ok(&versions).await["total_size"], 0);
}
