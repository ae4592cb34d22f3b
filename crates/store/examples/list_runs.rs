//! How long pages of lists of runs take when there are many: a row for each way to ask.
//!
//!     cargo run --release -p coracle-store --example list_runs -- [RUNS] [ROUNDS]
//!
//! Fills a database in a temporary folder, 200 000 runs unless said otherwise, all in one
//! namespace, in twelve experiments, half of them in one. Each way to ask is asked ROUNDS times,
//! 50 unless said otherwise, upwards and downwards, for the first page and for one far behind it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on ends, and prints what it measured"
)]

use std::time::{Duration, Instant};

use coracle_api::{id::ExperimentId, state::StorageState};
use coracle_store::{
    Location, Store,
    records::{
        Experiment, RunScope,
        query::{List, Op, Predicate, Sort, Value},
    },
};
use jiff::Timestamp;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

const NAMESPACE: &str = "team";
const EXPERIMENTS: usize = 12;
const PAGE: u32 = 20;
/// How many rows lie before the later page, unless half of all are fewer.
const DEEP: u32 = 5000;
/// Microseconds since 1970: when the first run was made, and what lies between two.
const START: i64 = 1_767_225_600_000_000;
const STEP: i64 = 20_000_000;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().unwrap());
    let runs: i64 = arguments.next().unwrap_or(200_000);
    let rounds = arguments.next().unwrap_or(50);
    let folder = tempfile::tempdir().unwrap();
    let location = Location::File(folder.path().join("store.db"));
    let began = Instant::now();
    let largest = fill(&location, runs).await;
    let store = Store::open(location).await.unwrap();
    println!(
        "{runs} runs, filled in {:.1} s, {} MB",
        began.elapsed().as_secs_f64(),
        std::fs::metadata(folder.path().join("store.db")).unwrap().len() / 1_000_000
    );
    println!("{:<62}{:>9}{:>9}{:>9}  total", "", "p50 ms", "p99 ms", "most ms");
    let mut slowest = Duration::ZERO;
    for (name, scope) in [
        ("namespace", RunScope::Namespace(NAMESPACE.to_owned())),
        ("experiment", RunScope::Experiment(largest)),
    ] {
        for (asked, sort, filter) in ways(runs) {
            let (mut samples, total) = sample(&store, &scope, sort, &filter, rounds).await;
            samples.sort();
            let at = |part: usize| samples[(samples.len() - 1) * part / 100];
            println!(
                "{:<62}{:>9.1}{:>9.1}{:>9.1}  {total}",
                format!("{name}: {asked}"),
                at(50).as_secs_f64() * 1e3,
                at(99).as_secs_f64() * 1e3,
                at(100).as_secs_f64() * 1e3,
            );
            slowest = slowest.max(at(99));
        }
    }
    println!("slowest p99: {:.1} ms", slowest.as_secs_f64() * 1e3);
    store.close().await;
}

/// A description, the sort field and the filter.
fn ways(runs: i64) -> Vec<(String, &'static str, Vec<Predicate>)> {
    let mut ways: Vec<_> = [
        "created_at",
        "scheduled_at",
        "finished_at",
        "display_name",
        "state",
        "storage_state",
        "run_id",
    ]
    .map(|field| (format!("by {field}"), field, Vec::new()))
    .into();
    let text = |field, op, text: &str| vec![predicate(field, op, Value::Text(text.to_owned()))];
    let shown = || predicate("storage_state", Op::NotEquals, Value::Text("ARCHIVED".to_owned()));
    let since = |part: i64| {
        let time = Timestamp::from_microsecond(START + STEP * (runs - runs / part)).unwrap();
        predicate("created_at", Op::GreaterThanEquals, Value::Time(time))
    };
    let named = |part: &str| text("display_name", Op::IsSubstring, part);
    let last = format!("{:06}", runs - 1);
    for (asked, filter) in [
        ("shown", vec![shown()]),
        ("state SUCCEEDED", text("state", Op::Equals, "SUCCEEDED")),
        ("state PENDING (1 in 1000)", text("state", Op::Equals, "PENDING")),
        ("state PAUSED (none)", text("state", Op::Equals, "PAUSED")),
        ("named exactly", text("display_name", Op::Equals, "train 000001")),
        ("name holds `nightly` (half)", named("nightly")),
        ("name holds `0199` (1 in 1000)", named("0199")),
        ("name holds a text that is in one", named(&last)),
        ("name holds a text that is in none", named("absent")),
        ("name holds `ly` (half)", named("ly")),
        ("name holds `qx` (none)", named("qx")),
        (
            "shown, name holds `nightly`",
            [named("nightly"), vec![shown()]].concat(),
        ),
        ("made in the later half", vec![since(2)]),
        ("made in the last thousandth", vec![since(1000)]),
        ("shown, made in the later half", vec![shown(), since(2)]),
    ] {
        ways.push((asked.to_owned(), "created_at", filter));
    }
    for sort in ["display_name", "finished_at"] {
        for (asked, filter) in [
            ("state PENDING", text("state", Op::Equals, "PENDING")),
            ("state SUCCEEDED", text("state", Op::Equals, "SUCCEEDED")),
            ("name holds `0199`", named("0199")),
            ("name holds `nightly`", named("nightly")),
            ("made in the last thousandth", vec![since(1000)]),
            ("made in the later half", vec![since(2)]),
        ] {
            ways.push((format!("by {sort}, {asked}"), sort, filter));
        }
    }
    ways
}

fn predicate(field: &str, op: Op, value: Value) -> Predicate {
    Predicate {
        field: field.to_owned(),
        op,
        values: vec![value],
    }
}

async fn sample(
    store: &Store,
    scope: &RunScope,
    sort: &str,
    filter: &[Predicate],
    rounds: i64,
) -> (Vec<Duration>, i64) {
    let mut samples = Vec::new();
    let mut total = 0;
    for descending in [true, false] {
        let mut list = List {
            filter: filter.to_vec(),
            sort: Sort {
                field: sort.to_owned(),
                descending,
            },
            page_size: PAGE,
            after: None,
        };
        let records = store.records();
        total = records.list_runs(scope.clone(), &list).await.unwrap().total;
        let before = List {
            page_size: u32::try_from(total / 2).unwrap().clamp(1, DEEP),
            ..list.clone()
        };
        let later = records.list_runs(scope.clone(), &before).await.unwrap().next;
        for after in [None, later] {
            list.after = after;
            for _ in 0..rounds {
                let began = Instant::now();
                let page = records.list_runs(scope.clone(), &list).await.unwrap();
                samples.push(began.elapsed());
                assert_eq!(page.total, total);
            }
        }
    }
    (samples, total)
}

/// Returns the experiment that holds half of the runs.
async fn fill(location: &Location, runs: i64) -> ExperimentId {
    let store = Store::open(location.clone()).await.unwrap();
    let mut experiments = Vec::new();
    for number in 0..EXPERIMENTS {
        let experiment = Experiment {
            id: ExperimentId::new(),
            namespace: NAMESPACE.to_owned(),
            name: format!("experiment {number}"),
            description: String::new(),
            storage_state: StorageState::Available,
            created_at: Timestamp::from_microsecond(START).unwrap(),
            last_run_created_at: None,
        };
        experiments.push(experiment.id);
        store.records().create_experiment(experiment).await.unwrap();
    }
    store.close().await;
    let Location::File(path) = location else {
        unreachable!("the database is a file")
    };
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("INSERT INTO pipeline_documents (digest, document) VALUES ('one', '{}')")
        .execute(&mut *transaction)
        .await
        .unwrap();
    for number in 0..runs {
        let experiment = if number % 2 == 0 {
            0
        } else {
            usize::try_from(number / 2).unwrap() % EXPERIMENTS
        };
        insert(&mut transaction, experiments[experiment], number).await;
    }
    transaction.commit().await.unwrap();
    connection.close().await.unwrap();
    experiments[0]
}

async fn insert(connection: &mut SqliteConnection, experiment: ExperimentId, number: i64) {
    // Spreads what follows from the number.
    let spread = number.wrapping_mul(2_654_435_761) % 1000;
    let state = match spread {
        0 => "PENDING",
        1..=4 => "RUNNING",
        5..=40 => "CANCELED",
        41..=160 => "FAILED",
        _ => "SUCCEEDED",
    };
    let created_at = START + STEP * number;
    let finished_at = (spread > 4).then(|| created_at + spread * 1_000_000);
    let word = ["nightly", "train", "nightly", "evaluate"][usize::try_from(spread % 4).unwrap()];
    let milliseconds = created_at / 1000;
    let id = format!(
        "{:08x}-{:04x}-7000-8000-{:012x}",
        milliseconds >> 16,
        milliseconds & 0xffff,
        (spread << 32) + number
    );
    let pipeline = format!("00000000-0000-7000-8000-{:012x}", spread % 50);
    sqlx::query(
        "INSERT INTO runs
             (id, experiment_id, namespace, display_name, storage_state, state, termination_requested,
              created_at, scheduled_at, finished_at, pipeline_id, pipeline_version_id, document_digest,
              pipeline_root, service_account, description, parameters, error, state_history, ended_at)
         VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $7, $8, $9, $9, 'one', '', 'pipeline-runner', '', $10, NULL, $11, COALESCE($8, 0))",
    )
    .bind(id)
    .bind(experiment.to_string())
    .bind(NAMESPACE)
    .bind(format!("{word} {number:06}"))
    .bind(if spread % 5 == 3 { "ARCHIVED" } else { "AVAILABLE" })
    .bind(state)
    .bind(created_at)
    .bind(finished_at)
    .bind(pipeline)
    .bind(r#"{"rate":0.5,"epochs":10,"data":"s3://bucket/some/where"}"#)
    .bind(
        r#"[{"time":"2026-01-01T00:00:00Z","state":"PENDING"},{"time":"2026-01-01T00:00:01Z","state":"RUNNING"},{"time":"2026-01-01T00:10:00Z","state":"SUCCEEDED"}]"#,
    )
    .execute(connection)
    .await
    .unwrap();
}
