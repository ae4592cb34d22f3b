//! Outputs that are taken over, and how a task was started.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use coracle_api::{id::RunId, state::RuntimeState};
use coracle_store::records::{CacheEntry, CachedFrom, Commit, Task, TaskIo, TaskKind};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::server::{self, Server, attempt, refused, task};

/// A task that took over outputs, and the entry it took them from.
async fn cached(server: &Server) -> (RunId, Task, CacheEntry) {
    let run = server.run().await;
    let root = task(run, "root", RuntimeState::Succeeded);
    let maker = task(run, "root.train", RuntimeState::Succeeded);
    let made_by = CachedFrom {
        run_id: run,
        task_id: maker.id,
    };
    let mut taker = task(run, "root.again", RuntimeState::Succeeded);
    taker.cached_from = Some(made_by);
    taker.retries = 2;
    let entry = CacheEntry {
        key: "a".repeat(64),
        namespace: "default".to_owned(),
        pipeline_name: "small".to_owned(),
        task_name: "train".to_owned(),
        made_by,
        outputs: TaskIo::default(),
        created_at: Timestamp::from_second(1).unwrap(),
    };
    let other = CacheEntry {
        key: "b".repeat(64),
        task_name: "other".to_owned(),
        ..entry.clone()
    };
    server
        .commit(
            run,
            Commit {
                tasks: vec![root, maker, taker.clone()],
                cache_entries: vec![entry.clone(), other],
                ..Commit::default()
            },
        )
        .await;
    (run, taker, entry)
}

#[tokio::test]
async fn a_task_that_took_over_outputs_is_cached_and_to_kfp_skipped() {
    let server = Server::start().await;
    let (run, taker, entry) = cached(&server).await;
    let shown = server.ok(&format!("/runs/{run}/tasks/{}", taker.id)).await;
    assert_eq!(shown["state"], "CACHED");
    assert_eq!(shown["retries"], 2);
    assert_eq!(shown["cached_from"]["task_id"], entry.made_by.task_id.to_string());
    let details = server.ok(&format!("/runs/{run}")).await["run_details"]["task_details"].clone();
    let states: BTreeMap<_, _> = details
        .as_array()
        .unwrap()
        .iter()
        .map(|task| {
            (
                task["display_name"].as_str().unwrap(),
                task["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(states["again"], "SKIPPED");
    assert_eq!(states["train"], "SUCCEEDED");

    let ask = async |pipeline: &str| {
        let body = json!({"pipeline_name": pipeline, "cache_fingerprint": entry.key});
        server.post("/tasks:findCached", body).await.1
    };
    let found = ask("small").await;
    assert_eq!(found["task"]["task_id"], entry.made_by.task_id.to_string());
    assert_eq!(found["cache_entry"]["key"], entry.key);
    assert_eq!(ask("another").await, json!({}));
}

#[tokio::test]
async fn cached_outputs_are_listed_and_forgotten() {
    let server = Server::start().await;
    let (run, _, entry) = cached(&server).await;
    let listed = server.ok("/cache_entries?pipeline_name=small&page_size=1").await;
    assert_eq!(listed["total_size"], 2);
    let token = listed["next_page_token"].as_str().unwrap();
    let rest = server
        .ok(&format!("/cache_entries?pipeline_name=small&page_token={token}"))
        .await;
    assert_eq!(rest["cache_entries"].as_array().unwrap().len(), 1);
    let listed = server.ok("/cache_entries?task_name=train").await;
    let expect = json!({
        "key": entry.key, "pipeline_name": "small", "task_name": "train", "run_id": run.to_string(),
        "task_id": entry.made_by.task_id.to_string(), "outputs": {}, "created_at": "1970-01-01T00:00:01Z",
    });
    assert_eq!(listed["cache_entries"], json!([expect]));

    let one = format!("/cache_entries/{}", entry.key);
    refused(
        server.delete(&format!("{one}?pipeline_name=another")).await,
        404,
        5,
        "cache entry",
    );
    assert_eq!(server.delete(&one).await, (StatusCode::OK, json!({"deleted": 1})));
    refused(server.delete(&one).await, 404, 5, "cache entry");

    let forget = async |body: Value| server.post("/cache_entries:invalidate", body).await.1;
    assert_eq!(forget(json!({"task_name": "none"})).await["deleted"], 0);
    assert_eq!(
        forget(json!({"older_than": "1970-01-01T00:00:00Z"})).await["deleted"],
        0
    );
    assert_eq!(forget(json!({"older_than": 60})).await["deleted"], 1);
    assert_eq!(server.ok("/cache_entries").await, json!({"total_size": 0}));
    refused(
        server
            .post("/cache_entries:invalidate", json!({"colour": "red"}))
            .await,
        400,
        3,
        "colour",
    );
}

#[tokio::test]
async fn how_a_task_was_started_is_shown_without_the_launchers_secrets() {
    let server = Server::start().await;
    let run = server.run().await;
    let root = task(run, "root", RuntimeState::Running);
    let say = task(run, "root.say", RuntimeState::Failed);
    let mut late = task(run, "root.late", RuntimeState::Pending);
    late.kind = TaskKind::Container;
    let tried = attempt(&say, 1, RuntimeState::Failed);
    let launch = json!({"command": ["python3"], "args": ["{{$}}"], "context": {"pipeline_job_uuid": "x"},
                          "executorInput": {"inputs": {"parameterValues": {"text": "a"}}}});
    let pod = json!({
        "metadata": {"annotations": {"coracle.dev/python-requirements": "{\"packages\": [\"kfp\"]}"}},
        "spec": {"containers": [{"image": "python:3.12", "env": [
            {"name": "MODE", "value": "fast"}, {"name": "CORACLE_LAUNCH_TOKEN", "value": "secret"}]}]},
    });
    server
        .commit(
            run,
            Commit {
                tasks: vec![root, say, late],
                specs: vec![server::spec(&tried, &launch, &pod)],
                attempts: vec![tried],
                ..Commit::default()
            },
        )
        .await;
    let shown = server.ok(&format!("/runs/{run}/tasks/say:debug")).await;
    assert_eq!(shown["image"], "python:3.12");
    assert_eq!(shown["command"], json!(["python3"]));
    assert_eq!(shown["env"], json!([{"name": "MODE", "value": "fast"}]));
    assert_eq!(shown["requirements"], json!({"packages": ["kfp"]}));
    assert_eq!(shown["executor_input"]["inputs"]["parameterValues"]["text"], "a");
    assert!(!shown.to_string().contains("secret"), "{shown}");
    refused(
        server.get(&format!("/runs/{run}/tasks/late:debug")).await,
        400,
        9,
        "no process",
    );
    refused(
        server.get(&format!("/runs/{run}/tasks/none:debug")).await,
        404,
        5,
        "task of run",
    );
}
