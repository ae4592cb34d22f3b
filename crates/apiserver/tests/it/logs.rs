//! Logs, forwarded to the node.

use std::convert::Infallible;

use axum::{Router, body::Body, extract::Path, response::IntoResponse, routing::get as route};
use futures::{StreamExt as _, stream};
use http::{StatusCode, Uri};
use http_body_util::BodyExt as _;

use crate::harness::{Api, PODS, get, pod};

fn kubelet() -> Router {
    let answer =
        async |Path((_, _, container)): Path<(String, String, String)>, uri: Uri| match container.as_str() {
            "gone" => (StatusCode::NOT_FOUND, "container gone has not started").into_response(),
            "endless" => {
                let first = stream::once(async { Ok::<_, Infallible>("first\n") });
                Body::from_stream(first.chain(stream::pending())).into_response()
            }
            _ => uri.to_string().into_response(),
        };
    Router::new().route("/containerLogs/{namespace}/{pod}/{container}", route(answer))
}

async fn api(containers: &[&str]) -> Api {
    let api = Api::with_kubelet(kubelet()).await;
    let mut object = pod("p");
    object["spec"]["nodeName"] = "here".into();
    object["spec"]["containers"] = containers
        .iter()
        .map(|name| serde_json::json!({"name": name, "image": "x"}))
        .collect();
    api.create(PODS, &object).await;
    api
}

#[tokio::test]
async fn a_log_is_asked_for_in_one_spelling() {
    let api = api(&["main"]).await;
    let text = api
        .get(&format!(
            "{PODS}/p/log?follow=True&tailLines=3&timestamps=false&previous=true"
        ))
        .await;
    assert_eq!(
        text,
        "/containerLogs/default/p/main?follow=true&previous=true&tailLines=3"
    );
    api.expect(400, get(&format!("{PODS}/p/log?tailLines=many")))
        .await;
    api.expect(404, get(&format!("{PODS}/q/log"))).await;
}

#[tokio::test]
async fn the_container_must_be_named_when_there_are_several() {
    let api = api(&["a", "b"]).await;
    let status = api.expect(400, get(&format!("{PODS}/p/log"))).await;
    assert_eq!(
        status["message"],
        "a container name must be specified for pod p, choose one of: [a b]"
    );
    assert_eq!(
        api.get(&format!("{PODS}/p/log?container=b")).await,
        "/containerLogs/default/p/b"
    );
}

#[tokio::test]
async fn an_error_of_the_node_is_a_status() {
    let api = api(&["gone"]).await;
    let status = api.expect(404, get(&format!("{PODS}/p/log"))).await;
    assert_eq!(
        (&status["kind"], &status["message"]),
        (&"Status".into(), &"container gone has not started".into())
    );
}

#[tokio::test]
async fn lines_arrive_before_the_log_ends() {
    let api = api(&["endless"]).await;
    let mut body = api
        .raw(get(&format!("{PODS}/p/log?follow=true")))
        .await
        .into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first\n");
}

#[tokio::test]
async fn a_pod_that_runs_nowhere_has_an_empty_log() {
    let api = Api::with_kubelet(kubelet()).await;
    api.create(PODS, &pod("p")).await;
    assert_eq!(api.get(&format!("{PODS}/p/log")).await, "");
    let mut elsewhere = pod("q");
    elsewhere["spec"]["nodeName"] = "elsewhere".into();
    api.create(PODS, &elsewhere).await;
    api.expect(503, get(&format!("{PODS}/q/log"))).await;
}
