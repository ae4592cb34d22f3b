//! The live stream of one run.

use axum::{body::Body, http::Request};
use coracle_api::{id::RunId, state::RuntimeState};
use coracle_store::records::Commit;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::server::{Server, read, refused, status, task};

struct Stream(Body, String);

impl Stream {
    async fn open(server: &Server, run: RunId) -> Self {
        let request = Request::get(format!("/apis/v2beta1/runs/{run}:watch"))
            .body(Body::empty())
            .unwrap();
        let response = server.send(request).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response.into_body(), String::new())
    }

    /// The next event's name and data; none at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        while !self.1.contains("\n\n") {
            let frame = self.0.frame().await?.unwrap().into_data().unwrap();
            self.1.push_str(std::str::from_utf8(&frame).unwrap());
        }
        let (event, rest) = self
            .1
            .split_once("\n\n")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        self.1 = rest;
        let field = |name: &str| {
            event
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .trim()
                .to_owned()
        };
        Some((field("event:"), serde_json::from_str(&field("data:")).unwrap()))
    }
}

fn names(run: &Value) -> Vec<&str> {
    let tasks = run["run_details"]["task_details"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    tasks
        .iter()
        .map(|task| task["display_name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_follower_sees_each_change_until_the_run_ends() {
    let server = Server::start().await;
    let run = server.run().await;
    let tasks = vec![
        task(run, "root", RuntimeState::Running),
        task(run, "root.say", RuntimeState::Pending),
    ];
    server
        .commit(
            run,
            Commit {
                run: status(RuntimeState::Running),
                tasks,
                ..Commit::default()
            },
        )
        .await;

    let mut stream = Stream::open(&server, run).await;
    let (name, first) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), &first["state"]), ("run", &Value::from("RUNNING")));
    assert_eq!(names(&first), ["root", "say"], "the first event has all tasks");

    let other = server.run().await;
    server
        .commit(
            other,
            Commit {
                run: status(RuntimeState::Succeeded),
                ..Commit::default()
            },
        )
        .await;
    let tasks = vec![task(run, "root.say", RuntimeState::Succeeded)];
    server
        .commit(
            run,
            Commit {
                tasks,
                ..Commit::default()
            },
        )
        .await;
    let (_, second) = stream.next().await.unwrap();
    assert_eq!(
        names(&second),
        ["say"],
        "later events have the tasks that changed"
    );
    assert_eq!(second["run_details"]["task_details"][0]["state"], "SUCCEEDED");

    server
        .commit(
            run,
            Commit {
                run: status(RuntimeState::Succeeded),
                ..Commit::default()
            },
        )
        .await;
    let (_, last) = stream.next().await.unwrap();
    assert_eq!(last["state"], "SUCCEEDED");
    assert_eq!(names(&last), [""; 0]);
    assert!(stream.next().await.is_none(), "the stream ends with the run");
}

#[tokio::test]
async fn a_run_that_has_ended_is_sent_once() {
    let server = Server::start().await;
    let run = server.run().await;
    server
        .commit(
            run,
            Commit {
                run: status(RuntimeState::Failed),
                ..Commit::default()
            },
        )
        .await;
    let mut stream = Stream::open(&server, run).await;
    assert_eq!(stream.next().await.unwrap().1["state"], "FAILED");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_run_that_is_deleted_ends_the_stream_with_the_reason() {
    let server = Server::start().await;
    let run = server.run().await;
    let mut stream = Stream::open(&server, run).await;
    stream.next().await.unwrap();
    server.records.delete_run(run).await.unwrap();
    let (name, status) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), &status["code"]), ("failed", &Value::from(5)));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_server_that_stops_ends_the_stream() {
    let server = Server::start().await;
    let run = server.run().await;
    let mut stream = Stream::open(&server, run).await;
    stream.next().await.unwrap();
    server.shutdown.cancel();
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_run_that_does_not_exist_cannot_be_followed() {
    let server = Server::start().await;
    let path = "/apis/v2beta1/runs/0198c0de-0000-7000-8000-000000000000:watch";
    let request = Request::get(path).body(Body::empty()).unwrap();
    refused(read(server.send(request).await).await, 404, 5, "run");
}
