//! The bytes of an artifact, as KFP sends them: JSON with base64 inside, never whole in memory.

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    extract::{Path as UrlPath, State},
    http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use coracle_api::id::{ArtifactId, RunId};
use coracle_artifacts::ArtifactUri;
use coracle_store::records::Task;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Options, error::Error, extract::Params};
use crate::node;

/// `v2beta1.ReadArtifactResponse`.
#[derive(Serialize, ToSchema)]
pub(super) struct ReadArtifactResponse {
    /// The bytes, in base64.
    data: String,
}

/// Which artifact of a list, and which part of it. Coracle's own.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadParams {
    /// Which one of an output that is a list, from 0.
    index: usize,
    /// The first byte, from 0.
    offset: u64,
    /// How many bytes at most; all when absent.
    limit: Option<u64>,
}

/// Reads an artifact of a task: `{"data": BASE64}`.
///
/// The task is named by its id, its Pod, its path or its name.
#[utoipa::path(get, path = "/runs/{run_id}/nodes/{node_id}/artifacts/{artifact_name}/:read", tag = "artifacts",
    params(("run_id" = String, Path), ("node_id" = String, Path), ("artifact_name" = String, Path), ReadParams),
    responses((status = 200, body = ReadArtifactResponse)))]
pub(super) async fn read(
    State(options): State<Arc<Options>>,
    UrlPath((run_id, node, name)): UrlPath<(String, String, String)>,
    Params(params): Params<ReadParams>,
) -> Result<Response, Error> {
    let run_id: RunId = run_id.parse()?;
    options.records.run(run_id).await?;
    let (task, _) = node::find(&options.records, run_id, &node, None).await?;
    let id = artifact_of(&task, &name, params.index)?;
    let artifact = options.records.artifact(id).await?;
    let unreadable = |error: &dyn std::fmt::Display| {
        Error::FailedPrecondition(format!(
            "artifact `{name}` of task `{}` cannot be read: {error}",
            task.path
        ))
    };
    let uri: ArtifactUri = artifact.uri.parse().map_err(|error| unreadable(&error))?;
    let range = params.range(artifact.size);
    if range.as_ref().is_some_and(Range::is_empty) {
        return Ok(answer(futures::stream::empty::<Result<Bytes, std::io::Error>>()));
    }
    let opened = options
        .artifacts
        .open(&uri, range)
        .await
        .map_err(|error| match error {
            coracle_artifacts::local::Error::NotFound { .. } => Error::Absent(format!(
                "artifact `{name}` of task `{}` has no bytes at `{uri}`: they were deleted, or never written",
                task.path
            )),
            other => unreadable(&other),
        })?;
    Ok(answer(opened.bytes))
}

impl ReadParams {
    /// The part asked for, which ends where the artifact does.
    fn range(&self, size: Option<u64>) -> Option<Range<u64>> {
        if self.offset == 0 && self.limit.is_none() {
            return None;
        }
        let size = size.unwrap_or(u64::MAX);
        let start = self.offset.min(size);
        let end = self
            .limit
            .map_or(size, |limit| start.saturating_add(limit).min(size));
        Some(start..end)
    }
}

/// An output of that name, or an input.
fn artifact_of(task: &Task, name: &str, index: usize) -> Result<ArtifactId, Error> {
    let outputs = &task.outputs.artifacts;
    let ids = outputs.get(name).or_else(|| task.inputs.artifacts.get(name));
    let Some(ids) = ids else {
        let known: Vec<_> = outputs.keys().chain(task.inputs.artifacts.keys()).collect();
        return Err(Error::Absent(format!(
            "task `{}` has no artifact `{name}`; it has {}",
            task.path,
            if known.is_empty() {
                "none".to_owned()
            } else {
                known
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            }
        )));
    };
    ids.get(index).copied().ok_or_else(|| {
        Error::Absent(format!(
            "artifact `{name}` of task `{}` is a list of {}: there is none at {index}",
            task.path,
            ids.len()
        ))
    })
}

fn answer<E>(bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Response
where
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let start = futures::stream::once(async { Ok(Bytes::from_static(b"{\"data\":\"")) });
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(start.chain(encoded(bytes)))).into_response()
}

/// The bytes in base64, and the end of the JSON.
fn encoded<E>(
    bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, E>> {
    /// Three bytes become four letters: up to two wait for the next ones.
    struct State<S> {
        bytes: S,
        rest: BytesMut,
        is_done: bool,
    }
    let state = State {
        bytes: Box::pin(bytes),
        rest: BytesMut::new(),
        is_done: false,
    };
    futures::stream::unfold(state, async |mut state| {
        if state.is_done {
            return None;
        }
        match state.bytes.next().await {
            Some(Ok(chunk)) => {
                state.rest.extend_from_slice(&chunk);
                let whole = state.rest.split_to(state.rest.len() / 3 * 3);
                Some((Ok(STANDARD.encode(whole).into()), state))
            }
            Some(Err(error)) => {
                state.is_done = true;
                Some((Err(error), state))
            }
            None => {
                state.is_done = true;
                let end = STANDARD.encode(&state.rest) + "\"}";
                Some((Ok(end.into()), state))
            }
        }
    })
}
