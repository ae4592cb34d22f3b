//! One run at work: the task that owns its state, and works its events off in order.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use coracle_api::{
    id::{RunId, TaskId},
    launch::Report,
};
use coracle_store::records;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{
    inbox::{AttemptKey, Inbox, News},
    steady::Steady,
};
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
    pub(super) inbox: Arc<Inbox>,
}

impl Actor {
    #[tracing::instrument(name = "run", skip_all, fields(run.id = %self.run))]
    pub(super) async fn work(self) -> Ended {
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
        let mut steady = Steady::new((self.clock)(), Instant::now());
        let mut events = VecDeque::from([Event::Resumed]);
        while !state.run.state.is_terminal() || state.run.retry_requested {
            if !state.postponed.is_empty() {
                events.push_back(Event::Room);
            }
            if events.is_empty() {
                self.wait(state.wakes_at(&pipeline)).await;
            }
            // What has piled up is planned together and written in one transaction.
            let news = self.inbox.take();
            if news.is_deleted {
                return deleted;
            }
            if news.is_stopping {
                return ended;
            }
            self.take_in(news, &state, &mut events).await;
            match steady.set_by((self.clock)(), Instant::now()) {
                Some(by) => {
                    tracing::info!(
                        "the clock was set by {} s: waits go on as they were",
                        by.as_secs_f64()
                    );
                    events.push_front(Event::ClockSet { by });
                }
                // Not only when there is nothing else to do: a busy run has its deadline, too.
                None if state
                    .wakes_at(&pipeline)
                    .is_some_and(|time| time <= (self.clock)()) =>
                {
                    events.push_back(Event::TimeCame);
                }
                None => {}
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

    /// Waits for news, but no longer than until `wakes_at`, and at least for a millisecond then: a clock
    /// may be read twice in one.
    async fn wait(&self, wakes_at: Option<Timestamp>) {
        let news = self.inbox.wait();
        let Some(time) = wakes_at else {
            return news.await;
        };
        let wait = (self.clock)()
            .duration_until(time)
            .max(SignedDuration::from_millis(1));
        // That it is over is seen by whoever called.
        let _ = tokio::time::timeout(wait.unsigned_abs(), news).await;
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

    /// Turns news into events.
    async fn take_in(&self, news: News, state: &State, events: &mut VecDeque<Event>) {
        if news.is_termination_requested {
            events.push_back(Event::TerminationRequested);
        }
        for (task, number) in news.reported {
            if let Some(report) = self.report(task, number).await {
                events.push_back(Event::Reported { task, number, report });
            }
        }
        for ((task, number), views) in news.pods {
            for view in views {
                // The launcher reports before it ends, so its report is in the store by now.
                let waits = matches!(view, PodView::Ended(_))
                    && state.nodes.get(&task).is_some_and(|node| {
                        let current = node.current_attempt();
                        node.report.is_none() && current.is_some_and(|attempt| attempt.number == number)
                    });
                if waits && let Some(report) = self.report(task, number).await {
                    events.push_back(Event::Reported { task, number, report });
                }
                events.push_back(Event::Pod { task, number, view });
            }
        }
        if let Some(listed) = news.listed {
            events.extend(missing(state, &listed));
        }
        if news.is_incomplete {
            self.read_again(state, events).await;
        }
    }

    /// What the rows say that the run may not have heard.
    async fn read_again(&self, state: &State, events: &mut VecDeque<Event>) {
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
fn missing(state: &State, present: &HashSet<AttemptKey>) -> Vec<Event> {
    let under_way = state.nodes.values().filter_map(|node| node.current_attempt());
    let missing: BTreeSet<AttemptKey> = under_way
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
