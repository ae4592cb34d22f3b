//! Whether somebody set the clock: it is compared with the time that passes by itself.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The clock is not set by less than this: it runs a little fast or slow all the time, which is not
/// forgotten but adds up to it.
const LEAST: SignedDuration = SignedDuration::from_secs(1);

/// When the clock was last known to be what it should be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steady {
    time: Timestamp,
    passed: Instant,
}

impl Steady {
    pub(super) const fn new(time: Timestamp, passed: Instant) -> Self {
        Self { time, passed }
    }

    /// By how much the clock was set since this was last told: less than nothing when it was set back.
    /// A machine that slept has a clock that was set forward.
    pub(super) fn set_by(&mut self, time: Timestamp, passed: Instant) -> Option<SignedDuration> {
        let elapsed = SignedDuration::try_from(passed - self.passed).unwrap_or(SignedDuration::MAX);
        let by = time.duration_since(self.time).saturating_sub(elapsed);
        if by.abs() < LEAST {
            return None;
        }
        *self = Self::new(time, passed);
        Some(by)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_is_told_from_time_that_passes() {
        let (mut time, mut passed) = (Timestamp::UNIX_EPOCH, Instant::now());
        let mut steady = Steady::new(time, passed);
        for by in [0, -3600, 3600, 0] {
            time += SignedDuration::from_secs(60 + by);
            passed += Duration::from_secs(60);
            let expected = (by != 0).then(|| SignedDuration::from_secs(by));
            assert_eq!(steady.set_by(time, passed), expected);
            assert_eq!(steady.set_by(time, passed), None, "it is told once");
        }
    }

    #[test]
    fn a_clock_that_runs_slow_is_told_once_it_is_a_second_behind() {
        let (mut time, mut passed) = (Timestamp::UNIX_EPOCH, Instant::now());
        let mut steady = Steady::new(time, passed);
        let mut told = Vec::new();
        for _ in 0..25 {
            time += SignedDuration::from_millis(900);
            passed += Duration::from_secs(1);
            told.extend(steady.set_by(time, passed));
        }
        assert_eq!(told, [SignedDuration::from_secs(-1); 2]);
    }
}
