//! Bytes of artifacts, by node and name.

use std::{collections::BTreeMap, fs};

use axum::{body::Body, http::Request};
use base64::{Engine, engine::general_purpose::STANDARD};
use coracle_api::{
    id::{ArtifactId, RunId},
    state::RuntimeState,
};
use coracle_store::records::{Artifact, Commit};
use jiff::Timestamp;
use serde_json::Map;

use crate::server::{Server, attempt, read, refused, task};

/// A task with the outputs `model` (a file of `bytes`), `gone`, `folder` and `far`.
async fn with_outputs(server: &Server, bytes: &[u8]) -> RunId {
    let run = server.run().await;
    let folder = server.folder.path();
    fs::write(folder.join("model"), bytes).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    let root = task(run, "root", RuntimeState::Succeeded);
    let mut say = task(run, "root.say", RuntimeState::Succeeded);
    let mut artifacts = Vec::new();
    for name in ["model", "gone", "folder", "far"] {
        let uri = match name {
            "far" => "/etc/hostname".to_owned(),
            name => folder.join(name).display().to_string(),
        };
        let id = ArtifactId::new();
        say.outputs.artifacts.insert(name.to_owned(), vec![id]);
        artifacts.push(Artifact {
            id,
            namespace: "default".to_owned(),
            name: name.to_owned(),
            artifact_type: "system.Model".to_owned(),
            type_version: String::new(),
            uri,
            metadata: Map::new(),
            digest: None,
            size: Some(bytes.len() as u64),
            created_at: Timestamp::UNIX_EPOCH,
        });
    }
    let tried = attempt(&say, 1, RuntimeState::Succeeded);
    server
        .commit(
            run,
            Commit {
                tasks: vec![root, say],
                attempts: vec![tried],
                artifacts,
                ..Commit::default()
            },
        )
        .await;
    run
}

#[tokio::test]
async fn an_artifact_is_read_whole_or_in_part() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..100_001_u32).map(|index| (index % 251) as u8).collect();
    let run = with_outputs(&server, &bytes).await;
    let check = async |node: &str, query: &str, expect: &[u8]| {
        let path = format!("/runs/{run}/nodes/{node}/artifacts/model:read{query}");
        let answer = server.ok(&path).await;
        let data = STANDARD.decode(answer["data"].as_str().unwrap()).unwrap();
        assert_eq!(data.len(), expect.len(), "{path}");
        assert!(data == expect, "{path}");
    };
    let id = coracle_api::id::TaskId::at(run, "root.say").to_string();
    for node in ["say", "root.say", "say-1", &id] {
        check(node, "", &bytes).await;
    }
    check("say", "?offset=10&limit=7", &bytes[10..17]).await;
    check("say", "?offset=100000", &bytes[100_000..]).await;
    check("say", "?offset=100001&limit=5", &[]).await;
    check("say", "?limit=0", &[]).await;

    let old = format!("/apis/v1beta1/runs/{run}/nodes/say/artifacts/model:read");
    let (status, answer) = read(server.send(Request::get(old).body(Body::empty()).unwrap()).await).await;
    assert_eq!(status.as_u16(), 200);
    assert_eq!(STANDARD.decode(answer["data"].as_str().unwrap()).unwrap(), bytes);
}

#[tokio::test]
async fn an_artifact_that_cannot_be_read_is_told_apart() {
    let server = Server::start().await;
    let run = with_outputs(&server, b"x").await;
    let cases: BTreeMap<&str, (u16, i32, &str)> = BTreeMap::from([
        (
            "say/artifacts/none",
            (404, 5, "it has `far`, `folder`, `gone`, `model`"),
        ),
        ("say/artifacts/gone", (404, 5, "no bytes")),
        ("say/artifacts/folder", (400, 9, "cannot be read")),
        ("say/artifacts/far", (400, 9, "cannot be read")),
        ("none/artifacts/model", (404, 5, "task of run")),
    ]);
    for (path, (status, code, message)) in cases {
        let answer = server.get(&format!("/runs/{run}/nodes/{path}:read")).await;
        refused(answer, status, code, message);
    }
    let answer = server
        .get(&format!("/runs/{run}/nodes/say/artifacts/model:read?index=1"))
        .await;
    refused(answer, 404, 5, "a list of 1");
    let absent = "/runs/0198c0de-0000-7000-8000-000000000000/nodes/say/artifacts/model:read";
    refused(server.get(absent).await, 404, 5, "run");
}
