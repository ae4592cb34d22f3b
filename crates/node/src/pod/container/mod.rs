//! One container of a Pod, through all its runs.
//!
//! Every run has a directory, numbered from 0. Whatever is found there is taken up: a run that is over is never
//! repeated, one that goes on is followed, and only one that nobody ever claimed is started.

mod action;
mod in_engine;
mod place;
mod prepare;
mod probes;

use std::{
    future::pending,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coracle_api::reason::{Reason, chain};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Wanted, LifecycleHandler, Pod};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use self::{
    action::{Action, Inside},
    place::Place,
    probes::{Finding, Probes},
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
    runtime::{
        self, Found, Run,
        process::{folders, launch},
        run_dir::{Failure, RunDir},
    },
};

/// The pause before a container starts again for the second time in a row, and the longest, as in kubelet.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// What a container has after its grace is used up by its `preStop` hook, as in kubelet.
const LAST_GRACE: Duration = Duration::from_secs(2);

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
    // Ends in a row. How long it ran before an earlier node ended is not known.
    let mut row = number;
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
            row = 0;
        }
        let is_over = job.is_stopped() || !job.policy.restarts(end.exit_code, job.is_init);
        (seen.has_started, seen.is_ready) = (false, false);
        seen.state = State::Terminated(end.clone());
        job.tell(&seen);
        // After everybody knows: it takes as long as a short container. A node that ends before leaves it to the next.
        tokio::task::spawn_blocking(move || folders::remove_folders(&dir));
        if is_over {
            return;
        }
        seen.last = Some(end);
        let pause = pause(row);
        if !pause.is_zero() {
            job.tell_back_off(&mut seen, pause);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = job.stopped() => return,
            }
        }
        row += 1;
        number += 1;
        if let Some(before_last) = number.checked_sub(2) {
            let _ = tokio::fs::remove_dir_all(folder.join(before_last.to_string())).await;
        }
    }
}

/// The pause before a start after so many ends in a row: none at first, then doubling.
fn pause(row: u32) -> Duration {
    match row.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => (FIRST_PAUSE * 2_u32.saturating_pow(doublings.min(16))).min(LONGEST_PAUSE),
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
        loop {
            match runtime::adopt(dir.clone()).await {
                Found::Run(adopted) => {
                    tracing::debug!(run = %dir.path().display(), "took up a run");
                    return Ok(adopted);
                }
                Found::Nothing => break,
                Found::Unknown(why) => self.wait_for_engine(seen, why).await?,
            }
        }
        if self.is_stopped() {
            return Err(NotStarted::Stopped);
        }
        match self.place()? {
            Place::Here => {}
            place => return self.begin_in_engine(place, dir, seen).await,
        }
        let spec = self.specify(dir, seen).await?;
        if self.is_stopped() {
            return Err(NotStarted::Stopped);
        }
        coracle_breakpoint::at("node.prepared");
        let started = launch::start(&self.context.binary, spec).await;
        coracle_breakpoint::at("node.started");
        started
            .map(|run| Run::Process(Box::new(run)))
            .map_err(|error| failure(Reason::SandboxNotReady, chain(&error)))
    }

    fn tell_back_off(&self, seen: &mut Container, pause: Duration) {
        let metadata = &self.pod.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let about = format!(
            "restarting failed container {} in pod {}_{}({})",
            self.wanted.name,
            text(&metadata.name),
            text(&metadata.namespace),
            text(&metadata.uid),
        );
        let message = format!("back-off {} s {about}", pause.as_secs());
        self.warn("BackOff", format!("Back-off {about}"));
        self.wait_for(seen, "CrashLoopBackOff", message);
    }

    fn warn(&self, reason: &str, message: String) {
        self.context.events.pod(&self.pod, Kind::Warning, reason, message);
    }

    /// The container as probes and hooks reach it.
    fn inside(&self, dir: &RunDir) -> Arc<Inside> {
        let ports = self.wanted.ports.iter().flatten();
        let named = ports.filter_map(|port| {
            let number = u16::try_from(port.container_port).ok()?;
            Some((port.name.clone()?, number))
        });
        Arc::new(Inside {
            run: dir.clone(),
            address: self.context.address(&self.pod),
            ports: named.collect(),
        })
    }

    /// A hook of the container as work to be done, if it has one.
    fn hook(
        &self,
        of: fn(&k8s_openapi::api::core::v1::Lifecycle) -> Option<&LifecycleHandler>,
        inside: &Arc<Inside>,
    ) -> Option<BoxFuture<'static, Result<(), String>>> {
        let hook = self.wanted.lifecycle.as_ref().and_then(of)?.clone();
        let inside = Arc::clone(inside);
        Some(Box::pin(
            async move { Action::of_hook(hook)?.perform(&inside).await },
        ))
    }

    /// Waits for the end of a run, ending it when the Pod is stopped or a probe finds it dead.
    async fn follow(
        &mut self,
        run: &mut Run,
        dir: &RunDir,
        seen: &mut Container,
        number: u32,
    ) -> Termination {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let process = || format!("process://{uid}/{}/{number}", self.wanted.name);
        seen.container_id = Some(run.id().map_or_else(process, ToOwned::to_owned));
        let inside = self.inside(dir);
        let mut start = run.take_start();
        let mut post_start = None;
        let mut probes = None;
        if start.is_none() && dir.read_exit().is_none() {
            probes = self.probe(seen, &inside);
            self.tell_started(dir, seen).await;
        }
        let mut ending: Option<Ending> = None;
        let exit = loop {
            let starts = async {
                match &mut start {
                    Some(start) => start.wait().await,
                    None => pending().await,
                }
            };
            let is_ending = ending.is_some();
            tokio::select! {
                exit = run.wait() => break exit,
                has_started = starts => {
                    start = None;
                    if !has_started {
                        continue;
                    }
                    post_start = self.hook(|lifecycle| lifecycle.post_start.as_ref(), &inside);
                    if post_start.is_none() {
                        probes = self.probe(seen, &inside);
                    }
                    self.tell_started(dir, seen).await;
                }
                done = done(&mut post_start) => match done {
                    Ok(()) => {
                        probes = self.probe(seen, &inside);
                        self.tell(seen);
                    }
                    Err(message) => {
                        self.warn("FailedPostStartHook", format!("PostStartHook failed: {message}"));
                        self.tell_killing("failed its postStart hook");
                        self.end(&mut ending, run, &inside, self.grace());
                    }
                },
                finding = next(&mut probes) => {
                    if let Some(grace) = self.take_finding(finding, seen) {
                        probes = None;
                        self.end(&mut ending, run, &inside, grace);
                    }
                }
                end = Ending::next(&mut ending) => match end {
                    EndingStep::HookDone(result) => {
                        if let Err(message) = result {
                            self.warn("FailedPreStopHook", format!("PreStopHook failed: {message}"));
                        }
                        run.terminate();
                    }
                    EndingStep::Over => break run.kill().await,
                },
                changed = next_stop(&mut self.stop, is_ending) => match changed {
                    Stop::No => {}
                    Stop::Gracefully(grace) => {
                        post_start = None;
                        self.end(&mut ending, run, &inside, grace);
                    }
                    Stop::Now => break run.kill().await,
                },
            }
        };
        coracle_breakpoint::at("node.end-seen");
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
            None if dir.read_claim().is_some() => {
                Termination::removed(started_at(dir).await, Timestamp::now())
            }
            None => {
                self.context.cgroups.remove(&self.cgroup_name(seen.restarts));
                Termination::without_record(&run.errors(), Some(started_at(dir).await), Timestamp::now())
            }
        }
    }

    /// Begins to probe what runs. Without probes it is ready at once.
    fn probe(&self, seen: &mut Container, inside: &Arc<Inside>) -> Option<Probes> {
        let wanted = &self.wanted;
        seen.has_started = wanted.startup_probe.is_none();
        seen.is_ready = seen.has_started && wanted.readiness_probe.is_none();
        let is_well = seen.is_ready && wanted.liveness_probe.is_none();
        (!is_well).then(|| Probes::begin(wanted, inside))
    }

    /// Begins to end a run: its `preStop` hook, then SIGTERM, and SIGKILL after the grace. An end that was begun may
    /// only come sooner.
    fn end(&self, ending: &mut Option<Ending>, run: &Run, inside: &Arc<Inside>, grace: Duration) {
        let until = Instant::now() + grace;
        if let Some(ending) = ending {
            ending.until = ending.until.min(until);
            return;
        }
        let hook = self.hook(|lifecycle| lifecycle.pre_stop.as_ref(), inside);
        let hook = hook.filter(|_| !grace.is_zero());
        if hook.is_none() {
            run.terminate();
        }
        *ending = Some(Ending { hook, until });
    }

    /// Takes what a probe found; how much grace the run gets if it is to end.
    fn take_finding(&self, finding: Finding, seen: &mut Container) -> Option<Duration> {
        match finding {
            Finding::Started => seen.has_started = true,
            Finding::Ready(is_ready) => seen.is_ready = is_ready,
            Finding::Unhealthy(probe, message) => {
                self.warn("Unhealthy", format!("{} probe failed: {message}", probe.text()));
                return None;
            }
            Finding::Dead(probe, grace) => {
                self.tell_killing(&format!("failed its {} probe", probe.text().to_lowercase()));
                return Some(grace.unwrap_or_else(|| self.grace()));
            }
        }
        self.tell(seen);
        None
    }

    fn tell_killing(&self, why: &str) {
        let name = &self.wanted.name;
        let message = format!("Container {name} {why}, and is stopped");
        self.context
            .events
            .pod(&self.pod, Kind::Normal, "Killing", message);
    }

    /// The Pod's own grace.
    fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(u64::try_from(seconds.unwrap_or(30)).unwrap_or_default())
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

/// A run that is being ended.
struct Ending {
    /// What it does before SIGTERM; none once that was sent.
    hook: Option<BoxFuture<'static, Result<(), String>>>,
    /// When it gets SIGKILL.
    until: Instant,
}

/// What comes next in the end of a run.
enum EndingStep {
    /// SIGTERM.
    HookDone(Result<(), String>),
    /// SIGKILL.
    Over,
}

impl Ending {
    async fn next(ending: &mut Option<Self>) -> EndingStep {
        let Some(ending) = ending else {
            return pending().await;
        };
        let until = tokio::time::sleep_until(ending.until);
        let result = tokio::select! {
        result = done(&mut ending.hook) => result,
        () = until => match ending.hook.take() {
            None => return EndingStep::Over,
            Some(_) => {
                ending.until = Instant::now() + LAST_GRACE;
                Err("it took the whole grace period".to_owned())
            }
        }};
        EndingStep::HookDone(result)
    }
}

/// The end of a hook, which is forgotten then. Without one, waits for ever.
async fn done(hook: &mut Option<BoxFuture<'static, Result<(), String>>>) -> Result<(), String> {
    let Some(work) = hook else {
        return pending().await;
    };
    let result = work.await;
    *hook = None;
    result
}

async fn next(probes: &mut Option<Probes>) -> Finding {
    match probes {
        Some(probes) => probes.next().await,
        None => pending().await,
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

/// When the helper or the engine took the run up; now, if it is about to.
async fn started_at(dir: &RunDir) -> Timestamp {
    let claimed = match dir.claimed() {
        Some(file) => tokio::fs::metadata(file).await.ok(),
        None => None,
    };
    claimed
        .and_then(|metadata| Timestamp::try_from(metadata.modified().ok()?).ok())
        .unwrap_or_else(Timestamp::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_comes_at_once_and_the_next_ones_ever_later() {
        let pauses = [0, 1, 2, 3, 5, 6, 40].map(|row| pause(row).as_secs());
        assert_eq!(pauses, [0, 10, 20, 40, 160, 300, 300]);
    }
}
