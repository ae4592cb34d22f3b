//! The launcher contract.

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use coracle_api::state::RuntimeState;
use coracle_store::records::{Attempt, Commit};
use serde_json::{Value, json};

use crate::server::{self, Server, attempt, read, refused, task};

async fn with_attempt(server: &Server) -> Attempt {
    let run = server.run().await;
    let task = task(run, "root", RuntimeState::Running);
    let attempt = attempt(&task, 1, RuntimeState::Running);
    server
        .commit(
            run,
            Commit {
                tasks: vec![task],
                attempts: vec![attempt.clone()],
                specs: vec![server::spec(&attempt, &json!({"command": ["echo"]}), &json!({}))],
                ..Commit::default()
            },
        )
        .await;
    attempt
}

async fn spec(server: &Server, authorization: &str) -> (StatusCode, Value) {
    let request = Request::get("/launch/v1/spec")
        .header(header::AUTHORIZATION, authorization)
        .body(Body::empty())
        .unwrap();
    read(server.send(request).await).await
}

async fn report(server: &Server, token: &str, body: Vec<u8>) -> (StatusCode, Value) {
    let request = Request::put("/launch/v1/report")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::from(body))
        .unwrap();
    read(server.send(request).await).await
}

fn succeeded(value: &str) -> Vec<u8> {
    json!({"parameters": {"out": value}, "exitCode": 0})
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn a_token_admits_to_the_spec_of_its_attempt() {
    let server = Server::start().await;
    let attempt = with_attempt(&server).await;
    assert_eq!(
        spec(&server, &format!("Bearer {}", attempt.token)).await,
        (StatusCode::OK, json!({"command": ["echo"]}))
    );
}

#[tokio::test]
async fn no_token_and_a_wrong_token_are_told_apart() {
    let server = Server::start().await;
    with_attempt(&server).await;
    for authorization in ["", "Bearer", "Bearer ", "Basic eDp4"] {
        refused(spec(&server, authorization).await, 401, 16, "no launcher token");
    }
    refused(
        spec(&server, "Bearer wrong").await,
        401,
        16,
        "not that of any attempt",
    );
    refused(
        report(&server, "wrong", succeeded("x")).await,
        401,
        16,
        "not that of any attempt",
    );
}

#[tokio::test]
async fn a_report_is_kept_once_and_welcome_again() {
    let server = Server::start().await;
    let attempt = with_attempt(&server).await;
    let send = async |body| report(&server, &attempt.token, body).await;
    assert_eq!(send(succeeded("a")).await.0, StatusCode::NO_CONTENT);
    assert_eq!(send(succeeded("a")).await.0, StatusCode::NO_CONTENT);
    refused(send(succeeded("b")).await, 409, 10, "already has another report");
    let kept = server.records.report(attempt.task_id, 1).await.unwrap().unwrap();
    assert_eq!(kept.parameters["out"], "a");

    let ended = Attempt {
        state: RuntimeState::Succeeded,
        ..attempt.clone()
    };
    server
        .commit(
            attempt.run_id,
            Commit {
                attempts: vec![ended],
                ..Commit::default()
            },
        )
        .await;
    assert_eq!(
        send(succeeded("a")).await.0,
        StatusCode::NO_CONTENT,
        "a late repeat is no error"
    );
    refused(
        spec(&server, &format!("Bearer {}", attempt.token)).await,
        409,
        10,
        "not run again",
    );
}

#[tokio::test]
async fn a_report_that_cannot_be_read_is_refused() {
    let server = Server::start().await;
    let attempt = with_attempt(&server).await;
    refused(
        report(&server, &attempt.token, b"{".to_vec()).await,
        400,
        3,
        "report cannot be read",
    );
    let large = vec![b' '; 64 * 1024 * 1024 + 1];
    refused(
        report(&server, &attempt.token, large).await,
        413,
        8,
        "larger than 64 MiB",
    );
    assert_eq!(server.records.report(attempt.task_id, 1).await.unwrap(), None);
}
