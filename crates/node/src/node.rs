//! The node: what it is given, how it starts, and how it ends.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use coracle_api::network::Block;
use jiff::Timestamp;
use kube::Client;
use sha2::{Digest, Sha256};
use strum::{Display, EnumString};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::runtime::run_dir::LOG_BYTES;
use crate::{
    claims,
    environments::{python::Environments, table},
    events,
    gpu::Gpus,
    kubelet,
    network::{addresses::Addresses, names::Names, proxy, services},
    pod::{
        context::{Context, pods},
        env,
    },
    pods::Pods,
    registration::{self, HEARTBEAT, Machine},
    runtime::{
        container::engine::Engines,
        process::{
            cgroup::Cgroups,
            mediate, probe,
            spec::{Mode, Sandbox},
        },
    },
    schedule::placement,
    warm::Workers,
};

/// How Pods are kept apart from this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// As well as the kernel allows. Where it allows nothing, Pods are plain processes, and their events say so.
    #[default]
    Auto,
    /// In namespaces, or the node does not start.
    Required,
    /// Not at all.
    Off,
}

/// What runs the containers of Pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Display, EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum Runtime {
    /// Processes of this machine where an image maps to an environment of it, its container engine elsewhere.
    #[default]
    Auto,
    /// Processes only.
    Process,
    /// The container engine, for every image.
    Container,
}

/// What a node is made of.
#[derive(Clone)]
pub struct Options {
    /// The Kubernetes API.
    pub client: Client,
    /// The node keeps `pods`, `environments` and `volumes` in it. Pods cannot see it.
    pub data_dir: PathBuf,
    /// This machine's name in the API; see [`crate::machine_name`].
    pub name: String,
    /// Our own executable: `<binary> sandbox <spec.json>` must end up in [`crate::sandbox_main`].
    pub binary: PathBuf,
    /// Folders of this machine that Pods read and write at the same path: the artifact store. Made if missing.
    pub writable: Vec<PathBuf>,
    /// Where the Kubernetes API listens with TLS, for clients in Pods.
    pub api: Option<SocketAddr>,
    /// The addresses of Pods are of this block: one for each data directory.
    pub block: Block,
}

/// The node cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder cannot be made or found.
    #[error("cannot use the folder `{path}`")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The user's image table is wrong.
    #[error("{0}: mend or remove the file in the data directory")]
    Environments(String),
    /// The Node object cannot be written.
    #[error("cannot register this machine as node `{name}`")]
    Register {
        /// The node's name.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// Sandboxes are required and cannot be made.
    #[error("this machine cannot keep Pods apart, and that is required: {0}; see `coracle doctor`")]
    NotIsolated(String),
    /// Part of the node was lost.
    #[error("part of the node ended unexpectedly")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// The local kubelet. Made, then asked for its API, then run.
pub struct Node {
    options: Options,
    isolation: Isolation,
    runtime: Runtime,
    engine: Option<PathBuf>,
    host_paths: Vec<PathBuf>,
    max_pods: Option<u32>,
    log_bytes: u64,
    warm: bool,
}

impl Node {
    /// Prepares the folders and checks the image table. Nothing runs yet.
    ///
    /// # Errors
    /// When a folder cannot be made, or `environments.yaml` is wrong.
    pub fn new(options: Options) -> Result<Self, Error> {
        let mut options = options;
        make_private(&options.data_dir)?;
        options.data_dir = resolve(&options.data_dir)?;
        for name in ["pods", "environments", "volumes", "workers"] {
            make_private(&options.data_dir.join(name))?;
        }
        for path in &mut options.writable {
            make_private(path)?;
            *path = resolve(path)?;
        }
        table_error(Environments::new(&options.data_dir, true)).map(drop)?;
        Ok(Self {
            options,
            isolation: Isolation::default(),
            runtime: Runtime::default(),
            engine: None,
            host_paths: Vec::new(),
            max_pods: None,
            log_bytes: LOG_BYTES,
            warm: true,
        })
    }

    /// Sets how Pods are kept apart. Default: [`Isolation::Auto`].
    #[must_use]
    pub const fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Sets what runs containers. Default: [`Runtime::Auto`].
    #[must_use]
    pub const fn with_runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }

    /// Sets where the container engine listens, as a socket of this machine. Default: what `DOCKER_HOST` or
    /// `CONTAINER_HOST` names, or else where Docker and Podman usually are.
    #[must_use]
    pub fn with_engine(mut self, socket: PathBuf) -> Self {
        self.engine = Some(socket);
        self
    }

    /// Lets `hostPath` volumes write to these folders and what is below them. Default: none; they only read.
    #[must_use]
    pub fn with_host_paths(mut self, paths: Vec<PathBuf>) -> Self {
        self.host_paths = paths;
        self
    }

    /// Sets how many Pods run at once. Default: eight for each core, between 32 and 512.
    #[must_use]
    pub const fn with_max_pods(mut self, pods: u32) -> Self {
        self.max_pods = Some(pods);
        self
    }

    /// Sets how large one file of a container's log may get; five are kept. Default: 10 MiB.
    #[must_use]
    pub const fn with_log_bytes(mut self, bytes: u64) -> Self {
        self.log_bytes = bytes;
        self
    }

    /// Sets whether Python components may run in processes that have imported what they need. Default: they may.
    #[must_use]
    pub const fn with_warm_python(mut self, warm: bool) -> Self {
        self.warm = warm;
        self
    }

    /// The kubelet's API: `GET /containerLogs/{namespace}/{pod}/{container}`.
    pub fn kubelet(&self) -> axum::Router {
        kubelet::router(self.options.client.clone(), pods(&self.options.data_dir))
    }

    /// Runs Pods until `cancel`. Their processes go on by themselves then, and the next node takes them up.
    ///
    /// # Errors
    /// When this machine cannot be registered, or cannot keep Pods apart although that is required.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), Error> {
        let Self {
            options,
            isolation,
            runtime,
            engine,
            host_paths,
            max_pods,
            log_bytes,
            warm,
        } = self;
        let (name, client) = (options.name.clone(), options.client.clone());
        let data_dir = options.data_dir.clone();
        let range = options.block.pods();
        let measured = tokio::task::spawn_blocking(move || {
            let addresses = Addresses::take_up(range, &pods(&data_dir));
            let gpus = Gpus::detect();
            let machine = Machine::measure(&data_dir, &gpus, max_pods);
            let moving = mediate::attempt();
            (gpus, machine, Cgroups::detect(), addresses, moving)
        });
        let (mode, measured) = tokio::join!(choose_mode(&options, isolation), measured);
        let mode = mode?;
        let (gpus, machine, cgroups, addresses, moving) = measured.map_err(Error::Interrupted)?;
        let registered = cancel.run_until_cancelled(registration::register_at_last(&client, &name, &machine));
        let Some(labels) = registered.await else {
            return Ok(());
        };
        let labels = labels.map_err(|source| Error::Register {
            name: name.clone(),
            source,
        })?;
        let registered = Timestamp::now();
        let (recorder, writer) = events::channel(client.clone(), &name);
        // Where containers write into environments, files must not be shared with uv's cache.
        let environments = table_error(Environments::new(&options.data_dir, mode != Mode::Plain))?;
        if let Err(error) = &moving {
            tracing::warn!(%error, "Pods share this machine's ports: see `coracle doctor`");
        }
        let workers = options.data_dir.join("workers");
        let (table, known) = watch::channel(None);
        let names = Arc::new(Names::new(known.clone()));
        let context = Arc::new(Context {
            client: client.clone(),
            node: name.clone(),
            memory: memory_folder(&options.data_dir),
            data_dir: options.data_dir,
            binary: options.binary,
            writable: options.writable,
            host_paths: host_paths
                .iter()
                .filter_map(|path| path.canonicalize().ok())
                .collect(),
            mode,
            runtime,
            engines: Engines::new(engine),
            addresses,
            names: Arc::clone(&names),
            moves_servers: moving.is_ok(),
            cgroups,
            environments,
            workers: Workers::new(warm.then_some(workers), machine.memory()),
            events: recorder,
            gpus,
            allocatable: machine.capacity.clone(),
            log_bytes,
            base: base_variables(std::env::vars(), options.api)
                .into_iter()
                .chain(coracle_breakpoint::passed_on())
                .collect(),
        });
        let mut parts = JoinSet::new();
        parts.spawn(writer.run());
        parts.spawn(services::run(client.clone(), table));
        parts.spawn(names.run());
        parts.spawn(proxy::run(known, context.events.clone(), cancel.clone()));
        let own = placement::Machine {
            name: name.clone(),
            labels,
        };
        parts.spawn(claims::run(Arc::clone(&context)));
        parts.spawn(Pods::new(context, machine.amounts(), own).run());
        parts.spawn(async move {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                let now = Timestamp::now();
                if let Err(error) = registration::report(&client, &name, &machine, registered, now).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the node's heartbeat was not written"
                    );
                }
            }
        });
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            // None of them ends by itself.
            Some(ended) = parts.join_next() => ended.map_err(Error::Interrupted),
        }
    }
}

async fn choose_mode(options: &Options, isolation: Isolation) -> Result<Mode, Error> {
    if isolation == Isolation::Off {
        return Ok(Mode::Plain);
    }
    let finding = probe::best(&options.binary, &pods(&options.data_dir)).await;
    let refusals: Vec<&str> = finding
        .refusals
        .iter()
        .map(|refusal| refusal.why.as_str())
        .collect();
    match finding.mode {
        Mode::Sandbox(sandbox) => tracing::info!(refused = refusals.join("; "), "{}", describe(sandbox)),
        Mode::Plain if isolation == Isolation::Required => {
            return Err(Error::NotIsolated(refusals.join("; ")));
        }
        Mode::Plain => tracing::warn!(
            refused = refusals.join("; "),
            "Pods are not kept apart from this machine: it gives us no namespaces"
        ),
    }
    Ok(finding.mode)
}

/// What a sandbox keeps apart, in a sentence.
pub(crate) fn describe(sandbox: Sandbox) -> String {
    let root = match (sandbox.overlay_root, sandbox.in_memory) {
        (true, false) => "this machine's files copy-on-write",
        (true, true) => "this machine's files copy-on-write (what they write stays in memory)",
        (false, _) => "this machine's files read-only",
    };
    let user = if sandbox.user {
        ", through a user namespace"
    } else {
        ""
    };
    format!("Pods have their own /tmp and processes, and see {root}{user}")
}

fn table_error<T>(result: Result<T, table::Error>) -> Result<T, Error> {
    result.map_err(|error| Error::Environments(error.to_string()))
}

fn make_private(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::Folder {
        path: path.to_path_buf(),
        source,
    })
}

fn resolve(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(|source| Error::Folder {
        path: path.to_path_buf(),
        source,
    })
}

/// This data directory's own folder in memory.
fn memory_folder(data_dir: &Path) -> PathBuf {
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let name = digest[..8].iter().map(|byte| format!("{byte:02x}"));
    Path::new("/dev/shm").join(format!("coracle-{}", name.collect::<String>()))
}

/// What every container inherits of the server's variables.
fn base_variables(
    all: impl Iterator<Item = (String, String)>,
    api: Option<SocketAddr>,
) -> Vec<(String, String)> {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut base = vec![
        ("PATH".to_owned(), PATH.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ];
    for (name, value) in all {
        match base.iter_mut().find(|(other, _)| *other == name) {
            Some(known) => known.1 = value,
            None if env::is_passed_on(&name) => base.push((name, value)),
            None => {}
        }
    }
    let has_pip_file = base.iter().any(|(name, _)| name == "PIP_CONFIG_FILE");
    if let Some(file) = crate::environments::pip::user_file().filter(|_| !has_pip_file) {
        // Containers have another home, so pip would not find it.
        base.push(("PIP_CONFIG_FILE".to_owned(), file.display().to_string()));
    }
    if let Some(api) = api {
        // What clients in a Pod look for, beside its token.
        let (host, port) = (api.ip().to_string(), api.port().to_string());
        base.extend(
            [
                ("KUBERNETES_SERVICE_HOST", host.clone()),
                ("KUBERNETES_SERVICE_PORT", port.clone()),
                ("KUBERNETES_SERVICE_PORT_HTTPS", port.clone()),
                ("KUBERNETES_PORT", format!("tcp://{host}:{port}")),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_servers_user_are_not_inherited() {
        let all = [
            ("PATH", "/x"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("HTTPS_PROXY", "p"),
            ("HOME", "/root"),
        ];
        let base = base_variables(
            all.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
            None,
        );
        let names: Vec<&str> = base
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| *name != "PIP_CONFIG_FILE")
            .collect();
        assert_eq!(names, ["PATH", "LANG", "HTTPS_PROXY"]);
        assert_eq!(base[0].1, "/x");
    }
}
