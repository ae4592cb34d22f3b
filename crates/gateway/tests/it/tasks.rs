//! A run's tasks and artifacts, as KFP shows them and in full.

use std::collections::BTreeMap;

use coracle_api::{
    id::{ArtifactId, EventId, RunId},
    launch::Failure,
    reason::Reason,
    state::RuntimeState,
};
use coracle_store::records::{Artifact, ArtifactTask, Commit, IoType, RunStatus, StateChange, TaskEvent};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::server::{Server, attempt, refused, task};

/// A run whose task failed once and then made a model.
async fn with_tasks(server: &Server) -> (RunId, ArtifactId) {
    let run = server.run().await;
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let root = task(run, "root", RuntimeState::Running);
    let mut say = task(run, "root.say", RuntimeState::Succeeded);
    say.state_history = vec![StateChange {
        time: at(1),
        state: RuntimeState::Running,
        error: None,
    }];
    let model = ArtifactId::of_output(say.id, 2, "model", 0);
    say.inputs.parameters = Map::from_iter([("text".to_owned(), json!("a"))]);
    say.outputs.artifacts = BTreeMap::from([("model".to_owned(), vec![model])]);
    let mut first = attempt(&say, 1, RuntimeState::Failed);
    first.error = Some(Failure {
        reason: Reason::CommandFailed,
        message: "exit code 1".to_owned(),
    });
    first.exit_code = Some(1);
    let second = attempt(&say, 2, RuntimeState::Succeeded);
    let mut late = task(run, "root.late", RuntimeState::Failed);
    late.error = Some(Failure {
        reason: Reason::UpstreamFailed,
        message: "`say` failed".to_owned(),
    });
    let event = TaskEvent {
        id: EventId::new(),
        run_id: run,
        task_id: say.id,
        time: at(2),
        kind: "Warning".to_owned(),
        reason: "CommandFailed".to_owned(),
        message: "trying again".to_owned(),
    };
    let artifact = Artifact {
        id: model,
        namespace: "default".to_owned(),
        name: "model".to_owned(),
        artifact_type: "system.Model".to_owned(),
        type_version: "0.0.1".to_owned(),
        uri: "/artifacts/model".to_owned(),
        metadata: Map::from_iter([("accuracy".to_owned(), json!(0.9))]),
        digest: Some("sha256:00".to_owned()),
        size: Some(12),
        created_at: at(3),
    };
    let link = ArtifactTask {
        artifact_id: model,
        run_id: run,
        task_id: say.id,
        io: IoType::Output,
        key: "model".to_owned(),
        position: 0,
        producer_task: String::new(),
    };
    server
        .commit(
            run,
            Commit {
                run: Some(RunStatus {
                    state: RuntimeState::Failed,
                    error: Some(Failure {
                        reason: Reason::CommandFailed,
                        message: "`late` failed".to_owned(),
                    }),
                    state_history: Vec::new(),
                    retried: false,
                    finished_at: Some(at(4)),
                }),
                tasks: vec![root, say, late],
                attempts: vec![first, second],
                specs: Vec::new(),
                events: vec![event],
                artifacts: vec![artifact],
                artifact_tasks: vec![link],
                cache_entries: Vec::new(),
            },
        )
        .await;
    (run, model)
}

fn named<'a>(tasks: &'a Value, name: &str) -> &'a Value {
    tasks
        .as_array()
        .unwrap()
        .iter()
        .find(|task| task["display_name"] == name)
        .unwrap()
}

#[tokio::test]
async fn a_run_shows_its_tasks_as_kfp_does() {
    let server = Server::start().await;
    let (run, model) = with_tasks(&server).await;
    let shown = server.ok(&format!("/runs/{run}")).await;
    assert_eq!(shown["state"], "FAILED");
    assert_eq!(shown["finished_at"], "1970-01-01T00:00:04Z");
    assert_eq!(shown["error"]["message"], "`late` failed");
    assert_eq!(shown["error"]["details"][0]["reason"], "CommandFailed");
    let tasks = &shown["run_details"]["task_details"];
    assert_eq!(tasks.as_array().unwrap().len(), 3);
    let (root, say, late) = (named(tasks, "root"), named(tasks, "say"), named(tasks, "late"));
    assert_eq!(say["pod_name"], "say-2");
    assert_eq!(
        say["executor_detail"],
        json!({"main_job": "say-2", "failed_main_jobs": ["say-1"]})
    );
    assert_eq!(say["parent_task_id"], root["task_id"]);
    assert_eq!(
        say["outputs"],
        json!({"model": {"artifact_ids": [model.to_string()]}})
    );
    assert_eq!(say.get("inputs"), None, "parameters are no artifacts");
    assert_eq!(
        say["state_history"],
        json!([{"update_time": "1970-01-01T00:00:01Z", "state": "RUNNING"}])
    );
    let children = root["child_tasks"].as_array().unwrap();
    assert!(
        children.contains(&json!({"task_id": say["task_id"], "pod_name": "say-2"})),
        "{children:?}"
    );
    assert!(
        children.contains(&json!({"task_id": late["task_id"]})),
        "{children:?}"
    );
    assert_eq!(
        late["error"]["details"][0]["metadata"]["hint"],
        Reason::UpstreamFailed.hint()
    );
}

#[tokio::test]
async fn tasks_are_shown_in_full_and_without_secrets() {
    let server = Server::start().await;
    let (run, model) = with_tasks(&server).await;
    let listed = server.ok(&format!("/runs/{run}/tasks")).await;
    assert_eq!(listed["total_size"], 3);
    let say = named(&listed["tasks"], "say");
    assert_eq!(say["type"], "CONTAINER");
    assert_eq!(say["scope_path"], "root.say");
    assert_eq!(say["inputs"], json!({"parameters": {"text": "a"}}));
    assert_eq!(
        say["outputs"],
        json!({"artifacts": {"model": {"artifact_ids": [model.to_string()]}}})
    );
    assert_eq!(say["events"][0]["message"], "trying again");
    assert_eq!(say["attempts"][0]["exit_code"], 1);
    let error =
        json!({"reason": "CommandFailed", "message": "exit code 1", "hint": Reason::CommandFailed.hint()});
    assert_eq!(say["attempts"][0]["error"], error);
    assert!(!listed.to_string().contains("secret-"), "tokens are not shown");
    let path = format!("/runs/{run}/tasks/{}", say["task_id"].as_str().unwrap());
    assert_eq!(&server.ok(&path).await, say);

    let page = server.ok(&format!("/runs/{run}/tasks?page_size=2")).await;
    assert_eq!(page["total_size"], 3);
    assert_eq!(page["tasks"].as_array().unwrap().len(), 2);
    let token = page["next_page_token"].as_str().unwrap();
    let rest = server
        .ok(&format!("/runs/{run}/tasks?page_size=2&page_token={token}"))
        .await;
    assert_eq!(rest["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(rest.get("next_page_token"), None);
    let root = named(&listed["tasks"], "root")["task_id"].as_str().unwrap();
    let inside = server
        .ok(&format!("/runs/{run}/tasks?parent_task_id={root}"))
        .await;
    assert_eq!(inside["total_size"], 2);
    refused(
        server.get(&format!("/runs/{run}/tasks?page_token=x")).await,
        400,
        3,
        "page_token",
    );

    let other = server.run().await;
    let foreign = format!("/runs/{other}/tasks/{}", say["task_id"].as_str().unwrap());
    refused(server.get(&foreign).await, 404, 5, "task");
    refused(
        server
            .get("/runs/0198c0de-0000-7000-8000-000000000000/tasks")
            .await,
        404,
        5,
        "run",
    );
}

#[tokio::test]
async fn artifacts_are_shown_alone_and_by_run() {
    let server = Server::start().await;
    let (run, model) = with_tasks(&server).await;
    let shown = server.ok(&format!("/artifacts/{model}")).await;
    let expect = json!({
        "artifact_id": model.to_string(), "name": "model", "type": "system.Model", "uri": "/artifacts/model",
        "metadata": {"accuracy": 0.9}, "created_at": "1970-01-01T00:00:03Z", "namespace": "default",
        "digest": "sha256:00", "size": "12",
    });
    assert_eq!(shown, expect);
    assert_eq!(
        server.ok(&format!("/artifacts?run_id={run}")).await,
        json!({"artifacts": [expect], "total_size": 1})
    );
    refused(
        server
            .get("/artifacts?run_id=0198c0de-0000-7000-8000-000000000000")
            .await,
        404,
        5,
        "run",
    );
    refused(
        server
            .get("/artifacts/0198c0de-0000-7000-8000-000000000000")
            .await,
        404,
        5,
        "artifact",
    );
}
