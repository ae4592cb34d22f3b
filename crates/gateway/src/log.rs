//! The log of a task, while it runs and afterwards.
//!
//! A log is a file that only grows, inside the artifact folder. Following ends when the attempt has
//! ended and its file was read to the end. Growth is looked for at short intervals, for there is
//! no portable way to be told; only while somebody follows.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Path as UrlPath, State},
    http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use coracle_api::id::{RunId, TaskId};
use coracle_artifacts::{ArtifactUri, Artifacts};
use coracle_store::records::{Attempt, Change};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::AsyncReadExt,
    sync::broadcast::{Receiver, error::RecvError},
};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Options,
    kfp::{error::Error, extract::Params},
    node::find,
};

/// How often a file that is followed is looked at.
const GROWTH_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// The paths, under `/apis/v1alpha1`.
pub(crate) fn routes() -> OpenApiRouter<Arc<Options>> {
    OpenApiRouter::new().routes(routes!(log))
}

/// How a log is read.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct LogParams {
    /// Go on until the attempt has ended.
    follow: bool,
    /// Which attempt, from 1; the last when absent.
    attempt: Option<u32>,
}

/// The log of a task, by the name of its Pod, its id, its path or its name.
#[utoipa::path(get, path = "/runs/{run_id}/nodes/{node_id}/log", tag = "logs",
    params(("run_id" = String, Path), ("node_id" = String, Path), LogParams),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn log(
    State(options): State<Arc<Options>>,
    UrlPath((run_id, node)): UrlPath<(String, String)>,
    Params(params): Params<LogParams>,
) -> Result<Response, Error> {
    let run_id: RunId = run_id.parse()?;
    // Before the first read: no change is missed.
    let changes = options.records.changes();
    options.records.run(run_id).await?;
    let (task, attempt) = find(&options.records, run_id, &node, params.attempt).await?;
    let mut reader = Reader {
        options,
        run_id,
        task_id: task.id,
        number: attempt.as_ref().map(|attempt| attempt.number).or(params.attempt),
        changes,
        source: Source::Absent,
        has_ended: task.state.is_terminal(),
        follow: params.follow,
    };
    if let Some(attempt) = &attempt {
        reader.take(attempt).await?;
    }
    if matches!(reader.source, Source::Absent) && (reader.has_ended || !params.follow) {
        return Err(Error::Absent(match attempt {
            Some(_) => format!("task `{}` has written no log yet", task.path),
            None => format!(
                "task `{}` is {} and has started no process: it has no log",
                task.path, task.state
            ),
        }));
    }
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((
        headers,
        Body::from_stream(futures::stream::unfold(reader, Reader::next)),
    )
        .into_response())
}

/// Where a log's bytes come from.
enum Source {
    /// There is no file yet.
    Absent,
    /// The file, read up to where it stands.
    Open(File),
    /// All was read.
    Done,
}

struct Reader {
    options: Arc<Options>,
    run_id: RunId,
    task_id: TaskId,
    number: Option<u32>,
    changes: Receiver<Change>,
    source: Source,
    /// Whether the attempt has ended: known before the read that comes next.
    has_ended: bool,
    follow: bool,
}

impl Reader {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            match &mut self.source {
                Source::Done => return None,
                Source::Open(file) => match read(file).await {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Some((Ok(bytes), self)),
                    Err(error) => {
                        self.source = Source::Done;
                        return Some((Err(error), self));
                    }
                },
                Source::Absent => {}
            }
            if self.has_ended || !self.follow || self.wait().await.is_none() {
                return None;
            }
            if let Err(error) = self.refresh().await {
                self.source = Source::Done;
                return Some((Err(io::Error::other(error)), self));
            }
        }
    }

    /// Waits until there may be more; none when the server stops.
    async fn wait(&mut self) -> Option<()> {
        let growth = tokio::time::sleep(GROWTH_INTERVAL);
        tokio::pin!(growth);
        loop {
            let received = tokio::select! {
                received = self.changes.recv() => received,
                () = &mut growth => return Some(()),
                () = self.options.shutdown.cancelled() => return None,
            };
            match received {
                Ok(Change::RunChanged(id) | Change::RunDeleted(id)) if id == self.run_id => return Some(()),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Some(()),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Looks again at the attempt, if it may have changed, and for its file.
    async fn refresh(&mut self) -> Result<(), Error> {
        let attempts = self.options.records.attempts_of(self.task_id).await?;
        let attempt = match self.number {
            Some(number) => attempts.into_iter().find(|attempt| attempt.number == number),
            None => attempts.into_iter().next_back(),
        };
        match attempt {
            Some(attempt) => self.take(&attempt).await,
            // The task ended without a process, or the run was deleted.
            None => {
                self.has_ended = self
                    .options
                    .records
                    .task(self.task_id)
                    .await
                    .map_or(true, |task| task.state.is_terminal());
                Ok(())
            }
        }
    }

    async fn take(&mut self, attempt: &Attempt) -> Result<(), Error> {
        self.number = Some(attempt.number);
        self.has_ended = attempt.state.is_terminal();
        if matches!(self.source, Source::Absent)
            && let Some(file) = open(&self.options.artifacts, &attempt.log_uri).await?
        {
            self.source = Source::Open(file);
        }
        Ok(())
    }
}

async fn read(file: &mut File) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(CHUNK);
    file.take(CHUNK as u64).read_to_end(&mut buffer).await?;
    Ok(buffer.into())
}

/// Opens a log, if it is there. A path that leads out of the artifact folder is no log.
async fn open(artifacts: &Artifacts, uri: &str) -> Result<Option<File>, Error> {
    if uri.is_empty() {
        return Ok(None);
    }
    let no_log = |error: &dyn std::fmt::Display| Error::Absent(format!("the log cannot be shown: {error}"));
    let place: ArtifactUri = uri.parse().map_err(|error| no_log(&error))?;
    let path = place.local().map_err(|error| no_log(&error))?.to_owned();
    let artifacts = artifacts.clone();
    let confined = tokio::task::spawn_blocking(move || artifacts.confine(&path))
        .await
        .map_err(|error| Error::internal("the log could not be looked for", error))?;
    let opened = match confined {
        Ok(path) => File::open(path).await,
        Err(error) => return Err(no_log(&error)),
    };
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::internal("the log could not be opened", error)),
    }
}
