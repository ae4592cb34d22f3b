//! How SQLite goes about lists of runs: what keeps them fast when there are many.

use sqlx::Row as _;

use super::*;
use crate::{
    Location, Store,
    records::{
        Cursor,
        page::Statement,
        query::{Op, Predicate, Sort, Value},
        row::bound,
    },
};

const SCOPES: [(&str, &str, &str); 2] = [
    ("namespace", "namespace = ?", "runs_by_namespace"),
    ("experiment_id", "experiment_id = ?", "runs_by_experiment"),
];

/// How SQLite goes about a statement, a step a line.
async fn plan(store: &Store, statement: Statement) -> String {
    let mut reader = store.database.reader().await.unwrap();
    let sql = format!("EXPLAIN QUERY PLAN {}", statement.text);
    let steps = bound(sql, statement.binds).fetch_all(&mut *reader).await.unwrap();
    let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
    steps.join("\n")
}

fn statements(condition: &'static str, list: &List, named: Option<&str>) -> (Statement, Statement) {
    let sort = ENTITY.field(&list.sort.field).unwrap();
    let scope = [(condition, Bind::from("x"))];
    ENTITY
        .statements(&scope, sort, list, named.map(str::to_owned))
        .unwrap()
}

fn list(sorted_by: &str, filter: Vec<Predicate>) -> List {
    let sort = Sort {
        field: sorted_by.to_owned(),
        descending: true,
    };
    List {
        filter,
        sort,
        ..List::default()
    }
}

fn predicate(field: &str, op: Op) -> Predicate {
    let text = if field.ends_with("_at") {
        "2026-01-01T00:00:00Z"
    } else {
        "x"
    };
    Predicate {
        field: field.to_owned(),
        op,
        values: vec![Value::Text(text.to_owned())],
    }
}

#[tokio::test]
async fn each_order_has_an_index_that_also_holds_what_lists_are_filtered_by() {
    let store = Store::open(Location::Memory).await.unwrap();
    for (column, condition, index) in SCOPES {
        for (sorted_by, suffix) in [
            ("created_at", ""),
            ("display_name", "_name"),
            ("finished_at", "_end"),
            ("scheduled_at", "_due"),
            ("state", "_state"),
            ("storage_state", "_storage"),
            ("run_id", "_id"),
        ] {
            for filtered_by in ["storage_state", "state", "created_at"] {
                let filter = vec![predicate(filtered_by, Op::NotEquals)];
                let (_, page) = statements(condition, &list(sorted_by, filter), None);
                let plan = plan(&store, page).await;
                let covered = format!("SEARCH runs USING COVERING INDEX {index}{suffix} ({column}=?)");
                assert!(plan.contains(&covered), "{sorted_by} {filtered_by}: {plan}");
                // The rows of the page itself are put in order once more.
                let found = plan.split("SCAN page").next().unwrap();
                assert!(!found.contains("USE TEMP B-TREE"), "nothing is sorted: {plan}");
            }
        }
    }
}

#[tokio::test]
async fn lists_are_counted_without_reading_rows() {
    let store = Store::open(Location::Memory).await.unwrap();
    for (_, condition, index) in SCOPES {
        for filtered_by in ["storage_state", "state", "status", "experiment_id"] {
            let filter = vec![predicate(filtered_by, Op::NotEquals)];
            let (count, _) = statements(condition, &list("created_at", filter), None);
            let plan = plan(&store, count).await;
            assert!(plan.contains("run_counts") && !plan.contains("runs_by"), "{plan}");
        }
        for filtered_by in ["display_name", "created_at"] {
            let filter = vec![predicate(filtered_by, Op::NotEquals)];
            let (count, _) = statements(condition, &list("created_at", filter), None);
            let plan = plan(&store, count).await;
            assert!(
                plan.contains(&format!("SEARCH runs USING COVERING INDEX {index}")),
                "{plan}"
            );
        }
    }
}

#[tokio::test]
async fn a_state_and_a_name_are_looked_up() {
    let store = Store::open(Location::Memory).await.unwrap();
    for (column, condition, index) in SCOPES {
        let filter = vec![predicate("state", Op::Equals)];
        let (_, page) = statements(condition, &list("created_at", filter), None);
        let plan_of_state = plan(&store, page).await;
        let sought = format!("COVERING INDEX {index}_state ({column}=? AND state=?)");
        assert!(plan_of_state.contains(&sought), "{plan_of_state}");
        let filter = vec![predicate("display_name", Op::Equals)];
        let (count, page) = statements(condition, &list("created_at", filter), None);
        let sought = format!("COVERING INDEX {index}_name ({column}=? AND display_name=?)");
        for statement in [count, page] {
            let plan_of_name = plan(&store, statement).await;
            assert!(plan_of_name.contains(&sought), "{plan_of_name}");
            assert!(!plan_of_name.contains("USE TEMP B-TREE"), "{plan_of_name}");
        }
    }
}

#[tokio::test]
async fn a_part_of_few_names_is_searched_for() {
    let store = Store::open(Location::Memory).await.unwrap();
    for (_, condition, _) in SCOPES {
        let filter = vec![predicate("display_name", Op::IsSubstring)];
        let (count, page) = statements(condition, &list("created_at", filter), Some("\"abc\""));
        for statement in [count, page] {
            let plan = plan(&store, statement).await;
            let steps = [
                "SCAN run_name_parts VIRTUAL TABLE",
                "SEARCH run_names USING INTEGER PRIMARY KEY",
                "SEARCH runs USING",
            ];
            let places: Vec<_> = steps.iter().map(|step| plan.find(step)).collect();
            assert!(places.is_sorted() && places.iter().all(Option::is_some), "{plan}");
            assert!(!plan.contains("(namespace=?)"), "{plan}");
        }
    }
}

#[tokio::test]
async fn a_later_page_begins_where_the_one_before_ended() {
    let store = Store::open(Location::Memory).await.unwrap();
    for (sorted_by, value, sought) in [
        (
            "created_at",
            1.into(),
            "runs_by_namespace (namespace=? AND (created_at,id)<(?,?))",
        ),
        (
            "display_name",
            serde_json::json!(["x", 1]),
            "runs_by_namespace_name (namespace=? AND (display_name,created_at,id)<(?,?,?))",
        ),
        (
            "finished_at",
            1.into(),
            "runs_by_namespace_end (namespace=? AND (ended_at,id)<(?,?))",
        ),
    ] {
        let after = Some(Cursor {
            value,
            id: "x".to_owned(),
        });
        let list = List {
            after,
            ..list(sorted_by, Vec::new())
        };
        let (_, page) = statements("namespace = ?", &list, None);
        let plan = plan(&store, page).await;
        assert!(
            plan.contains(&format!("SEARCH runs USING COVERING INDEX {sought}")),
            "{plan}"
        );
    }
}

#[tokio::test]
async fn runs_that_have_not_ended_are_found_in_their_own_index() {
    let store = Store::open(Location::Memory).await.unwrap();
    let statement = Statement {
        text: UNFINISHED.to_owned(),
        binds: Vec::new(),
    };
    let plan = plan(&store, statement).await;
    assert_eq!(plan, "SCAN runs USING INDEX runs_unfinished");
}
