//! The actor that sees one Pod through its life on this machine.
//!
//! It starts the containers in order, gathers what they do, and has the status written: once for each change, the
//! latest winning when changes come faster than writes. It ends when no container will run again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use coracle_api::reason::Reason;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Wanted, PersistentVolumeClaim, Pod, PodStatus};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
};

use super::{
    container::{self, Job, Stop},
    context::{ADDRESS, Context},
    env::{self, Facts},
    objects::{self, Objects, Reference},
    status::{self, CONTAINER_CREATING, Container, Observed, POD_INITIALIZING, RestartPolicy, State},
    volumes::{self, Places, Ready},
};
use crate::{
    events::Kind,
    runtime::process::{exec::chain, spec::Failure},
};

/// The pauses between attempts to write a status.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
    let objects = Objects::fetch(client, &namespace, &references)
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
    let facts = Facts {
        pod,
        node: &context.node,
        address: ADDRESS,
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
    let (laid_out, objects) = {
        let (context, pod) = (Arc::clone(context), Arc::clone(pod));
        tokio::task::spawn_blocking(move || (lay_out(&context, &pod, &objects), objects))
            .await
            .map_err(|error| failed(format!("the Pod's volumes were not made: {error}")))?
    };
    match laid_out {
        Ok(volumes) => {
            bind_claims(client, &namespace, &references, &objects).await;
            Ok(Setup { objects, volumes })
        }
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
    let facts = Facts {
        pod,
        node: &context.node,
        address: ADDRESS,
        allocatable: &context.allocatable,
    };
    let places = Places {
        pod: &context.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default()),
        claims: &context.data_dir.join("volumes"),
        host_paths: &context.host_paths,
        hidden: &context.data_dir,
    };
    volumes::lay_out(pod, &places, &facts, objects)
}

/// This machine gives every claim a folder, so a claim that a Pod uses is bound.
async fn bind_claims(
    client: &Client,
    namespace: &str,
    references: &std::collections::BTreeSet<Reference>,
    objects: &Objects,
) {
    for reference in references {
        let Reference::Claim(name) = reference else {
            continue;
        };
        let Ok(claim) = objects.claim(name) else { continue };
        if claim
            .status
            .as_ref()
            .is_some_and(|status| status.phase.as_deref() == Some("Bound"))
        {
            continue;
        }
        let spec = claim.spec.as_ref();
        let status = serde_json::json!({"status": {
            "phase": "Bound",
            "accessModes": spec.and_then(|spec| spec.access_modes.as_ref()),
            "capacity": spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref()),
        }});
        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        if let Err(error) = api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
        {
            tracing::debug!(%error, claim = name, "a claim was not marked as bound");
        }
    }
}

/// Sees a Pod through. Returns when nothing of it runs and the API knows.
pub(crate) async fn run(context: Arc<Context>, pod: Arc<Pod>, control: watch::Receiver<Control>) {
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
            address: ADDRESS.to_owned(),
            started_at: started_at.unwrap_or_else(Timestamp::now),
            ended: None,
            is_stopping: false,
        },
        deadline: spec
            .active_deadline_seconds
            .and_then(|seconds| u64::try_from(seconds).ok()),
        setups: Arc::default(),
        jobs: JoinSet::new(),
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
    jobs: JoinSet<()>,
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
                 server's user, share /tmp and see other processes (see `coracle doctor`)",
            );
        }
        let mut last: Option<PodStatus> = self.pod.status.clone();
        let deadline = self.until_deadline();
        let mut deadline = std::pin::pin!(deadline);
        let mut is_late = false;
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
                Some((index, container)) = updated.recv() => self.note(index, container),
                Some(_) = self.jobs.join_next() => {
                    while let Ok((index, container)) = updated.try_recv() {
                        self.note(index, container);
                    }
                    self.advance(&updates);
                }
                Ok(()) = self.control.changed() => self.obey(),
                () = &mut deadline, if !is_late => {
                    is_late = true;
                    self.end_late();
                }
            }
        }
        drop(writer);
        let _ = writing.await;
        self.context
            .gpus
            .release(self.pod.metadata.uid.as_deref().unwrap_or_default());
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

    /// Starts what is to start next, if nothing runs.
    fn advance(&mut self, updates: &mpsc::UnboundedSender<(usize, Container)>) {
        if !self.jobs.is_empty() || *self.stop.borrow() == Stop::Now {
            return;
        }
        let started = self.observed.init.len() - self.init.len();
        let is_clear = self.observed.init[..started]
            .iter()
            .all(|container| matches!(&container.state, State::Terminated(end) if end.exit_code == 0));
        if !is_clear {
            return;
        }
        if let Some((index, wanted)) = self.init.pop_front() {
            self.start(index, wanted, true, updates);
            return;
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
        let job = Job {
            context: Arc::clone(&self.context),
            pod: Arc::clone(&self.pod),
            setups: Arc::clone(&self.setups),
            wanted,
            is_init,
            policy: self.observed.restart_policy,
            index,
            updates: updates.clone(),
            stop: self.stop.subscribe(),
        };
        self.jobs.spawn(container::run(job, seen));
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
        self.context
            .events
            .pod(&self.pod, Kind::Warning, "DeadlineExceeded", message.clone());
        self.observed.ended = Some(("DeadlineExceeded".to_owned(), message));
        let grace = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds)
            .unwrap_or(30);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        if *self.stop.borrow() == Stop::No {
            self.stop.send_replace(Stop::Gracefully(grace));
        }
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
            let patch = serde_json::json!({ "metadata": { "uid": metadata.uid }, "status": status });
            match api
                .patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
            {
                Ok(_) => break,
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
