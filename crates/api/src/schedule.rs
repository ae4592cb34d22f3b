//! When a recurring run is due, and what its parameters are told about that. Pure: the caller
//! brings the clock.
//!
//! Everything is in UTC and to the second, as in KFP's scheduled-workflow controller.
//!
//! - [`cron`]: KFP's cron expressions
//! - [`macros`]: `[[ScheduledTime]]` and the like in parameters

pub mod cron;
pub mod macros;

use jiff::{SignedDuration, Timestamp};

pub use cron::{Cron, InvalidCron};
pub use macros::Macros;

/// A pattern of times without beginning or end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// What a cron expression says.
    Cron(Cron),
    /// Every so many seconds; 0 counts as 1.
    Every(u64),
}

/// The times at which a recurring run is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// The pattern.
    pub pattern: Pattern,
    /// Not before.
    pub start: Option<Timestamp>,
    /// Not after.
    pub end: Option<Timestamp>,
}

impl Times {
    /// The first time after `last`, the last one that was used or given up. Without one, times
    /// are counted from the start, else from `created`: the first is one interval after that, or
    /// the first one of the cron expression after it.
    #[must_use]
    pub fn next(&self, last: Option<Timestamp>, created: Timestamp) -> Option<Timestamp> {
        let from = whole_second(last.or(self.start).unwrap_or(created));
        let start = self.start.map(whole_second).filter(|start| *start > from);
        let due = match (&self.pattern, start) {
            (Pattern::Every(_), Some(start)) => start,
            (Pattern::Every(seconds), None) => from.checked_add(interval(*seconds)?).ok()?,
            (Pattern::Cron(cron), start) => cron.next_after(start.unwrap_or(from))?,
        };
        Some(due).filter(|due| self.end.is_none_or(|end| *due <= end))
    }

    /// The last time that is not after `now`, given one that is not: `due` itself, when no later
    /// one has come.
    #[must_use]
    pub fn latest(&self, due: Timestamp, now: Timestamp) -> Timestamp {
        let now = self.end.map_or(now, |end| end.min(now));
        if now <= due {
            return due;
        }
        match &self.pattern {
            Pattern::Every(seconds) => {
                let Some(interval) = interval(*seconds).map(|interval| interval.as_secs()) else {
                    return due;
                };
                let passed = (now.as_second() - due.as_second()) / interval;
                let passed = SignedDuration::from_secs(passed.saturating_mul(interval));
                due.checked_add(passed).unwrap_or(due)
            }
            Pattern::Cron(cron) => {
                // The largest second with a time between it and now: the time after it is the last.
                let has_time_after = |second: i64| {
                    let from = Timestamp::from_second(second).ok()?;
                    cron.next_after(from).filter(|time| *time <= now)
                };
                let (mut low, mut high) = (due.as_second() - 1, now.as_second());
                let mut latest = due;
                while low < high {
                    let middle = low + (high - low + 1) / 2;
                    match has_time_after(middle) {
                        Some(time) => (low, latest) = (middle, latest.max(time)),
                        None => high = middle - 1,
                    }
                }
                latest
            }
        }
    }
}

fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(
        time.as_nanosecond()
            .div_euclid(1_000_000_000)
            .try_into()
            .unwrap_or(0),
    )
    .unwrap_or(time)
}

fn interval(seconds: u64) -> Option<SignedDuration> {
    i64::try_from(seconds.max(1)).ok().map(SignedDuration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    fn times(pattern: Pattern, start: Option<&str>, end: Option<&str>) -> Times {
        Times {
            pattern,
            start: start.map(at),
            end: end.map(at),
        }
    }

    fn cron(text: &str) -> Pattern {
        Pattern::Cron(Cron::parse(text).expect("valid"))
    }

    #[test]
    fn the_first_interval_begins_at_the_start_else_at_the_making() {
        let created = at("2026-01-01T00:00:00.7Z");
        let free = times(Pattern::Every(10), None, None);
        assert_eq!(free.next(None, created), Some(at("2026-01-01T00:00:10Z")));
        let bound = times(
            Pattern::Every(10),
            Some("2026-01-02T00:00:00Z"),
            Some("2026-01-02T00:00:15Z"),
        );
        let first = at("2026-01-02T00:00:10Z");
        assert_eq!(bound.next(None, created), Some(first));
        assert_eq!(
            bound.next(Some(first), created),
            None,
            "the end is before the second one"
        );
        // A start that was moved beyond the last time is itself a time.
        assert_eq!(
            bound.next(Some(created), created),
            Some(at("2026-01-02T00:00:00Z"))
        );
    }

    #[test]
    fn cron_times_are_after_the_start_and_not_after_the_end() {
        let daily = times(
            cron("0 0 0 * * *"),
            Some("2026-01-02T00:00:00Z"),
            Some("2026-01-04T00:00:00Z"),
        );
        let created = at("2026-01-01T12:00:00Z");
        let mut found = Vec::new();
        let mut last = None;
        while let Some(due) = daily.next(last, created) {
            found.push(due.to_string());
            last = Some(due);
        }
        assert_eq!(found, ["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"]);
    }

    #[test]
    fn the_latest_time_is_found_without_walking_there() {
        let due = at("2000-01-01T00:00:00Z");
        for (pattern, now, expected) in [
            (
                Pattern::Every(7),
                "2000-01-01T00:00:00.5Z",
                "2000-01-01T00:00:00Z",
            ),
            (
                Pattern::Every(7),
                "2000-01-01T00:00:27.5Z",
                "2000-01-01T00:00:21Z",
            ),
            (
                cron("* * * * * *"),
                "2026-07-01T00:00:00.9Z",
                "2026-07-01T00:00:00Z",
            ),
            (
                cron("0 0 0 29 2 ?"),
                "2027-07-01T00:00:00Z",
                "2024-02-29T00:00:00Z",
            ),
            (
                cron("0 0 0 1 1 ?"),
                "2000-12-31T23:59:59Z",
                "2000-01-01T00:00:00Z",
            ),
        ] {
            let times = times(pattern.clone(), None, None);
            assert_eq!(times.latest(due, at(now)), at(expected), "{pattern:?} at {now}");
        }
        let ended = times(cron("* * * * * *"), None, Some("2000-01-01T00:01:00Z"));
        assert_eq!(
            ended.latest(due, at("2026-01-01T00:00:00Z")),
            at("2000-01-01T00:01:00Z")
        );
    }
}
