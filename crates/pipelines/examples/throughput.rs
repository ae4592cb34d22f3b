//! How many no-op tasks a second the engine takes from their run's request to their end.
//!
//!     cargo run --release -p coracle-pipelines --example throughput -- [LARGEST] [RUNS]
//!
//! The engine as it is, with its store in a file; the Kubernetes API answers at once, and a node that
//! runs nothing reports each Pod's success and ends it. Measured are loops and DAGs of 100, 1000,
//! … tasks up to LARGEST (10 000), a chain, and so many RUNS at once (1000), each a chain of five.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that cannot go on ends, and prints what it measured"
)]

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use coracle_api::{
    id::{ExperimentId, RunId},
    labels,
    launch::Report,
    state::{RuntimeState, StorageState},
};
use coracle_artifacts::Artifacts;
use coracle_pipelines::{Engine, Options, task::container::Settings};
use coracle_store::{
    Location, Store,
    records::{Change, Experiment, NewRun, Records},
};
use http_body::Frame;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Map, Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().unwrap());
    let largest: usize = arguments.next().unwrap_or(10_000);
    let runs: usize = arguments.next().unwrap_or(1000);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Location::File(folder.path().join("store.db")))
        .await
        .unwrap();
    let records = store.records().clone();
    let experiment = Experiment {
        id: ExperimentId::new(),
        namespace: "default".to_owned(),
        name: "throughput".to_owned(),
        description: String::new(),
        storage_state: StorageState::Available,
        created_at: Timestamp::now(),
        last_run_created_at: None,
    };
    let id = experiment.id;
    records.create_experiment(experiment).await.unwrap();
    let engine = Engine::new(Options {
        client: node(records.clone()),
        records: records.clone(),
        artifacts: Artifacts::local(folder.path()).unwrap(),
        settings: Settings {
            artifact_root: "/artifacts".into(),
            launcher: "/bin/coracle".to_owned(),
            server_url: "http://127.0.0.1:1".to_owned(),
            cluster: None,
            cache: None,
        },
    });
    let stop = CancellationToken::new();
    let engine = tokio::spawn(engine.run(stop.clone()));
    let bench = Bench {
        records,
        experiment: id,
    };
    bench.measure("a first run", &dag(10, false), 10, 1).await;
    println!(
        "{:<30}{:>9}{:>10}{:>13}{:>13}{:>13}",
        "", "tasks", "seconds", "tasks/s", "cpu ms/task", "peak MB"
    );
    let counts = std::iter::successors(Some(100), |count| Some(count * 10));
    let counts = counts.take_while(|count| *count <= largest);
    for count in counts.clone() {
        bench.measure("a loop", &looped(count), count, 1).await;
    }
    for count in counts {
        let side_by_side = dag(count, false);
        bench
            .measure("a DAG, side by side", &side_by_side, count, 1)
            .await;
    }
    bench.measure("a chain", &dag(100, true), 100, 1).await;
    bench
        .measure("runs at once, chains of 5", &dag(5, true), 5 * runs, runs)
        .await;
    stop.cancel();
    engine.await.unwrap();
    store.close().await;
}

struct Bench {
    records: Records,
    experiment: ExperimentId,
}

impl Bench {
    /// Makes so many runs of `pipeline`, and prints how long they took together.
    async fn measure(&self, what: &str, pipeline: &Value, tasks: usize, runs: usize) {
        settled().await;
        let mut changes = self.records.changes();
        let (cpu, began) = (processor(), Instant::now());
        let mut waiting = Vec::with_capacity(runs);
        for _ in 0..runs {
            waiting.push(self.create(pipeline).await);
        }
        let mut most = 0;
        while let Some(run) = waiting.last().copied() {
            let row = self.records.run(run).await.unwrap();
            if row.state.is_terminal() {
                assert_eq!(row.state, RuntimeState::Succeeded, "{:?}", row.error);
                waiting.pop();
                continue;
            }
            most = most.max(resident());
            let looked = Instant::now() + Duration::from_millis(2);
            // It is asked for now and then only: asking costs, too.
            while Instant::now() < looked {
                match changes.recv().await {
                    Ok(Change::RunChanged(_)) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Closed) => panic!("the store is closed"),
                }
            }
        }
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), processor() - cpu);
        let each = |amount: f64| amount / f64::from(u32::try_from(tasks).unwrap());
        println!(
            "{what:<30}{tasks:>9}{seconds:>10.2}{:>13.0}{:>13.2}{:>13.1}",
            1.0 / each(seconds),
            each(cpu * 1000.0),
            most as f64 / 1000.0,
        );
    }

    async fn create(&self, pipeline: &Value) -> RunId {
        let created_at = Timestamp::now();
        let run = NewRun {
            id: RunId::new(),
            experiment_id: self.experiment,
            display_name: "a run".to_owned(),
            description: String::new(),
            pipeline_id: None,
            pipeline_version_id: None,
            document: pipeline.clone(),
            parameters: Map::new(),
            pipeline_root: String::new(),
            service_account: String::new(),
            recurring_run_id: None,
            scheduled_at: created_at,
            created_at,
        };
        self.records.create_run(run).await.unwrap().id
    }
}

fn pipeline(tasks: Value) -> Value {
    json!({
        "pipelineInfo": {"name": "throughput"},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": tasks}},
        "components": {"comp": {
            "executorLabel": "exec",
            "inputDefinitions": {"parameters": {"item": {"parameterType": "NUMBER_INTEGER", "isOptional": true}}}
        }},
        "deploymentSpec": {"executors": {"exec": {"container": {"image": "alpine", "command": ["true"]}}}}
    })
}

/// So many tasks, one after the other or none after another.
fn dag(count: usize, is_chain: bool) -> Value {
    let task = |number: usize| {
        let mut task = json!({"componentRef": {"name": "comp"}});
        if is_chain && number > 0 {
            task["dependentTasks"] = json!([format!("t{}", number - 1)]);
        }
        (format!("t{number}"), task)
    };
    pipeline(Value::Object((0..count).map(task).collect()))
}

/// A loop of so many iterations.
fn looped(count: usize) -> Value {
    let items: Vec<usize> = (0..count).collect();
    pipeline(json!({"t": {
        "componentRef": {"name": "comp"},
        "parameterIterator": {"itemInput": "item", "items": {"raw": json!(items).to_string()}}
    }}))
}

/// Waits until what comes after a run's end is done, too.
async fn settled() {
    loop {
        let before = processor();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if processor() - before < 0.02 {
            return;
        }
    }
}

/// Of this process, in kB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

/// Seconds that this process has used.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// The watches of Pods.
type Watches = Arc<Mutex<Vec<mpsc::UnboundedSender<Bytes>>>>;

/// A Kubernetes API with a node that ends every Pod at once, and well.
fn node(records: Records) -> Client {
    let watches = Watches::default();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (records, watches) = (records.clone(), Arc::clone(&watches));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let is_watch = parts
                .uri
                .query()
                .is_some_and(|query| query.contains("watch=true"));
            let answer = match parts.method.as_str() {
                "POST" => {
                    tokio::spawn(run(records, watches, body.clone()));
                    Answer::Whole(Some(body))
                }
                "GET" if is_watch => {
                    let (events, answer) = mpsc::unbounded_channel();
                    watches.lock().unwrap().push(events);
                    Answer::Stream(answer)
                }
                "GET" => {
                    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
                    Answer::Whole(Some(list.to_string().into()))
                }
                _ => Answer::Whole(Some(
                    r#"{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}"#.into(),
                )),
            };
            Ok::<_, tower::BoxError>(http::Response::new(answer))
        }
    });
    Client::new(service, "default")
}

async fn run(records: Records, watches: Watches, pod: Bytes) {
    let mut pod: Value = serde_json::from_slice(&pod).unwrap();
    let tell = |what: &str, pod: &Value| {
        let line: Bytes = format!("{}\n", json!({"type": what, "object": pod})).into();
        watches
            .lock()
            .unwrap()
            .retain(|watch| watch.send(line.clone()).is_ok());
    };
    pod["metadata"]["resourceVersion"] = json!("2");
    tell("ADDED", &pod);
    pod["status"] = json!({"phase": "Running"});
    tell("MODIFIED", &pod);
    let label = |name: &str| pod["metadata"]["labels"][name].as_str().unwrap();
    let (task, number) = (
        label(labels::TASK_ID).parse().unwrap(),
        label(labels::ATTEMPT).parse().unwrap(),
    );
    let report = Report {
        parameters: Default::default(),
        artifacts: Default::default(),
        failure: None,
        exit_code: Some(0),
    };
    records.put_report(task, number, &report).await.unwrap();
    pod["status"] = json!({"phase": "Succeeded"});
    tell("MODIFIED", &pod);
}

/// The body of an answer.
enum Answer {
    Whole(Option<Bytes>),
    Stream(mpsc::UnboundedReceiver<Bytes>),
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Stream(events) => ready!(events.poll_recv(context)),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }
}
