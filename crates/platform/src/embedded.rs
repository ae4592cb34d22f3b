//! The embedded Kubernetes API, and this machine as its only node.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use axum::{Router, body::Body, middleware};
use coracle_apiserver::identity::{Identity, User, audit};
use coracle_controllers::{Controllers, clock::SystemClock};
use coracle_store::Store;
use futures::FutureExt as _;
use http::{HeaderValue, header};
use jiff::Timestamp;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt as _, service_fn};

use crate::{
    Config,
    data_dir::DataDir,
    pki::Pki,
    room::{self, Room},
    server::{Error, Kubernetes, NAMESPACE, PIPELINES},
    tls,
};

/// How the controllers name themselves to the API.
const CONTROLLERS: &str = concat!("coracle-controllers/", env!("CARGO_PKG_VERSION"));
/// How the node does.
const NODE: &str = concat!("coracle-node/", env!("CARGO_PKG_VERSION"));

/// Makes API and node. They work as soon as the parts do.
pub(crate) async fn start(
    config: &Config,
    data_dir: &DataDir,
    store: &Store,
    artifact_root: &Path,
    stop: &CancellationToken,
) -> Result<Kubernetes, Error> {
    let catalogue = coracle_apiserver::bootstrap(store.resources())
        .await
        .map_err(Error::Bootstrap)?;
    let node_name = coracle_node::machine_name();
    let audit = audit::Log::open(&data_dir.path().join("audit.log"), config.audit).map_err(Error::Audit)?;
    let block = coracle_api::network::Block::of(data_dir.path());
    let reserve = coracle_apiserver::Reserve::new(block);
    // By its node's name, and by the address of its Service.
    let mut names = vec![node_name.clone()];
    names.extend(block.services().nth(0).map(|address| address.to_string()));
    let pki = Pki::open(data_dir.path(), &names, Timestamp::now())?;
    let identity = Identity::new(&pki.token_key)?
        .admin_token(&pki.admin_token)
        .authority(&pki.authority)
        .audit(audit.clone());
    let published = identity.publish_authority(store.resources()).await;
    published.map_err(|error| Error::Bootstrap(coracle_apiserver::BootstrapError::Store(error)))?;
    let secure = tls::config(&pki).map_err(Error::Tls)?;
    let door = door(&pki, config.port).await?;
    let door_address = door.local_addr().map_err(Error::NoPort)?;
    coracle_apiserver::publish_api(store.resources(), &catalogue, &reserve, door_address)
        .await
        .map_err(Error::Bootstrap)?;
    let (client, connect) = in_process_client("system:coracle", PIPELINES);
    let (node_client, connect_node) = in_process_client(&format!("system:node:{node_name}"), NODE);
    let (controllers_client, connect_controllers) =
        in_process_client("system:kube-controller-manager", CONTROLLERS);
    let node = coracle_node::Node::new(coracle_node::Options {
        client: node_client,
        data_dir: data_dir.path().to_owned(),
        name: node_name.clone(),
        binary: config.binary.clone(),
        writable: vec![artifact_root.to_owned()],
        api: Some(door_address),
        block,
    })
    .map_err(Error::Node)?
    .with_runtime(config.runtime)
    .with_warm_python(config.warm_python)
    .with_host_paths(config.host_paths.clone());
    let node = match config.max_pods {
        Some(pods) => node.with_max_pods(pods),
        None => node,
    };
    let node = match &config.container_socket {
        Some(socket) => node.with_engine(socket.clone()),
        None => node,
    };
    let kubernetes = coracle_apiserver::router(coracle_apiserver::Options {
        resources: store.resources().clone(),
        catalogue: catalogue.clone(),
        kubelet: node.kubelet(),
        node_name,
        identity,
        reserve,
        stop: stop.clone(),
    });
    connect(kubernetes.clone());
    connect_node(kubernetes.clone());
    connect_controllers(kubernetes.clone());
    let controllers = Controllers::new(coracle_controllers::Options {
        client: controllers_client,
        clock: Arc::new(SystemClock),
        root_ca: Some(pki.authority.clone()),
    });
    let run_node = {
        let stop = stop.clone();
        async move {
            if let Err(error) = node.run(stop).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the node stopped: no task runs any more"
                );
            }
        }
    };
    let collector = coracle_apiserver::collect_garbage(store.resources().clone(), catalogue, stop.clone());
    let room = Room::default();
    let for_pods = kubernetes
        .clone()
        .layer(middleware::from_fn_with_state(room.clone(), room::layer));
    Ok(Kubernetes {
        client,
        room,
        parts: vec![
            tls::serve(door, secure, for_pods, stop.clone()).boxed(),
            collector.boxed(),
            controllers.run(stop.clone()).boxed(),
            run_node.boxed(),
        ],
        router: kubernetes,
        namespace: NAMESPACE.to_owned(),
        url: Some(format!("https://{door_address}")),
        in_use: None,
        audit,
    })
}

/// Where Pods find the API: as last time, so that those that run go on finding it, or beside the
/// server's own port.
async fn door(pki: &Pki, port: u16) -> Result<TcpListener, Error> {
    let usual = port.checked_add(1).filter(|next| *next > 1).unwrap_or(0);
    let listener = tls::bind(pki.last_port().unwrap_or(usual))
        .await
        .map_err(Error::NoPort)?;
    let port = listener.local_addr().map_err(Error::NoPort)?.port();
    pki.remember_port(port)?;
    Ok(listener)
}

/// A client of an API that is given afterwards: the API needs the node, and the node a client. The
/// API knows it as the part of the system that is named, and writes down the agent's name, up to its
/// `/`, as the manager of what it writes.
fn in_process_client(name: &str, agent: &'static str) -> (Client, impl FnOnce(Router) + use<>) {
    let user = User::system(name);
    let cell: Arc<OnceLock<Router>> = Arc::default();
    let served = Arc::clone(&cell);
    let service = service_fn(move |request: http::Request<kube::client::Body>| {
        let router = served.get().cloned().unwrap_or_default();
        let mut request = request.map(Body::new);
        let agent = HeaderValue::from_static(agent);
        request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
        request.extensions_mut().insert(user.clone());
        router.oneshot(request)
    });
    let connect = move |router| {
        // The one call there is: the closure is consumed by it.
        let _ = cell.set(router);
    };
    (Client::new(service, NAMESPACE), connect)
}
