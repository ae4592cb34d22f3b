//! The one loop over the watch of Pods: feeds the queue, binds, starts and stops workers, cleans up.
//!
//! A Pod is terminal when its object says so, and only then is what it held free: the object is the one truth, and
//! a node that starts later sees the same.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};

use crate::{
    events::Kind,
    pod::{
        context::{Context, pods},
        status,
        worker::{self, Control},
    },
    runtime::{self, Found, process::folders, run_dir::RunDir},
    schedule::{
        fit::{self, Amounts, Holder, Refusal},
        placement::{self, Machine},
        queue::{Queue, Uid, Waiting},
    },
};

/// Changes that are looked at together when many are there at once.
const BATCH: usize = 512;
/// The grace of a Pod that names none, as in Kubernetes.
const DEFAULT_GRACE: i64 = 30;
/// The pauses between attempts to bind.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The loop and what it knows.
pub(crate) struct Pods {
    context: Arc<Context>,
    queue: Queue,
    workers: HashMap<Uid, watch::Sender<Control>>,
    running: JoinSet<Uid>,
    /// This machine, as Pods choose it.
    machine: Machine,
    /// Pods that want another machine. A new label here may change that.
    elsewhere: HashMap<Uid, Pod>,
    /// Pods whose worker is done, and whose object does not say so yet.
    done: HashSet<Uid>,
    /// Pods that are gone from the API while their worker still ends them.
    gone: HashSet<Uid>,
    /// Small tasks: binding, telling, deleting, cleaning.
    writes: JoinSet<()>,
    /// For Pods that were told why they wait: whether they are bound by now. Held while writing, so that nobody is
    /// told to wait who was bound meanwhile.
    told: HashMap<Uid, Arc<Mutex<bool>>>,
    /// While the watch starts over: the Pods that it listed so far.
    listed: Option<HashSet<Uid>>,
}

impl Pods {
    pub(crate) fn new(context: Arc<Context>, capacity: Amounts, machine: Machine) -> Self {
        Self {
            machine,
            elsewhere: HashMap::new(),
            context,
            queue: Queue::new(capacity),
            workers: HashMap::new(),
            running: JoinSet::new(),
            done: HashSet::new(),
            gone: HashSet::new(),
            writes: JoinSet::new(),
            told: HashMap::new(),
            listed: None,
        }
    }

    pub(crate) async fn run(mut self) {
        let api: Api<Pod> = Api::all(self.context.client.clone());
        let changes = watcher(api, watcher::Config::default())
            .default_backoff()
            .ready_chunks(BATCH);
        let mut changes = pin!(changes);
        let nodes: Api<Node> = Api::all(self.context.client.clone());
        let own = format!("metadata.name={}", self.context.node);
        let nodes = watcher(nodes, watcher::Config::default().fields(&own))
            .default_backoff()
            .applied_objects();
        let mut nodes = pin!(nodes);
        loop {
            tokio::select! {
                Some(Ok(node)) = nodes.next() => self.see_labels(node),
                batch = changes.next() => {
                    let Some(batch) = batch else { return };
                    for change in batch {
                        match change {
                            Ok(event) => self.take(event),
                            Err(error) => tracing::warn!(
                                error = &error as &dyn std::error::Error,
                                "the watch of Pods was interrupted: starting over"
                            ),
                        }
                    }
                }
                Some(ended) = self.running.join_next() => self.worker_ended(ended),
                Some(_) = self.writes.join_next() => continue,
            }
            if self.listed.is_none() {
                self.schedule();
            }
        }
    }

    fn take(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed = Some(HashSet::new()),
            watcher::Event::InitApply(pod) => {
                if let (Some(listed), Some(uid)) = (&mut self.listed, &pod.metadata.uid) {
                    listed.insert(uid.clone());
                }
                self.see(pod);
            }
            watcher::Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.forget_all_but(&listed);
                }
            }
            watcher::Event::Apply(pod) => self.see(pod),
            watcher::Event::Delete(pod) => {
                if let Some(uid) = &pod.metadata.uid {
                    self.forget(uid);
                }
            }
        }
    }

    /// A Pod as it is now.
    fn see(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let spec = pod.spec.as_ref();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_over = matches!(phase, Some("Succeeded" | "Failed"));
        let is_deleted = pod.metadata.deletion_timestamp.is_some();
        match spec.and_then(|spec| spec.node_name.as_deref()) {
            Some(node) if node != self.context.node => {
                self.queue.release(&uid);
            }
            Some(_) if is_over => {
                self.queue.release(&uid);
                self.done.remove(&uid);
                if is_deleted && !self.workers.contains_key(&uid) {
                    self.delete(pod);
                }
            }
            Some(_) => self.see_bound(pod, uid),
            None if is_over || is_deleted => {
                self.queue.release(&uid);
                self.elsewhere.remove(&uid);
                if is_deleted {
                    self.delete(pod);
                }
            }
            None => self.see_unbound(&pod, uid),
        }
    }

    fn see_unbound(&mut self, pod: &Pod, uid: Uid) {
        let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
        if gates.is_some_and(|gates| !gates.is_empty()) {
            return;
        }
        let (namespace, name) = names(pod);
        match fit::requests(pod) {
            Ok(wanted) if let Some(refusal) = placement::mismatch(pod, &self.machine) => {
                self.elsewhere.insert(uid.clone(), pod.clone());
                let waiting = Waiting {
                    uid,
                    namespace,
                    name,
                    wanted,
                    told: None,
                };
                self.queue.refuse(waiting, refusal);
            }
            Ok(wanted) => {
                let created = pod
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
                let waiting = Waiting {
                    uid,
                    namespace,
                    name,
                    wanted,
                    told: None,
                };
                self.queue.wait(waiting, created);
            }
            // The API lets no such Pod in.
            Err(error) => tracing::warn!(pod.name = name, %error, "a Pod asks for an amount that is none"),
        }
    }

    /// This machine has other labels: Pods may want it now.
    fn see_labels(&mut self, node: Node) {
        let labels = node.metadata.labels.unwrap_or_default();
        if labels == self.machine.labels {
            return;
        }
        self.machine.labels = labels;
        for (uid, pod) in std::mem::take(&mut self.elsewhere) {
            self.queue.release(&uid);
            self.see_unbound(&pod, uid);
        }
    }

    fn see_bound(&mut self, pod: Pod, uid: Uid) {
        self.elsewhere.remove(&uid);
        let (namespace, name) = names(&pod);
        let holder = Holder {
            name: format!("{namespace}/{name}"),
            amounts: fit::requests(&pod).unwrap_or_default(),
        };
        self.queue.hold(&uid, holder);
        let wanted = control(&pod);
        if let Some(control) = self.workers.get(&uid) {
            control.send_if_modified(|current| {
                let is_news = *current != wanted && *current != Control::Gone && wanted != Control::Run;
                if is_news {
                    *current = wanted;
                }
                is_news
            });
        } else if !self.done.contains(&uid) {
            self.context.gpus.adopt(&uid, &self.context.pod_dir(&uid));
            let (sender, receiver) = watch::channel(wanted);
            self.workers.insert(uid.clone(), sender);
            let context = Arc::clone(&self.context);
            self.running.spawn(async move {
                worker::run(context, Arc::new(pod), receiver).await;
                uid
            });
        } else if wanted != Control::Run {
            self.delete(pod);
        }
    }

    fn worker_ended(&mut self, ended: Result<Uid, tokio::task::JoinError>) {
        let Ok(uid) = ended else {
            tracing::error!("a Pod's worker was lost: its processes go on, and the next start takes them up");
            return;
        };
        self.workers.remove(&uid);
        if self.gone.remove(&uid) {
            self.clean(&uid);
        } else {
            self.done.insert(uid);
        }
    }

    /// A Pod is gone from the API.
    fn forget(&mut self, uid: &str) {
        self.queue.release(uid);
        self.elsewhere.remove(uid);
        self.told.remove(uid);
        self.done.remove(uid);
        if let Some(control) = self.workers.get(uid) {
            self.gone.insert(uid.to_owned());
            control.send_replace(Control::Gone);
        } else {
            self.clean(uid);
        }
    }

    /// The watch started over and listed these: others went away meanwhile, or while no node was there.
    fn forget_all_but(&mut self, listed: &HashSet<Uid>) {
        let known = self.queue.uids().chain(self.workers.keys()).chain(&self.done);
        let unlisted: HashSet<Uid> = known.filter(|uid| !listed.contains(*uid)).cloned().collect();
        for uid in &unlisted {
            self.forget(uid);
        }
        let left = std::fs::read_dir(pods(&self.context.data_dir))
            .into_iter()
            .flatten()
            .flatten();
        for uid in left.filter_map(|entry| entry.file_name().into_string().ok()) {
            if !listed.contains(&uid) && !self.workers.contains_key(&uid) && !uid.starts_with('.') {
                self.clean(&uid);
            }
        }
    }

    /// Ends what may still run of a Pod that nobody knows any more, and removes its folder.
    fn clean(&mut self, uid: &str) {
        let folder = self.context.pod_dir(uid);
        let memory = self.context.memory_dir(uid);
        self.context.gpus.release(uid);
        self.context.addresses.release(uid);
        self.writes.spawn(async move {
            for run in runs(&folder).await {
                match runtime::adopt(run).await {
                    Found::Run(mut run) => drop(run.kill().await),
                    Found::Nothing => {}
                    Found::Unknown(why) => {
                        // The next node looks again.
                        tracing::warn!(why, folder = %folder.display(), "a Pod's container may still run");
                        return;
                    }
                }
            }
            let removed = tokio::task::spawn_blocking(move || {
                // The one on disk goes last: it is what tells the next node that there is something to remove.
                for folder in [&memory, &folder] {
                    if let Err(error) = folders::remove_tree(folder) {
                        tracing::warn!(%error, folder = %folder.display(), "a Pod's folder was not removed");
                    }
                }
                // Ours goes with its last Pod's.
                memory.parent().map(std::fs::remove_dir)
            });
            let _ = removed.await;
        });
    }

    fn delete(&mut self, pod: Pod) {
        let client = self.context.client.clone();
        self.writes.spawn(async move {
            worker::delete_now(&client, &pod).await;
        });
    }

    fn schedule(&mut self) {
        let plan = self.queue.plan();
        for pod in plan.bind {
            let told = self.told.remove(&pod.uid);
            self.writes.spawn(bind(Arc::clone(&self.context), pod, told));
        }
        if plan.tell.is_empty() {
            return;
        }
        let context = Arc::clone(&self.context);
        let tell_all: Vec<_> = plan
            .tell
            .into_iter()
            .map(|(pod, refusal)| {
                let is_bound = Arc::clone(self.told.entry(pod.uid.clone()).or_default());
                (pod, refusal, is_bound)
            })
            .collect();
        self.writes.spawn(async move {
            for (pod, refusal, is_bound) in tell_all {
                let is_bound = is_bound.lock().await;
                if !*is_bound {
                    tell(&context, &pod, &refusal).await;
                }
            }
        });
    }
}

fn names(pod: &Pod) -> (String, String) {
    let metadata = &pod.metadata;
    let namespace = metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    (namespace, metadata.name.clone().unwrap_or_default())
}

fn control(pod: &Pod) -> Control {
    if pod.metadata.deletion_timestamp.is_none() {
        return Control::Run;
    }
    let of_spec = || {
        pod.spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds)
    };
    let grace = pod
        .metadata
        .deletion_grace_period_seconds
        .or_else(of_spec)
        .unwrap_or(DEFAULT_GRACE);
    Control::Delete(Duration::from_secs(u64::try_from(grace).unwrap_or(0)))
}

/// Every run of a Pod that has a directory.
async fn runs(folder: &std::path::Path) -> Vec<RunDir> {
    let folder = folder.to_path_buf();
    let found = tokio::task::spawn_blocking(move || {
        let entries = |folder: &std::path::Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
        let containers: Vec<_> = entries(&folder).map(|entry| entry.path()).collect();
        containers
            .iter()
            .flat_map(|container| entries(container))
            .map(|entry| RunDir(entry.path()))
            .filter(|run| run.claimed().is_some())
            .collect()
    });
    found.await.unwrap_or_default()
}

/// Binds a Pod to this machine. What it holds stays held until the watch says that it is gone or elsewhere.
async fn bind(context: Arc<Context>, pod: Waiting, told: Option<Arc<Mutex<bool>>>) {
    if let Some(is_bound) = told {
        *is_bound.lock().await = true;
    }
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &pod.namespace);
    let binding = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid },
        "target": { "apiVersion": "v1", "kind": "Node", "name": context.node },
    });
    let mut pause = FIRST_PAUSE;
    loop {
        let bound: Result<serde_json::Value, kube::Error> = api
            .create_subresource("binding", &pod.name, &PostParams::default(), &binding)
            .await;
        match bound {
            Ok(_) => return coracle_breakpoint::at("node.bound"),
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {
                tracing::debug!(pod.name = pod.name, %error, "a Pod is gone, or bound already");
                return;
            }
            Err(error) => tracing::warn!(
                pod.name = pod.name,
                error = &error as &dyn std::error::Error,
                "a Pod was not bound to this machine: trying again"
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Writes why a Pod waits into its condition, and an event.
async fn tell(context: &Context, pod: &Waiting, refusal: &Refusal) {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &pod.namespace);
    let condition = status::unscheduled(refusal.reason, &refusal.message, Timestamp::now());
    let patch = serde_json::json!({
        "metadata": { "uid": pod.uid },
        "status": { "phase": "Pending", "conditions": [condition] },
    });
    match api
        .patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Ok(_) => {}
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => return,
        Err(error) => tracing::warn!(
            pod.name = pod.name,
            error = &error as &dyn std::error::Error,
            "a Pod's condition was not written"
        ),
    }
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name.clone()),
        namespace: Some(pod.namespace.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    };
    let message = format!("{}: {}", refusal.reason, refusal.message);
    context
        .events
        .object(about, Kind::Warning, "FailedScheduling", message);
}
