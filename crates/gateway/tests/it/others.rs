//! The small paths of KFP: who may do what, what agents report, filters, visualizations, health.

use axum::{body::Body, http::Request};
use serde_json::json;

use crate::server::{Server, read, refused};

#[tokio::test]
async fn the_one_user_may_do_what_there_is_to_do() {
    let server = Server::start().await;
    for verb in ["CREATE", "GET", "DELETE"] {
        let path = format!("/auth?namespace=any&resources=VIEWERS&verb={verb}");
        assert_eq!(server.ok(&path).await, json!({}));
    }
    refused(server.get("/auth?resources=VIEWERS").await, 400, 3, "`verb`");
    refused(server.get("/auth?verb=GET").await, 400, 3, "`resources`");
    refused(
        server.get("/auth?resources=SECRETS&verb=GET").await,
        400,
        3,
        "SECRETS",
    );
}

#[tokio::test]
async fn reports_of_agents_and_visualizations_are_refused_for_good() {
    let server = Server::start().await;
    for path in ["/workflows", "/scheduledworkflows"] {
        refused(server.post(path, json!("{}")).await, 400, 3, "are not taken");
        refused(server.post(path, json!({})).await, 400, 3, "as a JSON text");
    }
    let body = json!({"type": "TABLE", "source": "gs://x", "arguments": "{}"});
    refused(
        server.post("/visualizations/default", body).await,
        400,
        9,
        "no visualization service",
    );
    refused(
        server.post("/visualizations/default", json!({"colour": 1})).await,
        400,
        3,
        "colour",
    );
}

#[tokio::test]
async fn a_filter_is_shown_as_it_is_understood() {
    let server = Server::start().await;
    assert_eq!(server.ok("/filters").await, json!({}));
    let filter = "%7B%22predicates%22%3A%5B%7B%22operation%22%3A1%2C%22key%22%3A%22name%22%2C%22stringValue%22%3A%22x%22%7D%5D%7D";
    let shown = server.ok(&format!("/filters?filter={filter}")).await;
    assert_eq!(
        shown["predicates"],
        json!([{"operation": 1, "key": "name", "stringValue": "x"}])
    );
    refused(server.get("/filters?filter=nonsense").await, 400, 3, "filter");
}

#[tokio::test]
async fn little_is_left_of_the_older_api_and_it_says_so() {
    let server = Server::start().await;
    let ask =
        async |path: &str| read(server.send(Request::get(path).body(Body::empty()).unwrap()).await).await;
    for prefix in ["/apis/v1beta1", "/pipeline/apis/v1beta1"] {
        assert_eq!(ask(&format!("{prefix}/healthz")).await.1["multi_user"], false);
        refused(ask(&format!("{prefix}/runs")).await, 404, 5, "use v2beta1");
    }
}
