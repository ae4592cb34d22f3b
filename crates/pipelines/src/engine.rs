//! The service: wakes the run that a changed row or Pod concerns.
//!
//! One task per unfinished run owns that run's state and works its events off in order, so that
//! runs never wait for each other. Changes of rows come from the store, changes of Pods from one
//! watch, and what a run has yet to hear is in its inbox. Losing an event is harmless: after a lag
//! or a restart of the watch, rows and Pods are read again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use coracle_api::{id::RunId, labels, state::RuntimeState};
use coracle_artifacts::Artifacts;
use coracle_reconcile::retry::until_done;
use coracle_store::records::{Change, Records};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::broadcast, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

mod actor;
mod inbox;
mod steady;
mod turns;

use self::{
    actor::{Actor, Ended},
    inbox::{AttemptKey, Inbox, News},
    turns::{Turn, Turns},
};
use crate::{
    Clock,
    run::{
        apply::Tools,
        observe::{AttemptRef, PodEnd, PodView},
    },
    task::container::Settings,
};

/// Finished runs whose Pods stay for `kubectl` to see. Logs and results are kept elsewhere.
const RUNS_WITH_PODS: usize = 50;
/// So many runs are at work at once unless it is said otherwise. Each holds its pipeline and its tasks in memory.
pub const MAX_RUNS: usize = 1000;

/// What an engine needs.
pub struct Options {
    /// Where Pods are created and watched.
    pub client: Client,
    /// Where runs and tasks are.
    pub records: Records,
    /// Where artifacts are.
    pub artifacts: Artifacts,
    /// What is the same for all tasks.
    pub settings: Settings,
}

/// Takes runs from PENDING to their end.
pub struct Engine {
    tools: Tools,
    settings: Settings,
    clock: Clock,
    /// Those at work.
    runs: BTreeMap<RunId, Arc<Inbox>>,
    turns: Turns,
    actors: JoinSet<Ended>,
    /// What nothing waits for.
    asides: JoinSet<()>,
    finished: VecDeque<RunId>,
    expiring: BTreeSet<(Instant, RunId)>,
    /// Runs to look at again whose tasks have yet to end.
    again: HashSet<RunId>,
    listed: Option<Listed>,
}

/// What a relist of Pods has shown so far.
#[derive(Default)]
struct Listed {
    attempts: HashMap<RunId, HashSet<AttemptKey>>,
    newest: HashMap<RunId, Timestamp>,
}

impl Engine {
    /// An engine that does nothing before [`Engine::run`].
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options {
            client,
            records,
            artifacts,
            settings,
        } = options;
        let tools = Tools {
            client,
            records,
            artifacts,
            cancel: CancellationToken::new(),
        };
        Self {
            tools,
            settings,
            clock: Arc::new(Timestamp::now),
            runs: BTreeMap::new(),
            turns: Turns::new(MAX_RUNS),
            actors: JoinSet::new(),
            asides: JoinSet::new(),
            finished: VecDeque::new(),
            expiring: BTreeSet::new(),
            again: HashSet::new(),
            listed: None,
        }
    }

    /// An engine that goes by another clock than this machine's.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// An engine that lets so many runs be at work at once; the others are PENDING, and say why.
    #[must_use]
    pub fn with_max_runs(self, runs: usize) -> Self {
        let turns = Turns::new(runs);
        Self { turns, ..self }
    }

    /// Works until `cancel`. Pods go on without the engine; their runs are taken up again at the
    /// next start.
    pub async fn run(mut self, cancel: CancellationToken) {
        self.tools.cancel = cancel.clone();
        let mut changes = self.tools.records.changes();
        let pods: Api<Pod> = self.settings.api(&self.tools.client);
        let watch =
            watcher(pods, watcher::Config::default().labels(&self.settings.selector())).default_backoff();
        let mut watch = std::pin::pin!(watch);
        self.take_up_unfinished().await;
        loop {
            let expires = self.expiring.first().map(|(time, _)| *time);
            // Each is looked at in this order: what an engine does depends on what it hears, and on nothing else.
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                change = changes.recv() => match change {
                    Ok(change) => self.changed(change),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.take_up_unfinished().await;
                        self.runs.values().for_each(|inbox| inbox.tell(|news| news.is_incomplete = true));
                    }
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                event = watch.next() => match event {
                    Some(Ok(event)) => self.watched(event),
                    Some(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "the watch of Pods broke off; it starts again"),
                    None => break,
                },
                Some(ended) = self.actors.join_next(), if !self.actors.is_empty() => match ended {
                    Ok(ended) => self.run_ended(ended),
                    Err(error) => tracing::error!(%error, "a run's task ended by itself; its run goes on after a restart"),
                },
                Some(_) = self.asides.join_next(), if !self.asides.is_empty() => {}
                () = until(expires) => self.forget_expired(),
            }
        }
        self.runs
            .values()
            .for_each(|inbox| inbox.tell(|news| news.is_stopping = true));
        while self.actors.join_next().await.is_some() {}
        while self.asides.join_next().await.is_some() {}
    }

    async fn take_up_unfinished(&mut self) {
        match self.tools.records.unfinished_runs().await {
            Ok(runs) => {
                let is_to_begin = |state: RuntimeState| state == RuntimeState::Pending || state.is_terminal();
                let (to_begin, at_work): (Vec<_>, Vec<_>) =
                    runs.into_iter().partition(|(_, state)| is_to_begin(*state));
                at_work.into_iter().for_each(|(run, _)| self.take_up(run));
                to_begin.into_iter().for_each(|(run, _)| self.begin(run));
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot list the unfinished runs"
                );
            }
        }
    }

    /// Takes a run up when it is its turn.
    fn begin(&mut self, run: RunId) {
        if self.runs.contains_key(&run) {
            return;
        }
        match self.turns.ask(run, self.runs.len()) {
            Turn::Now => self.take_up(run),
            Turn::Known => {}
            Turn::Later(why) => {
                tracing::info!(run.id = %run, reason = %why.reason, "the run waits: {}", why.message);
                let (tools, since) = (self.tools.clone(), (self.clock)());
                self.asides.spawn(async move {
                    if let Err(error) = tools.records.note_wait(run, since, why).await {
                        tracing::warn!(run.id = %run, error = &error as &dyn std::error::Error, "cannot say why the run waits");
                    }
                });
            }
        }
    }

    fn take_up(&mut self, run: RunId) {
        if self.runs.contains_key(&run) {
            return;
        }
        let inbox = Arc::new(Inbox::default());
        self.runs.insert(run, Arc::clone(&inbox));
        let actor = Actor {
            run,
            tools: self.tools.clone(),
            settings: self.settings.clone(),
            clock: Arc::clone(&self.clock),
            inbox,
        };
        self.actors.spawn(actor.work());
    }

    fn tell(&self, run: RunId, add: impl FnOnce(&mut News)) {
        // A run that has just ended does not listen any more, and need not.
        if let Some(inbox) = self.runs.get(&run) {
            inbox.tell(add);
        }
    }

    fn changed(&mut self, change: Change) {
        match change {
            Change::RunCreated(run) => self.begin(run),
            // Who waits need not wait for its turn to end.
            Change::TerminationRequested(run) if self.turns.leave(run) => self.take_up(run),
            Change::TerminationRequested(run) => self.tell(run, |news| news.is_termination_requested = true),
            Change::Reported {
                run_id,
                task_id,
                attempt,
            } => self.tell(run_id, |news| {
                news.reported.insert((task_id, attempt));
            }),
            // Its task is just about to end.
            Change::RetryRequested(run) if self.runs.contains_key(&run) => {
                self.again.insert(run);
            }
            Change::RetryRequested(run) => self.begin(run),
            Change::RunChanged(_) | Change::RecurringRunChanged(_) => {}
            Change::RunDeleted(run) => {
                self.turns.leave(run);
                self.tell(run, |news| news.is_deleted = true);
                if self.runs.contains_key(&run) {
                    self.again.insert(run);
                }
                self.take_up(run);
            }
        }
    }

    fn watched(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed = Some(Listed::default()),
            watcher::Event::InitApply(pod) => {
                if let (Some(attempt), Some(listed)) = (AttemptRef::of(&pod), &mut self.listed) {
                    listed
                        .attempts
                        .entry(attempt.run)
                        .or_default()
                        .insert((attempt.task, attempt.number));
                    if let Some(time) = &pod.metadata.creation_timestamp {
                        let newest = listed.newest.entry(attempt.run).or_insert(time.0);
                        *newest = (*newest).max(time.0);
                    }
                }
                self.observed(&pod, PodView::of(&pod));
            }
            watcher::Event::InitDone => self.relisted(),
            watcher::Event::Apply(pod) => self.observed(&pod, PodView::of(&pod)),
            watcher::Event::Delete(pod) => {
                let view = match PodView::of(&pod) {
                    ended @ PodView::Ended(_) => ended,
                    _ => PodView::Ended(PodEnd::gone()),
                };
                self.observed(&pod, view);
            }
        }
    }

    fn observed(&self, pod: &Pod, view: PodView) {
        if let Some(AttemptRef { run, task, number }) = AttemptRef::of(pod) {
            self.tell(run, |news| news.see((task, number), view));
        }
    }

    fn relisted(&mut self) {
        let Some(mut listed) = self.listed.take() else {
            return;
        };
        for run in self.runs.keys() {
            let attempts = listed.attempts.remove(run).unwrap_or_default();
            self.tell(*run, |news| news.listed = Some(attempts));
        }
        let mut finished: Vec<(Timestamp, RunId)> = listed
            .newest
            .into_iter()
            .filter(|(run, _)| !self.runs.contains_key(run))
            .map(|(run, time)| (time, run))
            .collect();
        finished.sort_unstable();
        self.finished.clear();
        // Each is looked at once more: only its pipeline says how long its Pods may stay.
        for (_, run) in finished {
            self.take_up(run);
        }
    }

    fn run_ended(&mut self, ended: Ended) {
        let Ended {
            run,
            is_deleted,
            expires_at,
        } = ended;
        self.runs.remove(&run);
        if self.again.remove(&run) {
            return self.take_up(run);
        }
        if let Some(next) = self.turns.next(self.runs.len()) {
            self.take_up(next);
        }
        if is_deleted {
            return self.delete_pods(run);
        }
        self.finished.push_back(run);
        let left = expires_at.map(|time| time.duration_since((self.clock)()));
        let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
        self.expiring
            .extend(left.map(|left| (Instant::now() + left, run)));
        self.forget_old_pods();
    }

    /// What finished runs used may be deleted once their pipelines say so.
    fn forget_expired(&mut self) {
        let now = Instant::now();
        while let Some((time, run)) = self.expiring.first().copied() {
            if time > now {
                break;
            }
            self.expiring.remove(&(time, run));
            if !self.runs.contains_key(&run) {
                self.delete_pods(run);
            }
        }
    }

    /// Objects must not grow without bound: the Pods of all but the newest finished runs go.
    fn forget_old_pods(&mut self) {
        while self.finished.len() > RUNS_WITH_PODS {
            if let Some(run) = self.finished.pop_front() {
                self.delete_pods(run);
            }
        }
    }

    /// Deletes a run's Pods, and its workspace with what is in it.
    fn delete_pods(&mut self, run: RunId) {
        let (tools, settings) = (self.tools.clone(), self.settings.clone());
        self.finished.retain(|finished| *finished != run);
        // Nothing waits for it, and after a restart what is left over is found with the Pods.
        self.asides.spawn(async move {
            delete_all(settings.api::<Pod>(&tools.client), &tools, run).await;
            delete_all(settings.api::<PersistentVolumeClaim>(&tools.client), &tools, run).await;
        });
    }
}

/// For ever when there is no time to wait for.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Settings {
    /// The objects of a kind wherever tasks run.
    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.cluster {
            Some(cluster) => Api::namespaced(client.clone(), &cluster.namespace),
            None => Api::all(client.clone()),
        }
    }

    /// Selects the Pods of this server's tasks.
    fn selector(&self) -> String {
        match &self.cluster {
            Some(cluster) => format!("{},{}={}", labels::RUN_ID, labels::SERVER, cluster.server_id),
            None => format!("{},!{}", labels::RUN_ID, labels::SERVER),
        }
    }
}

/// Deletes the objects of a kind that carry a run's label.
async fn delete_all<K>(all: Api<K>, tools: &Tools, run: RunId)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let chosen = ListParams::default().labels(&format!("{}={run}", labels::RUN_ID));
    let list = || all.list_metadata(&chosen);
    let Some(found) = until_done("list the objects of a run", &tools.cancel, list).await else {
        return;
    };
    for object in found {
        let (Some(namespace), Some(name)) = (object.metadata.namespace, object.metadata.name) else {
            continue;
        };
        let objects: Api<K> = Api::namespaced(tools.client.clone(), &namespace);
        let delete = async || match objects.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                Ok(Some(status).filter(|status| status.code != 404))
            }
            other => other.map(|_| None),
        };
        if let Some(Some(status)) = until_done("delete an object of a run", &tools.cancel, delete).await {
            let kind = K::kind(&());
            tracing::warn!(run.id = %run, object.name = %name, "cannot delete a {kind} of a run: {}", status.message);
        }
    }
}
