//! The service: wakes the run that a changed row or Pod concerns.
//!
//! One task per unfinished run owns that run's state and works its events off in order, so that
//! runs never wait for each other. Changes of rows come from the store, changes of Pods from one
//! watch. Losing an event is harmless: after a lag or a restart of the watch, rows and Pods are
//! read again.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use coracle_api::{
    id::{RunId, TaskId},
    labels,
    launch::Report,
};
use coracle_artifacts::Artifacts;
use coracle_store::records::{self, Change, Records};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
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
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    run::{
        apply::{NotWritten, Tools},
        observe::{self, AttemptRef, PodEnd, PodView},
        pipeline::Pipeline,
        plan::{self, Event, Plan},
        state::State,
    },
    task::container::Settings,
};

/// Finished runs whose Pods stay for `kubectl` to see. Logs and results are kept elsewhere.
const RUNS_WITH_PODS: usize = 50;

/// How often in a row a run may find its rows changed under it.
const MOST_STALE: u32 = 3;

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
    runs: HashMap<RunId, mpsc::UnboundedSender<Message>>,
    actors: JoinSet<Ended>,
    cleaners: JoinSet<()>,
    finished: VecDeque<RunId>,
    expiring: BTreeSet<(Timestamp, RunId)>,
    /// Runs to go on with whose tasks have yet to end.
    again: HashSet<RunId>,
    listed: Option<Listed>,
}

/// What a relist of Pods has shown so far.
#[derive(Default)]
struct Listed {
    attempts: HashMap<RunId, HashSet<(TaskId, u32)>>,
    newest: HashMap<RunId, Timestamp>,
}

/// What a run's own task is told.
enum Message {
    /// Something happened.
    Event(Event),
    /// A launcher reported; the report is in the store.
    Reported(TaskId, u32),
    /// These are all the Pods there are.
    Pods(HashSet<(TaskId, u32)>),
    /// Events may have been lost: read the rows again.
    Resync,
    /// The run's rows are gone.
    Deleted,
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
            runs: HashMap::new(),
            actors: JoinSet::new(),
            cleaners: JoinSet::new(),
            finished: VecDeque::new(),
            expiring: BTreeSet::new(),
            again: HashSet::new(),
            listed: None,
        }
    }

    /// Works until `cancel`. Pods go on without the engine; their runs are taken up again at the
    /// next start.
    pub async fn run(mut self, cancel: CancellationToken) {
        self.tools.cancel = cancel.clone();
        let mut changes = self.tools.records.changes();
        let pods: Api<Pod> = Api::all(self.tools.client.clone());
        let watch = watcher(pods, watcher::Config::default().labels(labels::RUN_ID)).default_backoff();
        let mut watch = std::pin::pin!(watch);
        self.take_up_unfinished().await;
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                change = changes.recv() => match change {
                    Ok(change) => self.changed(change),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.take_up_unfinished().await;
                        self.tell_all(|| Message::Resync);
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
                Some(_) = self.cleaners.join_next(), if !self.cleaners.is_empty() => {}
                () = until(self.expiring.first().map(|(time, _)| *time)) => self.forget_expired(),
            }
        }
        self.runs.clear();
        while self.actors.join_next().await.is_some() {}
        while self.cleaners.join_next().await.is_some() {}
    }

    async fn take_up_unfinished(&mut self) {
        match self.tools.records.unfinished_runs().await {
            Ok(runs) => runs.into_iter().for_each(|run| self.take_up(run)),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot list the unfinished runs"
                );
            }
        }
    }

    fn take_up(&mut self, run: RunId) {
        if self.runs.contains_key(&run) {
            return;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        self.runs.insert(run, sender);
        let actor = Actor {
            run,
            tools: self.tools.clone(),
            settings: self.settings.clone(),
            receiver,
        };
        self.actors.spawn(actor.work());
    }

    fn tell(&self, run: RunId, message: Message) {
        // A run that has just ended does not listen any more, and need not.
        if let Some(sender) = self.runs.get(&run) {
            let _ = sender.send(message);
        }
    }

    fn tell_all(&self, message: impl Fn() -> Message) {
        for run in self.runs.keys() {
            self.tell(*run, message());
        }
    }

    fn changed(&mut self, change: Change) {
        match change {
            Change::RunCreated(run) => self.take_up(run),
            Change::TerminationRequested(run) => self.tell(run, Message::Event(Event::TerminationRequested)),
            Change::Reported {
                run_id,
                task_id,
                attempt,
            } => self.tell(run_id, Message::Reported(task_id, attempt)),
            Change::RetryRequested(run) => {
                if self.runs.contains_key(&run) {
                    // Its task is just about to end.
                    self.again.insert(run);
                }
                self.take_up(run);
            }
            Change::RunChanged(_) | Change::RecurringRunChanged(_) => {}
            Change::RunDeleted(run) => {
                self.tell(run, Message::Deleted);
                self.delete_pods(run);
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
            self.tell(run, Message::Event(Event::Pod { task, number, view }));
        }
    }

    fn relisted(&mut self) {
        let Some(mut listed) = self.listed.take() else {
            return;
        };
        for run in self.runs.keys() {
            self.tell(
                *run,
                Message::Pods(listed.attempts.remove(run).unwrap_or_default()),
            );
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
        let Ended { run, expires_at } = ended;
        self.runs.remove(&run);
        if self.again.remove(&run) {
            return self.take_up(run);
        }
        self.finished.push_back(run);
        self.expiring.extend(expires_at.map(|time| (time, run)));
        self.forget_old_pods();
    }

    /// What finished runs used may be deleted once their pipelines say so.
    fn forget_expired(&mut self) {
        let now = Timestamp::now();
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
        let client = self.tools.client.clone();
        self.finished.retain(|finished| *finished != run);
        // Nothing waits for it, and what is left over is found at the next relist.
        self.cleaners.spawn(async move {
            delete_all::<Pod>(&client, run).await;
            delete_all::<PersistentVolumeClaim>(&client, run).await;
        });
    }
}

/// Deletes the objects of a kind that carry a run's label.
async fn delete_all<K>(client: &Client, run: RunId)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let chosen = ListParams::default().labels(&format!("{}={run}", labels::RUN_ID));
    let kind = K::kind(&()).into_owned();
    let found = match Api::<K>::all(client.clone()).list_metadata(&chosen).await {
        Ok(found) => found,
        Err(error) => return tracing::warn!(run.id = %run, %error, "cannot list the {kind}s of a run"),
    };
    for object in found {
        let (Some(namespace), Some(name)) = (object.metadata.namespace, object.metadata.name) else {
            continue;
        };
        let objects: Api<K> = Api::namespaced(client.clone(), &namespace);
        match objects.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                tracing::warn!(run.id = %run, object.name = %name, %error, "cannot delete a {kind} of a run");
            }
            Ok(_) => {}
        }
    }
}

/// Waits until a time, at least for a millisecond: a clock may be read twice in one. For ever when
/// there is none.
async fn until(time: Option<Timestamp>) {
    match time.map(|time| Timestamp::now().duration_until(time)) {
        Some(wait) => {
            let wait = wait.max(SignedDuration::from_millis(1));
            tokio::time::sleep(wait.unsigned_abs()).await;
        }
        None => std::future::pending().await,
    }
}

/// A run that its task has nothing more to do for.
struct Ended {
    run: RunId,
    /// When what it used is to be deleted, if its pipeline says so.
    expires_at: Option<Timestamp>,
}

/// One run at work.
struct Actor {
    run: RunId,
    tools: Tools,
    settings: Settings,
    receiver: mpsc::UnboundedReceiver<Message>,
}

impl Actor {
    #[tracing::instrument(name = "run", skip_all, fields(run.id = %self.run))]
    async fn work(mut self) -> Ended {
        let ended = Ended {
            run: self.run,
            expires_at: None,
        };
        let (pipeline, mut state) = match observe::load(&self.tools.records, self.run).await {
            Ok(loaded) => loaded,
            // Deleted, and its Pods with it.
            Err(observe::Error::Records(records::Error::NotFound { .. })) => return ended,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the run cannot be taken up"
                );
                return ended;
            }
        };
        let was_over = state.run.state.is_terminal();
        let mut stale = 0;
        let mut events = VecDeque::from([Event::Resumed]);
        while !state.run.state.is_terminal() || state.run.retry_requested {
            if events.is_empty() {
                let Some(message) = self.next(state.wakes_at(&pipeline)).await else {
                    return ended;
                };
                if !self.take_in(message, &state, &mut events).await {
                    return ended;
                }
            }
            // What has piled up is planned together and written in one transaction.
            while let Ok(message) = self.receiver.try_recv() {
                if !self.take_in(message, &state, &mut events).await {
                    return ended;
                }
            }
            let planned = self.plan(&pipeline, &mut state, &mut events);
            match self.tools.apply(&state, planned).await {
                Ok(next) => {
                    events.extend(next);
                    stale = 0;
                }
                Err(NotWritten::Gone) => return ended,
                Err(NotWritten::Stale(error)) => {
                    stale += 1;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the rows of the run have changed: it is read again"
                    );
                    let loaded = observe::load(&self.tools.records, self.run).await;
                    let (Ok((_, read)), true) = (loaded, stale < MOST_STALE) else {
                        tracing::error!("the run cannot go on before the next start");
                        return ended;
                    };
                    state = read;
                    events = VecDeque::from([Event::Resumed]);
                }
            }
        }
        if !was_over {
            tracing::info!(state = %state.run.state, "run `{}` ended", state.run.display_name);
        }
        Ended {
            expires_at: state.expires_at(&pipeline),
            ..ended
        }
    }

    /// Waits for a message, but no longer than until `wakes_at`. None when the engine stops.
    async fn next(&mut self, wakes_at: Option<Timestamp>) -> Option<Message> {
        tokio::select! {
            message = self.receiver.recv() => message,
            () = until(wakes_at) => Some(Message::Event(Event::TimeCame)),
        }
    }

    fn plan(&self, pipeline: &Pipeline, state: &mut State, events: &mut VecDeque<Event>) -> Plan {
        let mut planned = Plan::default();
        while let Some(event) = events.pop_front() {
            planned.extend(plan::step(
                pipeline,
                &self.settings,
                state,
                event,
                &mut new_token,
                Timestamp::now(),
            ));
        }
        planned
    }

    /// Turns a message into events. False when the run is no more.
    async fn take_in(&self, message: Message, state: &State, events: &mut VecDeque<Event>) -> bool {
        match message {
            Message::Event(Event::Pod {
                task,
                number,
                view: view @ PodView::Ended(_),
            }) => {
                // The launcher reports before it ends, so its report is in the store by now.
                let waits = state.nodes.get(&task).is_some_and(|node| {
                    node.report.is_none()
                        && node
                            .current_attempt()
                            .is_some_and(|attempt| attempt.number == number)
                });
                if waits && let Some(report) = self.report(task, number).await {
                    events.push_back(Event::Reported { task, number, report });
                }
                events.push_back(Event::Pod { task, number, view });
            }
            Message::Event(event) => events.push_back(event),
            Message::Reported(task, number) => {
                if let Some(report) = self.report(task, number).await {
                    events.push_back(Event::Reported { task, number, report });
                }
            }
            Message::Pods(present) => events.extend(missing(state, &present)),
            Message::Resync => {
                if let Ok(run) = self.tools.records.run(self.run).await
                    && run.termination_requested
                    && !state.run.termination_requested
                {
                    events.push_back(Event::TerminationRequested);
                }
                let reports = self.tools.records.reports(self.run).await.unwrap_or_default();
                events.extend(reports.into_iter().map(|(task, number, report)| Event::Reported {
                    task,
                    number,
                    report,
                }));
            }
            Message::Deleted => return false,
        }
        true
    }

    async fn report(&self, task: TaskId, number: u32) -> Option<Report> {
        match self.tools.records.report(task, number).await {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(task.id = %task, error = &error as &dyn std::error::Error, "cannot read a report");
                None
            }
        }
    }
}

/// Attempts that were at work and whose Pods are no more.
fn missing(state: &State, present: &HashSet<(TaskId, u32)>) -> Vec<Event> {
    let started = state
        .nodes
        .values()
        .filter_map(|node| node.current_attempt())
        .filter(|attempt| attempt.started_at.is_some());
    started
        .map(|attempt| (attempt.task_id, attempt.number))
        .filter(|attempt| !present.contains(attempt))
        .map(|(task, number)| Event::Pod {
            task,
            number,
            view: PodView::Ended(PodEnd::gone()),
        })
        .collect()
}

/// Admits to one attempt of one task: 244 random bits.
fn new_token() -> String {
    format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    )
}
