//! The kubelet's own API, as far as Kubernetes API servers ask it: container logs, and connections into Pods.
//!
//! ```text
//! exec, forward      what is done with a connection
//! remote             one session: streams, and how it ended
//! upgrade            from a request to a connection that is taken over
//! websocket, spdy    what is spoken on it
//! ```

mod exec;
mod forward;
mod listeners;
mod remote;
mod spdy;
mod upgrade;
mod websocket;

use std::{io, path::PathBuf};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query as Parameters, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::{
    logs::{self, Query},
    runtime::run_dir::{Identity, RunDir},
};

#[derive(Clone)]
struct Kubelet {
    client: Client,
    pods: PathBuf,
}

/// `GET /containerLogs/{namespace}/{pod}/{container}` with the parameters of a Pod's `log` subresource, `/exec` and
/// `/attach` of the same form, and `/portForward/{namespace}/{pod}`.
pub(crate) fn router(client: Client, pods: PathBuf) -> Router {
    Router::new()
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(container_logs),
        )
        .route("/exec/{namespace}/{pod}/{container}", any(exec::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(exec::attach))
        .route("/portForward/{namespace}/{pod}", any(forward::forward))
        .with_state(Kubelet { client, pods })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Asked {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<usize>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<usize>,
}

impl Asked {
    fn query(&self, now: Timestamp) -> Query {
        let ago = self.since_seconds.map(jiff::SignedDuration::from_secs);
        Query {
            follow: self.follow && !self.previous,
            tail: self.tail_lines,
            since: self
                .since_time
                .or_else(|| ago.and_then(|ago| now.checked_sub(ago).ok())),
            timestamps: self.timestamps,
            limit: self.limit_bytes,
        }
    }
}

/// An answer in plain text, which is how kubelets say what is wrong.
type Refusal = (StatusCode, String);

impl Kubelet {
    async fn pod(&self, namespace: &str, name: &str) -> Result<Pod, Refusal> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name)
            .await
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
            .ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{name}\" not found")))
    }

    /// The run of a container that is at work.
    async fn running(&self, namespace: &str, name: &str, container: &str) -> Result<RunDir, Refusal> {
        let pod = self.pod(namespace, name).await?;
        let run = find_run(self, &pod, container, false).await.ok();
        let run = run.filter(|run| run.read_exit().is_none());
        run.filter(|run| run.read_claim().is_some() || run.read_identity().is_some_and(Identity::is_alive))
            .ok_or_else(|| {
                let message = format!("container not found (\"{container}\")");
                (StatusCode::NOT_FOUND, message)
            })
    }

    /// Whether a container's main process has a terminal.
    async fn has_terminal(&self, namespace: &str, name: &str, container: &str) -> Result<bool, Refusal> {
        let pod = self.pod(namespace, name).await?;
        let mut all = containers(&pod);
        Ok(all.any(|known| known.name == container && known.tty == Some(true)))
    }

    /// Whose ports are to be forwarded.
    async fn target(&self, namespace: &str, name: &str) -> Result<forward::Target, Refusal> {
        let pod = self.pod(namespace, name).await?;
        let status = pod.status.as_ref();
        let phase = status
            .and_then(|status| status.phase.as_deref())
            .unwrap_or_default();
        if phase != "Running" {
            let message =
                format!("unable to forward port because pod is not running. Current status={phase}");
            return Err((StatusCode::BAD_REQUEST, message));
        }
        let mut keepers = Vec::new();
        for container in containers(&pod) {
            if let Ok(run) = find_run(self, &pod, &container.name, false).await {
                keepers.extend(run.read_identity().filter(|keeper| keeper.is_alive()));
            }
        }
        Ok(forward::Target {
            name: name.to_owned(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            address: status.and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
            keepers: keepers.into_iter().map(|keeper| keeper.pid).collect(),
        })
    }
}

/// All containers of a Pod.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    })
}

async fn container_logs(
    State(state): State<Kubelet>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Parameters(asked): Parameters<Asked>,
) -> Result<Response, Refusal> {
    let pod = state.pod(&namespace, &name).await?;
    let run = find_run(&state, &pod, &container, asked.previous).await?;
    let query = asked.query(Timestamp::now());
    let (sender, receiver) = mpsc::channel::<io::Result<Vec<u8>>>(4);
    tokio::spawn(logs::send(run, query, sender));
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    Ok(([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(chunks)).into_response())
}

/// The directory of the container's latest run, or of the one before.
async fn find_run(state: &Kubelet, pod: &Pod, container: &str, previous: bool) -> Result<RunDir, Refusal> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let is_known = containers(pod).any(|known| known.name == container);
    if !is_known {
        let message = format!("container {container} is not valid for pod {name}");
        return Err((StatusCode::BAD_REQUEST, message));
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let folder = state.pods.join(uid).join(container);
    let mut numbers = Vec::new();
    if let Ok(mut entries) = tokio::fs::read_dir(&folder).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            let has_started = RunDir(entry.path()).claimed().is_some();
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok());
            numbers.extend(number.filter(|_| has_started));
        }
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let number = numbers.get(usize::from(previous)).ok_or_else(|| {
        let message = if previous {
            format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
        } else {
            let why = waiting_reason(pod, container).unwrap_or_else(|| "ContainerCreating".to_owned());
            format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}")
        };
        (StatusCode::BAD_REQUEST, message)
    })?;
    Ok(RunDir(folder.join(number.to_string())))
}

/// Why a container has no log: what its status says.
fn waiting_reason(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten();
    let state = all.find(|status| status.name == container)?.state.as_ref()?;
    let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
    waiting.or_else(|| state.terminated.as_ref()?.reason.clone())
}
