//! The workers of one environment, from its first task until it has had none for a while.

use std::{future::Future, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{AbortHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use super::{
    LastUse,
    imports::Imports,
    process::{self, Said, Worker},
};

/// How long workers wait for a task before they end.
const IDLE: Duration = Duration::from_mins(10);
/// How long no task may have begun before a full worker is prepared: that takes as long as the imports.
const QUIET: Duration = Duration::from_secs(2);

/// Where workers run.
#[derive(Debug)]
pub(super) struct Place {
    /// Their sockets, what they learned, and what they write.
    pub(super) folder: PathBuf,
    pub(super) python: PathBuf,
    /// Their variables, all of them.
    pub(super) env: Vec<(String, String)>,
    /// Bytes that a worker may have after its imports.
    pub(super) memory: u64,
}

/// An environment with workers.
#[derive(Debug)]
pub(super) struct Environment {
    sockets: watch::Receiver<Sockets>,
    used: Arc<LastUse>,
    tending: AbortHandle,
}

/// Where tasks find workers.
#[derive(Debug, Default)]
enum Sockets {
    /// It is not known yet, for the milliseconds that a process takes to start.
    #[default]
    Coming,
    At {
        bare: PathBuf,
        full: Option<PathBuf>,
    },
    /// The environment has no KFP executor.
    None,
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.tending.abort();
    }
}

impl Environment {
    /// Has its bare worker started.
    pub(super) fn begin(place: Place) -> Self {
        let (sockets, known) = watch::channel(Sockets::default());
        let used = Arc::new(LastUse::now());
        let tending = tend(place, sockets, Arc::clone(&used));
        Self {
            sockets: known,
            used,
            tending: tokio::spawn(tending).abort_handle(),
        }
    }

    /// The socket of the worker that suits a task best, once there is one.
    pub(super) fn offer(&self, is_bare: bool) -> impl Future<Output = Option<PathBuf>> + use<> {
        self.used.renew();
        let mut sockets = self.sockets.clone();
        async move {
            let known = sockets
                .wait_for(|sockets| !matches!(sockets, Sockets::Coming))
                .await;
            match &*known.ok()? {
                Sockets::At { bare, full } => {
                    let full = full.as_ref().filter(|_| !is_bare);
                    Some(full.unwrap_or(bare).clone())
                }
                Sockets::Coming | Sockets::None => None,
            }
        }
    }

    pub(super) fn last_used(&self) -> Instant {
        self.used.get()
    }

    /// Whether its workers have ended, and others may be started. Not so where there can be none.
    pub(super) fn is_over(&self) -> bool {
        self.tending.is_finished() && matches!(*self.sockets.borrow(), Sockets::At { .. })
    }
}

/// Starts the bare worker, and sees all of them through.
async fn tend(place: Place, sockets: watch::Sender<Sockets>, used: Arc<LastUse>) {
    let python = place.python.clone();
    let begun = spawn_blocking(move || {
        process::prepare(&place)?;
        let bare = Worker::start(&place, "bare", [])?;
        let imports = Imports::read(place.folder.join("imports.json"));
        io::Result::Ok((place, bare, imports))
    });
    let (place, bare, imports) = match begun.await.map_err(io::Error::other).flatten() {
        Ok(begun) => begun,
        Err(error) => return tracing::debug!(%error, python = %python.display(), "no Python worker"),
    };
    sockets.send_replace(Sockets::At {
        bare: bare.socket().to_path_buf(),
        full: None,
    });
    let tending = Tending {
        place: Arc::new(place),
        imports,
        sockets,
        used,
        full: None,
        coming: None,
        number: 0,
    };
    tending.run(bare).await;
}

/// Sees the workers of an environment through.
struct Tending {
    place: Arc<Place>,
    imports: Imports,
    sockets: watch::Sender<Sockets>,
    used: Arc<LastUse>,
    full: Option<Worker>,
    /// The next full one, while it imports.
    coming: Option<Worker>,
    /// Of the next full one.
    number: u64,
}

impl Tending {
    async fn run(mut self, mut bare: Worker) {
        // What was learned by an earlier server is wanted as soon as there is a task.
        let mut is_news = !self.imports.wanted.is_empty();
        loop {
            let used = self.used.get();
            let prepare_at = (is_news && self.coming.is_none()).then(|| used + QUIET);
            tokio::select! {
                said = bare.next() => match said {
                    Some(Said::Imports(names)) => is_news |= self.learn(names).await,
                    Some(Said::Ready(_)) => {}
                    Some(Said::Refused { why, .. }) => {
                        tracing::debug!(why, python = %self.place.python.display(), "no Python worker");
                        self.sockets.send_replace(Sockets::None);
                        return;
                    }
                    None => return,
                },
                said = next(&mut self.full) => match said {
                    Some(Said::Imports(names)) => is_news |= self.learn(names).await,
                    Some(Said::Ready(_) | Said::Refused { .. }) => {}
                    None => {
                        self.full = None;
                        self.tell_full();
                    }
                },
                said = next(&mut self.coming) => match said {
                    Some(Said::Ready(_)) => {
                        self.full = self.coming.take();
                        self.tell_full();
                    }
                    Some(Said::Imports(_)) => {}
                    Some(Said::Refused { refused, why }) => {
                        tracing::debug!(module = refused, why, "a module is not imported ahead of tasks");
                        self.coming = None;
                        if let Some(name) = refused {
                            self.imports.refuse(name);
                            self.keep().await;
                            is_news = !self.imports.wanted.is_empty();
                        }
                    }
                    None => self.coming = None,
                },
                () = at(prepare_at) => if self.used.get() == used {
                    is_news = false;
                    self.coming = self.start_full().await;
                },
                () = sleep_until(used + IDLE) => if self.used.get() == used {
                    return;
                },
            }
        }
    }

    /// Tells tasks where the full worker is, if there is one.
    fn tell_full(&self) {
        let now = self.full.as_ref().map(|full| full.socket().to_path_buf());
        self.sockets.send_modify(|sockets| {
            if let Sockets::At { full, .. } = sockets {
                *full = now;
            }
        });
    }

    /// Notes what a task was seen to import. Whether any of it is news.
    async fn learn(&mut self, names: Vec<String>) -> bool {
        let is_news = self.imports.learn(names);
        if is_news {
            self.keep().await;
        }
        is_news
    }

    /// Writes down what was learned.
    async fn keep(&self) {
        let imports = self.imports.clone();
        // What cannot be kept is learned again.
        let _ = spawn_blocking(move || imports.keep()).await;
    }

    async fn start_full(&mut self) -> Option<Worker> {
        let name = format!("full-{}", self.number);
        self.number += 1;
        let (place, wanted) = (Arc::clone(&self.place), self.imports.wanted.clone());
        let started = spawn_blocking(move || Worker::start(&place, &name, &wanted));
        started.await.map_err(io::Error::other).flatten().ok()
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn next(worker: &mut Option<Worker>) -> Option<Said> {
    match worker {
        Some(worker) => worker.next().await,
        None => std::future::pending().await,
    }
}
