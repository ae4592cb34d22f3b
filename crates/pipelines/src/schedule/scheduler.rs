//! The service that makes the runs of recurring runs when they are due.
//!
//! One task and one timer. What it knows beside the rows is only when to look at which recurring
//! run again; after a restart, or when changes were lost, it looks at all of them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use coracle_api::id::{RecurringRunId, RunId};
use coracle_reconcile::retry;
use coracle_store::records::{self, Change, Records, RecurringRun, ScheduleProgress};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{make, plan};
use crate::Clock;

/// The clock is looked at this often at least: it may have been set, or the machine have slept.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// When to try again what the store refused.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// Owners of runs that are kept in mind.
const OWNERS: usize = 10_000;

/// What a scheduler needs.
pub struct Options {
    /// Where recurring runs are, and runs are made.
    pub records: Records,
    /// Now.
    pub clock: Clock,
}

/// Makes runs when they are due.
pub struct Scheduler {
    records: Records,
    clock: Clock,
    /// When to look at which recurring run, the earliest first.
    wakes: BTreeSet<(Timestamp, RecurringRunId)>,
    wake_of: HashMap<RecurringRunId, Timestamp>,
    /// Those with times that are due, and as many runs at work as they may have.
    waiting: HashSet<RecurringRunId>,
    /// Whose run it is; known of those that changed while somebody was waiting.
    owners: HashMap<RunId, Option<RecurringRunId>>,
}

impl Scheduler {
    /// A scheduler that does nothing before [`Scheduler::run`].
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options { records, clock } = options;
        Self {
            records,
            clock,
            wakes: BTreeSet::new(),
            wake_of: HashMap::new(),
            waiting: HashSet::new(),
            owners: HashMap::new(),
        }
    }

    /// Works until `cancel`.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut changes = self.records.changes();
        self.look_at_all(&cancel).await;
        loop {
            let sleep = tokio::time::sleep_until(self.next_look());
            tokio::select! {
                () = cancel.cancelled() => return,
                change = changes.recv() => match change {
                    Ok(change) => self.changed(change).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => self.look_at_all(&cancel).await,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = sleep => self.look_at_due().await,
            }
        }
    }

    /// When to look at the clock again.
    fn next_look(&self) -> Instant {
        let pause = self.wakes.first().map_or(LONGEST_SLEEP, |(wake, _)| {
            let pause = wake.duration_since((self.clock)());
            Duration::try_from(pause)
                .unwrap_or(Duration::ZERO)
                .min(LONGEST_SLEEP)
        });
        Instant::now() + pause
    }

    async fn look_at_all(&mut self, cancel: &CancellationToken) {
        self.wakes.clear();
        self.wake_of.clear();
        self.waiting.clear();
        self.owners.clear();
        let list = || self.records.recurring_runs();
        let listed = retry::until_done("list the recurring runs", cancel, list).await;
        for recurring in listed.into_iter().flatten() {
            self.look_at(recurring.id).await;
        }
    }

    async fn look_at_due(&mut self) {
        let now = (self.clock)();
        let due: Vec<RecurringRunId> = self
            .wakes
            .iter()
            .take_while(|(wake, _)| *wake <= now)
            .map(|(_, id)| *id)
            .collect();
        for id in due {
            self.look_at(id).await;
        }
    }

    async fn changed(&mut self, change: Change) {
        match change {
            Change::RecurringRunChanged(id) => self.look_at(id).await,
            Change::RunChanged(run) if !self.waiting.is_empty() => {
                let owner = match self.owners.get(&run) {
                    Some(owner) => *owner,
                    None => {
                        let Ok(row) = self.records.run(run).await else {
                            return;
                        };
                        self.owners.insert(run, row.recurring_run_id);
                        row.recurring_run_id
                    }
                };
                if let Some(owner) = owner.filter(|owner| self.waiting.contains(owner)) {
                    self.look_at(owner).await;
                }
            }
            Change::RunDeleted(run) => match self.owners.remove(&run) {
                Some(None) => {}
                Some(Some(owner)) if !self.waiting.contains(&owner) => {}
                Some(Some(owner)) => self.look_at(owner).await,
                None => {
                    for waiting in self.waiting.clone() {
                        self.look_at(waiting).await;
                    }
                }
            },
            _ => {}
        }
    }

    /// Makes what is due of a recurring run, and notes when to look at it again.
    #[tracing::instrument(name = "recurring run", skip_all, fields(recurring_run.id = %id))]
    async fn look_at(&mut self, id: RecurringRunId) {
        if let Some(wake) = self.wake_of.remove(&id) {
            self.wakes.remove(&(wake, id));
        }
        self.waiting.remove(&id);
        let now = (self.clock)();
        let wake = match self.make_due(id, now).await {
            Ok(decision) => {
                if decision.waits_for_runs {
                    self.waiting.insert(id);
                }
                decision.wake_at
            }
            Err(records::Error::NotFound { .. }) => None,
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "cannot make the runs that are due; trying again");
                now.checked_add(PAUSE).ok()
            }
        };
        if self.waiting.is_empty() || self.owners.len() > OWNERS {
            self.owners.clear();
        }
        if let Some(wake) = wake {
            self.wakes.insert((wake, id));
            self.wake_of.insert(id, wake);
        }
    }

    async fn make_due(&self, id: RecurringRunId, now: Timestamp) -> records::Result<plan::Decision> {
        // Each round uses times up, and the last one finds none that can be used.
        loop {
            let recurring = self.records.recurring_run(id).await?;
            let unfinished = self.records.unfinished_runs_of(id).await?;
            let decision = match plan::plan(&recurring, unfinished, now) {
                Ok(decision) => decision,
                Err(invalid) => {
                    self.note(&recurring, None, invalid.to_string()).await?;
                    return Ok(plan::Decision::default());
                }
            };
            let mut is_as_planned = true;
            for due in &decision.runs {
                match make::run(&self.records, &recurring, *due, now).await {
                    Ok(true) => tracing::info!(due.time = %due.time, "made a run"),
                    Ok(false) => is_as_planned = false,
                    Err(make::Error::Invalid(message)) => {
                        // Every time that is due by now would fail alike.
                        let last = plan::last_due(&recurring, now).ok().flatten();
                        self.note(&recurring, last.or(Some(due.time)), message).await?;
                        is_as_planned = false;
                        break;
                    }
                    Err(make::Error::Store(error)) => return Err(error),
                }
            }
            if is_as_planned {
                return Ok(decision);
            }
        }
    }

    /// Keeps why no run could be made, and gives up the times until `last`.
    async fn note(
        &self,
        recurring: &RecurringRun,
        last: Option<Timestamp>,
        message: String,
    ) -> records::Result<()> {
        tracing::warn!(message, "a recurring run can make no run");
        // The row may have moved on since: runs of the same round were made before this one.
        let before = self.records.recurring_run(recurring.id).await?.progress;
        let progress = ScheduleProgress {
            last_due: last.max(before.last_due),
            runs_made: before.runs_made,
            error: Some(make::failure(message)),
        };
        if progress == before {
            return Ok(());
        }
        self.records.put_schedule_progress(recurring.id, progress).await
    }
}
