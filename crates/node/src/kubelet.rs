//! The kubelet's own API, as far as Kubernetes API servers ask it: container logs.

use std::{io, path::PathBuf};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query as Parameters, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::{
    logs::{self, Query},
    runtime::process::spec::RunDir,
};

#[derive(Clone)]
struct Logs {
    client: Client,
    pods: PathBuf,
}

/// `GET /containerLogs/{namespace}/{pod}/{container}` with the parameters of a Pod's `log` subresource.
pub(crate) fn router(client: Client, pods: PathBuf) -> Router {
    Router::new()
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(container_logs),
        )
        .with_state(Logs { client, pods })
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

async fn container_logs(
    State(state): State<Logs>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Parameters(asked): Parameters<Asked>,
) -> Result<Response, Refusal> {
    let api: Api<Pod> = Api::namespaced(state.client.clone(), &namespace);
    let pod = api
        .get_opt(&name)
        .await
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
        .ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{name}\" not found")))?;
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
async fn find_run(state: &Logs, pod: &Pod, container: &str, previous: bool) -> Result<RunDir, Refusal> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let is_known = spec.is_some_and(|spec| {
        let mut all = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        all.any(|known| known.name == container)
    });
    if !is_known {
        let message = format!("container {container} is not valid for pod {name}");
        return Err((StatusCode::BAD_REQUEST, message));
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let folder = state.pods.join(uid).join(container);
    let mut numbers = Vec::new();
    if let Ok(mut entries) = tokio::fs::read_dir(&folder).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            let has_started = entry.path().join("pid").exists();
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
