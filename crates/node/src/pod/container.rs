//! One container of a Pod, through all its runs.
//!
//! Every run has a directory, numbered from 0. Whatever is found there is taken up: a run that is over is never
//! repeated, one that goes on is followed, and only one that nobody ever claimed is started.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coracle_api::{
    ir::preamble::Requirements,
    labels::{PYTHON_REQUIREMENTS, REQUIREMENTS_MET_ENV},
    quantity::Quantity,
    reason::Reason,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Wanted, Pod};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    context::{ADDRESS, Context},
    env::{self, Facts},
    status::{Container, RestartPolicy, State},
    termination::{LONGEST_MESSAGE, Termination},
    volumes::{self, Ready},
    worker::{Setup, Setups, Unready},
};
use crate::{
    environments::python::{Plan, Resolved, is_whole},
    events::Kind,
    gpu, logs,
    runtime::process::{
        cgroup::Limits,
        exec::chain,
        launch::{self, Run},
        mounts,
        spec::{Failure, HOME, Memory, Mount, MountKind, RunAs, RunDir, Spec},
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

/// Who a container is to run as.
#[derive(Debug, Clone, Copy)]
struct Wish {
    user: Option<i64>,
    group: Option<i64>,
    non_root: bool,
}

/// A user that is nobody in particular, on every Linux.
const NOBODY: u32 = 65534;

impl Wish {
    /// Who that is, if not `ours`. There is no image that could name its own user.
    fn who(self, ours: RunAs) -> Result<Option<RunAs>, String> {
        let number = |what: &str, number: Option<i64>| {
            number.map(u32::try_from).transpose().map_err(|_| {
                format!(
                    "`{what}` is {}, which is no user or group",
                    number.unwrap_or_default()
                )
            })
        };
        let user = match number("runAsUser", self.user)? {
            Some(0) if self.non_root => {
                return Err("`runAsNonRoot` is set, and `runAsUser` is 0 (root)".to_owned());
            }
            Some(user) => user,
            None if self.non_root && ours.user == 0 => NOBODY,
            None => ours.user,
        };
        let group = number("runAsGroup", self.group)?.unwrap_or(ours.group);
        let wanted = RunAs { user, group };
        Ok((wanted != ours).then_some(wanted))
    }
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

    /// Everything before the start: environment, volumes, variables, limits.
    async fn specify(&mut self, dir: &RunDir, seen: &mut Container) -> Result<Spec, NotStarted> {
        let python = self.environment(seen).await?;
        let setup = self.setup(seen).await?;
        let context = &self.context;
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let gpus = context.gpus.assign(
            uid,
            &self.pod_dir(),
            &self.wanted.name,
            usize::try_from(self.limit(gpu::RESOURCE).map_or(0, Quantity::units)).unwrap_or(0),
        );
        let facts = Facts {
            pod: &self.pod,
            node: &context.node,
            address: ADDRESS,
            allocatable: &context.allocatable,
        };
        let base = self.base(dir, python.as_deref(), &gpus);
        let env = env::environment(base, &self.wanted, &facts, &setup.objects)
            .map_err(|error| failure(Reason::VolumeNotReady, error.to_string()))?;
        let variable = |name: &str| {
            env.iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.as_str())
        };
        let mounts = self.mounts(dir, python.as_deref(), &setup, variable)?;
        let memory = self.memory(&setup);
        let run_as = self.run_as()?;
        let mut command: Vec<String> = [&self.wanted.command, &self.wanted.args]
            .into_iter()
            .flatten()
            .flatten()
            .map(|text| env::expand(text, variable))
            .collect();
        if command.is_empty() {
            // What such an image would run.
            command.push(if python.is_some() { "python3" } else { "sh" }.to_owned());
        }
        let workdir = match self.wanted.working_dir.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => Path::new("/").join(path),
            None => self.home(dir),
        };
        let cgroups = self.cgroups(seen.restarts)?;
        Ok(Spec {
            run_dir: dir.path().to_path_buf(),
            mode: context.mode,
            hidden: vec![context.data_dir.clone()],
            memory,
            mounts,
            devices: gpu::devices(&gpus),
            command,
            env,
            workdir,
            run_as,
            cgroups,
        })
    }

    /// The volumes that are to be in memory. They are for one run of one container: what several share is on disk.
    fn memory(&self, setup: &Setup) -> Vec<Memory> {
        let wanted: Vec<Memory> = setup.volumes.values().filter_map(Ready::memory).collect();
        let spec = self.pod.spec.as_ref();
        let is_alone = spec.is_some_and(|spec| spec.containers.len() == 1 && spec.init_containers.is_none())
            && self.policy == RestartPolicy::Never;
        if wanted.is_empty() || (is_alone && self.context.mode.sandbox().is_some()) {
            return wanted;
        }
        let why = if is_alone {
            "this machine gives us no namespaces (see `coracle doctor`)"
        } else {
            "several containers, or several runs of one, share it"
        };
        let message = format!("a volume of medium `Memory` is kept on disk: {why}");
        self.context
            .events
            .pod(&self.pod, Kind::Warning, "MemoryVolumeOnDisk", message);
        Vec::new()
    }

    /// Who the container's processes are, if not who we are.
    fn run_as(&self) -> Result<Option<RunAs>, NotStarted> {
        let pod = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref());
        let own = self.wanted.security_context.as_ref();
        let ours = RunAs {
            user: nix::unistd::geteuid().as_raw(),
            group: nix::unistd::getegid().as_raw(),
        };
        let wanted = Wish {
            user: own.and_then(|own| own.run_as_user).or_else(|| pod?.run_as_user),
            group: own.and_then(|own| own.run_as_group).or_else(|| pod?.run_as_group),
            non_root: own
                .and_then(|own| own.run_as_non_root)
                .or_else(|| pod?.run_as_non_root)
                .unwrap_or_default(),
        };
        wanted
            .who(ours)
            .map_err(|message| failure(Reason::SettingInvalid, message))
    }

    /// The Python environment of the container's image, made now if it is not there; `None` for the host's
    /// programs.
    async fn environment(&mut self, seen: &mut Container) -> Result<Option<Arc<Plan>>, NotStarted> {
        let requirements = self.requirements()?;
        let image = self.wanted.image.clone().unwrap_or_default();
        let context = Arc::clone(&self.context);
        let resolved = context
            .environments
            .resolve(&image, requirements.as_ref())
            .await
            .map_err(|problem| failure(problem.reason, problem.message))?;
        let plan = match resolved {
            Resolved::Host => {
                seen.image_id = "coracle://host".to_owned();
                return Ok(None);
            }
            Resolved::Python(plan) => plan,
        };
        let name = plan.dir.file_name().unwrap_or_default().to_string_lossy();
        seen.image_id = format!("coracle://environments/{name}");
        if let Some(asked) = &plan.instead_of {
            let message = format!(
                "image `{image}` has Python {asked}, which is not on this machine: using Python {}",
                plan.interpreter.version_text()
            );
            context
                .events
                .pod(&self.pod, Kind::Warning, "PythonVersionSubstituted", message);
        }
        if !is_whole(&plan.dir) {
            let what = plan.describe();
            let message = format!("preparing {what}");
            context
                .events
                .pod(&self.pod, Kind::Normal, "PreparingEnvironment", message.clone());
            self.wait_for(seen, "PreparingEnvironment", message);
            let took = tokio::select! {
                made = context.environments.make(&plan) => {
                    made.map_err(|problem| failure(problem.reason, problem.message))?
                }
                () = self.stopped() => return Err(NotStarted::Stopped),
            };
            let message = format!("{what} was ready after {:.1} s", took.as_secs_f64());
            context
                .events
                .pod(&self.pod, Kind::Normal, "EnvironmentReady", message);
        }
        Ok(Some(plan))
    }

    fn requirements(&self) -> Result<Option<Requirements>, NotStarted> {
        let annotations = self.pod.metadata.annotations.as_ref();
        annotations
            .and_then(|annotations| annotations.get(PYTHON_REQUIREMENTS))
            .map(|text| serde_json::from_str(text))
            .transpose()
            .map_err(|error| {
                let message = format!("the annotation `{PYTHON_REQUIREMENTS}` cannot be read: {error}");
                failure(Reason::EnvironmentNotReady, message)
            })
    }

    /// The Pod's objects and volumes; waits for those that are missing.
    async fn setup(&mut self, seen: &mut Container) -> Result<Arc<Setup>, NotStarted> {
        let setups = Arc::clone(&self.setups);
        loop {
            match setups.get(&self.context, &self.pod, &self.wanted).await {
                Ok(setup) => return Ok(setup),
                Err(Unready::Failed(failure)) => return Err(failure.into()),
                Err(Unready::Missing { what, wait }) => {
                    let message = format!("{}: {what}", Reason::VolumeNotReady);
                    let about = format!("container `{}` waits: {what}", self.wanted.name);
                    self.context
                        .events
                        .pod(&self.pod, Kind::Warning, Reason::VolumeNotReady.into(), about);
                    self.wait_for(seen, "CreateContainerConfigError", message);
                    tokio::select! {
                        () = wait => {}
                        () = self.stopped() => return Err(NotStarted::Stopped),
                    }
                }
            }
        }
    }

    fn home(&self, dir: &RunDir) -> PathBuf {
        if self.context.mode.sandbox().is_some() {
            HOME.into()
        } else {
            dir.tmp().join("home")
        }
    }

    /// The variables that every container has, before its own.
    fn base(&self, dir: &RunDir, python: Option<&Plan>, gpus: &[gpu::Gpu]) -> Vec<(String, String)> {
        let context = &self.context;
        let is_plain = context.mode.sandbox().is_none();
        let text = |path: &Path| path.display().to_string();
        let tmp = if is_plain {
            text(&dir.tmp())
        } else {
            "/tmp".to_owned()
        };
        let mut base = context.base.clone();
        let mut set = |name: &str, value: String| base.push((name.to_owned(), value));
        set("HOME", text(&self.home(dir)));
        set("TMPDIR", tmp.clone());
        set("HOSTNAME", self.pod.metadata.name.clone().unwrap_or_default());
        if !context.gpus.all().is_empty() {
            let uuids: Vec<&str> = gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
            set("CUDA_VISIBLE_DEVICES", uuids.join(","));
            let visible = if gpus.is_empty() {
                "void".to_owned()
            } else {
                uuids.join(",")
            };
            set("NVIDIA_VISIBLE_DEVICES", visible);
        }
        let Some(plan) = python else { return base };
        set("VIRTUAL_ENV", text(&plan.dir));
        let mut first = text(&plan.dir.join("bin"));
        if !context.mode.has_overlay() {
            // What the Pod installs itself must not reach the environment that others use.
            let own = format!("{tmp}/site-packages");
            set("PIP_TARGET", own.clone());
            set("PYTHONPATH", own.clone());
            first = format!("{own}/bin:{first}");
        }
        if self
            .pod
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key(PYTHON_REQUIREMENTS))
        {
            set(REQUIREMENTS_MET_ENV, "1".to_owned());
        }
        if let Some((_, path)) = base.iter_mut().find(|(name, _)| name == "PATH") {
            *path = format!("{first}:{path}");
        }
        base
    }

    fn mounts<'a>(
        &self,
        dir: &RunDir,
        python: Option<&Plan>,
        setup: &Setup,
        variable: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Vec<Mount>, NotStarted> {
        let context = &self.context;
        let volumes = volumes::mounts(&self.wanted, &setup.volumes, variable)
            .map_err(|error| failure(Reason::VolumeNotReady, chain(&error)))?;
        if context.mode.sandbox().is_none() {
            return match volumes.iter().find(|mount| mount.source != mount.target) {
                None => Ok(Vec::new()),
                Some(mount) => Err(failure(
                    Reason::VolumeNotReady,
                    format!(
                        "nothing can be mounted at `{}`: this machine gives us no mount namespaces (see `coracle \
                         doctor`)",
                        mount.target.display()
                    ),
                )),
            };
        }
        let at_its_place = |path: &Path, kind| Mount {
            source: path.to_path_buf(),
            target: path.to_path_buf(),
            kind,
        };
        let is_covered = |path: &Path| path.starts_with("/tmp") || path.starts_with(&context.data_dir);
        let mut mounts: Vec<Mount> = context
            .writable
            .iter()
            .map(|path| at_its_place(path, MountKind::ReadWrite))
            .collect();
        if let Some(plan) = python {
            if is_covered(&plan.interpreter.prefix) {
                mounts.push(at_its_place(&plan.interpreter.prefix, MountKind::ReadOnly));
            }
            mounts.push(at_its_place(&plan.dir, MountKind::CopyOnWrite));
        }
        if is_covered(&context.binary) {
            mounts.push(at_its_place(&context.binary, MountKind::ReadOnly));
        }
        let message_path = self
            .wanted
            .termination_message_path
            .as_deref()
            .unwrap_or("/dev/termination-log");
        if !message_path.is_empty() {
            mounts.push(Mount {
                source: dir.termination_log(),
                target: Path::new("/").join(message_path),
                kind: MountKind::ReadWrite,
            });
        }
        mounts.extend(volumes);
        Ok(mounts)
    }

    fn cgroup_name(&self, run: i32) -> String {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        format!("{uid}-{}-{run}", self.wanted.name)
    }

    fn limit(&self, resource: &str) -> Option<Quantity> {
        let limits = self.wanted.resources.as_ref()?.limits.as_ref()?;
        limits.get(resource)?.0.parse().ok()
    }

    fn cgroups(&self, run: i32) -> Result<Vec<PathBuf>, NotStarted> {
        let cgroups = &self.context.cgroups;
        let positive = |amount: i128| u64::try_from(amount).ok().filter(|amount| *amount > 0);
        let limits = Limits {
            memory: self.limit("memory").and_then(|amount| positive(amount.units())),
            cpu_milli: self.limit("cpu").and_then(|amount| positive(amount.milli())),
        };
        let loose: Vec<&str> = [
            (limits.memory.is_some() && !cgroups.has_memory(), "memory"),
            (limits.cpu_milli.is_some() && !cgroups.has_cpu(), "cpu"),
        ]
        .into_iter()
        .filter_map(|(is_loose, name)| is_loose.then_some(name))
        .collect();
        if !loose.is_empty() {
            let message = format!(
                "the limit on {} is not enforced: this machine gives us no control group for it (see `coracle \
                 doctor`)",
                loose.join(" and ")
            );
            self.context
                .events
                .pod(&self.pod, Kind::Warning, "LimitNotEnforced", message);
        }
        cgroups
            .make(&self.cgroup_name(run), limits)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_who_it_asks_to_be() {
        let (root, user) = (RunAs { user: 0, group: 0 }, RunAs { user: 7, group: 8 });
        let wish = |user, group, non_root| Wish {
            user,
            group,
            non_root,
        };
        let be = |user, group| Ok(Some(RunAs { user, group }));
        assert_eq!(wish(None, None, false).who(root), Ok(None));
        assert_eq!(wish(Some(0), Some(0), false).who(root), Ok(None));
        assert_eq!(wish(Some(1000), None, true).who(root), be(1000, 0));
        assert_eq!(wish(None, Some(5), false).who(root), be(0, 5));
        assert_eq!(wish(None, None, true).who(root), be(NOBODY, 0));
        assert_eq!(wish(None, None, true).who(user), Ok(None));
        assert_eq!(wish(Some(0), None, false).who(user), be(0, 8));
        assert!(wish(Some(0), None, true).who(root).is_err());
        assert!(wish(Some(-1), None, false).who(root).is_err());
    }
}
