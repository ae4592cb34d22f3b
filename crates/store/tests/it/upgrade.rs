//! A database of an older version: it opens, everything in it is read, and its run goes on.

use coracle_api::{launch::Report, state::RuntimeState};
use coracle_store::{
    Location, Store,
    records::{Commit, RunScope, query},
    resources::{At, GroupResource},
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// Rows of a server in the tables of then: one run, whose first task had ended and whose second was
/// at work when the server was killed.
const SCHEMA_4: &str = include_str!("schema_4.sql");

#[tokio::test]
async fn a_database_of_schema_4_opens_and_its_run_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(SCHEMA_4).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let store = Store::open(Location::File(path)).await.unwrap();
    let records = store.records();
    let [(id, RuntimeState::Running)] = records.unfinished_runs().await.unwrap()[..] else {
        panic!("one run had not ended");
    };
    let run = records.run(id).await.unwrap();
    records.document(&run.document_digest).await.unwrap();
    let scope = RunScope::Namespace(run.namespace.clone());
    let page = records.list_runs(scope, &query::List::default()).await.unwrap();
    assert_eq!((page.total, page.items.len()), (1, 1), "it is counted, too");
    let tasks = records.tasks(id).await.unwrap();
    assert_eq!(tasks.len(), 3);
    let attempts = records.attempts(id).await.unwrap();
    let at_work = attempts
        .iter()
        .find(|attempt| !attempt.state.is_terminal())
        .unwrap();
    let pods = GroupResource::new("", "pods");
    let listed = store
        .resources()
        .list(&pods, None, At::Latest, None, None)
        .await
        .unwrap();
    assert_eq!(listed.objects.len(), 2);

    let found = records.attempt_by_token(&at_work.token).await.unwrap();
    assert_eq!(found.as_ref(), Some(at_work), "its launcher is let in");
    let spec = records
        .attempt_spec(at_work.task_id, at_work.number)
        .await
        .unwrap();
    assert!(
        spec.launch.contains("command") && spec.pod.contains("containers"),
        "{spec:?}"
    );
    let report: Report = serde_json::from_str(r#"{"exit_code": 0}"#).unwrap();
    records
        .put_report(at_work.task_id, at_work.number, &report)
        .await
        .unwrap();
    let mut attempt = at_work.clone();
    attempt.state = RuntimeState::Succeeded;
    let commit = Commit {
        attempts: vec![attempt.clone()],
        ..Commit::default()
    };
    records.commit(id, commit).await.unwrap();
    assert!(records.attempts(id).await.unwrap().contains(&attempt));
    let pod = &listed.objects[0];
    store
        .resources()
        .delete(&pod.key, Some(pod.revision))
        .await
        .unwrap();
    store.close().await;
}
