//! One container of a Pod, through all its runs.
//!
//! Every run has a directory, numbered from 0. Whatever is found there is taken up: a run that is over is never
//! repeated, one that goes on is followed, and only one that nobody ever claimed is started.

mod prepare;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coracle_api::reason::Reason;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Wanted, Pod};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    context::Context,
    status::{Container, RestartPolicy, State},
    termination::{LONGEST_MESSAGE, Termination},
    worker::Setups,
};
use crate::{
    events::Kind,
    logs,
    runtime::process::{
        exec::chain,
        launch::{self, Run},
        mounts,
        spec::{Failure, RunDir},
    },
};

/// The pause before a container starts again: doubles from the first to the longest, as in kubelet.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Whether a Pod is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It goes on.
    No,
    /// SIGTERM now, and SIGKILL after this long.
    Gracefully(Duration),
    /// SIGKILL.
    Now,
}

/// A container and where to tell about it.
pub(crate) struct Job {
    pub(crate) context: Arc<Context>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) setups: Arc<Setups>,
    pub(crate) wanted: Wanted,
    pub(crate) is_init: bool,
    pub(crate) policy: RestartPolicy,
    /// Its place among all containers of the Pod, init containers first.
    pub(crate) index: usize,
    pub(crate) updates: mpsc::UnboundedSender<(usize, Container)>,
    pub(crate) stop: watch::Receiver<Stop>,
}

/// Why a container was not started.
enum NotStarted {
    /// The Pod was stopped before.
    Stopped,
    /// It cannot be.
    Failed(Failure),
}

impl From<Failure> for NotStarted {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn failure(reason: Reason, message: impl Into<String>) -> NotStarted {
    NotStarted::Failed(Failure {
        reason,
        message: message.into(),
    })
}

/// Sees the container through until it will not run any more.
pub(crate) async fn run(mut job: Job, mut seen: Container) {
    let folder = job.pod_dir().join(&job.wanted.name);
    let mut number = latest_run(&folder).await;
    let mut pause = FIRST_PAUSE;
    loop {
        let dir = RunDir(folder.join(number.to_string()));
        seen.restarts = i32::try_from(number).unwrap_or(i32::MAX);
        let end = match job.begin(&dir, &mut seen).await {
            Ok(mut started) => job.follow(&mut started, &dir, &mut seen, number).await,
            Err(NotStarted::Stopped) => return,
            Err(NotStarted::Failed(failure)) => {
                let reason = failure.reason.into();
                job.context
                    .events
                    .pod(&job.pod, Kind::Warning, reason, failure.message.clone());
                Termination::never_ran(&failure, Timestamp::now())
            }
        };
        if end
            .started_at
            .is_some_and(|started| ran_long(started, end.finished_at))
        {
            pause = FIRST_PAUSE;
        }
        let is_over = job.is_stopped() || !job.policy.restarts(end.exit_code, job.is_init);
        seen.state = State::Terminated(end.clone());
        job.tell(&seen);
        // After everybody knows: it takes as long as a short container. A node that ends before leaves it to the next.
        tokio::task::spawn_blocking(move || mounts::remove_folders(&dir));
        if is_over {
            return;
        }
        seen.last = Some(end);
        seen.state = State::Waiting {
            reason: "CrashLoopBackOff".to_owned(),
            message: Some(format!("starts again {} s after its last end", pause.as_secs())),
        };
        job.tell(&seen);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = job.stopped() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        number += 1;
        if let Some(before_last) = number.checked_sub(2) {
            let _ = tokio::fs::remove_dir_all(folder.join(before_last.to_string())).await;
        }
    }
}

/// A container that ran this long is no longer in a loop of crashes.
fn ran_long(started: Timestamp, finished: Timestamp) -> bool {
    finished.duration_since(started).as_secs() > 600
}

/// The number of the latest run that has a directory.
async fn latest_run(folder: &Path) -> u32 {
    let mut latest = 0;
    if let Ok(mut entries) = tokio::fs::read_dir(folder).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            latest = latest.max(number.unwrap_or(0));
        }
    }
    latest
}

impl Job {
    fn pod_dir(&self) -> PathBuf {
        self.context
            .pod_dir(self.pod.metadata.uid.as_deref().unwrap_or_default())
    }

    fn tell(&self, seen: &Container) {
        // The worker listens until all its containers are done.
        let _ = self.updates.send((self.index, seen.clone()));
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow() != Stop::No
    }

    async fn stopped(&mut self) {
        // A worker that is gone stops its containers' jobs with it.
        let _ = self.stop.wait_for(|stop| *stop != Stop::No).await;
    }

    fn wait_for(&self, seen: &mut Container, reason: &str, message: String) {
        seen.state = State::Waiting {
            reason: reason.to_owned(),
            message: Some(message),
        };
        self.tell(seen);
    }

    /// Takes up the run in `dir`, or starts it.
    async fn begin(&mut self, dir: &RunDir, seen: &mut Container) -> Result<Run, NotStarted> {
        if let Some(adopted) = launch::adopt(dir.clone()) {
            tracing::debug!(run = %dir.path().display(), "took up a run");
            return Ok(adopted);
        }
        if self.is_stopped() {
            return Err(NotStarted::Stopped);
        }
        let spec = self.specify(dir, seen).await?;
        if self.is_stopped() {
            return Err(NotStarted::Stopped);
        }
        launch::start(&self.context.binary, spec)
            .await
            .map_err(|error| failure(Reason::SandboxNotReady, chain(&error)))
    }

    /// Waits for the end of a run, ending it when the Pod is stopped.
    async fn follow(
        &mut self,
        run: &mut Run,
        dir: &RunDir,
        seen: &mut Container,
        number: u32,
    ) -> Termination {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        seen.container_id = Some(format!("process://{uid}/{}/{number}", self.wanted.name));
        let mut start = run.take_start();
        if start.is_none() && dir.read_exit().is_none() {
            self.tell_started(dir, seen).await;
        }
        let mut deadline: Option<Instant> = None;
        let exit = loop {
            let until = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let starts = async {
                match &mut start {
                    Some(start) => start.wait().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                exit = run.wait() => break exit,
                has_started = starts => {
                    start = None;
                    if has_started {
                        self.tell_started(dir, seen).await;
                    }
                }
                () = until => break run.kill().await,
                changed = next_stop(&mut self.stop, deadline.is_some()) => match changed {
                    Stop::No => {}
                    Stop::Gracefully(grace) => {
                        if deadline.is_none() {
                            run.terminate();
                        }
                        let new = Instant::now() + grace;
                        deadline = Some(deadline.map_or(new, |old| old.min(new)));
                    }
                    Stop::Now => break run.kill().await,
                },
            }
        };
        match exit {
            Some(exit) => {
                let said = self.last_words(dir, exit.exit_code != 0).await;
                let limit = self
                    .wanted
                    .resources
                    .as_ref()
                    .and_then(|resources| Some(resources.limits.as_ref()?.get("memory")?.0.clone()));
                Termination::of(&exit, said, limit.as_deref())
            }
            None => {
                self.context.cgroups.remove(&self.cgroup_name(seen.restarts));
                Termination::without_record(&run.errors(), Some(started_at(dir).await), Timestamp::now())
            }
        }
    }

    async fn tell_started(&self, dir: &RunDir, seen: &mut Container) {
        seen.state = State::Running {
            started_at: started_at(dir).await,
        };
        self.tell(seen);
    }

    /// What the container left as its message, or the end of its log.
    async fn last_words(&self, dir: &RunDir, has_failed: bool) -> Option<String> {
        let falls_back =
            has_failed && self.wanted.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let (file, log) = (dir.termination_log(), dir.log());
        let read = tokio::task::spawn_blocking(move || {
            let said = std::fs::read(file).unwrap_or_default();
            let said = String::from_utf8_lossy(&said[..said.len().min(LONGEST_MESSAGE)]).into_owned();
            if said.is_empty() && falls_back {
                logs::last_lines(&log)
            } else {
                said
            }
        });
        read.await.ok().filter(|said| !said.is_empty())
    }
}

/// The next order to stop. One that stands already counts, unless it was obeyed.
async fn next_stop(stop: &mut watch::Receiver<Stop>, is_obeyed: bool) -> Stop {
    if !is_obeyed {
        return stop
            .wait_for(|stop| *stop != Stop::No)
            .await
            .map_or(Stop::No, |stop| *stop);
    }
    match stop.changed().await {
        Ok(()) => *stop.borrow_and_update(),
        Err(_) => std::future::pending().await,
    }
}

/// When the helper claimed the run; now, if it is about to.
async fn started_at(dir: &RunDir) -> Timestamp {
    let claimed = tokio::fs::metadata(dir.pid()).await.ok();
    claimed
        .and_then(|metadata| Timestamp::try_from(metadata.modified().ok()?).ok())
        .unwrap_or_else(Timestamp::now)
}
