//! Everything before a container starts: its environment, volumes, variables, user and limits, as one [`Spec`].

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use coracle_api::{
    ir::preamble::Requirements,
    labels::{PYTHON_REQUIREMENTS, PYTHON_WORKER, REQUIREMENTS_MET_ENV, SERVER_ENV, TOKEN_ENV},
    quantity::Quantity,
    reason::{Reason, chain},
};

use super::{Job, NotStarted, failure};
use crate::runtime::mount::{Memory, Mount, MountKind, RunAs};
use crate::runtime::run_dir::RunDir;
use crate::{
    environments::python::{Plan, Resolved, is_whole},
    events::Kind,
    gpu,
    network::{
        hosts::machine_name,
        is_on_host,
        names::{SWITCH, hostname_file, hosts_file, switch_file},
        variables::variables,
    },
    pod::{
        env::{self, Facts},
        status::Container,
        volumes::{self, Medium, Ready},
        worker::{Setup, Unready},
    },
    runtime::process::{
        cgroup::{Limits, most_pids},
        spec::{HOME, Spec},
    },
    warm,
};

/// Where clients in a Pod find their token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Who a container is to run as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    user: Option<i64>,
    group: Option<i64>,
    non_root: bool,
}

/// A user that is nobody in particular, on every Linux.
const NOBODY: u32 = 65534;

impl Wish {
    /// Who that is, if not `ours`. There is no image that could name its own user.
    fn who(self, ours: RunAs) -> Result<Option<RunAs>, String> {
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

    /// Who that is in an image that names `own` as its user, as engines write it; `None` for the image's own.
    pub(super) fn in_image(self, own: Option<&str>) -> Result<Option<String>, String> {
        let user = number("runAsUser", self.user)?.map(|user| user.to_string());
        let group = number("runAsGroup", self.group)?;
        let own = own.unwrap_or("0");
        let named = user
            .as_deref()
            .unwrap_or_else(|| own.split(':').next().unwrap_or(own));
        if self.non_root {
            match named.parse() {
                Ok(0_u32) => return Err("`runAsNonRoot` is set, and the container's user is root".to_owned()),
                Ok(_) => {}
                Err(_) => {
                    return Err(format!(
                        "`runAsNonRoot` is set, and whether the image's user `{named}` is root cannot be told: give \
                         `runAsUser` a number"
                    ));
                }
            }
        }
        Ok(match group {
            Some(group) => Some(format!("{named}:{group}")),
            None => user,
        })
    }
}

fn number(what: &str, number: Option<i64>) -> Result<Option<u32>, String> {
    number.map(u32::try_from).transpose().map_err(|_| {
        format!(
            "`{what}` is {}, which is no user or group",
            number.unwrap_or_default()
        )
    })
}

impl Job {
    /// Everything before the start: environment, volumes, variables, limits.
    pub(super) async fn specify(&mut self, dir: &RunDir, seen: &mut Container) -> Result<Spec, NotStarted> {
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
        let is_on_host = is_on_host(&self.pod);
        let address = context.address(&self.pod);
        let base = self.base(dir, python.as_deref(), &gpus);
        let services = variables(&self.pod, &context.names.table());
        let env = self.variables(base.iter().cloned().chain(services).collect(), &setup)?;
        let variable = |name: &str| {
            env.iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.as_str())
        };
        let mounts = self.mounts(dir, python.as_deref(), &setup, variable)?;
        let memory = self.memory(&setup, context.mode.sandbox().is_some());
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
        let suited = python.filter(|_| run_as.is_none() && self.may_have_worker(&base, &env));
        let python_worker = match suited {
            Some(plan) => {
                let bare = self.is_bare() || !gpus.is_empty();
                context.workers.offer(&plan, base, bare).await
            }
            None => None,
        };
        Ok(Spec {
            run_dir: dir.path().to_path_buf(),
            mode: context.mode,
            // nscd answers for this machine's names, not for the Pod's.
            hidden: vec![context.data_dir.clone(), "/run/nscd".into()],
            memory,
            mounts,
            devices: gpu::devices(&gpus),
            command,
            env,
            workdir,
            run_as,
            address: context.moves_servers.then_some(address).filter(|_| !is_on_host),
            hostname: (!is_on_host).then(|| machine_name(&self.pod)),
            cgroups,
            stdin: self.wanted.stdin == Some(true),
            stdin_once: self.wanted.stdin_once == Some(true),
            tty: self.wanted.tty == Some(true),
            python_worker,
            log_bytes: context.log_bytes,
        })
    }

    /// Whether its command may become a copy of a Python process that was started with `base`.
    fn may_have_worker(&self, base: &[(String, String)], env: &[(String, String)]) -> bool {
        let annotations = self.pod.metadata.annotations.as_ref();
        let named = annotations.and_then(|annotations| annotations.get(PYTHON_WORKER));
        // Without them, what a Pod installs lies elsewhere for each.
        self.context.mode.has_overlay()
            && named.is_some_and(|name| *name == self.wanted.name)
            && self.wanted.stdin != Some(true)
            && self.wanted.tty != Some(true)
            && warm::starts_alike(base, env)
    }

    /// Whether it has variables of its own, which a library may read when it is imported.
    fn is_bare(&self) -> bool {
        let mut own = self.wanted.env.iter().flatten();
        own.any(|variable| ![SERVER_ENV, TOKEN_ENV].contains(&variable.name.as_str()))
            || self.wanted.env_from.iter().flatten().next().is_some()
    }

    /// The container's variables, after those of `base`.
    pub(super) fn variables(
        &self,
        base: Vec<(String, String)>,
        setup: &Setup,
    ) -> Result<Vec<(String, String)>, NotStarted> {
        let facts = Facts {
            pod: &self.pod,
            node: &self.context.node,
            address: &self.context.address(&self.pod).to_string(),
            allocatable: &self.context.allocatable,
        };
        env::environment(base, &self.wanted, &facts, &setup.objects)
            .map_err(|error| failure(Reason::VolumeNotReady, error.to_string()))
    }

    /// The volumes that are memory of this run, if what is mounted `can_be`; tells of those that are on disk instead.
    pub(super) fn memory(&self, setup: &Setup, can_be: bool) -> Vec<Memory> {
        let of_run: Vec<Memory> = setup.volumes.values().filter_map(Ready::memory).collect();
        let mut volumes = setup.volumes.values();
        let why = if volumes.any(|volume| volume.medium() == Medium::DiskInstead) {
            "several containers, or several runs of one, share it, and this machine has no `/dev/shm`"
        } else if can_be || of_run.is_empty() {
            return of_run;
        } else {
            "this machine gives us no namespaces (see `coracle doctor`)"
        };
        let message = format!("a volume of medium `Memory` is kept on disk: {why}");
        self.context
            .events
            .pod(&self.pod, Kind::Warning, "MemoryVolumeOnDisk", message);
        if can_be { of_run } else { Vec::new() }
    }

    /// Who the container asks to be.
    pub(super) fn wish(&self) -> Wish {
        let pod = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref());
        let own = self.wanted.security_context.as_ref();
        Wish {
            user: own.and_then(|own| own.run_as_user).or_else(|| pod?.run_as_user),
            group: own.and_then(|own| own.run_as_group).or_else(|| pod?.run_as_group),
            non_root: own
                .and_then(|own| own.run_as_non_root)
                .or_else(|| pod?.run_as_non_root)
                .unwrap_or_default(),
        }
    }

    /// Who the container's processes are, if not who we are.
    fn run_as(&self) -> Result<Option<RunAs>, NotStarted> {
        let ours = RunAs {
            user: nix::unistd::geteuid().as_raw(),
            group: nix::unistd::getegid().as_raw(),
        };
        let who = self.wish().who(ours);
        who.map_err(|message| failure(Reason::SettingInvalid, message))
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
            // Asked before, and the user's table changed meanwhile.
            Resolved::Container => {
                return Err(self.nowhere("its environment was just taken out of `environments.yaml`"));
            }
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
    pub(super) async fn setup(&mut self, seen: &mut Container) -> Result<Arc<Setup>, NotStarted> {
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
        let hostname = if is_on_host(&self.pod) {
            context.node.clone()
        } else {
            machine_name(&self.pod)
        };
        set("HOSTNAME", hostname);
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
            // Every Pod has its token's volume, asked for or not; without a place for it, it has none.
            let is_missed = |mount: &&Mount| mount.source != mount.target && mount.target != Path::new(TOKEN);
            return match volumes.iter().find(is_missed) {
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
        mounts.extend(self.message_mount(dir));
        mounts.extend(self.names());
        mounts.extend(volumes);
        Ok(mounts)
    }

    /// Where the container leaves its last words.
    pub(super) fn message_mount(&self, dir: &RunDir) -> Option<Mount> {
        let path = self.wanted.termination_message_path.as_deref();
        let path = path.unwrap_or("/dev/termination-log");
        (!path.is_empty()).then(|| Mount {
            source: dir.termination_log(),
            target: Path::new("/").join(path),
            kind: MountKind::ReadWrite,
        })
    }

    /// The Pod's own files that say who has which name.
    fn names(&self) -> impl Iterator<Item = Mount> {
        let folder = self.pod_dir();
        // Where the root's folders are only shown, no file can be added to them.
        let sandbox = self.context.mode.sandbox();
        let is_addable = sandbox.is_some_and(|sandbox| sandbox.overlay_root);
        let files = [
            (hosts_file(&folder), "/etc/hosts"),
            (hostname_file(&folder), "/etc/hostname"),
            (switch_file(&folder), SWITCH),
        ];
        let is_on_host = is_on_host(&self.pod);
        files
            .into_iter()
            .filter(move |(_, target)| !(is_on_host && *target == "/etc/hostname"))
            .filter(move |(source, target)| source.exists() && (is_addable || Path::new(target).exists()))
            .map(|(source, target)| Mount {
                source,
                target: target.into(),
                kind: MountKind::ReadWrite,
            })
    }

    pub(super) fn cgroup_name(&self, run: i32) -> String {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        format!("{uid}-{}-{run}", self.wanted.name)
    }

    pub(super) fn limit(&self, resource: &str) -> Option<Quantity> {
        let limits = self.wanted.resources.as_ref()?.limits.as_ref()?;
        limits.get(resource)?.0.parse().ok()
    }

    fn cgroups(&self, run: i32) -> Result<Vec<PathBuf>, NotStarted> {
        let cgroups = &self.context.cgroups;
        let positive = |amount: i128| u64::try_from(amount).ok().filter(|amount| *amount > 0);
        let limits = Limits {
            memory: self.limit("memory").and_then(|amount| positive(amount.units())),
            cpu_milli: self.limit("cpu").and_then(|amount| positive(amount.milli())),
            pids: Some(most_pids()),
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

    #[test]
    fn an_image_has_a_user_of_its_own() {
        let wish = |user, group, non_root| Wish {
            user,
            group,
            non_root,
        };
        let named = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(wish(None, None, false).in_image(Some("app")), Ok(None));
        assert_eq!(wish(Some(5), None, false).in_image(Some("app")), named("5"));
        assert_eq!(wish(Some(5), Some(6), false).in_image(None), named("5:6"));
        assert_eq!(wish(None, Some(6), false).in_image(Some("app:x")), named("app:6"));
        assert_eq!(wish(None, Some(6), false).in_image(None), named("0:6"));
        assert_eq!(wish(None, None, true).in_image(Some("1000:x")), Ok(None));
        for own in [None, Some("0"), Some("app")] {
            assert!(wish(None, None, true).in_image(own).is_err(), "{own:?}");
        }
    }
}
