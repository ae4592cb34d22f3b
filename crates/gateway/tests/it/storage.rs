//! Room is made: what goes is said first, and then gone.

use std::fs;

use axum::http::StatusCode;
use coracle_api::{
    id::{ArtifactId, RunId},
    state::RuntimeState,
};
use coracle_store::records::{Artifact, ArtifactTask, Commit, IoType, RunStatus};
use jiff::Timestamp;
use serde_json::{Map, json};

use crate::server::{Server, refused, task};

/// A run that ended at that second and made a file of so many bytes.
async fn ended(server: &Server, second: i64, size: usize) -> (RunId, Artifact) {
    let run = server.run().await;
    let at = Timestamp::from_second(second).unwrap();
    let folder = server.folder.path().join(run.to_string());
    fs::create_dir(&folder).unwrap();
    let path = folder.join("model");
    fs::write(&path, vec![0; size]).unwrap();
    let (root, train) = (
        task(run, "root", RuntimeState::Succeeded),
        task(run, "root.train", RuntimeState::Succeeded),
    );
    let model = Artifact {
        id: ArtifactId::new(),
        namespace: "default".to_owned(),
        name: "model".to_owned(),
        artifact_type: "system.Model".to_owned(),
        type_version: String::new(),
        uri: path.canonicalize().unwrap().display().to_string(),
        metadata: Map::new(),
        digest: None,
        size: Some(size as u64),
        created_at: at,
    };
    let link = ArtifactTask {
        artifact_id: model.id,
        run_id: run,
        task_id: train.id,
        io: IoType::Output,
        key: "model".to_owned(),
        position: 0,
        producer_task: String::new(),
    };
    let commit = Commit {
        run: Some(RunStatus {
            state: RuntimeState::Succeeded,
            error: None,
            state_history: Vec::new(),
            retried: false,
            finished_at: Some(at),
        }),
        tasks: vec![root, train],
        artifacts: vec![model.clone()],
        artifact_tasks: vec![link],
        ..Commit::default()
    };
    server.commit(run, commit).await;
    (run, model)
}

#[tokio::test]
async fn artifacts_of_old_runs_are_named_and_then_removed() {
    let server = Server::start().await;
    let (old, first) = ended(&server, 1, 1000).await;
    let (_, second) = ended(&server, 2, 500).await;
    let ask = async |dry_run: bool| {
        let (status, answer) = server
            .post("/storage:collect", json!({"dry_run": dry_run, "keep_last": 1}))
            .await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["artifacts"][0]["artifact_id"], first.id.to_string());
        assert_eq!(answer["bytes"], "1000");
        let run = json!({"run_id": old.to_string(), "why": "COUNT", "bytes": "1000"});
        assert_eq!(answer["runs"], json!([run]));
    };
    ask(true).await;
    assert!(fs::exists(&first.uri).unwrap());
    ask(false).await;
    assert!(!fs::exists(&first.uri).unwrap());
    assert!(fs::exists(&second.uri).unwrap());
    refused(
        server.get(&format!("/artifacts/{}", first.id)).await,
        404,
        5,
        "artifact",
    );
    server.ok(&format!("/artifacts/{}", second.id)).await;
    server.ok(&format!("/runs/{old}")).await;

    let (_, answer) = server.post("/storage:collect", json!({})).await;
    assert_eq!(answer, json!({"dry_run": false, "bytes": "0"}));
    refused(
        server.post("/storage:collect", json!({"max_bytes": -1})).await,
        400,
        3,
        "`max_bytes`",
    );
    refused(
        server.post("/storage:collect", json!({"colour": 1})).await,
        400,
        3,
        "colour",
    );
}
