//! A container's way into the engine: the engine itself, the image, and what is asked of them.

use std::{collections::HashMap, path::Path, pin::pin, time::Duration};

use bollard::auth::DockerCredentials;
use coracle_api::{
    labels,
    quantity::Quantity,
    reason::{Reason, chain},
};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    Job, NotStarted, Stop, failure,
    place::{self, Place},
};
use crate::{
    events::Kind,
    gpu,
    network::{hosts::machine_name, is_on_host, names::hosts_file, variables::variables},
    node::Runtime,
    pod::{env, status::Container, volumes, worker::Setup},
    runtime::{
        Run,
        container::{
            credentials,
            engine::Engine,
            image::{Image, News, Policy, Refusal},
            loader::{self, Loader},
            request::{POD_UID, Spec},
            run,
        },
        mount::{Mount, MountKind},
        run_dir::RunDir,
    },
};

/// The pause before the engine is asked again.
const ENGINE_PAUSE: Duration = Duration::from_secs(5);
/// The pauses between attempts to pull an image, as in kubelet.
const FIRST_PULL_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PULL_PAUSE: Duration = Duration::from_secs(300);

/// The capabilities that engines give to containers anyway: asking for them gives nothing more.
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

impl Job {
    /// Whether the container is for the engine.
    pub(super) fn place(&self) -> Result<Place, NotStarted> {
        let annotations = self.pod.metadata.annotations.as_ref();
        let annotation = annotations
            .and_then(|all| all.get(labels::RUNTIME))
            .map(String::as_str);
        let asked = place::asked(annotation).map_err(|problem| {
            failure(
                Reason::SettingInvalid,
                format!("annotation `{}`: {problem}", labels::RUNTIME),
            )
        })?;
        let runtime = asked.unwrap_or(self.context.runtime);
        let image = self.wanted.image.as_deref().unwrap_or_default();
        let meaning = self
            .context
            .environments
            .meaning(image)
            .map_err(|problem| failure(problem.reason, problem.message))?;
        place::place(runtime, image, &meaning).ok_or_else(|| {
            let why = match asked {
                Some(_) => format!("the Pod's annotation `{}` asks for a process", labels::RUNTIME),
                None => format!(
                    "this server runs processes only (`--runtime {}`)",
                    Runtime::Process
                ),
            };
            self.nowhere(&why)
        })
    }

    pub(super) fn nowhere(&self, why: &str) -> NotStarted {
        let image = self.wanted.image.as_deref().unwrap_or_default();
        let reason = Reason::ImageNeedsContainerRuntime;
        let message = format!(
            "image `{image}` maps to no environment on this machine, and {why}: {}",
            reason.hint()
        );
        failure(reason, message)
    }

    /// Starts the container in the engine; waits for what is not there yet.
    pub(super) async fn begin_in_engine(
        &mut self,
        place: Place,
        dir: &RunDir,
        seen: &mut Container,
    ) -> Result<Run, NotStarted> {
        loop {
            let engine = self.engine(place, seen).await?;
            let image = self.image(&engine, seen).await?;
            seen.image_id.clone_from(&image.id);
            let setup = self.setup(seen).await?;
            let spec = self.request(dir, &engine, &image, &setup)?;
            match run::start(&engine, spec).await {
                Ok(run) => return Ok(Run::Container(run)),
                Err(run::Error::Refused(failure)) => return Err(failure.into()),
                Err(error @ run::Error::Prepare { .. }) => {
                    return Err(failure(Reason::ContainerNotStarted, chain(&error)));
                }
                Err(run::Error::Unavailable(why)) => self.wait_for_engine(seen, why).await?,
            }
        }
    }

    async fn engine(&mut self, place: Place, seen: &mut Container) -> Result<Engine, NotStarted> {
        loop {
            match self.context.engines.engine().await {
                Ok(engine) => return Ok(engine),
                Err(none) if place == Place::EngineOrNowhere => return Err(self.nowhere(&none.to_string())),
                Err(none) => self.wait_for_engine(seen, none.to_string()).await?,
            }
        }
    }

    /// Says that the engine does not answer, and waits before it is asked again.
    pub(super) async fn wait_for_engine(
        &mut self,
        seen: &mut Container,
        why: String,
    ) -> Result<(), NotStarted> {
        let reason: &str = Reason::ContainerRuntimeUnavailable.into();
        let is_told = seen.is_waiting_for(reason);
        if !is_told {
            self.warn(reason, why.clone());
        }
        self.wait_for(seen, reason, why);
        self.pause(ENGINE_PAUSE).await
    }

    async fn pause(&mut self, pause: Duration) -> Result<(), NotStarted> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.stopped() => Err(NotStarted::Stopped),
        }
    }

    /// The image, pulled if need be; tried again, ever later, until it is here.
    async fn image(&mut self, engine: &Engine, seen: &mut Container) -> Result<Image, NotStarted> {
        let name = self.wanted.image.clone().unwrap_or_default();
        let policy = Policy::of(self.wanted.image_pull_policy.as_deref(), &name);
        let mut pause = FIRST_PULL_PAUSE;
        let mut stop = self.stop.clone();
        loop {
            let (told, mut news) = mpsc::unbounded_channel();
            let outcome = {
                let mut getting = pin!(engine.image(&name, policy, self.credentials(&name), move |news| {
                    let _ = told.send(news);
                }));
                loop {
                    tokio::select! {
                        biased;
                        Some(news) = news.recv() => self.tell_of_image(&name, news, seen),
                        outcome = &mut getting => break outcome,
                        _ = stop.wait_for(|stop| *stop != Stop::No) => return Err(NotStarted::Stopped),
                    }
                }
            };
            while let Ok(news) = news.try_recv() {
                self.tell_of_image(&name, news, seen);
            }
            let (reason, message) = match outcome {
                Ok(image) => return Ok(image),
                Err(Refusal::Unavailable(why)) => {
                    self.wait_for_engine(seen, why).await?;
                    continue;
                }
                Err(Refusal::NeverPulled) => (
                    Reason::ErrImageNeverPull,
                    format!("Container image \"{name}\" is not present with pull policy of Never"),
                ),
                Err(Refusal::InvalidName(said)) => (
                    Reason::InvalidImageName,
                    format!("Failed to apply default image tag \"{name}\": {said}"),
                ),
                Err(Refusal::Pull(said)) => (
                    Reason::ErrImagePull,
                    format!("Failed to pull image \"{name}\": {said}"),
                ),
            };
            self.warn("Failed", message.clone());
            self.warn("Failed", format!("Error: {reason}"));
            if reason == Reason::ErrImagePull {
                let pause = format!("Back-off pulling image \"{name}\"");
                self.normal("BackOff", pause.clone());
                self.wait_for(
                    seen,
                    Reason::ImagePullBackOff.into(),
                    format!("{pause}: {reason}: {message}"),
                );
            } else {
                self.wait_for(seen, reason.into(), message);
            }
            self.pause(pause).await?;
            pause = (pause * 2).min(LONGEST_PULL_PAUSE);
        }
    }

    fn tell_of_image(&self, name: &str, news: News, seen: &mut Container) {
        match news {
            News::Present => self.normal(
                "Pulled",
                format!("Container image \"{name}\" already present on machine"),
            ),
            News::Pulled(took) => {
                let took = took.as_secs_f64();
                self.normal(
                    "Pulled",
                    format!("Successfully pulled image \"{name}\" in {took:.3}s"),
                );
            }
            News::Pulling => {
                let message = format!("Pulling image \"{name}\"");
                self.normal("Pulling", message.clone());
                self.wait_for(seen, Reason::PullingImage.into(), message);
            }
            News::Progress(progress) => {
                let message = format!("Pulling image \"{name}\": {progress}");
                self.normal("Pulling", message.clone());
                self.wait_for(seen, Reason::PullingImage.into(), message);
            }
        }
    }

    fn normal(&self, reason: &str, message: String) {
        self.context.events.pod(&self.pod, Kind::Normal, reason, message);
    }

    /// Who we are to the image's registry: by the Pod's `imagePullSecrets`, or else by what this machine's user has.
    async fn credentials(&self, image: &str) -> Option<DockerCredentials> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let secrets: Api<Secret> = Api::namespaced(self.context.client.clone(), namespace);
        let named = self
            .pod
            .spec
            .iter()
            .flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        for secret in named {
            let found = secrets.get_opt(&secret.name).await;
            let config = match &found {
                Ok(Some(found)) => found.data.as_ref().and_then(|data| data.get(".dockerconfigjson")),
                _ => None,
            };
            let Some(config) = config.and_then(|text| serde_json::from_slice::<Value>(&text.0).ok()) else {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    secret.name
                );
                self.warn("FailedToRetrieveImagePullSecret", message);
                continue;
            };
            if let Some(found) = credentials::find(&config, image) {
                return Some(found);
            }
        }
        let image = image.to_owned();
        let own = tokio::task::spawn_blocking(move || {
            credentials::files(|name| std::env::var(name).ok())
                .iter()
                .filter_map(|file| serde_json::from_slice(&std::fs::read(file).ok()?).ok())
                .find_map(|config: Value| credentials::find(&config, &image))
        });
        own.await.ok().flatten()
    }

    /// What the engine is asked for.
    fn request(
        &self,
        dir: &RunDir,
        engine: &Engine,
        image: &Image,
        setup: &Setup,
    ) -> Result<Spec, NotStarted> {
        self.check_host_paths(engine)?;
        let context = &self.context;
        let metadata = &self.pod.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let uid = text(&metadata.uid);
        let is_on_host = is_on_host(&self.pod);
        let hostname = (!is_on_host).then(|| machine_name(&self.pod));
        let mut base = base(&context.base);
        base.extend(hostname.iter().map(|name| ("HOSTNAME".to_owned(), name.clone())));
        base.extend(variables(&self.pod, &context.names.table()));
        let env = self.variables(base, setup)?;
        let words = |words: &Option<Vec<String>>| -> Vec<String> {
            let words = words.iter().flatten();
            words
                .map(|word| env::expand(word, |name| value(&env, name)))
                .collect()
        };
        let (mut entrypoint, arguments) = (words(&self.wanted.command), words(&self.wanted.args));
        if entrypoint.is_empty() && arguments.is_empty() && !image.has_command {
            return Err(failure(
                Reason::ContainerNotStarted,
                "neither the container nor its image says what to run: give it a `command`",
            ));
        }
        let mut mounts = self.shown(dir, setup, &env)?;
        if entrypoint
            .first()
            .is_some_and(|program| Path::new(program) == context.binary)
        {
            let Loader { prefix, mounts: own } = loader::of(&context.binary);
            entrypoint = prefix.into_iter().chain(entrypoint).collect();
            mounts.extend(own);
        }
        let number = dir
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let (name, namespace) = (text(&metadata.name), text(&metadata.namespace));
        let security = self.wanted.security_context.clone().unwrap_or_default();
        let capabilities = security.capabilities.unwrap_or_default();
        let pod_security = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref());
        let positive = |amount: i128| u64::try_from(amount).ok().filter(|amount| *amount > 0);
        let gpus = context.gpus.assign(
            &uid,
            &self.pod_dir(),
            &self.wanted.name,
            usize::try_from(self.limit(gpu::RESOURCE).map_or(0, Quantity::units)).unwrap_or(0),
        );
        Ok(Spec {
            dir: dir.clone(),
            name: format!("coracle_{}_{name}_{namespace}_{uid}_{number}", self.wanted.name),
            image: text(&self.wanted.image),
            entrypoint,
            arguments,
            env,
            workdir: self.wanted.working_dir.clone().filter(|path| !path.is_empty()),
            user: self
                .wish()
                .in_image(image.user.as_deref())
                .map_err(|problem| failure(Reason::SettingInvalid, problem))?,
            groups: pod_security
                .iter()
                .flat_map(|own| {
                    own.supplemental_groups
                        .iter()
                        .flatten()
                        .chain(&own.fs_group)
                        .copied()
                })
                .collect(),
            mounts,
            memory: self.memory(setup, true),
            hostname,
            labels: HashMap::from([
                (POD_UID.to_owned(), uid.clone()),
                ("io.kubernetes.pod.uid".to_owned(), uid),
                ("io.kubernetes.pod.name".to_owned(), name),
                ("io.kubernetes.pod.namespace".to_owned(), namespace),
                (
                    "io.kubernetes.container.name".to_owned(),
                    self.wanted.name.clone(),
                ),
            ]),
            memory_limit: self.limit("memory").and_then(|amount| positive(amount.units())),
            cpu_milli: self.limit("cpu").and_then(|amount| positive(amount.milli())),
            gpus: gpus.into_iter().map(|gpu| gpu.uuid).collect(),
            dropped_capabilities: capabilities.drop.unwrap_or_default(),
            added_capabilities: added(
                capabilities.add.unwrap_or_default(),
                security.privileged == Some(true),
            )
            .map_err(|problem| failure(Reason::SettingInvalid, problem))?,
            may_gain_privileges: security.allow_privilege_escalation != Some(false),
            read_only_root: security.read_only_root_filesystem == Some(true),
            stdin: self.wanted.stdin == Some(true),
            stdin_once: self.wanted.stdin_once == Some(true),
            tty: self.wanted.tty == Some(true),
            stop_signal: image.stop_signal.clone(),
            log_bytes: context.log_bytes,
        })
    }

    /// What the container sees of this machine.
    fn shown(&self, dir: &RunDir, setup: &Setup, env: &[(String, String)]) -> Result<Vec<Mount>, NotStarted> {
        let at_its_place = |path: &std::path::PathBuf| Mount {
            source: path.clone(),
            target: path.clone(),
            kind: MountKind::ReadWrite,
        };
        let mut mounts: Vec<Mount> = self.context.writable.iter().map(at_its_place).collect();
        mounts.extend(self.message_mount(dir));
        let hosts = hosts_file(&self.pod_dir());
        if hosts.exists() {
            mounts.push(Mount {
                source: hosts,
                target: "/etc/hosts".into(),
                kind: MountKind::ReadWrite,
            });
        }
        let volumes = volumes::mounts(&self.wanted, &setup.volumes, |name| value(env, name))
            .map_err(|error| failure(Reason::VolumeNotReady, chain(&error)))?;
        mounts.extend(volumes);
        Ok(mounts)
    }

    /// An engine that may do more than we may shows no path of this machine that was not allowed: it would read for the
    /// Pod what we cannot.
    fn check_host_paths(&self, engine: &Engine) -> Result<(), NotStarted> {
        if engine.is_ours() {
            return Ok(());
        }
        let volumes = self
            .pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let paths = volumes.filter_map(|volume| volume.host_path.as_ref());
        for wanted in paths {
            let source = Path::new(&wanted.path).canonicalize().unwrap_or_default();
            if !self
                .context
                .host_paths
                .iter()
                .any(|allowed| source.starts_with(allowed))
            {
                let message = format!(
                    "a hostPath volume shows `{}`, and the container engine belongs to another user than this server: \
                     start the server with `--host-path {}` to allow it",
                    wanted.path, wanted.path
                );
                return Err(failure(Reason::VolumeNotReady, message));
            }
        }
        Ok(())
    }
}

/// What every container inherits: nothing that names a file of this machine, as `PATH` does.
fn base(base: &[(String, String)]) -> Vec<(String, String)> {
    let is_for_all = |(_, value): &&(String, String)| !value.starts_with('/');
    base.iter().filter(is_for_all).cloned().collect()
}

fn value<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value.as_str())
}

/// The capabilities to add, of those that a container may have here.
fn added(wanted: Vec<String>, is_privileged: bool) -> Result<Vec<String>, String> {
    if is_privileged {
        return Err(
            "`privileged` would give the container this machine, which Pods do not get here".to_owned(),
        );
    }
    let is_usual = |name: &String| USUAL.contains(&name.strip_prefix("CAP_").unwrap_or(name));
    match wanted.iter().find(|name| !is_usual(name)) {
        None => Ok(wanted),
        Some(name) => Err(format!(
            "adds the capability `{name}`, which containers do not get here"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_of_this_machine_is_named_to_a_container() {
        let pairs = [
            ("PATH", "/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("SSL_CERT_FILE", "/etc/x.pem"),
        ];
        let all = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(base(&all), [("LANG".to_owned(), "C.UTF-8".to_owned())]);
    }

    #[test]
    fn a_container_gets_no_capability_that_engines_do_not_give_anyway() {
        let all = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            added(all(&["CHOWN", "CAP_KILL"]), false),
            Ok(all(&["CHOWN", "CAP_KILL"]))
        );
        assert!(added(all(&["SYS_ADMIN"]), false).is_err());
        assert!(added(Vec::new(), true).is_err());
    }
}
