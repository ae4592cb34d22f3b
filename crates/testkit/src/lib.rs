//! The platform in-process for tests: store in memory, Kubernetes API, engine, and a node that
//! runs nothing. Tests decide what each task's launcher says, and wait for rows, never for time.
//!
//! - [`Bench`]: the parts, wired as the platform wires them
//! - [`node`]: the fake node
//! - [`builders`]: pipelines in few words

#![expect(
    clippy::unwrap_used,
    reason = "for tests only: what goes wrong here is a test's failure"
)]

pub mod builders;
pub mod node;

use axum::{Router, body::Body};
use coracle_api::{
    id::{ExperimentId, RunId},
    state::StorageState,
};
use coracle_artifacts::Artifacts;
use coracle_pipelines::{Engine, Options, task::container::Settings};
use coracle_store::{
    Location, Store,
    records::{Change, Experiment, NewRun, Run, Task},
};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};

/// The platform without its node.
pub struct Bench {
    /// Objects and rows.
    pub store: Store,
    /// A client of the Kubernetes API.
    pub client: Client,
    experiment: ExperimentId,
    engine: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Bench {
    /// Everything in memory, the engine at work.
    pub async fn start() -> Self {
        let store = Store::open(Location::Memory).await.unwrap();
        let catalogue = coracle_apiserver::bootstrap(store.resources()).await.unwrap();
        let router = coracle_apiserver::router(coracle_apiserver::Options {
            resources: store.resources().clone(),
            catalogue,
            kubelet: Router::new(),
            reserve: coracle_apiserver::Reserve::default(),
            node_name: "fake".to_owned(),
            identity: coracle_apiserver::identity::Identity::ephemeral().unwrap(),
            stop: CancellationToken::new(),
        });
        let service = service_fn(move |request: axum::http::Request<kube::client::Body>| {
            router.clone().oneshot(request.map(Body::new))
        });
        let client = Client::new(service, "default");
        let experiment = ExperimentId::new();
        let row = Experiment {
            id: experiment,
            namespace: "default".to_owned(),
            name: "tests".to_owned(),
            description: String::new(),
            storage_state: StorageState::Available,
            created_at: Timestamp::now(),
            last_run_created_at: None,
        };
        store.records().create_experiment(row).await.unwrap();
        let mut bench = Self {
            store,
            client,
            experiment,
            engine: None,
        };
        bench.start_engine();
        bench
    }

    /// Starts the engine, after [`Bench::stop_engine`].
    pub fn start_engine(&mut self) {
        let engine = Engine::new(Options {
            client: self.client.clone(),
            records: self.store.records().clone(),
            artifacts: Artifacts::local(std::env::temp_dir()).unwrap(),
            settings: Settings {
                artifact_root: "/artifacts".into(),
                launcher: "/bin/coracle".to_owned(),
                server_url: "http://127.0.0.1:1".to_owned(),
                cluster: None,
                cache: None,
            },
        });
        let stop = CancellationToken::new();
        self.engine = Some((tokio::spawn(engine.run(stop.clone())), stop));
    }

    /// Stops the engine. Pods and rows stay as they are.
    pub async fn stop_engine(&mut self) {
        if let Some((engine, stop)) = self.engine.take() {
            stop.cancel();
            engine.await.unwrap();
        }
    }

    /// Makes a run, as the façade does.
    pub async fn run(&self, pipeline: Value, parameters: Value) -> RunId {
        let created_at = Timestamp::now();
        let run = NewRun {
            id: RunId::new(),
            experiment_id: self.experiment,
            display_name: "a run".to_owned(),
            description: String::new(),
            pipeline_id: None,
            pipeline_version_id: None,
            document: pipeline,
            parameters: parameters.as_object().cloned().unwrap_or_default(),
            pipeline_root: String::new(),
            service_account: String::new(),
            recurring_run_id: None,
            scheduled_at: created_at,
            created_at,
        };
        self.store.records().create_run(run).await.unwrap().id
    }

    /// Waits until the rows of a run look as `ready` wants them, and returns the run.
    pub async fn wait(&self, run: RunId, ready: impl Fn(&Run, &[Task]) -> bool) -> Run {
        let records = self.store.records();
        let mut changes = records.changes();
        loop {
            let (row, tasks) = (records.run(run).await.unwrap(), records.tasks(run).await.unwrap());
            if ready(&row, &tasks) {
                return row;
            }
            while !matches!(changes.recv().await, Ok(Change::RunChanged(changed)) if changed == run) {}
        }
    }

    /// Waits until a run has ended.
    pub async fn ended(&self, run: RunId) -> Run {
        self.wait(run, |run, _| run.state.is_terminal()).await
    }

    /// The states of a run's tasks, as `path=STATE`, by path.
    pub async fn states(&self, run: RunId) -> Vec<String> {
        let tasks = self.store.records().tasks(run).await.unwrap();
        let mut states: Vec<_> = tasks
            .iter()
            .map(|task| format!("{}={}", task.path, task.state))
            .collect();
        states.sort_unstable();
        states
    }
}

/// No parameters.
#[must_use]
pub fn none() -> Value {
    json!({})
}
