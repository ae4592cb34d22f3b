//! Bytes from and to other machines, while signals are heeded. What is fetched and sent is decided
//! by `inputs` and `outputs`.

use std::{
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

use coracle_artifacts::{
    ArtifactUri, Remote,
    remote::{Error, Job},
};
use futures::{StreamExt, stream};
use nix::sys::signal::Signal;

use crate::signals::{Event, Events};

/// Artifacts under way at once; each may be many files.
const CONCURRENCY: usize = 4;
/// How long what is under way may take once the task was asked to stop.
const AFTER_STOP: Duration = Duration::from_secs(5);

/// One artifact on its way.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    pub(crate) uri: ArtifactUri,
    pub(crate) path: PathBuf,
}

/// What became of each transfer, in order.
pub(crate) type Outcome = Result<u64, Error>;

/// The task was asked to stop, or this machine is at its limits.
#[derive(Debug)]
pub(crate) enum Interrupted {
    Stopped(Signal),
    Broken(String),
}

/// Fetches each URI to its path; ends at once when the task is asked to stop.
pub(crate) fn fetch(transfers: &[Transfer], events: &mut Events) -> Result<Vec<Outcome>, Interrupted> {
    let transfers = transfers.to_vec();
    run(events, Duration::ZERO, async move |remote: Remote| {
        stream::iter(transfers)
            .map(async |Transfer { uri, path }| remote.get(&uri, &path).await)
            .buffered(CONCURRENCY)
            .collect()
            .await
    })
}

/// Sends each path to its URI.
pub(crate) fn send(transfers: &[Transfer], events: &mut Events) -> Result<Vec<Outcome>, Interrupted> {
    let transfers = transfers.to_vec();
    run(events, AFTER_STOP, async move |remote: Remote| {
        stream::iter(transfers)
            .map(async |Transfer { uri, path }| remote.put(&path, &uri).await)
            .buffered(CONCURRENCY)
            .collect()
            .await
    })
}

fn run<F>(
    events: &mut Events,
    after_stop: Duration,
    work: impl FnOnce(Remote) -> F + Send + 'static,
) -> Result<Vec<Outcome>, Interrupted>
where
    F: Future<Output = Vec<Outcome>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel();
    let told = events.sender();
    let job = Job::start(work(Remote::from_env()), move |outcome| {
        // The receivers are there for as long as anybody waits.
        let _ = sender.send(outcome);
        let _ = told.send(Event::Transferred);
    });
    let _job = job.map_err(|error| Interrupted::Broken(format!("cannot start a transfer: {error}")))?;
    let mut deadline = None;
    loop {
        if let Ok(outcomes) = receiver.try_recv() {
            return Ok(outcomes);
        }
        let limit = events.stopped().map(|signal| {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + after_stop);
            (signal, deadline.saturating_duration_since(Instant::now()))
        });
        match limit {
            Some((signal, left)) if left.is_zero() => return Err(Interrupted::Stopped(signal)),
            limit => {
                events.next(limit.map(|(_, left)| left));
            }
        }
    }
}
