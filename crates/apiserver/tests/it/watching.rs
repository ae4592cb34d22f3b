//! Watch.

use jiff::Timestamp;
use serde_json::json;

use crate::harness::{Api, CONFIG_MAPS, MERGE, PODS, config_map, get, pod};

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there() {
    let api = Api::new().await;
    api.create(CONFIG_MAPS, &config_map("a")).await;
    let mut events = api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(events.summary().await, event("ADDED", "a"));
    api.create(CONFIG_MAPS, &config_map("b")).await;
    assert_eq!(events.summary().await, event("ADDED", "b"));
    api.patch(&format!("{CONFIG_MAPS}/a"), MERGE, &json!({"data": {"a": "2"}}))
        .await;
    assert_eq!(events.summary().await, event("MODIFIED", "a"));
    api.delete(&format!("{CONFIG_MAPS}/a")).await;
    assert_eq!(events.summary().await, event("DELETED", "a"));
}

#[tokio::test]
async fn a_watch_from_a_revision_begins_after_it() {
    let api = Api::new().await;
    let first = api.create(CONFIG_MAPS, &config_map("a")).await;
    api.create(CONFIG_MAPS, &config_map("b")).await;
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = api
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}"))
        .await;
    assert_eq!(events.summary().await, event("ADDED", "b"));
}

#[tokio::test]
async fn objects_come_into_and_leave_what_is_watched() {
    let api = Api::new().await;
    let query = "watch=true&labelSelector=tier%3Dx&fieldSelector=status.phase%3DPending";
    let mut events = api.watch(&format!("{PODS}?{query}")).await;
    api.create(PODS, &pod("a")).await;
    api.create(PODS, &pod("b")).await;
    let labels = |value: Option<&str>| json!({"metadata": {"labels": {"tier": value}}});
    api.patch(&format!("{PODS}/b"), MERGE, &labels(Some("x"))).await;
    assert_eq!(events.summary().await, event("ADDED", "b"));
    api.patch(
        &format!("{PODS}/b/status"),
        MERGE,
        &json!({"status": {"phase": "Running"}}),
    )
    .await;
    assert_eq!(events.summary().await, event("DELETED", "b"));
    api.patch(&format!("{PODS}/b"), MERGE, &labels(None)).await;
    api.patch(&format!("{PODS}/a"), MERGE, &labels(Some("x"))).await;
    assert_eq!(events.summary().await, event("ADDED", "a"));
}

#[tokio::test]
async fn one_object_can_be_watched() {
    let api = Api::new().await;
    let mut events = api
        .watch(&format!(
            "{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Db"
        ))
        .await;
    api.create(CONFIG_MAPS, &config_map("a")).await;
    api.create(CONFIG_MAPS, &config_map("b")).await;
    assert_eq!(events.summary().await, event("ADDED", "b"));
}

#[tokio::test]
async fn an_initial_list_ends_with_a_bookmark_that_says_so() {
    let api = Api::new().await;
    api.create(CONFIG_MAPS, &config_map("a")).await;
    let query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true";
    api.expect(422, get(&format!("{CONFIG_MAPS}?{query}"))).await;
    let mut events = api
        .watch(&format!(
            "{CONFIG_MAPS}?{query}&resourceVersionMatch=NotOlderThan"
        ))
        .await;
    assert_eq!(events.summary().await, event("ADDED", "a"));
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    api.create(CONFIG_MAPS, &config_map("b")).await;
    assert_eq!(events.summary().await, event("ADDED", "b"));
}

#[tokio::test]
async fn bookmarks_move_on_with_changes_to_other_kinds() {
    let api = Api::new().await;
    let query = "watch=true&resourceVersion=0&allowWatchBookmarks=true";
    let mut events = api.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    let other = api.create(PODS, &pod("p")).await;
    // From here on only the watch's own clock is waited for.
    tokio::time::pause();
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["resourceVersion"],
        other["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_watch_ends_in_time_and_when_the_server_stops() {
    let api = Api::new().await;
    let events = api
        .watch(&format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=30"))
        .await;
    let endless = api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    tokio::time::pause();
    assert!(events.rest().await.is_empty());
    api.stop.cancel();
    assert!(endless.rest().await.is_empty());
}

#[tokio::test]
async fn a_watch_from_a_revision_that_is_gone_ends_with_an_error_event() {
    let api = Api::new().await;
    api.create(CONFIG_MAPS, &config_map("a")).await;
    let revision = api.resources().revision().await.unwrap();
    api.resources().compact(revision + 1).await.unwrap();
    for revision in [1, revision - 1] {
        let events = api
            .watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}"))
            .await;
        let events = events.rest().await;
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0]["type"], "ERROR");
        assert_eq!(
            (&events[0]["object"]["code"], &events[0]["object"]["reason"]),
            (&json!(410), &json!("Expired"))
        );
    }
}

#[tokio::test]
async fn a_watch_from_a_revision_that_is_not_there_yet_tells_what_comes_after_it() {
    let api = Api::new().await;
    let ahead = api.resources().revision().await.unwrap() + 1;
    let mut events = api
        .watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={ahead}"))
        .await;
    api.create(CONFIG_MAPS, &config_map("at")).await;
    api.create(CONFIG_MAPS, &config_map("after")).await;
    assert_eq!(events.summary().await, event("ADDED", "after"));
}

#[tokio::test]
async fn an_initial_list_at_a_revision_that_does_not_come_ends_with_an_error_event() {
    let api = Api::new().await;
    let far = api.resources().revision().await.unwrap() + 1_000_000;
    // From here on only the request's own patience is waited for.
    tokio::time::pause();
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let events = api
        .watch(&format!("{CONFIG_MAPS}?{query}&resourceVersion={far}"))
        .await
        .rest()
        .await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["type"], "ERROR");
    let status = &events[0]["object"];
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(504), &json!("Timeout"))
    );
    assert_eq!(
        status["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
}

/// A database of another day has other revisions: a client that still knows one of the old is told
/// to list again, whether there were few writes then or many.
#[tokio::test]
async fn a_watch_from_a_revision_of_a_database_that_was_there_before_ends_with_an_error_event() {
    let before = Api::new().await;
    for name in ["a", "b", "c"] {
        before.create(CONFIG_MAPS, &config_map(name)).await;
    }
    let revision = before.resources().revision().await.unwrap();
    // A bootstrap writes more than one object a millisecond; days lie between two databases.
    while Timestamp::now().as_millisecond().unsigned_abs() <= revision {
        tokio::task::yield_now().await;
    }
    let api = Api::new().await;
    let events = api
        .watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}"))
        .await
        .rest()
        .await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["object"]["reason"], "Expired");
}
