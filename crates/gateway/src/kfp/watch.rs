//! One run, followed until it ends: server-sent events, sent when the records change.
//!
//! The first event holds the whole run; each later one holds the run with only those of its tasks
//! that changed since. A run of ten thousand tasks is therefore sent about once, not ten thousand
//! times, and a follower that reads slowly is sent fewer, larger events.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    convert::Infallible,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use coracle_api::id::RunId;
use coracle_store::records::Change;
use futures::Stream;
use serde::Serialize;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Instant,
};

use super::{
    Options,
    error::Error,
    extract::Ids,
    runs,
    wire::{Run, Status},
};

/// Follows a run: server-sent events named `run`, each a `Run`, until it ends.
///
/// The first has all tasks in `run_details.task_details`, later ones those that changed. An event
/// named `failed`, a `google.rpc.Status`, says why the stream ends early.
#[utoipa::path(get, path = "/runs/{run_id}/:watch", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = Run, content_type = "text/event-stream")))]
pub(super) async fn watch(
    State(options): State<Arc<Options>>,
    Ids(run_id): Ids<RunId>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    // Before the first read: no change is missed.
    let changes = options.records.changes();
    options.records.run(run_id).await?;
    let follower = Follower {
        options,
        run_id,
        changes,
        sent_run: None,
        sent_tasks: HashMap::new(),
        not_before: Instant::now(),
        is_done: false,
    };
    let events = futures::stream::unfold(follower, Follower::next);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct Follower {
    options: Arc<Options>,
    run_id: RunId,
    changes: Receiver<Change>,
    /// Digest of the run as last sent, without its tasks.
    sent_run: Option<u64>,
    /// Digest of each task as last sent.
    sent_tasks: HashMap<String, u64>,
    /// Reading takes at most a tenth of the time: a run that changes all the time is read less
    /// often the larger it is.
    not_before: Instant,
    is_done: bool,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        while !self.is_done {
            if self.sent_run.is_some() {
                self.change().await?;
                tokio::time::sleep_until(self.not_before).await;
                while !self.changes.is_empty() && self.changes.try_recv().is_ok() {}
            }
            let event = match self.read().await {
                Ok(Some(run)) => event("run", &run),
                Ok(None) => continue,
                Err(error) => {
                    self.is_done = true;
                    let status = Status {
                        code: error.code(),
                        message: error.to_string(),
                        details: Vec::new(),
                    };
                    event("failed", &status)
                }
            };
            return Some((Ok(event), self));
        }
        None
    }

    /// Waits until the run may have changed; none when no more changes will come.
    async fn change(&mut self) -> Option<()> {
        loop {
            let received = tokio::select! {
                received = self.changes.recv() => received,
                () = self.options.shutdown.cancelled() => return None,
            };
            match received {
                Ok(Change::RunChanged(id) | Change::TerminationRequested(id) | Change::RunDeleted(id))
                    if id == self.run_id =>
                {
                    return Some(());
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Some(()),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// What is new about the run, if anything.
    async fn read(&mut self) -> Result<Option<Run>, Error> {
        let began = Instant::now();
        let row = self.options.records.run(self.run_id).await?;
        self.is_done = row.is_over();
        let mut run = runs::with_details(&self.options, row).await?;
        self.not_before = Instant::now() + (began.elapsed() * 10).min(Duration::from_secs(5));

        let mut details = run.run_details.take().unwrap_or_default();
        let digest = digest(&run);
        let is_run_new = self.sent_run.replace(digest) != Some(digest);
        details.task_details.retain(|task| {
            let digest = self::digest(task);
            self.sent_tasks.insert(task.task_id().to_owned(), digest) != Some(digest)
        });
        let is_new = is_run_new || !details.task_details.is_empty();
        run.run_details = Some(details);
        Ok(is_new.then_some(run))
    }
}

fn event<T: Serialize>(name: &str, data: &T) -> Event {
    Event::default()
        .event(name)
        .json_data(data)
        .unwrap_or_else(|error| {
            tracing::error!(%error, "an event could not be written");
            Event::default().comment("an event could not be written")
        })
}

fn digest<T: Serialize>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(value).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
