//! A machine for tests: store in memory, embedded API, and this crate's node.

use std::{
    future::{Future, IntoFuture},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, body::Body};
use coracle_api::network::Block;
use coracle_apiserver::identity::Identity;
use coracle_node::{Error, Isolation, Node, Options};
use coracle_store::{Location, Store};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};

pub(crate) const NODE: &str = "here";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);

pub(crate) struct Machine {
    pub(crate) client: Client,
    pub(crate) folder: TempDir,
    router: Arc<OnceLock<Router>>,
    store: Store,
    catalogue: coracle_apiserver::Catalogue,
    identity: Identity,
    node: Option<(CancellationToken, JoinHandle<Result<(), Error>>)>,
    isolation: Isolation,
    log_bytes: Option<u64>,
}

impl Machine {
    pub(crate) async fn start() -> Self {
        Self::start_with(Isolation::Auto).await
    }

    pub(crate) async fn start_with(isolation: Isolation) -> Self {
        Self::start_as(isolation, None).await
    }

    /// The files of its containers' logs are this long.
    pub(crate) async fn start_with_log(bytes: u64) -> Self {
        Self::start_as(Isolation::Auto, Some(bytes)).await
    }

    async fn start_as(isolation: Isolation, log_bytes: Option<u64>) -> Self {
        let store = Store::open(Location::Memory).await.unwrap();
        let catalogue = coracle_apiserver::bootstrap(store.resources()).await.unwrap();
        let identity = Identity::ephemeral().unwrap().authority("a certificate");
        identity.publish_authority(store.resources()).await.unwrap();
        let router: Arc<OnceLock<Router>> = Arc::default();
        let served = Arc::clone(&router);
        let service = service_fn(move |request: axum::http::Request<kube::client::Body>| {
            let router = served.get().cloned().unwrap_or_default();
            router.oneshot(request.map(Body::new))
        });
        let mut machine = Self {
            client: Client::new(service, "default"),
            // Not below /tmp, which Pods do not see.
            folder: TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            router,
            store,
            catalogue,
            identity,
            node: None,
            isolation,
            log_bytes,
        };
        machine.start_node();
        machine
    }

    /// Starts a node on this machine's data, as `coracle up` after `coracle down`.
    pub(crate) fn start_node(&mut self) {
        let node = Node::new(Options {
            client: self.client.clone(),
            data_dir: self.data_dir(),
            name: NODE.to_owned(),
            binary: env!("CARGO_BIN_EXE_coracle-sandbox").into(),
            writable: vec![self.artifacts()],
            api: None,
            block: self.block(),
        })
        .unwrap()
        .with_isolation(self.isolation)
        .with_max_pods(20)
        .with_engine(self.folder.path().join("no-engine.sock"))
        .with_host_paths(vec![self.folder.path().join("allowed")]);
        let node = match self.log_bytes {
            Some(bytes) => node.with_log_bytes(bytes),
            None => node,
        };
        let options = coracle_apiserver::Options {
            resources: self.store.resources().clone(),
            catalogue: self.catalogue.clone(),
            kubelet: node.kubelet(),
            reserve: coracle_apiserver::Reserve::new(self.block()),
            node_name: NODE.to_owned(),
            identity: self.identity.clone(),
            stop: CancellationToken::new(),
        };
        // The API of the first node serves the later ones: both read the same folder.
        let _ = self.router.set(coracle_apiserver::router(options));
        let stop = CancellationToken::new();
        self.node = Some((stop.clone(), tokio::spawn(node.run(stop))));
    }

    /// Serves the API at an address of this machine.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router.get().unwrap().clone();
        tokio::spawn(axum::serve(listener, router).into_future());
        address
    }

    pub(crate) async fn stop_node(&mut self) {
        let (stop, node) = self.node.take().unwrap();
        stop.cancel();
        node.await.unwrap().unwrap();
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn block(&self) -> Block {
        Block::of(&self.data_dir())
    }

    pub(crate) fn artifacts(&self) -> PathBuf {
        self.data_dir().join("artifacts")
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    pub(crate) async fn create(&self, pod: Value) -> Pod {
        let pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    pub(crate) async fn object(&self, kind: &str, object: Value) {
        let request = axum::http::Request::post(format!("/api/v1/namespaces/default/{kind}"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        self.client.request::<Value>(request).await.unwrap();
    }

    pub(crate) async fn replace(&self, kind: &str, name: &str, object: Value) {
        let request = axum::http::Request::put(format!("/api/v1/namespaces/default/{kind}/{name}"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        self.client.request::<Value>(request).await.unwrap();
    }

    pub(crate) async fn remove(&self, kind: &str, name: &str) {
        let request = axum::http::Request::delete(format!("/api/v1/namespaces/default/{kind}/{name}"))
            .body(Vec::new())
            .unwrap();
        self.client.request::<Value>(request).await.unwrap();
    }

    pub(crate) async fn until(&self, name: &str, what: &str, holds: impl Fn(&Pod) -> bool + Send) -> Pod {
        let condition = |pod: Option<&Pod>| pod.is_some_and(&holds);
        match tokio::time::timeout(PATIENCE, await_condition(self.pods(), name, condition)).await {
            Ok(pod) => pod.unwrap().unwrap(),
            Err(_) => panic!(
                "`{name}` is not {what}: {:#?}",
                self.pods().get(name).await.map(|pod| pod.status)
            ),
        }
    }

    pub(crate) async fn until_phase(&self, name: &str, wanted: &str) -> Pod {
        self.until(name, wanted, |pod| phase(pod) == wanted).await
    }

    pub(crate) async fn until_over(&self, name: &str) -> Pod {
        self.until(name, "over", |pod| matches!(phase(pod), "Succeeded" | "Failed"))
            .await
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let gone = await_condition(self.pods(), name, |pod: Option<&Pod>| pod.is_none());
        tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
    }

    /// Runs a Pod to its end.
    pub(crate) async fn run(&self, pod: Value) -> Pod {
        let pod = self.create(pod).await;
        self.until_over(&pod.name_any()).await
    }

    /// Runs a shell script in a Pod and gives back what it said. It must succeed.
    pub(crate) async fn script(&self, name: &str, script: &str) -> String {
        let pod = self.run(shell(name, script)).await;
        let log = self.log(name).await;
        assert_eq!(phase(&pod), "Succeeded", "{log}{:#?}", end(&pod));
        log
    }

    pub(crate) async fn log(&self, name: &str) -> String {
        self.pods().logs(name, &LogParams::default()).await.unwrap()
    }

    pub(crate) async fn delete(&self, name: &str, grace: u32) {
        self.pods()
            .delete(name, &DeleteParams::default().grace_period(grace))
            .await
            .unwrap();
    }

    /// The messages of a Pod's events with this reason.
    pub(crate) async fn events(&self, name: &str, reason: &str) -> Vec<String> {
        let api: Api<Event> = Api::default_namespaced(self.client.clone());
        let all = api.list(&ListParams::default()).await.unwrap();
        all.into_iter()
            .filter(|event| event.involved_object.name.as_deref() == Some(name))
            .filter(|event| event.reason.as_deref() == Some(reason))
            .filter_map(|event| event.message)
            .collect()
    }

    /// Waits for an event about a Pod: events come after what they tell.
    pub(crate) async fn until_event(&self, name: &str, reason: &str) -> String {
        use futures::StreamExt;
        use kube::runtime::{WatchStreamExt, watcher};

        let api: Api<Event> = Api::default_namespaced(self.client.clone());
        let mut events = watcher(api, watcher::Config::default()).applied_objects().boxed();
        let found = async {
            loop {
                let event = events.next().await.unwrap().unwrap();
                let is_about = event.involved_object.name.as_deref() == Some(name);
                if is_about && event.reason.as_deref() == Some(reason) {
                    return event.message.unwrap_or_default();
                }
            }
        };
        patient(found).await
    }

    /// The folder of a Pod on this machine.
    pub(crate) fn pod_dir(&self, pod: &Pod) -> PathBuf {
        self.data_dir()
            .join("pods")
            .join(pod.metadata.uid.as_deref().unwrap())
    }

    /// Whether Pods have namespaces here. If not, says so.
    pub(crate) async fn is_isolated(&self) -> bool {
        let own = self.script("is-isolated", "readlink /proc/self/ns/mnt").await;
        let host = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let is_isolated = Path::new(own.trim()) != host;
        if !is_isolated {
            eprintln!("LEFT OUT: this machine gives Pods no namespaces");
        }
        is_isolated
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Nothing may be left of a test that failed half-way.
        for pod in std::fs::read_dir(self.data_dir().join("pods"))
            .into_iter()
            .flatten()
            .flatten()
        {
            for container in std::fs::read_dir(pod.path()).into_iter().flatten().flatten() {
                for run in std::fs::read_dir(container.path())
                    .into_iter()
                    .flatten()
                    .flatten()
                {
                    let is_over = run.path().join("exit.json").exists();
                    if let Some(pid) = shim_pid(&run.path()).filter(|_| !is_over) {
                        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                    }
                }
            }
        }
    }
}

/// Who keeps a run.
pub(crate) fn shim_pid(run: &Path) -> Option<nix::unistd::Pid> {
    let identity: Value = serde_json::from_slice(&std::fs::read(run.join("pid")).ok()?).ok()?;
    Some(nix::unistd::Pid::from_raw(
        i32::try_from(identity["pid"].as_i64()?).ok()?,
    ))
}

pub(crate) async fn patient<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it takes longer than a test waits")
}

/// A Pod that runs a shell script once, on the host's programs.
pub(crate) fn shell(name: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "busybox", "command": ["sh", "-c", script]}],
        },
    })
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// The status of the first container.
pub(crate) fn first(pod: &Pod) -> ContainerStatus {
    let status = pod.status.as_ref().unwrap();
    status.container_statuses.as_ref().unwrap()[0].clone()
}

/// The first container's end in one line: exit code, reason, message.
pub(crate) fn end(pod: &Pod) -> String {
    let Some(end) = first(pod).state.and_then(|state| state.terminated) else {
        return "not over".to_owned();
    };
    let (reason, message) = (end.reason.unwrap_or_default(), end.message.unwrap_or_default());
    format!("{} {reason} {message}", end.exit_code).trim().to_owned()
}
