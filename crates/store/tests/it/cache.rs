//! Cached outputs.

use coracle_api::id::{ArtifactId, RunId};
use coracle_store::{
    Store,
    records::{
        CacheEntry, CacheFilter, Commit, Cursor, Error,
        query::{List, Op, Predicate, Sort, Value},
    },
};
use serde_json::json;

use crate::samples::{artifact, at, cache_entry, output, stored_run, task};

crate::conformance! {
    an_entry_is_found_by_its_key,
    a_newer_entry_replaces_the_one_of_the_same_key,
    entries_are_listed_page_by_page,
    entries_are_deleted_by_what_they_are_of,
    an_entry_outlives_its_run_and_not_its_artifacts,
    a_commit_with_an_entry_of_another_run_is_refused,
}

async fn keep(store: &Store, change: impl Fn(&mut CacheEntry), key: &str) -> CacheEntry {
    let run = stored_run(store).await;
    let train = task(run.id, "root.train");
    let mut entry = cache_entry(&train, key, &[]);
    change(&mut entry);
    let commit = Commit {
        cache_entries: vec![entry.clone()],
        ..Commit::default()
    };
    store.records().commit(run.id, commit).await.unwrap();
    entry
}

async fn an_entry_is_found_by_its_key(store: &Store) {
    let entry = keep(store, |_| (), "sha256:1").await;
    let find = |namespace, pipeline, key| store.records().cache_entry(namespace, pipeline, key);
    assert_eq!(find("team", "hello", "sha256:1").await.unwrap(), Some(entry));
    for (namespace, pipeline, key) in [
        ("other", "hello", "sha256:1"),
        ("team", "other", "sha256:1"),
        ("team", "hello", "sha256:2"),
        ("team", "hello/sha256:1", ""),
    ] {
        assert_eq!(find(namespace, pipeline, key).await.unwrap(), None);
    }
}

async fn a_newer_entry_replaces_the_one_of_the_same_key(store: &Store) {
    let records = store.records();
    let old = ArtifactId::new();
    let hand_out = |entry: &mut CacheEntry| {
        entry.outputs.artifacts.insert("data".to_owned(), vec![old, old]);
    };
    keep(store, hand_out, "sha256:1").await;
    let newer = keep(store, |entry| entry.created_at = at(20), "sha256:1").await;
    let find = || records.cache_entry("team", "hello", "sha256:1");
    assert_eq!(find().await.unwrap(), Some(newer.clone()));
    records.forget_cached(&[old]).await.unwrap();
    assert_eq!(
        find().await.unwrap(),
        Some(newer),
        "it does not hand out what the older one did"
    );
}

async fn entries_are_listed_page_by_page(store: &Store) {
    for number in 0..5 {
        let change = |entry: &mut CacheEntry| {
            entry.created_at = at(number);
            entry.task_name = format!("task-{}", number % 2);
        };
        keep(store, change, &format!("sha256:{number}")).await;
    }
    let elsewhere = |entry: &mut CacheEntry| entry.namespace = "other".to_owned();
    keep(store, elsewhere, "sha256:0").await;
    let even = Predicate {
        field: "task_name".to_owned(),
        op: Op::Equals,
        values: vec![Value::Text("task-0".to_owned())],
    };
    let mut list = List {
        filter: vec![even],
        sort: Sort {
            field: "created_at".to_owned(),
            descending: true,
        },
        page_size: 2,
        after: None,
    };
    let mut seen = Vec::new();
    loop {
        let page = store
            .records()
            .list_cache_entries(Some("team"), &list)
            .await
            .unwrap();
        assert_eq!(page.total, 3);
        seen.extend(page.items.into_iter().map(|entry| entry.key));
        list.after = page.next;
        if list.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["sha256:4", "sha256:2", "sha256:0"]);
    let all = store
        .records()
        .list_cache_entries(None, &List::default())
        .await
        .unwrap();
    assert_eq!(all.total, 6);
    list.after = Some(Cursor {
        value: json!("text"),
        id: String::new(),
    });
    let error = store.records().list_cache_entries(None, &list).await.unwrap_err();
    assert!(matches!(
        error,
        Error::InvalidCursor {
            entity: "cache entry"
        }
    ));
}

async fn entries_are_deleted_by_what_they_are_of(store: &Store) {
    let records = store.records();
    let fill = async || {
        for key in ["a", "b"] {
            for pipeline in ["hello", "bye"] {
                let change = |entry: &mut CacheEntry| {
                    entry.pipeline_name = pipeline.to_owned();
                    entry.task_name = format!("{pipeline}-task");
                    entry.created_at = at(if key == "a" { 0 } else { 10 });
                };
                keep(store, change, key).await;
            }
        }
    };
    let text = |text: &str| Some(text.to_owned());
    for (filter, deleted) in [
        (CacheFilter::default(), 4),
        (
            CacheFilter {
                key: text("a"),
                ..CacheFilter::default()
            },
            2,
        ),
        (
            CacheFilter {
                key: text("a"),
                pipeline_name: text("bye"),
                ..CacheFilter::default()
            },
            1,
        ),
        (
            CacheFilter {
                task_name: text("bye-task"),
                ..CacheFilter::default()
            },
            2,
        ),
        (
            CacheFilter {
                older_than: Some(at(10)),
                ..CacheFilter::default()
            },
            2,
        ),
        (
            CacheFilter {
                key: text("none"),
                ..CacheFilter::default()
            },
            0,
        ),
    ] {
        fill().await;
        assert_eq!(
            records
                .delete_cache_entries("other", filter.clone())
                .await
                .unwrap(),
            0
        );
        let done = records.delete_cache_entries("team", filter.clone()).await;
        assert_eq!(done.unwrap(), deleted, "{filter:?}");
        let left = records.list_cache_entries(None, &List::default()).await.unwrap();
        assert_eq!(left.total, 4 - deleted as i64);
    }
}

async fn an_entry_outlives_its_run_and_not_its_artifacts(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let (train, model) = (task(run.id, "root.train"), artifact("/models/1"));
    let entry = cache_entry(&train, "sha256:1", &[&model]);
    let other = cache_entry(&train, "sha256:2", &[]);
    let commit = Commit {
        tasks: vec![train.clone()],
        artifacts: vec![model.clone()],
        artifact_tasks: vec![output(&train, &model, "model")],
        cache_entries: vec![entry.clone(), other.clone()],
        ..Commit::default()
    };
    records.commit(run.id, commit).await.unwrap();
    records.delete_run(run.id).await.unwrap();
    let find = |key| records.cache_entry("team", "hello", key);
    assert_eq!(find("sha256:1").await.unwrap(), Some(entry));
    assert_eq!(records.delete_artifacts(&[model.id]).await.unwrap(), 1);
    assert_eq!(find("sha256:1").await.unwrap(), None);
    assert_eq!(find("sha256:2").await.unwrap(), Some(other));
}

async fn a_commit_with_an_entry_of_another_run_is_refused(store: &Store) {
    let run = stored_run(store).await;
    let commit = Commit {
        cache_entries: vec![cache_entry(&task(RunId::new(), "root"), "sha256:1", &[])],
        ..Commit::default()
    };
    let error = store.records().commit(run.id, commit).await.unwrap_err();
    assert!(matches!(error, Error::InvalidCommit { .. }), "{error:?}");
}
