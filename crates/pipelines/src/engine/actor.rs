//! One run at work: the task that owns its state, and works its events off in order.

use std::collections::{BTreeSet, HashSet, VecDeque};

use coracle_api::{
    id::{RunId, TaskId},
    launch::Report,
};
use coracle_store::records;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use crate::{
    Clock,
    run::{
        apply::{NotWritten, Tools},
        observe::{self, PodView},
        pipeline::Pipeline,
        plan::{self, Event, Plan},
        state::State,
    },
    task::container::Settings,
};

/// How often in a row a run may find its rows changed under it.
const MOST_STALE: u32 = 3;

/// What a run's own task is told.
pub(super) enum Message {
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

/// Waits until a time, at least for a millisecond: a clock may be read twice in one. For ever when
/// there is none.
pub(super) async fn until(clock: &Clock, time: Option<Timestamp>) {
    match time.map(|time| clock().duration_until(time)) {
        Some(wait) => {
            let wait = wait.max(SignedDuration::from_millis(1));
            tokio::time::sleep(wait.unsigned_abs()).await;
        }
        None => std::future::pending().await,
    }
}

/// A run that its task has nothing more to do for.
#[derive(Clone, Copy)]
pub(super) struct Ended {
    pub(super) run: RunId,
    /// Whether its rows are gone: nothing of it is to stay.
    pub(super) is_deleted: bool,
    /// When what it used is to be deleted, if its pipeline says so.
    pub(super) expires_at: Option<Timestamp>,
}

/// One run at work.
pub(super) struct Actor {
    pub(super) run: RunId,
    pub(super) tools: Tools,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) receiver: mpsc::UnboundedReceiver<Message>,
}

impl Actor {
    #[tracing::instrument(name = "run", skip_all, fields(run.id = %self.run))]
    pub(super) async fn work(mut self) -> Ended {
        let ended = Ended {
            run: self.run,
            is_deleted: false,
            expires_at: None,
        };
        let deleted = Ended {
            is_deleted: true,
            ..ended
        };
        let (pipeline, mut state) = match observe::load(&self.tools.records, self.run).await {
            Ok(loaded) => loaded,
            Err(observe::Error::Records(records::Error::NotFound { .. })) => return deleted,
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
            if !state.postponed.is_empty() {
                events.push_back(Event::Room);
            }
            if events.is_empty() {
                let Some(message) = self.next(state.wakes_at(&pipeline)).await else {
                    return ended;
                };
                if !self.take_in(message, &state, &mut events).await {
                    return deleted;
                }
            }
            // What has piled up is planned together and written in one transaction.
            while let Ok(message) = self.receiver.try_recv() {
                if !self.take_in(message, &state, &mut events).await {
                    return deleted;
                }
            }
            // Not only when there is nothing else to do: a busy run has its deadline, too.
            if state
                .wakes_at(&pipeline)
                .is_some_and(|time| time <= (self.clock)())
            {
                events.push_back(Event::TimeCame);
            }
            let planned = self.plan(&pipeline, &mut state, &mut events);
            match self.tools.apply(&state, planned).await {
                Ok(next) => {
                    events.extend(next);
                    stale = 0;
                }
                Err(NotWritten::Gone) => return deleted,
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
            biased;
            message = self.receiver.recv() => message,
            () = until(&self.clock, wakes_at) => Some(Message::Event(Event::TimeCame)),
        }
    }

    fn plan(&self, pipeline: &Pipeline, state: &mut State, events: &mut VecDeque<Event>) -> Plan {
        let mut planned = Plan::default();
        while !planned.is_full()
            && let Some(event) = events.pop_front()
        {
            planned.extend(plan::step(
                pipeline,
                &self.settings,
                state,
                event,
                &mut new_token,
                (self.clock)(),
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

/// The attempts under way whose Pods are not among these.
fn missing(state: &State, present: &HashSet<(TaskId, u32)>) -> Vec<Event> {
    let under_way = state.nodes.values().filter_map(|node| node.current_attempt());
    let missing: BTreeSet<(TaskId, u32)> = under_way
        .map(|attempt| (attempt.task_id, attempt.number))
        .filter(|attempt| !present.contains(attempt))
        .collect();
    let missing = missing.into_iter();
    missing
        .map(|(task, number)| Event::Missing { task, number })
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
