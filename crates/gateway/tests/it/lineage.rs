//! Artifacts, and who made and consumed them, across runs.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use coracle_api::{
    id::{ArtifactId, RunId, TaskId},
    state::RuntimeState,
};
use coracle_store::records::{Artifact, ArtifactTask, Commit, IoType, Task};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::server::{Server, refused, task};

fn artifact(name: &str, second: i64) -> Artifact {
    Artifact {
        id: ArtifactId::new(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        artifact_type: "system.Dataset".to_owned(),
        type_version: String::new(),
        uri: format!("/artifacts/{name}"),
        metadata: Map::new(),
        digest: None,
        size: None,
        created_at: Timestamp::from_second(second).unwrap(),
    }
}

fn link(task: &Task, artifact: &Artifact, io: IoType) -> ArtifactTask {
    ArtifactTask {
        artifact_id: artifact.id,
        run_id: task.run_id,
        task_id: task.id,
        io,
        key: artifact.name.clone(),
        position: 0,
        producer_task: String::new(),
    }
}

/// Two runs: `raw` → clean → `data` → train → `model`, and in the other `data` → test → `report`.
struct Lines {
    server: Server,
    first: RunId,
    artifacts: BTreeMap<&'static str, Artifact>,
}

impl Lines {
    async fn start() -> Self {
        let server = Server::start().await;
        let (first, second) = (server.run().await, server.run().await);
        let artifacts: BTreeMap<_, _> = (1..)
            .zip(["raw", "data", "model", "report"])
            .map(|(second, name)| (name, artifact(name, second)))
            .collect();
        let root = |run| task(run, "root", RuntimeState::Succeeded);
        let done = |run, path: &str| task(run, path, RuntimeState::Succeeded);
        let (clean, train, test) = (
            done(first, "root.clean"),
            done(first, "root.train"),
            done(second, "root.test"),
        );
        let made = |name: &str| artifacts[name].clone();
        // What a DAG hands on is no lineage.
        let handed = link(&root(first), &artifacts["model"], IoType::OneOfOutput);
        server
            .commit(
                first,
                Commit {
                    tasks: vec![root(first), clean.clone(), train.clone()],
                    artifacts: vec![made("raw"), made("data"), made("model")],
                    artifact_tasks: vec![
                        link(&clean, &artifacts["raw"], IoType::ComponentInput),
                        link(&clean, &artifacts["data"], IoType::Output),
                        link(&train, &artifacts["data"], IoType::TaskOutputInput),
                        link(&train, &artifacts["model"], IoType::Output),
                        handed,
                    ],
                    ..Commit::default()
                },
            )
            .await;
        server
            .commit(
                second,
                Commit {
                    tasks: vec![root(second), test.clone()],
                    artifacts: vec![made("report")],
                    artifact_tasks: vec![
                        link(&test, &artifacts["data"], IoType::ComponentInput),
                        link(&test, &artifacts["report"], IoType::Output),
                    ],
                    ..Commit::default()
                },
            )
            .await;
        Self {
            server,
            first,
            artifacts,
        }
    }

    async fn lineage(&self, of: &str, query: &str) -> Value {
        let id = self.artifacts[of].id;
        self.server.ok(&format!("/artifacts/{id}:lineage{query}")).await
    }
}

fn names(items: &Value, field: &str) -> Vec<String> {
    let items = items.as_array().map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .map(|item| item[field].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn lineage_follows_artifacts_across_runs_in_both_directions() {
    let lines = Lines::start().await;
    let check =
        async |of: &str, query: &str, artifacts: &[&str], tasks: &[&str], runs: usize, truncated: bool| {
            let found = lines.lineage(of, query).await;
            assert_eq!(names(&found["artifacts"], "name"), artifacts, "{of}{query}");
            let mut found_tasks = names(&found["tasks"], "name");
            found_tasks.sort();
            assert_eq!(found_tasks, tasks, "{of}{query}");
            assert_eq!(found["runs"].as_array().map_or(0, Vec::len), runs, "{of}{query}");
            assert_eq!(
                found["truncated"].as_bool().unwrap_or(false),
                truncated,
                "{of}{query}"
            );
        };
    check(
        "model",
        "?direction=UPSTREAM",
        &["raw", "data", "model"],
        &["clean", "train"],
        1,
        false,
    )
    .await;
    check("model", "?direction=DOWNSTREAM", &["model"], &[], 0, false).await;
    check(
        "raw",
        "?direction=downstream",
        &["raw", "data", "model", "report"],
        &["clean", "test", "train"],
        2,
        false,
    )
    .await;
    check(
        "data",
        "",
        &["raw", "data", "model", "report"],
        &["clean", "test", "train"],
        2,
        false,
    )
    .await;
    check("model", "?depth=1", &["data", "model"], &["train"], 1, true).await;
    check("model", "?depth=0", &["model"], &[], 0, true).await;
    let found = lines.lineage("model", "?direction=UPSTREAM").await;
    assert_eq!(found["links"].as_array().unwrap().len(), 4);

    let id = lines.artifacts["data"].id;
    refused(
        lines
            .server
            .get(&format!("/artifacts/{id}:lineage?direction=SIDEWAYS"))
            .await,
        400,
        3,
        "SIDEWAYS",
    );
    let absent = "/artifacts/0198c0de-0000-7000-8000-000000000000:lineage";
    refused(lines.server.get(absent).await, 404, 5, "artifact");
}

#[tokio::test]
async fn links_are_listed_by_run_task_artifact_and_type_in_pages() {
    let lines = Lines::start().await;
    let server = &lines.server;
    assert_eq!(server.ok("/artifact_tasks").await["total_size"], 7);
    let run = format!("/artifact_tasks?run_id={}", lines.first);
    let first = server.ok(&format!("{run}&page_size=3")).await;
    assert_eq!(first["total_size"], 5);
    assert_eq!(first["artifact_tasks"].as_array().unwrap().len(), 3);
    let token = first["next_page_token"].as_str().unwrap();
    let rest = server.ok(&format!("{run}&page_size=3&page_token={token}")).await;
    assert_eq!(rest["artifact_tasks"].as_array().unwrap().len(), 2);

    let data = lines.artifacts["data"].id;
    let made = server
        .ok(&format!("/artifact_tasks?artifact_ids={data}&type=OUTPUT"))
        .await;
    assert_eq!(made["total_size"], 1);
    let made = &made["artifact_tasks"][0];
    assert_eq!(made["type"], "OUTPUT");
    assert_eq!(made["key"], "data");
    let task = TaskId::at(lines.first, "root.clean");
    assert_eq!(made["task_id"], task.to_string());
    let both = format!(
        "/artifact_tasks?task_ids={task},{}",
        TaskId::at(lines.first, "root.train")
    );
    assert_eq!(server.ok(&both).await["total_size"], 4);

    refused(server.get("/artifact_tasks?type=NONE").await, 400, 3, "NONE");
    refused(server.get("/artifact_tasks?colour=red").await, 400, 3, "colour");
    refused(server.get("/artifact_tasks?run_id=x").await, 404, 5, "run");
}

#[tokio::test]
async fn artifacts_are_listed_in_pages_and_recorded_by_hand() {
    let lines = Lines::start().await;
    let server = &lines.server;
    let page = server.ok("/artifacts?page_size=3&sort_by=name").await;
    assert_eq!(names(&page["artifacts"], "name"), ["data", "model", "raw"]);
    assert_eq!(page["total_size"], 4);
    let token = page["next_page_token"].as_str().unwrap();
    let rest = server.ok(&format!("/artifacts?page_token={token}")).await;
    assert_eq!(names(&rest["artifacts"], "name"), ["report"]);
    let of_run = server.ok(&format!("/artifacts?run_id={}", lines.first)).await;
    assert_eq!(names(&of_run["artifacts"], "name"), ["raw", "data", "model"]);

    let new =
        |uri: &str| json!({"artifact": {"name": "mine", "type": "Model", "uri": uri, "metadata": {"a": 1}}});
    let (status, made) = server.post("/artifacts", new("s3://bucket/model")).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert_eq!(made["type"], "system.Model");
    let path = format!("/artifacts/{}", made["artifact_id"].as_str().unwrap());
    assert_eq!(server.ok(&path).await, made);
    let several = json!({"artifacts": [new("/data/a"), new("/data/b")]});
    let (status, made) = server.post("/artifacts:batchCreate", several).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert_eq!(made["artifacts"][1]["uri"], "/data/b");

    refused(
        server.post("/artifacts", new("nowhere")).await,
        400,
        3,
        "`artifact.uri`",
    );
    let several = json!({"artifacts": [new("/data/c"), new("nowhere")]});
    refused(
        server.post("/artifacts:batchCreate", several).await,
        400,
        3,
        "`artifact.uri`",
    );
    let mut linked = new("/data/c");
    linked["run_id"] = json!(lines.first);
    refused(
        server.post("/artifacts", linked).await,
        403,
        7,
        "by the engine alone",
    );
    assert_eq!(server.ok("/artifacts").await["total_size"], 7);
}

#[tokio::test]
async fn only_the_engine_writes_tasks_and_links() {
    let lines = Lines::start().await;
    let tasks = format!("/runs/{}/tasks", lines.first);
    let task = format!("{tasks}/{}", TaskId::at(lines.first, "root.train"));
    for path in [
        &tasks,
        &format!("{tasks}:batchUpdate"),
        "/artifact_tasks",
        "/artifact_tasks:batchCreate",
    ] {
        refused(
            lines.server.post(path, json!({})).await,
            403,
            7,
            "by the engine alone",
        );
    }
    refused(
        lines.server.patch(&task, json!({})).await,
        403,
        7,
        "by the engine alone",
    );
}
