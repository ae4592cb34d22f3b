//! Start, serve, stop.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, middleware, serve::ListenerExt as _};
use coracle_apiserver::identity::{BadKey, audit};
use coracle_artifacts::Artifacts;
use coracle_pipelines::{
    schedule::Scheduler,
    task::container::{Cache, OnCluster, Settings},
};
use coracle_store::{Location, OpenError, Store};
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::Client;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Cluster, Config, cluster,
    data_dir::{self, DataDir, InUse, Running},
    embedded, guard, housekeeping, pki,
    room::{self, Room},
};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How the engine names itself to the Kubernetes API, which writes down who manages which field.
pub(crate) const PIPELINES: &str = concat!("coracle-pipelines/", env!("CARGO_PKG_VERSION"));
/// The namespace of whatever names none.
pub(crate) const NAMESPACE: &str = "default";

/// How long requests that are under way when the server stops have to be answered. Then they are cut.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// A server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// The address would let other machines in.
    #[error(
        "`{0}` is reachable from other machines, and no authentication is configured: \
         listen on 127.0.0.1, and reach it from elsewhere through `ssh -L`"
    )]
    NotLoopback(IpAddr),
    /// The port is taken.
    #[error(
        "port {port} on {host} is in use by another program: stop it, or choose another port with `--port`"
    )]
    PortInUse {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    NotBound {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The artifact store cannot be used.
    #[error("cannot use the artifact store")]
    Artifacts(#[source] coracle_artifacts::local::Error),
    /// The objects that are always there cannot be made.
    #[error("cannot prepare the Kubernetes API")]
    Bootstrap(#[source] coracle_apiserver::BootstrapError),
    /// The keys of the server cannot be used.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// The key for tokens is of another kind.
    #[error(transparent)]
    TokenKey(#[from] BadKey),
    /// The certificate of the server cannot be used.
    #[error("cannot offer TLS with the keys in the folder `pki` of the data directory")]
    Tls(#[source] rustls::Error),
    /// There is no port for Pods.
    #[error("cannot listen for the requests of Pods to the Kubernetes API")]
    NoPort(#[source] io::Error),
    /// The audit log cannot be written.
    #[error("cannot write `audit.log` in the data directory")]
    Audit(#[source] io::Error),
    /// The cluster cannot be used.
    #[error(transparent)]
    Cluster(#[from] Box<cluster::Error>),
    /// A folder for Pods to write to cannot be used.
    #[error(
        "Pods cannot be let write to `{}`: make it a folder of yours, or leave it out of `--host-path`",
        path.display()
    )]
    HostPath {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The node cannot start.
    #[error("cannot prepare this machine to run tasks")]
    Node(#[source] coracle_node::Error),
    /// `server.json` cannot be written.
    #[error("cannot write `server.json` in the data directory")]
    NotAnnounced(#[source] io::Error),
}

/// A server that listens.
pub struct Server {
    data_dir: DataDir,
    address: SocketAddr,
    store: Store,
    audit: audit::Log,
    cluster: Option<InUse>,
    parts: JoinSet<()>,
    stop: CancellationToken,
}

impl Server {
    /// Starts everything. When this returns, requests are answered.
    ///
    /// # Errors
    /// [`Error`]: one clear sentence; nothing was changed that was there before.
    pub async fn start(mut config: Config) -> Result<Self, Error> {
        if !config.host.is_loopback() {
            return Err(Error::NotLoopback(config.host));
        }
        for path in &mut config.host_paths {
            *path = host_path(path)?;
        }
        let data_dir = DataDir::take(&config.data_dir)?;
        if coracle_breakpoint::is_on() {
            tracing::warn!("breakpoints are set: this process may end at any of them");
        }
        let listener = bind(config.host, config.port).await?;
        let address = listener.local_addr().map_err(|source| Error::NotBound {
            address: SocketAddr::new(config.host, config.port),
            source,
        })?;
        let store = Store::open(Location::File(data_dir.path().join("coracle.db"))).await?;
        let stop = CancellationToken::new();
        let url = format!("http://{address}");
        let artifact_root = data_dir.path().join("artifacts");
        let artifacts = Artifacts::local(&artifact_root).map_err(Error::Artifacts)?;
        let kubernetes = match &config.cluster {
            Some(cluster) => on_cluster(cluster, &data_dir, &url).await?,
            None => embedded::start(&config, &data_dir, &store, &artifact_root, &stop).await?,
        };
        let advertised = config
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.advertise_url.clone());
        let launch_host = advertised.as_deref().and_then(guard::host_of);
        let gateway = coracle_gateway::router(coracle_gateway::Options {
            records: store.records().clone(),
            artifacts: artifacts.clone(),
            namespace: kubernetes.namespace.clone(),
            version: VERSION.to_owned(),
            commit: option_env!("CORACLE_COMMIT").unwrap_or_default().to_owned(),
            private_urls: std::env::var_os("CORACLE_PRIVATE_URLS").is_some_and(|value| value == "1"),
            clock: Timestamp::now,
            shutdown: stop.clone(),
        });
        let pipelines = gateway.clone();
        let router = kubernetes
            .router
            .merge(gateway)
            .merge(coracle_webui::router())
            .layer(middleware::from_fn_with_state(kubernetes.room, room::layer))
            .layer(middleware::from_fn_with_state(launch_host, guard::layer));
        let engine = coracle_pipelines::Engine::new(coracle_pipelines::Options {
            client: kubernetes.client.clone(),
            records: store.records().clone(),
            artifacts,
            settings: Settings {
                artifact_root,
                launcher: config.binary.to_string_lossy().into_owned(),
                server_url: advertised.unwrap_or_else(|| url.clone()),
                cache: config.cache.map(|ttl| Cache { ttl }),
                cluster: kubernetes.in_use.as_ref().map(|cluster| OnCluster {
                    namespace: cluster.namespace.clone(),
                    server_id: cluster::server_id(data_dir.path()),
                }),
            },
        })
        .with_max_runs(config.max_runs.unwrap_or(coracle_pipelines::MAX_RUNS));

        // Before anything is answered: whoever has an answer finds the server by it, too.
        let running = Running {
            pid: std::process::id(),
            url,
            kubernetes: kubernetes.url,
            cluster: kubernetes.in_use.clone(),
            version: VERSION.to_owned(),
        };
        data_dir.announce(&running).map_err(Error::NotAnnounced)?;
        let mut parts = JoinSet::new();
        parts.spawn(serve(listener, router, stop.clone()));
        for part in kubernetes.parts {
            parts.spawn(part);
        }
        parts.spawn(engine.run(stop.clone()));
        let scheduler = Scheduler::new(coracle_pipelines::schedule::Options {
            records: store.records().clone(),
            clock: Arc::new(Timestamp::now),
        });
        parts.spawn(scheduler.run(stop.clone()));
        parts.spawn(housekeeping::keep(
            kubernetes
                .in_use
                .is_none()
                .then(|| (store.resources().clone(), kubernetes.client)),
            pipelines,
            config.retention,
            stop.clone(),
        ));
        Ok(Self {
            data_dir,
            address,
            store,
            audit: kubernetes.audit,
            cluster: kubernetes.in_use,
            parts,
            stop,
        })
    }

    /// Where the server listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster that is used instead of this machine.
    #[must_use]
    pub const fn cluster(&self) -> Option<&InUse> {
        self.cluster.as_ref()
    }

    /// Works until `cancel`, then stops in order. Tasks that are at work go on by themselves and
    /// are taken up again at the next start.
    pub async fn run(mut self, cancel: CancellationToken) {
        cancel.cancelled().await;
        self.stop.cancel();
        while self.parts.join_next().await.is_some() {}
        self.audit.flush().await;
        self.data_dir.withdraw();
        self.store.close().await;
    }
}

/// The folder as Pods may name it. One that is not there yet, such as that for the artifacts of a
/// server that is started afterwards, is made.
fn host_path(path: &Path) -> Result<PathBuf, Error> {
    let made = data_dir::make(path).and_then(|()| path.canonicalize());
    made.map_err(|source| Error::HostPath {
        path: path.to_owned(),
        source,
    })
}

async fn bind(host: IpAddr, port: u16) -> Result<TcpListener, Error> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::PortInUse { host, port },
            _ => Error::NotBound { address, source },
        })
}

/// The Kubernetes that everything else works with: embedded, or a cluster.
pub(crate) struct Kubernetes {
    /// A client that may do everything, or what the kubeconfig's user may.
    pub(crate) client: Client,
    /// Its API, for clients of this server.
    pub(crate) router: Router,
    /// Where tasks run.
    pub(crate) namespace: String,
    /// Where the embedded API offers TLS.
    pub(crate) url: Option<String>,
    /// The cluster.
    pub(crate) in_use: Option<InUse>,
    /// What is left for writes, through this router and every other.
    pub(crate) room: Room,
    /// What works until the server stops.
    pub(crate) parts: Vec<BoxFuture<'static, ()>>,
    pub(crate) audit: audit::Log,
}

async fn on_cluster(wanted: &Cluster, data_dir: &DataDir, url: &str) -> Result<Kubernetes, Error> {
    let connection = wanted.connect().await.map_err(Box::new)?;
    connection
        .check_reach(url, wanted.advertise_url.is_some())
        .await
        .map_err(Box::new)?;
    tracing::warn!(
        "tasks run on {}: their Pods need the folder {} and this program at the same paths as here",
        connection.in_use,
        data_dir.path().join("artifacts").display()
    );
    Ok(Kubernetes {
        router: cluster::passage::router(connection.clone()),
        client: connection.client,
        namespace: connection.in_use.namespace.clone(),
        url: None,
        in_use: Some(connection.in_use),
        room: Room::default(),
        parts: Vec::new(),
        audit: audit::Log::off(),
    })
}

/// Serves until `stop`: then nobody new is let in, watches and followed logs come to their end, and what is
/// under way has [`GRACE`] to be answered.
async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    // What a watch tells is small and goes out at once.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection gathers what it sends");
        }
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service)
        .with_graceful_shutdown(stop.clone().cancelled_owned())
        .into_future();
    let impatient = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = serving => {
            if let Err(error) = result {
                tracing::error!(%error, "the server stopped listening");
            }
        }
        () = impatient => tracing::warn!("some requests were not answered before the server stopped"),
    }
}
