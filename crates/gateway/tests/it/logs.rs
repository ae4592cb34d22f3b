//! Logs, read and followed.

use std::{fs, io::Write};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use coracle_api::{id::RunId, state::RuntimeState};
use coracle_store::records::{Attempt, Commit, Task};
use http_body_util::BodyExt;

use crate::server::{Server, attempt, read, refused, task};

struct Logged {
    server: Server,
    run: RunId,
    task: Task,
    attempt: Attempt,
}

impl Logged {
    /// A task at work, whose log is called `file`.
    async fn start(file: &str) -> Self {
        let server = Server::start().await;
        let run = server.run().await;
        let task = task(run, "root.say", RuntimeState::Running);
        let mut attempt = attempt(&task, 1, RuntimeState::Running);
        attempt.log_uri = server.folder.path().join(file).display().to_string();
        let tasks = vec![
            crate::server::task(run, "root", RuntimeState::Running),
            task.clone(),
        ];
        server
            .commit(
                run,
                Commit {
                    tasks,
                    attempts: vec![attempt.clone()],
                    ..Commit::default()
                },
            )
            .await;
        Self {
            server,
            run,
            task,
            attempt,
        }
    }

    fn write(&self, text: &str) {
        let path = &self.attempt.log_uri;
        let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    async fn end(&self) {
        let mut task = self.task.clone();
        task.state = RuntimeState::Succeeded;
        let mut attempt = self.attempt.clone();
        attempt.state = RuntimeState::Succeeded;
        let commit = Commit {
            tasks: vec![task],
            attempts: vec![attempt],
            ..Commit::default()
        };
        self.server.commit(self.run, commit).await;
    }

    async fn open(&self, node_and_query: &str) -> axum::response::Response {
        let path = format!("/apis/v1alpha1/runs/{}/nodes/{node_and_query}", self.run);
        self.server
            .send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    async fn text(&self, node_and_query: &str) -> String {
        let response = self.open(node_and_query).await;
        assert_eq!(response.status(), StatusCode::OK, "{node_and_query}");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

async fn chunk(body: &mut Body) -> Option<String> {
    let bytes = body.frame().await?.unwrap().into_data().unwrap();
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_log_is_found_by_every_name_of_its_task() {
    let logged = Logged::start("log").await;
    logged.write("hello\n");
    for node in ["say-1", "say", "root.say", &logged.task.id.to_string()] {
        assert_eq!(logged.text(&format!("{node}/log")).await, "hello\n", "{node}");
    }
    assert_eq!(logged.text("say/log?attempt=1").await, "hello\n");
    let response = logged.open("say/log").await;
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    refused(read(logged.open("none/log").await).await, 404, 5, "`none`");
    refused(
        read(logged.open("say/log?attempt=2").await).await,
        404,
        5,
        "attempt of task `root.say` `2`",
    );
    refused(
        read(logged.open("say/log?follow=maybe").await).await,
        400,
        3,
        "query",
    );
    refused(
        read(logged.open("root/log").await).await,
        404,
        5,
        "started no process",
    );
}

#[tokio::test]
async fn a_log_that_is_followed_grows_until_its_attempt_ends() {
    let logged = Logged::start("log").await;
    let response = logged.open("say/log?follow=true").await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "there is no file yet, and there will be"
    );
    let mut body = response.into_body();
    logged.write("one\n");
    assert_eq!(chunk(&mut body).await.unwrap(), "one\n");
    logged.write("two\n");
    assert_eq!(chunk(&mut body).await.unwrap(), "two\n");
    logged.write("three\n");
    logged.end().await;
    let mut rest = String::new();
    while let Some(text) = chunk(&mut body).await {
        rest.push_str(&text);
    }
    assert_eq!(
        rest, "three\n",
        "what was written before the end is read to the end"
    );
}

#[tokio::test]
async fn following_waits_for_the_first_attempt() {
    let server = Server::start().await;
    let run = server.run().await;
    let pending = task(run, "root.say", RuntimeState::Pending);
    let tasks = vec![task(run, "root", RuntimeState::Running), pending.clone()];
    server
        .commit(
            run,
            Commit {
                tasks,
                ..Commit::default()
            },
        )
        .await;
    let mut attempt = attempt(&pending, 1, RuntimeState::Succeeded);
    attempt.log_uri = server.folder.path().join("log").display().to_string();
    let logged = Logged {
        server,
        run,
        task: pending,
        attempt,
    };
    refused(
        read(logged.open("say/log").await).await,
        404,
        5,
        "PENDING and has started no process",
    );
    let mut body = logged.open("say/log?follow=true").await.into_body();
    logged.write("late\n");
    logged.end().await;
    assert_eq!(chunk(&mut body).await.unwrap(), "late\n");
    assert_eq!(chunk(&mut body).await, None);
}

#[tokio::test]
async fn following_ends_when_the_server_stops_or_the_run_is_deleted() {
    let logged = Logged::start("log").await;
    logged.write("one\n");
    let mut stopped = logged.open("say/log?follow=true").await.into_body();
    assert_eq!(chunk(&mut stopped).await.unwrap(), "one\n");
    let mut deleted = logged.open("say/log?follow=true").await.into_body();
    assert_eq!(chunk(&mut deleted).await.unwrap(), "one\n");
    logged.server.records.delete_run(logged.run).await.unwrap();
    assert_eq!(chunk(&mut deleted).await, None);
    logged.server.shutdown.cancel();
    assert_eq!(chunk(&mut stopped).await, None);
}

#[tokio::test]
async fn a_log_that_was_never_written_is_said_to_be_absent() {
    let logged = Logged::start("log").await;
    refused(
        read(logged.open("say/log").await).await,
        404,
        5,
        "written no log yet",
    );
    logged.end().await;
    refused(
        read(logged.open("say/log?follow=true").await).await,
        404,
        5,
        "written no log",
    );
}

#[tokio::test]
async fn nothing_outside_the_artifact_folder_is_a_log() {
    for file in ["../outside", "link"] {
        let logged = Logged::start(file).await;
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path(), logged.server.folder.path().join("link")).unwrap();
        refused(read(logged.open("say/log").await).await, 404, 5, "outside");
    }
}

#[tokio::test]
async fn a_name_of_several_tasks_must_be_a_path() {
    let logged = Logged::start("log").await;
    logged.write("right\n");
    let twin = task(logged.run, "root.loop.say", RuntimeState::Running);
    let tasks = vec![task(logged.run, "root.loop", RuntimeState::Running), twin];
    logged
        .server
        .commit(
            logged.run,
            Commit {
                tasks,
                ..Commit::default()
            },
        )
        .await;
    refused(
        read(logged.open("say/log").await).await,
        400,
        3,
        "2 tasks are called `say`",
    );
    assert_eq!(logged.text("root.say/log").await, "right\n");
}
