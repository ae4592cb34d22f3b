//! Start, serve, stop.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use axum::{Router, body::Body, middleware, serve::ListenerExt as _};
use coracle_artifacts::Artifacts;
use coracle_controllers::{Controllers, clock::SystemClock};
use coracle_pipelines::{
    schedule::Scheduler,
    task::container::{Cache, Settings},
};
use coracle_store::{Location, OpenError, Store};
use jiff::Timestamp;
use kube::Client;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};

use crate::{
    Config,
    data_dir::{self, DataDir, Running},
    guard, housekeeping,
};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The namespace of whatever names none.
const NAMESPACE: &str = "default";

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
    parts: JoinSet<()>,
    stop: CancellationToken,
}

impl Server {
    /// Starts everything. When this returns, requests are answered.
    ///
    /// # Errors
    /// [`Error`]: one clear sentence; nothing was changed that was there before.
    pub async fn start(config: Config) -> Result<Self, Error> {
        if !config.host.is_loopback() {
            return Err(Error::NotLoopback(config.host));
        }
        let data_dir = DataDir::take(&config.data_dir)?;
        let listener = bind(config.host, config.port).await?;
        let address = listener.local_addr().map_err(|source| Error::NotBound {
            address: SocketAddr::new(config.host, config.port),
            source,
        })?;
        let store = Store::open(Location::File(data_dir.path().join("coracle.db"))).await?;
        let catalogue = coracle_apiserver::bootstrap(store.resources())
            .await
            .map_err(Error::Bootstrap)?;

        let stop = CancellationToken::new();
        let url = format!("http://{address}");
        let artifact_root = data_dir.path().join("artifacts");
        let artifacts = Artifacts::local(&artifact_root).map_err(Error::Artifacts)?;
        let (client, connect) = in_process_client();
        let node_name = coracle_node::machine_name();
        let block = coracle_api::network::Block::of(data_dir.path());
        let node = coracle_node::Node::new(coracle_node::Options {
            client: client.clone(),
            data_dir: data_dir.path().to_owned(),
            name: node_name.clone(),
            binary: config.binary.clone(),
            writable: vec![artifact_root.clone()],
            api: None,
            block,
        })
        .map_err(Error::Node)?;
        let reserve = coracle_apiserver::Reserve::new(block);
        let kubernetes = coracle_apiserver::router(coracle_apiserver::Options {
            resources: store.resources().clone(),
            catalogue: catalogue.clone(),
            kubelet: node.kubelet(),
            node_name,
            reserve,
            stop: stop.clone(),
        });
        connect(kubernetes.clone());
        let gateway = coracle_gateway::router(coracle_gateway::Options {
            records: store.records().clone(),
            artifacts: artifacts.clone(),
            namespace: NAMESPACE.to_owned(),
            version: VERSION.to_owned(),
            commit: option_env!("CORACLE_COMMIT").unwrap_or_default().to_owned(),
            private_urls: std::env::var_os("CORACLE_PRIVATE_URLS").is_some_and(|value| value == "1"),
            clock: Timestamp::now,
            shutdown: stop.clone(),
        });
        let pipelines = gateway.clone();
        let router = kubernetes
            .merge(gateway)
            .merge(coracle_webui::router())
            .layer(middleware::from_fn_with_state((), guard::layer));
        let engine = coracle_pipelines::Engine::new(coracle_pipelines::Options {
            client: client.clone(),
            records: store.records().clone(),
            artifacts,
            settings: Settings {
                artifact_root,
                launcher: config.binary.to_string_lossy().into_owned(),
                server_url: url.clone(),
                cache: config.cache.map(|ttl| Cache { ttl }),
            },
        });

        let mut parts = JoinSet::new();
        parts.spawn(serve(listener, router, stop.clone()));
        let collector =
            coracle_apiserver::collect_garbage(store.resources().clone(), catalogue, stop.clone());
        parts.spawn(collector);
        let node_stop = stop.clone();
        parts.spawn(async move {
            if let Err(error) = node.run(node_stop).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the node stopped: no task runs any more"
                );
            }
        });
        parts.spawn(engine.run(stop.clone()));
        let controllers = Controllers::new(coracle_controllers::Options {
            client: client.clone(),
            clock: Arc::new(SystemClock),
            root_ca: None,
        });
        parts.spawn(controllers.run(stop.clone()));
        let scheduler = Scheduler::new(coracle_pipelines::schedule::Options {
            records: store.records().clone(),
            clock: Arc::new(Timestamp::now),
        });
        parts.spawn(scheduler.run(stop.clone()));
        parts.spawn(housekeeping::keep(
            store.resources().clone(),
            client,
            pipelines,
            config.retention,
            stop.clone(),
        ));
        let running = Running {
            pid: std::process::id(),
            url,
            version: VERSION.to_owned(),
        };
        data_dir.announce(&running).map_err(Error::NotAnnounced)?;
        Ok(Self {
            data_dir,
            address,
            store,
            parts,
            stop,
        })
    }

    /// Where the server listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Works until `cancel`, then stops in order. Tasks that are at work go on by themselves and
    /// are taken up again at the next start.
    pub async fn run(mut self, cancel: CancellationToken) {
        cancel.cancelled().await;
        self.stop.cancel();
        while self.parts.join_next().await.is_some() {}
        self.data_dir.withdraw();
        self.store.close().await;
    }
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

/// Serves until `stop`. Connections that are still open then, such as watches, are cut.
async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    // What a watch tells is small and goes out at once.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection gathers what it sends");
        }
    });
    let serving = axum::serve(listener, router).into_future();
    tokio::select! {
        result = serving => {
            if let Err(error) = result {
                tracing::error!(%error, "the server stopped listening");
            }
        }
        () = stop.cancelled() => {}
    }
}

/// A client of an API that is given afterwards: the API needs the node, and the node a client.
fn in_process_client() -> (Client, impl FnOnce(Router)) {
    let cell: Arc<OnceLock<Router>> = Arc::default();
    let served = Arc::clone(&cell);
    let service = service_fn(move |request: http::Request<kube::client::Body>| {
        let router = served.get().cloned().unwrap_or_default();
        router.oneshot(request.map(Body::new))
    });
    let connect = move |router| {
        // The one call there is: the closure is consumed by it.
        let _ = cell.set(router);
    };
    (Client::new(service, NAMESPACE), connect)
}
