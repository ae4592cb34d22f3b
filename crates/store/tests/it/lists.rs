//! Filters, orders and pages of lists.

use coracle_api::{
    id::{ExperimentId, RunId},
    state::{RuntimeState, StorageState},
};
use coracle_store::{
    Store,
    records::{
        Commit, Cursor, Error, Pipeline, Run, RunScope, RunStatus,
        query::{List, Op, Predicate, Sort, Value},
    },
};
use jiff::Timestamp;
use serde_json::json;

use crate::samples::{at, experiment, new_run, pipeline};

crate::conformance! {
    pages_over_equal_values_visit_each_row_once,
    rows_that_come_and_go_between_pages_hide_no_other,
    rows_without_a_value_are_sorted_too,
    lists_keep_to_their_scope,
    filters_compare_as_they_say,
    tags_can_be_filtered_by,
    text_that_looks_like_sql_is_text,
    what_cannot_be_asked_is_refused,
    totals_stay_right_whatever_becomes_of_runs,
    parts_of_names_are_found_among_few_and_among_many,
}

async fn pages_over_equal_values_visit_each_row_once(store: &Store) {
    let runs = many_runs(store, 25, |_| at(0)).await;
    let mut ids: Vec<_> = runs.iter().map(|run| run.id).collect();
    ids.sort();
    for field in [
        "created_at",
        "display_name",
        "state",
        "finished_at",
        "storage_state",
        "id",
    ] {
        for descending in [false, true] {
            for page_size in [1, 7, 25, 100] {
                let list = List {
                    sort: sort(field, descending),
                    page_size,
                    ..List::default()
                };
                let mut seen = visit(store, list).await;
                if field != "display_name" {
                    let mut expected = ids.clone();
                    if descending {
                        expected.reverse();
                    }
                    assert_eq!(seen, expected, "{field} {descending} {page_size}");
                }
                seen.sort();
                assert_eq!(seen, ids, "{field} {descending} {page_size}");
            }
        }
    }
}

async fn rows_that_come_and_go_between_pages_hide_no_other(store: &Store) {
    let records = store.records();
    let runs = many_runs(store, 9, at).await;
    let mut list = List {
        sort: sort("created_at", true),
        page_size: 3,
        ..List::default()
    };
    let first = records.list_runs(RunScope::All, &list).await.unwrap();
    // The row at which the page ended goes, and one comes that belongs before it.
    records.delete_run(runs[6].id).await.unwrap();
    let mut new = new_run(runs[0].experiment_id, "new");
    new.created_at = at(100);
    records.create_run(new).await.unwrap();
    list.after = first.next;
    let second = records.list_runs(RunScope::All, &list).await.unwrap();
    let ids: Vec<_> = second.items.iter().map(|run| run.id).collect();
    assert_eq!(ids, [runs[5].id, runs[4].id, runs[3].id]);
    assert_eq!((first.total, second.total), (9, 9));
}

async fn rows_without_a_value_are_sorted_too(store: &Store) {
    let runs = many_runs(store, 6, |_| at(0)).await;
    for (number, run) in (0..).zip(&runs[3..]) {
        let status = RunStatus {
            state: RuntimeState::Succeeded,
            error: None,
            state_history: Vec::new(),
            retried: false,
            finished_at: Some(at(10 - number)),
        };
        let commit = Commit {
            run: Some(status),
            ..Commit::default()
        };
        store.records().commit(run.id, commit).await.unwrap();
    }
    let expected = [0, 1, 2, 5, 4, 3].map(|number: usize| runs[number].id);
    let list = List {
        sort: sort("finished_at", false),
        page_size: 2,
        ..List::default()
    };
    assert_eq!(visit(store, list).await, expected);
}

async fn lists_keep_to_their_scope(store: &Store) {
    let records = store.records();
    let ours = many_runs(store, 2, at).await;
    let mut elsewhere = experiment("elsewhere");
    elsewhere.namespace = "other".to_owned();
    records.create_experiment(elsewhere.clone()).await.unwrap();
    records.create_run(new_run(elsewhere.id, "theirs")).await.unwrap();
    for (scope, total) in [
        (RunScope::All, 3),
        (RunScope::Namespace("team".to_owned()), 2),
        (RunScope::Namespace("other".to_owned()), 1),
        (RunScope::Namespace("none".to_owned()), 0),
        (RunScope::Experiment(elsewhere.id), 1),
        (RunScope::Experiment(ours[0].experiment_id), 2),
    ] {
        let page = records.list_runs(scope.clone(), &List::default()).await.unwrap();
        assert_eq!((page.total, page.items.len() as i64), (total, total), "{scope:?}");
    }
}

async fn filters_compare_as_they_say(store: &Store) {
    let runs = many_runs(store, 4, at).await;
    let text = |text: &str| vec![Value::Text(text.to_owned())];
    let id = runs[2].id.to_string();
    for (field, op, values, expected) in [
        ("display_name", Op::Equals, text("Run 1"), "1"),
        ("name", Op::Equals, text("run 1"), ""),
        ("display_name", Op::NotEquals, text("Run 1"), "023"),
        ("display_name", Op::IsSubstring, text("UN 2"), "2"),
        ("display_name", Op::IsSubstring, text("%"), ""),
        ("display_name", Op::IsSubstring, text("_un"), ""),
        ("display_name", Op::IsSubstring, text("\\"), ""),
        ("display_name", Op::IsSubstring, text(""), "0123"),
        (
            "display_name",
            Op::In,
            vec![Value::Text("Run 3".into()), Value::Text("Run 0".into())],
            "03",
        ),
        ("display_name", Op::In, vec![], ""),
        ("display_name", Op::GreaterThan, text("Run 1"), "23"),
        ("run_id", Op::Equals, text(&id), "2"),
        ("id", Op::NotEquals, text(&id), "013"),
        ("state", Op::Equals, text("PENDING"), "0123"),
        ("status", Op::Equals, text("FAILED"), ""),
        ("storage_state", Op::NotEquals, text("ARCHIVED"), "0123"),
        ("storage_state", Op::Equals, text("ARCHIVED"), ""),
        ("created_at", Op::GreaterThan, vec![Value::Time(at(1))], "23"),
        (
            "created_at",
            Op::GreaterThanEquals,
            vec![Value::Int(at(1).as_second())],
            "123",
        ),
        ("created_at", Op::LessThan, text(&at(1).to_string()), "0"),
        ("created_at", Op::LessThanEquals, vec![Value::Time(at(1))], "01"),
        ("created_at", Op::Equals, vec![Value::Time(at(1))], "1"),
        ("finished_at", Op::LessThan, vec![Value::Time(at(1))], ""),
        ("finished_at", Op::NotEquals, vec![Value::Time(at(1))], "0123"),
        ("pipeline_id", Op::NotEquals, text("some"), "0123"),
        ("namespace", Op::Equals, text("team"), "0123"),
    ] {
        let predicate = Predicate {
            field: field.to_owned(),
            op,
            values,
        };
        let list = List {
            filter: vec![predicate.clone()],
            ..List::default()
        };
        let page = store.records().list_runs(RunScope::All, &list).await.unwrap();
        let names: String = page.items.iter().map(|run| &run.display_name[4..]).collect();
        assert_eq!(
            (names.as_str(), page.total),
            (expected, expected.len() as i64),
            "{predicate:?}"
        );
    }
    let both = ["0", "1"].map(|part| Predicate {
        field: "display_name".to_owned(),
        op: Op::IsSubstring,
        values: text(part),
    });
    let list = List {
        filter: both.into(),
        ..List::default()
    };
    assert_eq!(
        store
            .records()
            .list_runs(RunScope::All, &list)
            .await
            .unwrap()
            .total,
        0
    );
}

async fn tags_can_be_filtered_by(store: &Store) {
    for (name, tags) in [
        ("0", vec![]),
        ("1", vec![("team", "vision"), ("stage", "prod")]),
        ("2", vec![("team", "speech")]),
        ("3", vec![("stage", "vision")]),
    ] {
        let tags = tags
            .into_iter()
            .map(|(tag, value)| (tag.to_owned(), value.to_owned()))
            .collect();
        store
            .records()
            .create_pipeline(
                Pipeline {
                    tags,
                    ..pipeline(name)
                },
                None,
            )
            .await
            .unwrap();
    }
    for (field, op, values, expected) in [
        ("tags.team", Op::Equals, &["vision"][..], "1"),
        ("tags.team", Op::NotEquals, &["vision"], "023"),
        ("tags.team", Op::In, &["vision", "speech"], "12"),
        ("tags.stage", Op::IsSubstring, &["pro"], "1"),
        ("tags.none", Op::Equals, &["vision"], ""),
        ("tags.team' OR '1'='1", Op::Equals, &["vision"], ""),
    ] {
        let values = values
            .iter()
            .map(|value| Value::Text((*value).to_owned()))
            .collect();
        let predicate = Predicate {
            field: field.to_owned(),
            op,
            values,
        };
        let list = List {
            filter: vec![predicate],
            sort: sort("name", false),
            ..List::default()
        };
        let page = store.records().list_pipelines(Some("team"), &list).await.unwrap();
        let names: String = page.items.iter().map(|pipeline| pipeline.name.as_str()).collect();
        assert_eq!(names, expected, "{field} {op:?}");
    }
}

async fn text_that_looks_like_sql_is_text(store: &Store) {
    let records = store.records();
    let runs = many_runs(store, 2, at).await;
    for text in [
        "'; DROP TABLE runs; --",
        "' OR '1'='1",
        "\" OR \"\"=\"",
        "$1",
        "?1",
        "x') OR 1=1 --",
        "\0",
        "\\",
    ] {
        let mut named = new_run(runs[0].experiment_id, text);
        named.description = text.to_owned();
        let named = records.create_run(named).await.unwrap();
        for op in [Op::Equals, Op::In, Op::IsSubstring] {
            let predicate = Predicate {
                field: "display_name".to_owned(),
                op,
                values: vec![Value::Text(text.to_owned())],
            };
            let list = List {
                filter: vec![predicate],
                ..List::default()
            };
            let page = records.list_runs(RunScope::All, &list).await.unwrap();
            assert!(page.items.contains(&named), "{text:?} {op:?}");
            if op != Op::IsSubstring {
                assert_eq!(page.items, std::slice::from_ref(&named), "{text:?} {op:?}");
            }
        }
        let after = Some(Cursor {
            value: json!([text, 1]),
            id: text.to_owned(),
        });
        let list = List {
            sort: sort("display_name", false),
            after,
            ..List::default()
        };
        records
            .list_runs(RunScope::Namespace(text.to_owned()), &list)
            .await
            .unwrap();
        let list = List {
            sort: sort(text, false),
            ..List::default()
        };
        let error = records.list_runs(RunScope::All, &list).await.unwrap_err();
        assert!(matches!(error, Error::UnknownField { .. }));
        records.delete_run(named.id).await.unwrap();
    }
    assert_eq!(
        records
            .list_runs(RunScope::All, &List::default())
            .await
            .unwrap()
            .items,
        runs
    );
}

async fn what_cannot_be_asked_is_refused(store: &Store) {
    let text = Value::Text("x".to_owned());
    for (field, op, values, expected) in [
        (
            "tags.team",
            Op::Equals,
            vec![text.clone()],
            "is not a field that a list of runs",
        ),
        (
            "document_digest",
            Op::Equals,
            vec![text.clone()],
            "is not a field",
        ),
        ("created_at", Op::Equals, vec![text.clone()], "expected a time"),
        (
            "created_at",
            Op::Equals,
            vec![Value::Int(i64::MAX)],
            "expected a time",
        ),
        (
            "created_at",
            Op::IsSubstring,
            vec![text.clone()],
            "a field with text",
        ),
        ("display_name", Op::Equals, vec![Value::Int(1)], "expected text"),
        ("display_name", Op::Equals, vec![], "exactly one value"),
        (
            "display_name",
            Op::Equals,
            vec![text.clone(), text.clone()],
            "exactly one value",
        ),
        (
            "display_name",
            Op::In,
            vec![text.clone(); 1001],
            "at most 1000 values",
        ),
    ] {
        let predicate = Predicate {
            field: field.to_owned(),
            op,
            values,
        };
        let list = List {
            filter: vec![predicate],
            ..List::default()
        };
        let error = store.records().list_runs(RunScope::All, &list).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{field}: {error}");
    }
    for (field, value) in [
        ("created_at", json!("text")),
        ("created_at", json!([1, 2])),
        ("run_id", json!(1)),
        ("display_name", json!("text")),
        ("display_name", json!(["text"])),
        ("display_name", json!(["text", "text"])),
        ("state", json!([1, 1])),
    ] {
        let list = List {
            sort: sort(field, false),
            after: Some(Cursor {
                value,
                id: String::new(),
            }),
            ..List::default()
        };
        let error = store.records().list_runs(RunScope::All, &list).await.unwrap_err();
        assert!(
            matches!(error, Error::InvalidCursor { entity: "run" }),
            "{list:?}"
        );
    }
    let list = List {
        sort: sort("pipeline_id", false),
        ..List::default()
    };
    let error = store.records().list_runs(RunScope::All, &list).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a field that such lists are sorted by")
    );
}

async fn totals_stay_right_whatever_becomes_of_runs(store: &Store) {
    let records = store.records();
    let runs = many_runs(store, 8, at).await;
    let group = runs[0].experiment_id;
    let other = experiment("other");
    records.create_experiment(other.clone()).await.unwrap();
    let elsewhere = records.create_run(new_run(other.id, "Run")).await.unwrap();
    for (run, state) in runs.iter().zip([
        RuntimeState::Running,
        RuntimeState::Failed,
        RuntimeState::Running,
        RuntimeState::Pending,
    ]) {
        let status = RunStatus {
            state,
            error: None,
            state_history: Vec::new(),
            retried: false,
            finished_at: None,
        };
        let commit = Commit {
            run: Some(status),
            ..Commit::default()
        };
        records.commit(run.id, commit.clone()).await.unwrap();
        records.commit(run.id, commit).await.unwrap();
    }
    records
        .set_run_storage_state(runs[0].id, StorageState::Archived)
        .await
        .unwrap();
    totals_are_right(store, group).await;
    records.delete_run(runs[0].id).await.unwrap();
    records.delete_run(runs[7].id).await.unwrap();
    totals_are_right(store, group).await;
    records
        .set_experiment_storage_state(group, StorageState::Archived)
        .await
        .unwrap();
    totals_are_right(store, group).await;
    records.delete_experiment(other.id).await.unwrap();
    totals_are_right(store, other.id).await;
    records.delete_run(elsewhere.id).await.unwrap();
    totals_are_right(store, other.id).await;
    // A refused run is not counted.
    let mut taken = new_run(group, "taken");
    taken.id = runs[1].id;
    records.create_run(taken).await.unwrap_err();
    totals_are_right(store, group).await;
}

/// Totals, which are kept, against rows, which are counted here.
async fn totals_are_right(store: &Store, experiment: ExperimentId) {
    let filters = [
        None,
        Some(("state", Op::Equals, "RUNNING")),
        Some(("state", Op::NotEquals, "PENDING")),
        Some(("status", Op::In, "FAILED")),
        Some(("storage_state", Op::Equals, "ARCHIVED")),
        Some(("storage_state", Op::NotEquals, "ARCHIVED")),
        Some(("state", Op::IsSubstring, "ing")),
    ];
    for scope in [
        RunScope::Namespace("team".to_owned()),
        RunScope::Experiment(experiment),
        RunScope::All,
    ] {
        for filter in filters {
            let filter = filter.map(|(field, op, value)| Predicate {
                field: field.to_owned(),
                op,
                values: vec![Value::Text(value.to_owned())],
            });
            let mut list = List {
                filter: filter.into_iter().collect(),
                page_size: 100,
                ..List::default()
            };
            let all = store.records().list_runs(scope.clone(), &list).await.unwrap();
            list.page_size = 1;
            let one = store.records().list_runs(scope.clone(), &list).await.unwrap();
            assert_eq!(one.total, all.items.len() as i64, "{scope:?} {:?}", list.filter);
        }
    }
}

async fn parts_of_names_are_found_among_few_and_among_many(store: &Store) {
    let records = store.records();
    let runs = many_runs(store, 3, at).await;
    for name in ["say \"hello\" to", "Straße 12", "run-NEAR(1)", "a*b OR c"] {
        records
            .create_run(new_run(runs[0].experiment_id, name))
            .await
            .unwrap();
    }
    for (part, total) in [
        ("run", 4),
        ("UN 2", 1),
        ("\"hello\"", 1),
        ("straße", 1),
        ("STRASSE", 0),
        ("NEAR(", 1),
        ("*b OR", 1),
        ("OR ", 1),
        ("a\0b", 0),
        ("12", 1),
        ("absent", 0),
    ] {
        let list = List {
            filter: vec![Predicate {
                field: "name".to_owned(),
                op: Op::IsSubstring,
                values: vec![Value::Text(part.to_owned())],
            }],
            sort: sort("finished_at", true),
            page_size: 2,
            after: None,
        };
        assert_eq!(visit(store, list).await.len(), total, "{part:?}");
    }
    records.delete_run(runs[2].id).await.unwrap();
    let list = List {
        filter: vec![Predicate {
            field: "name".to_owned(),
            op: Op::IsSubstring,
            values: vec![Value::Text("UN 2".to_owned())],
        }],
        ..List::default()
    };
    assert_eq!(visit(store, list).await, []);
}

/// Runs `Run 0`, `Run 1`, … of one experiment.
async fn many_runs(store: &Store, count: i64, created_at: impl Fn(i64) -> Timestamp) -> Vec<Run> {
    let group = experiment("group");
    store.records().create_experiment(group.clone()).await.unwrap();
    let mut runs = Vec::new();
    for number in 0..count {
        let mut new = new_run(group.id, &format!("Run {number}"));
        new.created_at = created_at(number);
        runs.push(store.records().create_run(new).await.unwrap());
    }
    runs
}

/// The runs of all pages, in order.
async fn visit(store: &Store, mut list: List) -> Vec<RunId> {
    let mut seen = Vec::new();
    loop {
        let page = store.records().list_runs(RunScope::All, &list).await.unwrap();
        assert!(page.items.len() <= list.page_size as usize);
        seen.extend(page.items.iter().map(|run| run.id));
        list.after = page.next;
        if list.after.is_none() {
            assert_eq!(page.total, seen.len() as i64);
            return seen;
        }
    }
}

fn sort(field: &str, descending: bool) -> Sort {
    Sort {
        field: field.to_owned(),
        descending,
    }
}
