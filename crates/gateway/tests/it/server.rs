//! A server for one test, and short ways to ask it things and to write what the engine writes.

use axum::{
    Router,
    body::Body,
    http::{Method, Request, Response, StatusCode, header},
};
use coracle_api::{
    id::{RunId, TaskId},
    state::RuntimeState,
};
use coracle_artifacts::Artifacts;
use coracle_gateway::Options;
use coracle_store::{
    Location, Store,
    records::{Attempt, AttemptSpec, Commit, Records, RunStatus, Task, TaskIo, TaskKind},
};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) records: Records,
    pub(crate) folder: TempDir,
    pub(crate) shutdown: CancellationToken,
    _store: Store,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(false).await
    }

    /// One that may, or may not, fetch pipelines from this machine.
    pub(crate) async fn with(private_urls: bool) -> Self {
        let store = Store::open(Location::Memory).await.unwrap();
        let folder = TempDir::new().unwrap();
        let records = store.records().clone();
        let shutdown = CancellationToken::new();
        let router = coracle_gateway::router(Options {
            records: records.clone(),
            artifacts: Artifacts::local(folder.path()).unwrap(),
            namespace: "default".to_owned(),
            version: "1.2.3".to_owned(),
            commit: "abc".to_owned(),
            private_urls,
            clock: Timestamp::now,
            shutdown: shutdown.clone(),
        });
        Self {
            router,
            records,
            folder,
            shutdown,
            _store: store,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(format!("/apis/v2beta1{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .unwrap();
        read(self.send(request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// A custom verb: a POST with no body.
    pub(crate) async fn verb(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::POST, path, None).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::DELETE, path, None).await
    }

    /// What a GET answers, which must go well.
    pub(crate) async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// Makes a run of [`pipeline`].
    pub(crate) async fn run(&self) -> RunId {
        let body = json!({"display_name": "run", "pipeline_spec": pipeline(), "runtime_config": {"parameters": {"text": "a"}}});
        let (status, run) = self.post("/runs", body).await;
        assert_eq!(status, StatusCode::OK, "{run}");
        run["run_id"].as_str().unwrap().parse().unwrap()
    }

    /// Writes what the engine writes.
    pub(crate) async fn commit(&self, run: RunId, commit: Commit) {
        self.records.commit(run, commit).await.unwrap();
    }
}

pub(crate) async fn read(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    (status, body)
}

/// Checks an error in KFP's shape, and that it says `message`.
pub(crate) fn refused((status, body): (StatusCode, Value), expect: u16, code: i32, message: &str) {
    assert_eq!(status.as_u16(), expect, "{body}");
    assert_eq!(body["code"], code, "{body}");
    assert!(
        body["message"].as_str().unwrap().contains(message),
        "no `{message}` in {body}"
    );
    let detail =
        json!({"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": body["message"]});
    assert_eq!(body["details"][0], detail);
}

/// A small pipeline that can run: one task, one parameter `text`.
pub(crate) fn pipeline() -> Value {
    json!({
        "pipelineInfo": {"name": "small"},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
        "components": {"comp-say": {
            "executorLabel": "exec-say",
            "inputDefinitions": {"parameters": {"text": {"parameterType": "STRING"}}},
        }},
        "deploymentSpec": {"executors": {"exec-say": {"container": {"image": "alpine", "command": ["echo"]}}}},
        "root": {
            "dag": {"tasks": {"say": {
                "componentRef": {"name": "comp-say"},
                "inputs": {"parameters": {"text": {"componentInputParameter": "text"}}},
                "taskInfo": {"name": "say"},
            }}},
            "inputDefinitions": {"parameters": {"text": {"parameterType": "STRING"}}},
        },
    })
}

/// A task at a path, as the engine writes it.
pub(crate) fn task(run: RunId, path: &str, state: RuntimeState) -> Task {
    let (parent, name) = path
        .rsplit_once('.')
        .map_or((None, path), |(parent, name)| (Some(parent), name));
    Task {
        id: TaskId::at(run, path),
        run_id: run,
        parent_id: parent.map(|parent| TaskId::at(run, parent)),
        path: path.to_owned(),
        name: name.to_owned(),
        display_name: name.to_owned(),
        kind: if parent.is_none() {
            TaskKind::Root
        } else {
            TaskKind::Container
        },
        iteration: None,
        state,
        state_history: Vec::new(),
        error: None,
        inputs: TaskIo::default(),
        outputs: TaskIo::default(),
        retries: 0,
        retry_at: None,
        cached_from: None,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: None,
    }
}

/// An attempt at a task, as the engine writes it.
pub(crate) fn attempt(task: &Task, number: u32, state: RuntimeState) -> Attempt {
    Attempt {
        task_id: task.id,
        run_id: task.run_id,
        number,
        namespace: "default".to_owned(),
        pod_name: format!("{}-{number}", task.name),
        token: format!("secret-{}-{number}", task.id),
        state,
        error: None,
        exit_code: None,
        log_uri: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: None,
    }
}

/// What an attempt is given.
pub(crate) fn spec(attempt: &Attempt, launch: &Value, pod: &Value) -> AttemptSpec {
    AttemptSpec {
        task_id: attempt.task_id,
        number: attempt.number,
        launch: launch.to_string(),
        pod: pod.to_string(),
    }
}

/// The part of a run that the engine writes.
pub(crate) fn status(state: RuntimeState) -> Option<RunStatus> {
    Some(RunStatus {
        state,
        error: None,
        state_history: Vec::new(),
        retried: false,
        finished_at: None,
    })
}
