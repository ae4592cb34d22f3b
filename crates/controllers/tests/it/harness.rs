//! An API in memory, the controllers, a clock that the test moves, and a kubelet that runs nothing.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use coracle_controllers::{Controllers, Options, clock::Clock};
use coracle_store::{Location, Store};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Event, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, wait::await_condition, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The name of the only node.
const NODE: &str = "here";
/// Whatever is waited for longer does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The system's clock, and what the test adds to it.
#[derive(Clone)]
struct MovedClock(watch::Sender<SignedDuration>);

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        Timestamp::now() + *self.0.borrow()
    }

    fn until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut moved = self.0.subscribe();
        let left = Duration::try_from(time.duration_since(self.now())).unwrap_or_default();
        Box::pin(async move {
            tokio::select! {
                _ = moved.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
        })
    }
}

/// What becomes of a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nobody takes it.
    Waits,
    /// It runs, and is not ready.
    Runs,
    /// It runs and is ready.
    Serves,
    Succeeds,
    /// Its container ends with this exit code.
    Fails(i32),
}

type Script = Arc<Mutex<Box<dyn Fn(&Pod) -> Fate + Send>>>;
type Seen = Arc<Mutex<BTreeSet<String>>>;
type Fates = Arc<tokio::sync::Mutex<()>>;

/// Everything but real Pods.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    clock: MovedClock,
    controllers: Option<(JoinHandle<()>, CancellationToken)>,
    script: Script,
    seen: Seen,
    /// Held while a Pod meets its fate: the kubelet's is never told over one that the test gave meanwhile.
    fates: Fates,
    stop: CancellationToken,
    _store: Store,
}

impl Cluster {
    /// With controllers at work and a kubelet that gives every Pod this fate.
    pub(crate) async fn start(script: impl Fn(&Pod) -> Fate + Send + 'static) -> Self {
        let store = Store::open(Location::Memory).await.unwrap();
        let catalogue = coracle_apiserver::bootstrap(store.resources()).await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(coracle_apiserver::collect_garbage(
            store.resources().clone(),
            catalogue.clone(),
            stop.clone(),
        ));
        let router = coracle_apiserver::router(coracle_apiserver::Options {
            resources: store.resources().clone(),
            catalogue,
            kubelet: axum::Router::new(),
            node_name: NODE.to_owned(),
            reserve: coracle_apiserver::Reserve::default(),
            identity: coracle_apiserver::identity::Identity::ephemeral().unwrap(),
            stop: stop.clone(),
        });
        let service = tower::service_fn(move |request: axum::http::Request<kube::client::Body>| {
            router.clone().oneshot(request.map(Body::new))
        });
        let client = Client::new(service, "default");
        let script: Script = Arc::new(Mutex::new(Box::new(script)));
        let (seen, fates) = (Seen::default(), Fates::default());
        tokio::spawn(kubelet(
            client.clone(),
            Arc::clone(&script),
            Arc::clone(&seen),
            Arc::clone(&fates),
        ));
        let mut cluster = Self {
            client,
            clock: MovedClock(watch::Sender::new(SignedDuration::ZERO)),
            controllers: None,
            script,
            seen,
            fates,
            stop,
            _store: store,
        };
        cluster.start_controllers();
        cluster
    }

    pub(crate) fn start_controllers(&mut self) {
        let controllers = Controllers::new(Options {
            client: self.client.clone(),
            clock: Arc::new(self.clock.clone()),
            root_ca: Some("certificate".to_owned()),
        });
        let stop = CancellationToken::new();
        self.controllers = Some((tokio::spawn(controllers.run(stop.clone())), stop));
    }

    /// Ends the controllers at whatever they are doing.
    pub(crate) async fn kill_controllers(&mut self) {
        if let Some((running, _)) = self.controllers.take() {
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
        }
    }

    /// Lets the controllers finish what they are doing.
    pub(crate) async fn stop_controllers(&mut self) {
        if let Some((running, stop)) = self.controllers.take() {
            stop.cancel();
            tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
        }
    }

    /// Gives Pods that are made from now on another fate.
    pub(crate) fn script(&self, script: impl Fn(&Pod) -> Fate + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, seconds: i64) {
        self.clock
            .0
            .send_modify(|moved| *moved += SignedDuration::from_secs(seconds));
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The uids of all Pods that ever were.
    pub(crate) fn pods_ever(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn patch<K>(&self, name: &str, change: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let change = Patch::Merge(change);
        let patched = self
            .api::<K>()
            .patch(name, &PatchParams::default(), &change)
            .await;
        patched.unwrap()
    }

    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let deleted = self.api::<K>().delete(name, &DeleteParams::default()).await;
        deleted.unwrap();
    }

    pub(crate) async fn list<K>(&self) -> Vec<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.api().list(&ListParams::default()).await.unwrap().items
    }

    /// Waits until the object is as it is to be, and returns it.
    pub(crate) async fn until<K>(&self, name: &str, what: &str, is_so: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Send
            + Sync
            + DeserializeOwned
            + 'static,
    {
        let condition = |object: Option<&K>| object.is_some_and(&is_so);
        match tokio::time::timeout(PATIENCE, await_condition(self.api(), name, condition)).await {
            Ok(object) => object.unwrap().unwrap(),
            Err(_) => {
                let last = self.api::<K>().get_opt(name).await;
                let pods = self.pods().await;
                panic!(
                    "`{name}` was never {what}: {last:#?}\nPods: {pods:#?}\nEvents: {:#?}",
                    self.events().await
                )
            }
        }
    }

    pub(crate) async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Send
            + Sync
            + DeserializeOwned
            + 'static,
    {
        let condition = |object: Option<&K>| object.is_none();
        let gone = tokio::time::timeout(PATIENCE, await_condition(self.api::<K>(), name, condition)).await;
        assert!(
            gone.is_ok(),
            "`{name}` never went: {:#?}",
            self.api::<K>().get_opt(name).await
        );
    }

    /// Waits until the Pods are as they are to be, and returns them by name.
    pub(crate) async fn until_pods(&self, what: &str, is_so: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
        let wait = async {
            let changes = watcher(self.api::<Pod>(), watcher::Config::default()).default_backoff();
            let mut changes = std::pin::pin!(changes);
            loop {
                let pods = self.list::<Pod>().await;
                if is_so(&pods) {
                    return pods;
                }
                changes.next().await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(pods) => pods,
            Err(_) => panic!(
                "Pods were never {what}: {:#?}\nEvents: {:#?}",
                self.pods().await,
                self.events().await
            ),
        }
    }

    /// The Pods in a line each.
    pub(crate) async fn pods(&self) -> Vec<String> {
        let line = |pod: &Pod| {
            let leaving = if pod.metadata.deletion_timestamp.is_some() {
                " leaving"
            } else {
                ""
            };
            let ready = if is_ready(pod) { " ready" } else { "" };
            format!(
                "{} {}{ready}{leaving} {:?}",
                pod.name_any(),
                phase(pod),
                pod.finalizers()
            )
        };
        self.list::<Pod>().await.iter().map(line).collect()
    }

    /// The events as `Kind/reason: message`.
    pub(crate) async fn events(&self) -> Vec<String> {
        let line = |event: &Event| {
            let kind = event.involved_object.kind.as_deref().unwrap_or_default();
            let reason = event.reason.as_deref().unwrap_or_default();
            format!(
                "{kind}/{reason}: {}",
                event.message.as_deref().unwrap_or_default()
            )
        };
        self.list::<Event>().await.iter().map(line).collect()
    }

    /// Gives a Pod that is there a fate.
    pub(crate) async fn meet(&self, pod: &str, fate: Fate) {
        let _one = self.fates.lock().await;
        let pod = self.api::<Pod>().get(pod).await.unwrap();
        meet(&self.client, &pod, fate).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Gives each new Pod the fate of the script, and lets those that are deleted go.
async fn kubelet(client: Client, script: Script, seen: Seen, fates: Fates) {
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    let mut pods = std::pin::pin!(pods.default_backoff().applied_objects());
    while let Some(pod) = pods.next().await {
        let Ok(pod) = pod else { continue };
        seen.lock().unwrap().insert(pod.uid().unwrap());
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            let _ = api.delete(&pod.name_any(), &now).await;
            continue;
        }
        let _one = fates.lock().await;
        let Ok(Some(pod)) = api.get_opt(&pod.name_any()).await else {
            continue;
        };
        if pod.spec.as_ref().unwrap().node_name.is_none() {
            let fate = (script.lock().unwrap())(&pod);
            meet(&client, &pod, fate).await;
        }
    }
}

async fn meet(client: &Client, pod: &Pod, fate: Fate) {
    if fate == Fate::Waits {
        return;
    }
    let namespace = pod.namespace().unwrap();
    let name = pod.name_any();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    if pod.spec.as_ref().unwrap().node_name.is_none() {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"kind": "Node", "name": NODE},
        });
        let binding = serde_json::to_vec(&binding).unwrap();
        let request =
            axum::http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
                .header("content-type", "application/json")
                .body(binding)
                .unwrap();
        let _ = client.request::<Value>(request).await;
    }
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let (phase, ready, state) = match fate {
        Fate::Waits | Fate::Runs => ("Running", "False", json!({"running": {}})),
        Fate::Serves => ("Running", "True", json!({"running": {}})),
        Fate::Succeeds => (
            "Succeeded",
            "False",
            json!({"terminated": {"exitCode": 0, "finishedAt": now}}),
        ),
        Fate::Fails(code) => (
            "Failed",
            "False",
            json!({"terminated": {"exitCode": code, "finishedAt": now}}),
        ),
    };
    let uid = pod.uid().unwrap();
    let address = format!("127.1.{}.{}", uid.as_bytes()[0], uid.as_bytes()[uid.len() - 1]);
    let patch = json!({"metadata": {"uid": uid}, "status": {
        "phase": phase,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}],
        "containerStatuses": [{
            "name": "main", "image": "fake", "imageID": "", "restartCount": 0, "ready": ready == "True", "state": state,
        }],
    }});
    // Deleted meanwhile: as well.
    let _ = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
}

/// A Pod template whose Pods carry the label `app`.
pub(crate) fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    })
}
