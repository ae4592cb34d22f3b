//! Lineage across runs, and what a retention policy decides over.

use coracle_api::{
    id::{ArtifactId, RunId, TaskId},
    state::RuntimeState,
};
use coracle_store::{
    Store,
    records::{
        Artifact, ArtifactScope, ArtifactTask, Commit, Cursor, Error, IoType, LinkFilter, RunStatus,
        StoredArtifact, Task,
        query::{List, Op, Predicate, Sort, Value},
    },
};
use serde_json::json;

use crate::samples::{artifact, at, cache_entry, output, stored_run, task};

crate::conformance! {
    artifacts_are_followed_across_runs,
    tasks_and_runs_are_found_by_their_ids,
    artifacts_are_listed_by_what_they_are,
    artifacts_are_listed_by_who_met_them,
    links_are_listed_page_by_page,
    a_link_cursor_of_another_list_is_refused,
    runs_that_ended_are_told_with_what_they_hold,
    only_artifacts_that_no_other_run_met_may_go_with_a_run,
    artifacts_whose_run_is_gone_are_found,
    deleted_artifacts_leave_no_link,
}

struct Two {
    train: Task,
    serve: Task,
    model: Artifact,
    metrics: Artifact,
}

/// A run that makes a model and metrics, and another that consumes the model.
async fn two_runs(store: &Store) -> Two {
    let (first, second) = (stored_run(store).await, stored_run(store).await);
    let (train, serve) = (task(first.id, "root.train"), task(second.id, "root.serve"));
    let model = artifact("/models/1");
    let metrics = Artifact {
        name: "metrics".to_owned(),
        artifact_type: "system.Metrics".to_owned(),
        size: Some(30),
        created_at: at(7),
        ..artifact("/metrics/1")
    };
    let made = Commit {
        tasks: vec![train.clone()],
        artifacts: vec![model.clone(), metrics.clone()],
        artifact_tasks: vec![
            output(&train, &model, "model"),
            output(&train, &metrics, "metrics"),
        ],
        ..Commit::default()
    };
    store.records().commit(first.id, made).await.unwrap();
    let consumed = Commit {
        tasks: vec![serve.clone()],
        artifact_tasks: vec![input(&serve, &model)],
        ..Commit::default()
    };
    store.records().commit(second.id, consumed).await.unwrap();
    Two {
        train,
        serve,
        model,
        metrics,
    }
}

fn input(task: &Task, artifact: &Artifact) -> ArtifactTask {
    ArtifactTask {
        io: IoType::ComponentInput,
        ..output(task, artifact, "model")
    }
}

async fn end(store: &Store, run: RunId, seconds: i64) {
    let status = RunStatus {
        state: RuntimeState::Succeeded,
        error: None,
        state_history: Vec::new(),
        retried: false,
        finished_at: Some(at(seconds)),
    };
    let commit = Commit {
        run: Some(status),
        ..Commit::default()
    };
    store.records().commit(run, commit).await.unwrap();
}

fn equals(field: &str, text: &str) -> Vec<Predicate> {
    vec![Predicate {
        field: field.to_owned(),
        op: Op::Equals,
        values: vec![Value::Text(text.to_owned())],
    }]
}

fn sorted(mut links: Vec<ArtifactTask>) -> Vec<ArtifactTask> {
    links.sort_by_key(|link| (link.task_id.to_string(), link.io.to_string(), link.key.clone()));
    links
}

async fn artifacts_are_followed_across_runs(store: &Store) {
    let records = store.records();
    let two = two_runs(store).await;
    let links = records.links_of_artifacts(&[two.model.id]).await.unwrap();
    let expected = [
        output(&two.train, &two.model, "model"),
        input(&two.serve, &two.model),
    ];
    assert_eq!(links, sorted(expected.into()));
    let links = records.links_of_tasks(&[two.train.id]).await.unwrap();
    let expected = [
        output(&two.train, &two.metrics, "metrics"),
        output(&two.train, &two.model, "model"),
    ];
    assert_eq!(links, expected);
    assert_eq!(records.links_of_artifacts(&[]).await.unwrap(), []);
    let strangers: Vec<_> = (0..1200).map(|_| ArtifactId::new()).collect();
    assert_eq!(records.links_of_artifacts(&strangers).await.unwrap(), []);
}

async fn tasks_and_runs_are_found_by_their_ids(store: &Store) {
    let records = store.records();
    let two = two_runs(store).await;
    let strangers = (0..600).map(|_| TaskId::at(RunId::new(), "root"));
    let ids: Vec<_> = strangers.chain([two.serve.id]).collect();
    assert_eq!(
        records.tasks_by_ids(&ids).await.unwrap(),
        std::slice::from_ref(&two.serve)
    );
    let run = records.run(two.train.run_id).await.unwrap();
    let found = records.runs_by_ids(&[RunId::new(), run.id]).await.unwrap();
    assert_eq!(found, [run]);
    assert_eq!(records.runs_by_ids(&[]).await.unwrap(), []);
}

async fn artifacts_are_listed_by_what_they_are(store: &Store) {
    let records = store.records();
    let two = two_runs(store).await;
    let all = || ArtifactScope::default();
    let other = ArtifactScope {
        namespace: Some("other".to_owned()),
        ..all()
    };
    for (scope, filter, expected) in [
        (all(), vec![], vec![&two.model, &two.metrics]),
        (other, vec![], vec![]),
        (all(), equals("name", "metrics"), vec![&two.metrics]),
        (all(), equals("type", "system.Model"), vec![&two.model]),
        (all(), equals("uri", "/models/1"), vec![&two.model]),
        (
            all(),
            equals("artifact_id", &two.model.id.to_string()),
            vec![&two.model],
        ),
    ] {
        let list = List {
            filter,
            ..List::default()
        };
        let page = records.list_artifacts(scope, &list).await.unwrap();
        assert_eq!(page.items.iter().collect::<Vec<_>>(), expected);
        assert_eq!(page.total, expected.len() as i64);
    }
    let mut list = List {
        sort: Sort {
            field: "name".to_owned(),
            descending: true,
        },
        page_size: 1,
        ..List::default()
    };
    let first = records.list_artifacts(all(), &list).await.unwrap();
    assert_eq!((first.items, first.total), (vec![two.model], 2));
    list.after = first.next;
    let second = records.list_artifacts(all(), &list).await.unwrap();
    assert_eq!((second.items, second.next), (vec![two.metrics], None));
    list.after = Some(Cursor {
        value: json!(1),
        id: String::new(),
    });
    let error = records.list_artifacts(all(), &list).await.unwrap_err();
    assert!(matches!(error, Error::InvalidCursor { entity: "artifact" }));
    list.sort.field = "metadata".to_owned();
    let error = records.list_artifacts(all(), &list).await.unwrap_err();
    assert!(matches!(error, Error::UnknownField { .. }));
}

async fn artifacts_are_listed_by_who_met_them(store: &Store) {
    let two = two_runs(store).await;
    let of_run = |task: &Task| ArtifactScope {
        run_id: Some(task.run_id),
        ..ArtifactScope::default()
    };
    let of_task = |task: &Task| ArtifactScope {
        task_id: Some(task.id),
        ..ArtifactScope::default()
    };
    for (scope, expected) in [
        (of_run(&two.train), vec![&two.model, &two.metrics]),
        (of_run(&two.serve), vec![&two.model]),
        (of_task(&two.serve), vec![&two.model]),
        (of_run(&task(RunId::new(), "root")), vec![]),
    ] {
        let page = store
            .records()
            .list_artifacts(scope, &List::default())
            .await
            .unwrap();
        assert_eq!(page.items.iter().collect::<Vec<_>>(), expected);
        assert_eq!(page.total, expected.len() as i64);
    }
}

async fn links_are_listed_page_by_page(store: &Store) {
    let records = store.records();
    let two = two_runs(store).await;
    let (made, metrics) = (
        output(&two.train, &two.model, "model"),
        output(&two.train, &two.metrics, "metrics"),
    );
    let consumed = input(&two.serve, &two.model);
    let any = LinkFilter::default;
    for (filter, expected) in [
        (any(), vec![&made, &metrics, &consumed]),
        (
            LinkFilter {
                run_ids: vec![two.train.run_id],
                ..any()
            },
            vec![&made, &metrics],
        ),
        (
            LinkFilter {
                task_ids: vec![two.serve.id, two.train.id],
                io: vec![IoType::ComponentInput],
                ..any()
            },
            vec![&consumed],
        ),
        (
            LinkFilter {
                artifact_ids: vec![two.model.id],
                namespace: Some("team".to_owned()),
                ..any()
            },
            vec![&made, &consumed],
        ),
        (
            LinkFilter {
                namespace: Some("other".to_owned()),
                ..any()
            },
            vec![],
        ),
    ] {
        for page_size in [0, 1, 2, 10] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = records
                    .list_artifact_tasks(&filter, page_size, after.as_ref())
                    .await
                    .unwrap();
                assert_eq!(page.total, expected.len() as i64, "{filter:?}");
                seen.extend(page.items);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let expected = expected.iter().map(|&link| link.clone()).collect();
            assert_eq!(seen, sorted(expected), "{filter:?} {page_size}");
        }
    }
    let many = LinkFilter {
        run_ids: vec![two.train.run_id; 1001],
        ..any()
    };
    let error = records.list_artifact_tasks(&many, 10, None).await.unwrap_err();
    assert!(matches!(error, Error::InvalidValue { .. }));
}

async fn a_link_cursor_of_another_list_is_refused(store: &Store) {
    for value in [
        json!("text"),
        json!([]),
        json!(["a", "b", "c", "d"]),
        json!(["a", "b", "c", 1, 2]),
    ] {
        let cursor = Cursor {
            value,
            id: String::new(),
        };
        let error = store
            .records()
            .list_artifact_tasks(&LinkFilter::default(), 1, Some(&cursor))
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::InvalidCursor {
                    entity: "artifact task"
                }
            ),
            "{error:?}"
        );
    }
}

async fn runs_that_ended_are_told_with_what_they_hold(store: &Store) {
    let records = store.records();
    let two = two_runs(store).await;
    assert_eq!(records.stored_runs(None).await.unwrap(), [], "neither has ended");
    end(store, two.train.run_id, 50).await;
    end(store, two.serve.run_id, 40).await;
    let stored = records.stored_runs(Some("team")).await.unwrap();
    let told: Vec<_> = stored
        .iter()
        .map(|run| (run.id, run.finished_at, run.artifacts, run.bytes))
        .collect();
    assert_eq!(
        told,
        [
            (two.serve.run_id, at(40), 0, 0),
            (two.train.run_id, at(50), 2, 42),
        ]
    );
    assert_eq!(records.stored_runs(Some("other")).await.unwrap(), []);
    records.request_retry(two.train.run_id).await.unwrap();
    assert_eq!(records.stored_runs(None).await.unwrap(), stored[..1]);
}

async fn only_artifacts_that_no_other_run_met_may_go_with_a_run(store: &Store) {
    let records = store.records();
    let two = two_runs(store).await;
    let (first, second) = (two.train.run_id, two.serve.run_id);
    let commit = Commit {
        cache_entries: vec![cache_entry(&two.train, "sha256:1", &[&two.metrics])],
        ..Commit::default()
    };
    records.commit(first, commit).await.unwrap();
    let cached = |artifact: &Artifact, is_cached| StoredArtifact {
        artifact: artifact.clone(),
        is_cached,
    };
    let (model, metrics) = (cached(&two.model, false), cached(&two.metrics, true));
    assert_eq!(
        records.artifacts_only_of(&[first]).await.unwrap(),
        std::slice::from_ref(&metrics),
        "the second run consumes the model"
    );
    assert_eq!(records.artifacts_only_of(&[second]).await.unwrap(), []);
    assert_eq!(records.artifacts_only_of(&[]).await.unwrap(), []);
    assert_eq!(
        records.artifacts_only_of(&[first, second]).await.unwrap(),
        [model, metrics]
    );
    records.forget_cached(&[two.metrics.id]).await.unwrap();
    assert_eq!(
        records.artifacts_only_of(&[first]).await.unwrap(),
        [cached(&two.metrics, false)]
    );
    assert_eq!(
        records.cache_entry("team", "hello", "sha256:1").await.unwrap(),
        None
    );
}

async fn artifacts_whose_run_is_gone_are_found(store: &Store) {
    let records = store.records();
    let two = two_runs(store).await;
    let without = async |namespace, seconds| {
        let found = records
            .artifacts_without_runs(namespace, at(seconds))
            .await
            .unwrap();
        found
            .into_iter()
            .map(|stored| stored.artifact)
            .collect::<Vec<_>>()
    };
    assert_eq!(without(None, 100).await, []);
    records.delete_run(two.train.run_id).await.unwrap();
    assert_eq!(without(None, 100).await, std::slice::from_ref(&two.metrics));
    records.delete_run(two.serve.run_id).await.unwrap();
    assert_eq!(
        without(Some("team"), 100).await,
        [two.model.clone(), two.metrics.clone()]
    );
    assert_eq!(without(Some("other"), 100).await, []);
    assert_eq!(without(None, 7).await, [two.model], "the other is too young");
}

async fn deleted_artifacts_leave_no_link(store: &Store) {
    let records = store.records();
    let two = two_runs(store).await;
    let ids = [two.model.id, ArtifactId::new()];
    assert_eq!(records.delete_artifacts(&ids).await.unwrap(), 1);
    assert_eq!(
        records.delete_artifacts(&ids).await.unwrap(),
        0,
        "it can be done again"
    );
    let missing = records.artifact(two.model.id).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));
    assert_eq!(records.links_of_artifacts(&ids).await.unwrap(), []);
    assert_eq!(records.artifact(two.metrics.id).await.unwrap(), two.metrics);
    assert_eq!(
        records.artifact_tasks(two.train.run_id).await.unwrap(),
        [output(&two.train, &two.metrics, "metrics")]
    );
}
