//! Pipelines that are changed, fetched from the web, or hold what nobody knows.

use axum::{Router, http::StatusCode, response::Redirect, routing::get};
use serde_json::{Value, json};

use crate::server::{Server, pipeline, refused};

async fn made(server: &Server, name: &str) -> (String, String) {
    let body = json!({"pipeline": {"name": name, "tags": {"team": "ml"}},
                      "pipeline_version": {"pipeline_spec": pipeline(), "tags": {"stage": "test"}}});
    let (status, made) = server.post("/pipelines/create", body).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let path = format!("/pipelines/{}", made["pipeline_id"].as_str().unwrap());
    let versions = server.ok(&format!("{path}/versions")).await;
    let version = versions["pipeline_versions"][0]["pipeline_version_id"]
        .as_str()
        .unwrap();
    let version = format!("{path}/versions/{version}");
    (path, version)
}

#[tokio::test]
async fn a_pipeline_changes_only_in_what_the_body_has() {
    let server = Server::start().await;
    let (path, version) = made(&server, "p").await;
    let (status, changed) = server
        .patch(&path, json!({"display_name": "Shown", "description": "d"}))
        .await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!(changed["display_name"], "Shown");
    assert_eq!(changed["tags"], json!({"team": "ml"}));
    assert_eq!(server.ok(&path).await, changed);

    let (_, changed) = server
        .patch(&path, json!({"tags": {"team": "data", "a": "b"}}))
        .await;
    assert_eq!(changed["tags"], json!({"a": "b", "team": "data"}));
    assert_eq!(changed["description"], "d");
    let by_tag = "/pipelines?filter=%7B%22predicates%22%3A%5B%7B%22operation%22%3A%22EQUALS%22%2C%22key%22%3A%22tags.team%22%2C%22string_value%22%3A%22data%22%7D%5D%7D";
    assert_eq!(server.ok(by_tag).await["total_size"], 1);
    let (_, changed) = server.patch(&path, json!({"tags": {}})).await;
    assert_eq!(changed.get("tags"), None);
    assert_eq!(server.ok(by_tag).await["total_size"], 0);

    let (status, changed) = server
        .patch(
            &version,
            json!({"display_name": "one", "tags": {}, "pipeline_spec": pipeline()}),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!(changed["display_name"], "one");
    assert_eq!(changed["name"], "p");
    assert_eq!(changed.get("tags"), None);
}

#[tokio::test]
async fn what_cannot_be_changed_is_refused() {
    let server = Server::start().await;
    let (path, version) = made(&server, "p").await;
    refused(server.patch(&path, json!({"name": "q"})).await, 400, 3, "`name`");
    refused(
        server.patch(&path, json!({"display_name": ""})).await,
        400,
        3,
        "no name",
    );
    refused(
        server.patch(&path, json!({"tags": {"": "x"}})).await,
        400,
        3,
        "a tag has no name",
    );
    refused(server.patch(&path, json!({"colour": 1})).await, 400, 3, "colour");
    refused(
        server.patch(&version, json!({"name": "q"})).await,
        400,
        3,
        "`name`",
    );
    refused(
        server.patch(&version, json!({"pipeline_spec": {}})).await,
        400,
        3,
        "make a new version",
    );
    let absent = "/pipelines/0198c0de-0000-7000-8000-000000000000";
    refused(
        server.patch(absent, json!({"description": "x"})).await,
        404,
        5,
        "pipeline",
    );
    let absent = format!("{path}/versions/0198c0de-0000-7000-8000-000000000000");
    refused(server.patch(&absent, json!({})).await, 404, 5, "pipeline version");
}

/// A web server with a pipeline, and some things that are none.
async fn web() -> String {
    let router = Router::new()
        .route("/p.yaml", get(async || pipeline().to_string()))
        .route("/raw", get(async || pipeline().to_string()))
        .route("/moved.yaml", get(async || Redirect::temporary("/p.yaml")))
        .route("/round.yaml", get(async || Redirect::temporary("/round.yaml")))
        .route("/large.yaml", get(async || vec![b'#'; 33 * 1024 * 1024]))
        .route("/words.yaml", get(async || "just words"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn at(url: &str) -> Value {
    json!({"pipeline": {"display_name": url}, "pipeline_version": {"package_url": {"pipeline_url": url}}})
}

#[tokio::test]
async fn a_pipeline_is_fetched_from_the_web() {
    let server = Server::with(true).await;
    let web = web().await;
    for file in ["p.yaml", "raw", "moved.yaml?x=1"] {
        let url = format!("{web}/{file}");
        let (status, made) = server.post("/pipelines/create", at(&url)).await;
        assert_eq!(status, StatusCode::OK, "{made}");
        let versions = format!("/pipelines/{}/versions", made["pipeline_id"].as_str().unwrap());
        let version = &server.ok(&versions).await["pipeline_versions"][0];
        assert_eq!(version["pipeline_spec"], pipeline());
        assert_eq!(version["package_url"], json!({"pipeline_url": url}));
    }
    for (file, status, code, message) in [
        ("none.yaml", 400, 9, "404"),
        ("round.yaml", 400, 9, "could not be fetched"),
        ("large.yaml", 413, 8, "32 MiB"),
        ("words.yaml", 400, 3, "this is no pipeline"),
    ] {
        let answer = server
            .post("/pipelines/create", at(&format!("{web}/{file}")))
            .await;
        refused(answer, status, code, message);
    }
    assert_eq!(server.ok("/pipelines").await["total_size"], 3);
}

#[tokio::test]
async fn nothing_is_fetched_from_this_machine_or_from_elsewhere_than_the_web() {
    let server = Server::start().await;
    let web = web().await;
    let port = web.rsplit(':').next().unwrap();
    for (url, code, message) in [
        (format!("{web}/p.yaml"), 9, "private network"),
        (format!("http://localhost:{port}/p.yaml"), 9, "`localhost`"),
        (
            format!("http://[::ffff:127.0.0.1]:{port}/p.yaml"),
            9,
            "private network",
        ),
        ("http://169.254.169.254/latest".to_owned(), 9, "private network"),
        ("file:///etc/passwd".to_owned(), 3, "upload the file"),
        ("gs://bucket/p.yaml".to_owned(), 3, "download the file"),
        ("nonsense".to_owned(), 3, "http(s)"),
    ] {
        refused(
            server.post("/pipelines/create", at(&url)).await,
            400,
            code,
            message,
        );
    }
}

#[tokio::test]
async fn unknown_fields_of_a_pipeline_are_told_with_it_and_kept() {
    let server = Server::start().await;
    let mut spec = pipeline();
    spec["root"]["dag"]["tasks"]["say"]["retry_policy"] = json!({});
    spec["deploymentSpec"]["executors"]["exec-say"]["container"]["lifecycle"] = json!({});
    let warnings =
        json!(["`root.dag.tasks.say.retry_policy`: unknown field, ignored; did you mean `retryPolicy`?"]);
    let body = json!({"pipeline": {"name": "p"}, "pipeline_version": {"pipeline_spec": spec}});
    let (_, made) = server.post("/pipelines/create", body).await;
    assert_eq!(made["warnings"], warnings);
    let versions = format!("/pipelines/{}/versions", made["pipeline_id"].as_str().unwrap());
    let version = &server.ok(&versions).await["pipeline_versions"][0];
    assert_eq!(version["warnings"], warnings);
    assert_eq!(version["pipeline_spec"], spec);

    let run =
        json!({"display_name": "r", "pipeline_spec": spec, "runtime_config": {"parameters": {"text": "a"}}});
    let (_, run) = server.post("/runs", run).await;
    assert_eq!(run["warnings"], warnings);
    let shown = server
        .ok(&format!("/runs/{}", run["run_id"].as_str().unwrap()))
        .await;
    assert_eq!(shown["warnings"], warnings);
}
