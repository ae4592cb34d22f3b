//! Experiments, and what all lists have in common: filters, sorting, pages.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::{Server, refused};

async fn make(server: &Server, name: &str) -> String {
    let (status, body) = server.post("/experiments", json!({"display_name": name})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body["experiment_id"].as_str().unwrap().to_owned()
}

fn names(page: &Value) -> Vec<&str> {
    let items = page["experiments"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    items
        .iter()
        .map(|item| item["display_name"].as_str().unwrap())
        .collect()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn an_experiment_is_made_shown_archived_and_deleted() {
    let server = Server::start().await;
    let body = json!({"display_name": "one", "description": "first", "namespace": ""});
    let (status, made) = server.post("/experiments", body).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert_eq!(made["storage_state"], "AVAILABLE");
    assert_eq!(made["last_run_created_at"], "1970-01-01T00:00:00Z");
    assert_eq!(
        made.get("namespace"),
        None,
        "cleared, as KFP does for a single user"
    );
    let path = format!("/experiments/{}", made["experiment_id"].as_str().unwrap());
    assert_eq!(server.ok(&path).await, made);

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
    refused(server.get(&path).await, 404, 5, "was not found");
}

#[tokio::test]
async fn an_experiment_that_cannot_be_is_refused() {
    let server = Server::start().await;
    make(&server, "taken").await;
    refused(
        server
            .post("/experiments", json!({"display_name": "taken"}))
            .await,
        409,
        6,
        "`taken` already exists",
    );
    refused(
        server.post("/experiments", json!({})).await,
        400,
        3,
        "has no name",
    );
    refused(
        server
            .post("/experiments", json!({"display_name": "x".repeat(129)}))
            .await,
        400,
        3,
        "129 characters",
    );
    refused(
        server.post("/experiments", json!({"displayname": "x"})).await,
        400,
        3,
        "unknown field `displayname`",
    );
    refused(
        server.post("/experiments", json!({"display_name": 7})).await,
        400,
        3,
        "at `display_name`",
    );
    refused(
        server.post("/experiments", json!([])).await,
        400,
        3,
        "request body",
    );
    refused(
        server.get("/experiments/nonsense").await,
        404,
        5,
        "experiment `nonsense` was not found",
    );
    assert_eq!(server.ok("/experiments").await["total_size"], 1);
}

#[tokio::test]
async fn an_empty_list_has_no_items_and_no_token() {
    let server = Server::start().await;
    assert_eq!(
        server
            .ok("/experiments?page_token=&page_size=10&sort_by=&filter=&namespace=")
            .await,
        json!({"total_size": 0})
    );
}

#[tokio::test]
async fn pages_lead_through_the_whole_list_once() {
    let server = Server::start().await;
    for name in ["c", "a", "e", "b", "d"] {
        make(&server, name).await;
    }
    let check = async |sort: &str, expect: [&str; 5]| {
        let mut seen: Vec<String> = Vec::new();
        let mut query = format!("/experiments?page_size=2&sort_by={sort}");
        loop {
            let page = server.ok(&query).await;
            assert_eq!(page["total_size"], 5);
            seen.extend(names(&page).into_iter().map(str::to_owned));
            match page["next_page_token"].as_str() {
                Some(token) => query = format!("/experiments?page_size=2&page_token={token}"),
                None => break,
            }
        }
        assert_eq!(seen, expect, "{sort}");
    };
    check("", ["c", "a", "e", "b", "d"]).await;
    check("created_at%20desc", ["d", "b", "e", "a", "c"]).await;
    check("display_name", ["a", "b", "c", "d", "e"]).await;
    check("name%20desc", ["e", "d", "c", "b", "a"]).await;
}

#[tokio::test]
async fn filters_choose_and_go_on_through_pages() {
    let server = Server::start().await;
    for name in ["one", "two", "three", "o'brien", "100%"] {
        make(&server, name).await;
    }
    let check = async |predicate: Value, expect: &[&str]| {
        let filter = encoded(&json!({"predicates": [predicate]}).to_string());
        let first = server
            .ok(&format!("/experiments?page_size=1&filter={filter}"))
            .await;
        let mut seen = vec![first.clone()];
        while let Some(token) = seen.last().unwrap()["next_page_token"].as_str() {
            let next = server
                .ok(&format!(
                    "/experiments?page_size=1&filter={filter}&page_token={token}"
                ))
                .await;
            seen.push(next);
        }
        assert_eq!(seen.iter().flat_map(names).collect::<Vec<_>>(), expect);
        assert_eq!(first["total_size"], expect.len());
    };
    check(
        json!({"operation": 1, "key": "display_name", "stringValue": "two"}),
        &["two"],
    )
    .await;
    check(
        json!({"operation": "EQUALS", "key": "name", "string_value": "o'brien"}),
        &["o'brien"],
    )
    .await;
    check(
        json!({"operation": "IS_SUBSTRING", "key": "name", "string_value": "%"}),
        &["100%"],
    )
    .await;
    check(
        json!({"operation": "IS_SUBSTRING", "key": "name", "string_value": "o"}),
        &["one", "two", "o'brien"],
    )
    .await;
    check(
        json!({"operation": "IN", "key": "name", "string_values": {"values": ["two", "none"]}}),
        &["two"],
    )
    .await;
    check(
        json!({"operation": 1, "key": "name", "string_value": "' OR 1=1 --"}),
        &[],
    )
    .await;
    check(
        json!({"operation": 6, "key": "created_at", "timestamp_value": "2020-01-01T00:00:00Z"}),
        &[],
    )
    .await;
}

#[tokio::test]
async fn lists_that_cannot_be_are_refused() {
    let server = Server::start().await;
    make(&server, "one").await;
    make(&server, "two").await;
    let page = server.ok("/experiments?page_size=1&sort_by=display_name").await;
    let token = page["next_page_token"].as_str().unwrap();
    let unknown = encoded(r#"{"predicates":[{"operation":1,"key":"secret","string_value":"x"}]}"#);
    let injection = encoded(r#"{"predicates":[{"operation":1,"key":"name) OR (1=1","string_value":"x"}]}"#);
    for (query, message) in [
        ("page_size=-1".to_owned(), "page_size"),
        ("page_size=ten".to_owned(), "page_size"),
        ("page_token=nonsense".to_owned(), "page_token"),
        (
            format!("page_token={token}&sort_by=created_at"),
            "sort_by differs",
        ),
        (format!("page_token={token}&filter={unknown}"), "filter differs"),
        ("sort_by=secret".to_owned(), "`secret` is not a field"),
        ("sort_by=name;drop%20table".to_owned(), "sort_by"),
        ("sort_by=name%20sideways".to_owned(), "sort_by"),
        ("filter=nonsense".to_owned(), "filter cannot be used"),
        (format!("filter={unknown}"), "`secret` is not a field"),
        (format!("filter={injection}"), "is not a field"),
    ] {
        refused(
            server.get(&format!("/experiments?{query}")).await,
            400,
            3,
            message,
        );
    }
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_answer_in_the_same_shape() {
    let server = Server::start().await;
    refused(server.get("/nonsense").await, 404, 5, "/nonsense");
    refused(server.get("").await, 404, 5, "nothing at");
    refused(
        server.delete("/experiments").await,
        405,
        12,
        "does not take DELETE",
    );
    refused(
        server.verb("/runs/1:explode").await,
        405,
        12,
        "does not take POST",
    );
    refused(
        server.verb("/recurringruns/1:explode").await,
        405,
        12,
        "does not take POST",
    );
}
