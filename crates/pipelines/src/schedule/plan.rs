//! Which runs of a recurring run are due now, and when to look again.
//!
//! The rules are those of KFP's scheduled-workflow controller. Times that passed while nobody
//! looked (the server was down, the recurring run was disabled, its runs took too long) are made
//! up one by one, unless `no_catchup` says that only the last of them counts. Unlike there, an
//! interval keeps its beat then.

use coracle_api::schedule::{Cron, InvalidCron, Pattern, Times};
use coracle_store::records::{RecurringRun, Schedule, Trigger};
use jiff::Timestamp;

/// A run to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The time it is for.
    pub time: Timestamp,
    /// Which of its recurring run's runs it is, from 1.
    pub index: u32,
}

/// What to do about a recurring run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Runs to make now, in this order. Their progress gives up the times before them.
    pub runs: Vec<Due>,
    /// When the next one is due.
    pub wake_at: Option<Timestamp>,
    /// Whether more are due, and wait until one of its runs has ended.
    pub waits_for_runs: bool,
}

/// Decides about a recurring run that has `unfinished` runs at work.
///
/// # Errors
///
/// [`InvalidCron`] when its pattern cannot be read.
pub fn plan(recurring: &RecurringRun, unfinished: u32, now: Timestamp) -> Result<Decision, InvalidCron> {
    let mut decision = Decision::default();
    if !recurring.enabled {
        return Ok(decision);
    }
    let times = times(&recurring.trigger)?;
    let free = recurring.max_concurrency.max(1).saturating_sub(unfinished);
    let mut last = recurring.progress.last_due;
    let mut made = recurring.progress.runs_made;
    loop {
        let Some(next) = times.next(last, recurring.created_at) else {
            return Ok(decision);
        };
        if next > now {
            decision.wake_at = Some(next);
            return Ok(decision);
        }
        if decision.runs.len() >= usize::try_from(free).unwrap_or(usize::MAX) {
            decision.waits_for_runs = true;
            return Ok(decision);
        }
        let time = if recurring.no_catchup {
            times.latest(next, now)
        } else {
            next
        };
        made = made.saturating_add(1);
        decision.runs.push(Due { time, index: made });
        last = Some(time);
    }
}

/// The last time that is due by now: what is given up when a run for it cannot be made.
pub(crate) fn last_due(recurring: &RecurringRun, now: Timestamp) -> Result<Option<Timestamp>, InvalidCron> {
    let times = times(&recurring.trigger)?;
    let next = times.next(recurring.progress.last_due, recurring.created_at);
    Ok(next
        .filter(|next| *next <= now)
        .map(|next| times.latest(next, now)))
}

/// The times of a trigger.
///
/// # Errors
///
/// [`InvalidCron`].
pub fn times(trigger: &Trigger) -> Result<Times, InvalidCron> {
    let pattern = match &trigger.schedule {
        Schedule::Cron(text) => Pattern::Cron(Cron::parse(text)?),
        Schedule::Every(seconds) => Pattern::Every(*seconds),
    };
    Ok(Times {
        pattern,
        start: trigger.start,
        end: trigger.end,
    })
}
