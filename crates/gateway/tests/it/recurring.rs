//! Recurring runs: made, shown, listed page by page, switched, deleted, and what is refused.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::{Server, pipeline, refused};

fn body(trigger: Value) -> Value {
    json!({
        "display_name": "nightly",
        "pipeline_spec": pipeline(),
        "runtime_config": {"parameters": {"text": "of [[ScheduledTime.2006-01-02]]"}},
        "trigger": trigger,
        "mode": "ENABLE",
    })
}

fn cron() -> Value {
    json!({"cron_schedule": {"cron": "0 30 2 ? * MON-FRI", "start_time": "2026-01-01T00:00:00Z"}})
}

async fn make(server: &Server, name: &str) -> String {
    let mut body = body(json!({"periodic_schedule": {"interval_second": "3600"}}));
    body["display_name"] = json!(name);
    let (status, made) = server.post("/recurringruns", body).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    made["recurring_run_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_recurring_run_is_shown_as_kfp_does() {
    let server = Server::start().await;
    let mut body = body(cron());
    body["max_concurrency"] = json!("3");
    body["no_catchup"] = json!(true);
    let (status, made) = server.post("/recurringruns", body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert_eq!(made["status"], "ENABLED");
    assert_eq!(made["max_concurrency"], "3");
    for field in [
        "display_name",
        "pipeline_spec",
        "runtime_config",
        "trigger",
        "mode",
        "no_catchup",
    ] {
        assert_eq!(made[field], body[field], "{field}");
    }
    let experiment = made["experiment_id"].as_str().unwrap();
    let shown = server.ok(&format!("/experiments/{experiment}")).await;
    assert_eq!(shown["display_name"], "Default");
    let path = format!("/recurringruns/{}", made["recurring_run_id"].as_str().unwrap());
    assert_eq!(server.ok(&path).await, made);

    body["mode"] = json!("DISABLE");
    body["trigger"] = json!({"periodicSchedule": {"intervalSecond": 60, "endTime": "2030-01-01T00:00:00Z"}});
    let (_, made) = server.post("/recurringruns", body).await;
    assert_eq!(made["status"], "DISABLED");
    let trigger = json!({"periodic_schedule": {"interval_second": "60", "end_time": "2030-01-01T00:00:00Z"}});
    assert_eq!(made["trigger"], trigger);
}

#[tokio::test]
async fn a_recurring_run_without_a_version_keeps_none() {
    let server = Server::start().await;
    let (_, one) = server
        .post(
            "/pipelines/create",
            json!({"pipeline": {"name": "p"}, "pipeline_version": {"pipeline_spec": pipeline()}}),
        )
        .await;
    let mut body = body(cron());
    body.as_object_mut().unwrap().remove("pipeline_spec");
    body["pipeline_version_reference"] = json!({"pipeline_id": one["pipeline_id"]});
    let (status, made) = server.post("/recurringruns", body).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert_eq!(
        made["pipeline_version_reference"],
        json!({"pipeline_id": one["pipeline_id"]})
    );
    assert_eq!(made.get("pipeline_spec"), None);
}

#[tokio::test]
async fn a_recurring_run_that_cannot_make_runs_is_refused() {
    let server = Server::start().await;
    let with = |field: &str, value: Value| {
        let mut body = body(cron());
        body[field] = value;
        body
    };
    for (body, code, message) in [
        (with("trigger", json!({})), 3, "`trigger`: expected one of"),
        (
            with("trigger", json!({"cron_schedule": {"cron": "every day"}})),
            3,
            "no cron expression",
        ),
        (
            with("trigger", json!({"cron_schedule": {"cron": "0 0 0 30 2 ?"}})),
            3,
            "no date ever",
        ),
        (
            with("trigger", json!({"periodic_schedule": {"interval_second": "0"}})),
            3,
            "interval_second",
        ),
        (
            with(
                "trigger",
                json!({"periodic_schedule": {"interval_second": "9", "start_time": "2027-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}}),
            ),
            3,
            "`end_time` is before `start_time`",
        ),
        (with("max_concurrency", json!("11")), 3, "from 1 to 10"),
        (with("max_concurrency", json!(0)), 3, "from 1 to 10"),
        (with("max_concurrency", json!("many")), 3, "whole number"),
        (with("display_name", json!("")), 3, "no name"),
        (with("pipeline_spec", Value::Null), 3, "names no pipeline"),
        (
            with("runtime_config", json!({})),
            3,
            "runtime_config.parameters.text",
        ),
        (with("mode", json!("SOMETIMES")), 3, "SOMETIMES"),
        (with("nonsense", json!(1)), 3, "nonsense"),
    ] {
        refused(server.post("/recurringruns", body).await, 400, code, message);
    }
    let (_, refusal) = server.post("/recurringruns", with("trigger", json!({}))).await;
    assert_eq!(refusal["details"][1]["reason"], "ScheduleInvalid");
    assert_eq!(server.ok("/recurringruns").await, json!({"total_size": 0}));
}

#[tokio::test]
async fn recurring_runs_are_listed_in_pages_and_by_status() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        make(&server, name).await;
    }
    let page = server
        .ok("/recurringruns?page_size=2&sort_by=display_name%20desc")
        .await;
    assert_eq!(page["total_size"], 3);
    assert_eq!(page["recurringRuns"][0]["display_name"], "c");
    assert_eq!(page["recurringRuns"][0].get("pipeline_spec"), None);
    let token = page["next_page_token"].as_str().unwrap();
    let rest = server.ok(&format!("/recurringruns?page_token={token}")).await;
    assert_eq!(rest["recurringRuns"][0]["display_name"], "a");
    assert_eq!(rest.get("next_page_token"), None);

    let id = page["recurringRuns"][0]["recurring_run_id"].as_str().unwrap();
    server.verb(&format!("/recurringruns/{id}:disable")).await;
    let filter = r#"{"predicates":[{"operation":1,"key":"status","stringValue":"DISABLED"}]}"#;
    let disabled = server
        .ok(&format!(
            "/recurringruns?filter={}",
            filter.replace('"', "%22").replace('{', "%7B").replace('}', "%7D")
        ))
        .await;
    assert_eq!(disabled["total_size"], 1);
    assert_eq!(disabled["recurringRuns"][0]["recurring_run_id"], id);
    let none = "/recurringruns?experiment_id=0198c0de-0000-7000-8000-000000000000";
    refused(server.get(none).await, 404, 5, "experiment");
    refused(
        server.get("/recurringruns?sort_by=colour").await,
        400,
        3,
        "colour",
    );
}

#[tokio::test]
async fn a_recurring_run_is_switched_off_and_on_and_deleted() {
    let server = Server::start().await;
    let id = make(&server, "a").await;
    let path = format!("/recurringruns/{id}");
    let done = (StatusCode::OK, json!({}));
    assert_eq!(server.verb(&format!("{path}:disable")).await, done);
    assert_eq!(server.ok(&path).await["status"], "DISABLED");
    assert_eq!(server.verb(&format!("{path}:enable")).await, done);
    let shown = server.ok(&path).await;
    assert_eq!(shown["mode"], "ENABLE");

    let experiment = shown["experiment_id"].as_str().unwrap();
    server.verb(&format!("/experiments/{experiment}:archive")).await;
    assert_eq!(server.ok(&path).await["status"], "DISABLED");
    refused(server.verb(&format!("{path}:enable")).await, 400, 9, "archived");

    let policy = format!("{path}?propagation_policy=SOMEHOW");
    refused(server.delete(&policy).await, 400, 3, "SOMEHOW");
    assert_eq!(
        server.delete(&format!("{path}?propagation_policy=ORPHAN")).await,
        done
    );
    refused(server.get(&path).await, 404, 5, "recurring run");
    for verb in ["enable", "disable"] {
        refused(
            server.verb(&format!("{path}:{verb}")).await,
            404,
            5,
            "recurring run",
        );
    }
}
