//! Runs: made from a pipeline of either kind, listed, stopped, retried and put away.

use axum::http::StatusCode;
use coracle_api::state::RuntimeState;
use coracle_store::records::Commit;
use serde_json::{Value, json};

use crate::server::{Server, pipeline, refused, status};

fn inline(parameters: Value) -> Value {
    json!({"display_name": "run", "pipeline_spec": pipeline(), "runtime_config": {"parameters": parameters}})
}

#[tokio::test]
async fn a_run_of_an_inline_pipeline_goes_to_the_default_experiment() {
    let server = Server::start().await;
    let (code, made) = server.post("/runs", inline(json!({"text": "a"}))).await;
    assert_eq!(code, StatusCode::OK, "{made}");
    assert_eq!(made["state"], "PENDING");
    assert_eq!(made["storage_state"], "AVAILABLE");
    assert_eq!(made["finished_at"], "1970-01-01T00:00:00Z");
    assert_eq!(made["pipeline_spec"], pipeline());
    assert_eq!(made["runtime_config"], json!({"parameters": {"text": "a"}}));
    assert_eq!(made["state_history"][0]["state"], "PENDING");
    let experiment = server
        .ok(&format!(
            "/experiments/{}",
            made["experiment_id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(experiment["display_name"], "Default");
    assert_eq!(experiment["last_run_created_at"], made["created_at"]);

    let (_, again) = server.post("/runs", inline(json!({"text": "b"}))).await;
    assert_eq!(again["experiment_id"], made["experiment_id"]);
    let mut shown = server
        .ok(&format!("/runs/{}", made["run_id"].as_str().unwrap()))
        .await;
    assert_eq!(
        shown.as_object_mut().unwrap().remove("run_details"),
        Some(json!({}))
    );
    assert_eq!(shown, made);
}

#[tokio::test]
async fn a_run_of_a_pipeline_takes_the_latest_version_when_none_is_named() {
    let server = Server::start().await;
    let (_, made) = server.post("/pipelines", json!({"name": "p"})).await;
    let pipeline_id = made["pipeline_id"].as_str().unwrap();
    let body = |reference: Value| {
        json!({"display_name": "run", "pipeline_version_reference": reference,
               "runtime_config": {"parameters": {"text": "a"}}})
    };
    let latest = body(json!({"pipeline_id": pipeline_id}));
    refused(
        server.post("/runs", latest.clone()).await,
        400,
        9,
        "has no version",
    );

    let versions = format!("/pipelines/{pipeline_id}/versions");
    let (_, one) = server
        .post(&versions, json!({"name": "one", "pipeline_spec": pipeline()}))
        .await;
    let (_, two) = server
        .post(&versions, json!({"name": "two", "pipeline_spec": pipeline()}))
        .await;
    let check = async |body: Value, version: &Value| {
        let (status, run) = server.post("/runs", body).await;
        assert_eq!(status, StatusCode::OK, "{run}");
        let expect =
            json!({"pipeline_id": pipeline_id, "pipeline_version_id": version["pipeline_version_id"]});
        assert_eq!(run["pipeline_version_reference"], expect);
        assert_eq!(run.get("pipeline_spec"), None);
    };
    check(latest, &two).await;
    check(
        body(json!({"pipeline_id": pipeline_id, "pipeline_version_id": one["pipeline_version_id"]})),
        &one,
    )
    .await;
    let absent =
        json!({"pipeline_id": pipeline_id, "pipeline_version_id": "0198c0de-0000-7000-8000-000000000000"});
    refused(
        server.post("/runs", body(absent)).await,
        404,
        5,
        "pipeline version",
    );
}

#[tokio::test]
async fn a_run_that_cannot_be_is_refused_and_leaves_nothing() {
    let server = Server::start().await;
    let mut broken = pipeline();
    broken["root"]["dag"]["tasks"]["say"]["dependentTasks"] = json!(["none"]);
    let absent = "0198c0de-0000-7000-8000-000000000000";
    let with = |field: &str, value: Value| {
        let mut body = inline(json!({"text": "a"}));
        body[field] = value;
        body
    };
    for (body, status, code, message) in [
        (inline(json!({})), 400, 3, "text"),
        (inline(json!({"text": 7})), 400, 3, "text"),
        (inline(json!({"text": "a", "more": 1})), 400, 3, "more"),
        (with("display_name", json!("")), 400, 3, "no name"),
        (with("pipeline_spec", broken), 400, 3, "root.dag.tasks.say"),
        (with("pipeline_spec", Value::Null), 400, 3, "names no pipeline"),
        (
            with("pipeline_version_reference", json!({"pipeline_id": absent})),
            400,
            3,
            "two pipelines",
        ),
        (with("experiment_id", json!(absent)), 404, 5, "experiment"),
        (
            with("experiment_id", json!("nonsense")),
            404,
            5,
            "experiment `nonsense`",
        ),
        (
            with(
                "runtime_config",
                json!({"parameters": {"text": "a"}, "root": "/"}),
            ),
            400,
            3,
            "unknown field `root`",
        ),
        (with("nonsense", json!(1)), 400, 3, "unknown field `nonsense`"),
        (
            json!({"display_name": "r", "pipeline_version_id": absent}),
            400,
            3,
            "names a version and no pipeline",
        ),
        (
            json!({"display_name": "r", "pipeline_version_reference": {"pipeline_id": absent}}),
            404,
            5,
            "pipeline",
        ),
    ] {
        refused(server.post("/runs", body).await, status, code, message);
    }
    assert_eq!(server.ok("/runs").await, json!({"total_size": 0}));
    assert_eq!(server.ok("/experiments").await, json!({"total_size": 0}));
}

#[tokio::test]
async fn an_archived_experiment_takes_no_runs() {
    let server = Server::start().await;
    let (_, experiment) = server.post("/experiments", json!({"display_name": "e"})).await;
    let id = experiment["experiment_id"].as_str().unwrap();
    server.verb(&format!("/experiments/{id}:archive")).await;
    refused(
        server
            .post(&format!("/runs?experiment_id={id}"), inline(json!({"text": "a"})))
            .await,
        400,
        9,
        "archived",
    );
}

#[tokio::test]
async fn runs_are_listed_by_experiment_and_without_what_is_long() {
    let server = Server::start().await;
    let (_, experiment) = server.post("/experiments", json!({"display_name": "e"})).await;
    let id = experiment["experiment_id"].as_str().unwrap();
    let (_, made) = server
        .post(&format!("/runs?experiment_id={id}"), inline(json!({"text": "a"})))
        .await;
    assert_eq!(made["experiment_id"], id);
    server.run().await;
    assert_eq!(server.ok("/runs?namespace=").await["total_size"], 2);
    let page = server
        .ok(&format!(
            "/runs?experiment_id={id}&page_size=10&sort_by=created_at%20desc"
        ))
        .await;
    assert_eq!(page["total_size"], 1);
    assert_eq!(page["runs"][0]["run_id"], made["run_id"]);
    assert_eq!(page["runs"][0].get("pipeline_spec"), None);
    assert_eq!(page["runs"][0].get("run_details"), None);
    refused(
        server
            .get("/runs?experiment_id=0198c0de-0000-7000-8000-000000000000")
            .await,
        404,
        5,
        "experiment",
    );
}

#[tokio::test]
async fn a_run_is_stopped_archived_and_deleted() {
    let server = Server::start().await;
    let run = server.run().await;
    let path = format!("/runs/{run}");
    assert_eq!(
        server.verb(&format!("{path}:terminate")).await,
        (StatusCode::OK, json!({}))
    );
    assert!(server.records.run(run).await.unwrap().termination_requested);
    server
        .commit(
            run,
            Commit {
                run: status(RuntimeState::Canceled),
                ..Commit::default()
            },
        )
        .await;
    refused(
        server.verb(&format!("{path}:terminate")).await,
        400,
        9,
        "already ended as CANCELED",
    );

    assert_eq!(
        server.verb(&format!("{path}:archive")).await,
        (StatusCode::OK, json!({}))
    );
    assert_eq!(server.ok(&path).await["storage_state"], "ARCHIVED");
    assert_eq!(
        server.verb(&format!("{path}:unarchive")).await,
        (StatusCode::OK, json!({}))
    );
    assert_eq!(server.ok(&path).await["storage_state"], "AVAILABLE");
    assert_eq!(server.delete(&path).await, (StatusCode::OK, json!({})));
    for verb in ["", ":terminate", ":archive", ":unarchive"] {
        let answer = if verb.is_empty() {
            server.delete(&path).await
        } else {
            server.verb(&format!("{path}{verb}")).await
        };
        refused(answer, 404, 5, "run");
    }
}

#[tokio::test]
async fn only_a_run_that_did_not_end_well_is_retried() {
    let server = Server::start().await;
    let run = server.run().await;
    let path = format!("/runs/{run}:retry");
    let end = async |state| {
        let commit = Commit {
            run: status(state),
            ..Commit::default()
        };
        server.commit(run, commit).await;
    };
    refused(server.verb(&path).await, 400, 9, "it is PENDING");
    end(RuntimeState::Succeeded).await;
    refused(server.verb(&path).await, 400, 9, "nothing left to do again");
    for state in [RuntimeState::Canceled, RuntimeState::Failed] {
        end(state).await;
        assert_eq!(server.verb(&path).await, (StatusCode::OK, json!({})));
        assert!(server.records.run(run).await.unwrap().retry_requested);
    }
    let absent = "/runs/0198c0de-0000-7000-8000-000000000000:retry";
    refused(server.verb(absent).await, 404, 5, "run");
}

#[tokio::test]
async fn artifacts_of_a_run_go_only_where_they_can_be_kept() {
    let server = Server::start().await;
    let with = |root: &str| {
        let mut body = inline(json!({"text": "a"}));
        body["runtime_config"]["pipeline_root"] = json!(root);
        body
    };
    let inside = server.folder.path().join("mine").display().to_string();
    for root in [
        inside.as_str(),
        "s3://bucket/folder",
        "gs://b",
        "minio://b/k",
        "az://c/k",
        "abfss://c@a.dfs.core.windows.net/k",
    ] {
        let (code, made) = server.post("/runs", with(root)).await;
        assert_eq!(code, StatusCode::OK, "{made}");
        assert_eq!(made["runtime_config"]["pipeline_root"], root);
    }
    for root in [
        "/etc",
        "relative/folder",
        "http://host/x",
        "ftp://host/x",
        "s3://",
        "/../etc",
    ] {
        let answer = server.post("/runs", with(root)).await;
        assert_eq!(answer.1["details"][1]["reason"], "PipelineRootInvalid", "{root}");
        refused(answer, 400, 3, "`runtime_config.pipeline_root`");
    }
}
