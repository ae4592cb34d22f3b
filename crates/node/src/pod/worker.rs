//! The actor that sees one Pod through its life on this machine.
//!
//! It starts the containers in order, gathers what they do, and has the status written: once for each change, the
//! latest winning when changes come faster than writes. It ends when no container will run again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use coracle_api::reason::{Reason, chain};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Wanted, PersistentVolumeClaim, Pod, PodStatus};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
};

use super::{
    container::{self, Job, Stop},
    context::Context,
    env::{self, Facts},
    ignored::ignored,
    objects::{self, Objects, Reference},
    status::{self, CONTAINER_CREATING, Container, Observed, POD_INITIALIZING, RestartPolicy, State},
    tokens,
    volumes::{self, Places, Ready},
};
use crate::runtime::run_dir::Failure;
use crate::{events::Kind, network};

/// The pauses between attempts to write a status.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often folders with a limit are measured, as in kubelet.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// What the node wants of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// Run the Pod.
    Run,
    /// The Pod is being deleted: end it with this much grace, then delete it.
    Delete(Duration),
    /// The Pod is gone from the API: end it at once, and tell nobody.
    Gone,
}

/// What a Pod's containers share: its objects and volumes, made when the first container needs them.
#[derive(Debug, Default)]
pub(crate) struct Setups(Mutex<Option<Arc<Setup>>>);

/// The Pod's objects, and its volumes on this machine.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) objects: Objects,
    pub(crate) volumes: BTreeMap<String, Ready>,
}

/// Why there is no setup.
pub(crate) enum Unready {
    /// There can be none.
    Failed(Failure),
    /// Something is missing.
    Missing {
        /// What, in a sentence.
        what: String,
        /// Ends when it is worth trying again.
        wait: BoxFuture<'static, ()>,
    },
}

impl Setups {
    pub(crate) async fn get(
        &self,
        context: &Arc<Context>,
        pod: &Arc<Pod>,
        wanted: &Wanted,
    ) -> Result<Arc<Setup>, Unready> {
        let mut made = self.0.lock().await;
        if let Some(setup) = &*made {
            return Ok(Arc::clone(setup));
        }
        let setup = Arc::new(set_up(context, pod, wanted).await?);
        *made = Some(Arc::clone(&setup));
        Ok(setup)
    }

    /// The folder that holds more than it may, in a sentence.
    async fn overfull(&self) -> Option<String> {
        let setup = self.0.try_lock().ok()?.clone()?;
        let measured = tokio::task::spawn_blocking(move || {
            setup.volumes.iter().find_map(|(name, volume)| {
                let (folder, limit) = volume.limited()?;
                let used = volumes::used(&folder);
                (used > limit).then(|| {
                    format!("the emptyDir volume `{name}` holds {used} bytes, more than its limit of {limit}")
                })
            })
        });
        measured.await.ok().flatten()
    }
}

fn is_sidecar(wanted: &Wanted) -> bool {
    wanted.restart_policy.as_deref() == Some("Always")
}

async fn set_up(context: &Arc<Context>, pod: &Arc<Pod>, wanted: &Wanted) -> Result<Setup, Unready> {
    let references = objects::references(pod);
    let has_volumes = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.volumes.as_ref().is_some_and(|all| !all.is_empty()));
    let namespace = pod
        .metadata
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let client = &context.client;
    for claim in objects::ephemeral_claims(pod) {
        make_claim(client, &namespace, &claim).await?;
    }
    let mut objects = Objects::fetch(client, &namespace, &references)
        .await
        .map_err(|error| Unready::Missing {
            what: format!("the Kubernetes API does not give what the Pod refers to: {error}"),
            wait: tokio::time::sleep(LONGEST_PAUSE).boxed(),
        })?;
    let wait_for = |object: Reference| {
        let seen = objects.version(&object).map(ToOwned::to_owned);
        let (client, namespace) = (client.clone(), namespace.clone());
        async move {
            if let Err(error) = objects::changed(&client, &namespace, &object, seen.as_deref()).await {
                tracing::debug!(%error, "cannot watch what a Pod waits for");
                tokio::time::sleep(LONGEST_PAUSE).await;
            }
        }
        .boxed()
    };
    let address = context.address(pod).to_string();
    let facts = Facts {
        pod,
        node: &context.node,
        address: &address,
        allocatable: &context.allocatable,
    };
    if let Err(env::Error::Missing(missing)) = env::environment(Vec::new(), wanted, &facts, &objects) {
        return Err(Unready::Missing {
            what: missing.to_string(),
            wait: wait_for(missing.object),
        });
    }
    if !has_volumes {
        return Ok(Setup {
            objects,
            volumes: BTreeMap::new(),
        });
    }
    for wish in tokens::wishes(pod) {
        let token = tokens::ask(client, pod, &wish)
            .await
            .map_err(|error| Unready::Missing {
                what: format!("volume `{}`: the API gives no token: {error}", wish.volume),
                wait: tokio::time::sleep(LONGEST_PAUSE).boxed(),
            })?;
        objects.put_token(&wish.volume, &wish.path, token);
    }
    let (laid_out, objects) = {
        let (context, pod) = (Arc::clone(context), Arc::clone(pod));
        tokio::task::spawn_blocking(move || (lay_out(&context, &pod, &objects), objects))
            .await
            .map_err(|error| failed(format!("the Pod's volumes were not made: {error}")))?
    };
    match laid_out {
        Ok(volumes) => Ok(Setup { objects, volumes }),
        Err(volumes::Error::Missing { volume, missing }) => {
            let what = format!("volume `{volume}`: {missing}");
            let seen = objects.version(&missing.object).map(ToOwned::to_owned);
            let (client, object) = (client.clone(), missing.object);
            let wait = async move {
                if objects::changed(&client, &namespace, &object, seen.as_deref())
                    .await
                    .is_err()
                {
                    tokio::time::sleep(LONGEST_PAUSE).await;
                }
            };
            Err(Unready::Missing {
                what,
                wait: wait.boxed(),
            })
        }
        Err(error) => Err(failed(chain(&error))),
    }
}

fn failed(message: String) -> Unready {
    Unready::Failed(Failure {
        reason: Reason::VolumeNotReady,
        message,
    })
}

fn lay_out(
    context: &Context,
    pod: &Pod,
    objects: &Objects,
) -> Result<BTreeMap<String, Ready>, volumes::Error> {
    let address = context.address(pod).to_string();
    let facts = Facts {
        pod,
        node: &context.node,
        address: &address,
        allocatable: &context.allocatable,
    };
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let places = Places {
        pod: &context.pod_dir(uid),
        memory: &context.memory_dir(uid),
        claims: &context.data_dir.join("volumes"),
        host_paths: &context.host_paths,
        hidden: &context.data_dir,
    };
    volumes::lay_out(pod, &places, &facts, objects)
}

/// Makes the claim of a generic ephemeral volume, unless it is there.
async fn make_claim(client: &Client, namespace: &str, claim: &PersistentVolumeClaim) -> Result<(), Unready> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    match api.create(&PostParams::default(), claim).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
        Err(kube::Error::Api(error)) if (400..500).contains(&error.code) => Err(failed(format!(
            "the claim `{name}` cannot be made: {}",
            error.message
        ))),
        Err(error) => Err(Unready::Missing {
            what: format!("the claim `{name}` was not made: {error}"),
            wait: tokio::time::sleep(LONGEST_PAUSE).boxed(),
        }),
    }
}

/// Writes down who has which name, for the Pod's containers to see.
async fn keep_names(context: &Arc<Context>, pod: &Arc<Pod>) {
    if context.mode.sandbox().is_none() {
        return;
    }
    let (context, pod) = (Arc::clone(context), Arc::clone(pod));
    let kept = tokio::task::spawn_blocking(move || {
        let folder = context.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
        context.names.keep(&pod, context.address(&pod), folder)
    });
    if let Ok(Err(error)) = kept.await {
        tracing::warn!(%error, "a Pod runs without the names of Services");
    }
}

/// Sees a Pod through. Returns when nothing of it runs and the API knows.
pub(crate) async fn run(context: Arc<Context>, pod: Arc<Pod>, control: watch::Receiver<Control>) {
    keep_names(&context, &pod).await;
    let (stop, _) = watch::channel(Stop::No);
    let spec = pod.spec.clone().unwrap_or_default();
    let init: Vec<Wanted> = spec.init_containers.unwrap_or_default();
    let previous = pod.status.as_ref();
    let started_at = previous
        .and_then(|status| status.start_time.as_ref())
        .map(|time| time.0);
    let waiting = |reason: &str| {
        let reason = reason.to_owned();
        move |wanted: &Wanted| Container {
            name: wanted.name.clone(),
            image: wanted.image.clone().unwrap_or_default(),
            image_id: String::new(),
            container_id: None,
            restarts: 0,
            is_sidecar: is_sidecar(wanted),
            has_started: false,
            is_ready: false,
            state: State::Waiting {
                reason: reason.clone(),
                message: None,
            },
            last: None,
        }
    };
    let reason = if init.is_empty() {
        CONTAINER_CREATING
    } else {
        POD_INITIALIZING
    };
    let worker = Worker {
        observed: Observed {
            init: init.iter().map(waiting(CONTAINER_CREATING)).collect(),
            containers: spec.containers.iter().map(waiting(reason)).collect(),
            restart_policy: RestartPolicy::parse(spec.restart_policy.as_deref()),
            address: context.address(&pod).to_string(),
            started_at: started_at.unwrap_or_else(Timestamp::now),
            ended: None,
            is_stopping: false,
        },
        deadline: spec
            .active_deadline_seconds
            .and_then(|seconds| u64::try_from(seconds).ok()),
        setups: Arc::default(),
        jobs: JoinSet::new(),
        sidecars: 0,
        init: init.into_iter().enumerate().collect(),
        containers: spec.containers,
        context,
        pod,
        stop,
        control,
    };
    worker.run().await;
}

struct Worker {
    context: Arc<Context>,
    pod: Arc<Pod>,
    observed: Observed,
    /// Seconds from the start.
    deadline: Option<u64>,
    setups: Arc<Setups>,
    /// Each tells in the end whether it was a sidecar.
    jobs: JoinSet<bool>,
    /// Sidecars at work.
    sidecars: usize,
    /// Init containers that were not started yet.
    init: VecDeque<(usize, Wanted)>,
    /// The others, until they are started.
    containers: Vec<Wanted>,
    stop: watch::Sender<Stop>,
    control: watch::Receiver<Control>,
}

impl Worker {
    async fn run(mut self) {
        let (updates, mut updated) = mpsc::unbounded_channel();
        let (writer, to_write) = watch::channel(None);
        let writing = tokio::spawn(write(
            self.context.client.clone(),
            Arc::clone(&self.pod),
            to_write,
        ));
        if self.context.mode.sandbox().is_none() {
            self.context.events.pod(
                &self.pod,
                Kind::Warning,
                "NotIsolated",
                "this machine gives us no namespaces, so the Pod's processes see and may change the files of the \
                 server's user, share /tmp and see other processes, and names of Services and \
                 Pods mean nothing to them (see `coracle doctor`)",
            );
        }
        if !self.context.moves_servers && !network::is_on_host(&self.pod) {
            self.context.events.pod(
                &self.pod,
                Kind::Warning,
                "PortsShared",
                "this machine does not let us look after the Pod's servers: two Pods cannot listen at the same port \
                 (see `coracle doctor`)",
            );
        }
        for sentence in ignored(&self.pod) {
            self.context
                .events
                .pod(&self.pod, Kind::Warning, "SettingIgnored", sentence);
        }
        let mut last: Option<PodStatus> = self.pod.status.clone();
        let deadline = self.until_deadline();
        let mut deadline = std::pin::pin!(deadline);
        let mut is_late = false;
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let may_be_evicted = self.has_limited_folders();
        let tokens = tokens::keep_fresh(Arc::clone(&self.context), Arc::clone(&self.pod));
        let mut tokens = std::pin::pin!(tokens.fuse());
        self.obey();
        self.advance(&updates);
        loop {
            while let Ok((index, container)) = updated.try_recv() {
                self.note(index, container);
            }
            let status = status::status(&self.observed, last.as_ref(), Timestamp::now());
            let is_news = self.observed != self.initial() || self.jobs.is_empty();
            if is_news && last.as_ref() != Some(&status) {
                last = Some(status.clone());
                // The writer ends before us only if the Pod is gone, and then there is nobody to tell.
                let _ = writer.send(Some(status));
            }
            if self.jobs.is_empty() {
                break;
            }
            tokio::select! {
                Some((index, container)) = updated.recv() => {
                    self.note(index, container);
                    self.advance(&updates);
                }
                Some(ended) = self.jobs.join_next() => {
                    self.sidecars -= usize::from(ended.unwrap_or_default());
                    while let Ok((index, container)) = updated.try_recv() {
                        self.note(index, container);
                    }
                    self.advance(&updates);
                }
                Ok(()) = self.control.changed() => self.obey(),
                () = &mut tokens => {}
                () = &mut deadline, if !is_late => {
                    is_late = true;
                    self.end_late();
                }
                _ = housekeeping.tick(), if may_be_evicted => {
                    if let Some(message) = self.setups.overfull().await {
                        self.end_pod("Evicted", message);
                    }
                }
            }
        }
        drop(writer);
        let _ = writing.await;
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        self.context.gpus.release(uid);
        self.context.addresses.release(uid);
        self.context.names.forget(uid);
        let is_deleted = matches!(*self.control.borrow(), Control::Delete(_));
        if is_deleted {
            delete_now(&self.context.client, &self.pod).await;
        }
    }

    /// What a Pod looks like of which nothing is known yet: not worth a write.
    fn initial(&self) -> Observed {
        let mut initial = self.observed.clone();
        let reason = if initial.init.is_empty() {
            CONTAINER_CREATING
        } else {
            POD_INITIALIZING
        };
        let set = |containers: &mut Vec<Container>, reason: &str| {
            for container in containers {
                container.state = State::Waiting {
                    reason: reason.to_owned(),
                    message: None,
                };
            }
        };
        set(&mut initial.init, CONTAINER_CREATING);
        set(&mut initial.containers, reason);
        initial
    }

    fn note(&mut self, index: usize, container: Container) {
        let init = self.observed.init.len();
        let place = match index.checked_sub(init) {
            None => self.observed.init.get_mut(index),
            Some(index) => self.observed.containers.get_mut(index),
        };
        if let Some(place) = place {
            *place = container;
        }
    }

    /// Starts what is to start next, if nothing but sidecars runs; ends those when there is nothing more to start.
    fn advance(&mut self, updates: &mpsc::UnboundedSender<(usize, Container)>) {
        if self.jobs.len() > self.sidecars || *self.stop.borrow() == Stop::Now {
            return;
        }
        let started = self.observed.init.len() - self.init.len();
        let mut is_awaited = false;
        for container in &self.observed.init[..started] {
            match &container.state {
                State::Terminated(end) if end.exit_code == 0 || container.is_sidecar => {}
                State::Running { .. } if container.is_sidecar && container.has_started => {}
                State::Running { .. } | State::Waiting { .. } if container.is_sidecar => is_awaited = true,
                // It failed: nothing comes after it.
                _ => return self.end_sidecars(),
            }
        }
        if is_awaited && self.sidecars > 0 {
            return;
        }
        if let Some((index, wanted)) = self.init.pop_front() {
            self.start(index, wanted, true, updates);
            return;
        }
        if self.containers.is_empty() {
            return self.end_sidecars();
        }
        let first = self.observed.init.len();
        for (index, wanted) in std::mem::take(&mut self.containers).into_iter().enumerate() {
            self.start(first + index, wanted, false, updates);
        }
    }

    fn start(
        &mut self,
        index: usize,
        wanted: Wanted,
        is_init: bool,
        updates: &mpsc::UnboundedSender<(usize, Container)>,
    ) {
        let mut all = self.observed.init.iter().chain(&self.observed.containers);
        let Some(seen) = all.nth(index).cloned() else {
            return;
        };
        let is_sidecar = seen.is_sidecar;
        self.sidecars += usize::from(is_sidecar);
        let job = Job {
            context: Arc::clone(&self.context),
            pod: Arc::clone(&self.pod),
            setups: Arc::clone(&self.setups),
            wanted,
            is_init: is_init && !is_sidecar,
            policy: if is_sidecar {
                RestartPolicy::Always
            } else {
                self.observed.restart_policy
            },
            index,
            updates: updates.clone(),
            stop: self.stop.subscribe(),
        };
        self.jobs.spawn(async move {
            container::run(job, seen).await;
            is_sidecar
        });
    }

    fn end_sidecars(&mut self) {
        if self.sidecars > 0 && *self.stop.borrow() == Stop::No {
            self.stop.send_replace(Stop::Gracefully(self.grace()));
        }
    }

    fn has_limited_folders(&self) -> bool {
        let spec = self.pod.spec.iter();
        let mut volumes = spec.flat_map(|spec| spec.volumes.as_deref().unwrap_or_default());
        volumes.any(|volume| {
            let folder = volume.empty_dir.as_ref();
            folder.is_some_and(|folder| folder.size_limit.is_some())
        })
    }

    fn obey(&mut self) {
        let stop = match *self.control.borrow_and_update() {
            Control::Run => return,
            Control::Delete(grace) => Stop::Gracefully(grace),
            Control::Gone => Stop::Now,
        };
        if !self.observed.is_stopping {
            self.context.events.pod(
                &self.pod,
                Kind::Normal,
                "Killing",
                "stopping the Pod's containers",
            );
        }
        self.observed.is_stopping = true;
        self.stop.send_replace(stop);
    }

    fn until_deadline(&self) -> BoxFuture<'static, ()> {
        let Some(seconds) = self.deadline else {
            return std::future::pending().boxed();
        };
        let since = Timestamp::now().duration_since(self.observed.started_at);
        let since = Duration::try_from(since).unwrap_or_default();
        tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(since)).boxed()
    }

    fn end_late(&mut self) {
        let seconds = self.deadline.unwrap_or_default();
        let message = format!("the Pod was active for longer than its deadline of {seconds} s");
        self.end_pod("DeadlineExceeded", message);
    }

    /// Ends the Pod for a reason of its own. The first one counts.
    fn end_pod(&mut self, reason: &str, message: String) {
        if self.observed.ended.is_some() {
            return;
        }
        self.context
            .events
            .pod(&self.pod, Kind::Warning, reason, message.clone());
        self.observed.ended = Some((reason.to_owned(), message));
        if *self.stop.borrow() == Stop::No {
            self.stop.send_replace(Stop::Gracefully(self.grace()));
        }
    }

    fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        let grace = spec
            .and_then(|spec| spec.termination_grace_period_seconds)
            .unwrap_or(30);
        Duration::from_secs(u64::try_from(grace).unwrap_or(0))
    }
}

/// Writes the latest status until the worker ends or the Pod is gone.
async fn write(client: Client, pod: Arc<Pod>, mut statuses: watch::Receiver<Option<PodStatus>>) {
    let metadata = &pod.metadata;
    let api: Api<Pod> = Api::namespaced(client, metadata.namespace.as_deref().unwrap_or("default"));
    let name = metadata.name.as_deref().unwrap_or_default();
    while statuses.changed().await.is_ok() {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(status) = statuses.borrow_and_update().clone() else {
                break;
            };
            // The UID makes sure that it is this Pod, not a later one of its name.
            let patch =
                serde_json::json!({ "metadata": { "uid": metadata.uid }, "status": patched(&status) });
            match api
                .patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))
                .await
            {
                Ok(_) => {
                    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
                    coracle_breakpoint::at(if is_over {
                        "node.end-written"
                    } else {
                        "node.status-written"
                    });
                    break;
                }
                Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {
                    tracing::debug!(pod.name = name, %error, "the Pod is gone");
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        pod.name = name,
                        error = &error as &dyn std::error::Error,
                        "the Pod's status was not written: trying again"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// A status as a strategic merge patch: it leaves other people's conditions alone, and takes away what ours no longer
/// say.
fn patched(status: &PodStatus) -> serde_json::Value {
    let mut patch = serde_json::json!(status);
    let conditions = patch
        .get_mut("conditions")
        .and_then(serde_json::Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = serde_json::Value::Null;
            }
        }
    }
    patch
}

/// Takes a Pod out of the API of which nothing runs any more.
pub(crate) async fn delete_now(client: &Client, pod: &Pod) {
    let metadata = &pod.metadata;
    let api: Api<Pod> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or("default"));
    let name = metadata.name.as_deref().unwrap_or_default();
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(name, &now).await {
        Ok(_) => {}
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {}
        Err(error) => {
            tracing::warn!(
                pod.name = name,
                error = &error as &dyn std::error::Error,
                "a Pod that was ended was not taken out of the API"
            );
        }
    }
}
