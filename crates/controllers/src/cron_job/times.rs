//! Which time of a schedule is due, and when the next one is. Pure.

use coracle_api::schedule::Cron;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// More missed times than this are told.
pub(crate) const MANY: usize = 100;

/// A schedule in its time zone.
pub(crate) struct Schedule {
    pub(crate) cron: Cron,
    pub(crate) zone: TimeZone,
}

/// Times that came and were not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missed {
    /// The last of them.
    pub(crate) latest: Timestamp,
    /// How many they are, up to one more than [`MANY`].
    pub(crate) count: usize,
}

impl Schedule {
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.cron.next_after_in(after, &self.zone)
    }

    /// The times after `since` and not after `now`.
    pub(crate) fn missed(&self, since: Timestamp, now: Timestamp) -> Option<Missed> {
        let mut latest = self.next(since).filter(|time| *time <= now)?;
        let mut count = 1;
        while count <= MANY {
            let Some(next) = self.next(latest).filter(|time| *time <= now) else {
                return Some(Missed { latest, count });
            };
            latest = next;
            count += 1;
        }
        // The largest second with a time between it and now: the time after it is the last.
        let has_time_after = |second: i64| {
            let from = Timestamp::from_second(second).ok()?;
            self.next(from).filter(|time| *time <= now)
        };
        let (mut low, mut high) = (latest.as_second() - 1, now.as_second());
        while low < high {
            let middle = low + (high - low + 1) / 2;
            match has_time_after(middle) {
                Some(time) => (low, latest) = (middle, latest.max(time)),
                None => high = middle - 1,
            }
        }
        Some(Missed { latest, count })
    }
}

/// From when on times count: after the last one that was used, and not before the deadline for starting has passed.
pub(crate) fn since(
    last: Option<Timestamp>,
    created: Timestamp,
    deadline: Option<i64>,
    now: Timestamp,
) -> Timestamp {
    let from = last.unwrap_or(created);
    let too_late = deadline.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
    too_late.map_or(from, |too_late| from.max(too_late))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    fn schedule(text: &str) -> Schedule {
        Schedule {
            cron: Cron::parse_standard(text).expect("valid"),
            zone: TimeZone::UTC,
        }
    }

    #[test]
    fn the_last_missed_time_is_found_however_many_there_are() {
        let minutely = schedule("* * * * *");
        let created = at("2026-01-01T00:00:00Z");
        for (now, expected) in [
            ("2026-01-01T00:00:59Z", None),
            ("2026-01-01T00:01:00Z", Some(("2026-01-01T00:01:00Z", 1))),
            ("2026-01-01T00:03:30Z", Some(("2026-01-01T00:03:00Z", 3))),
            ("2026-01-01T01:40:01Z", Some(("2026-01-01T01:40:00Z", 100))),
            ("2026-03-01T12:34:56Z", Some(("2026-03-01T12:34:00Z", 101))),
        ] {
            let expected = expected.map(|(latest, count)| Missed {
                latest: at(latest),
                count,
            });
            assert_eq!(minutely.missed(created, at(now)), expected, "{now}");
        }
    }

    #[test]
    fn times_before_the_deadline_for_starting_do_not_count() {
        let (last, created) = (at("2026-01-01T00:00:00Z"), at("2025-01-01T00:00:00Z"));
        let now = at("2026-01-01T01:00:00Z");
        assert_eq!(since(Some(last), created, None, now), last);
        assert_eq!(since(None, created, None, now), created);
        assert_eq!(
            since(Some(last), created, Some(60), now),
            at("2026-01-01T00:59:00Z")
        );
        assert_eq!(since(Some(last), created, Some(7200), now), last);
    }
}
