//! How long a Job waits after failures before it makes another Pod. A function of the Pods that are there, so that a
//! restart forgets nothing. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

/// The pause after the first failure.
const FIRST: SignedDuration = SignedDuration::from_secs(10);
/// The longest pause.
const LONGEST: SignedDuration = SignedDuration::from_mins(10);

/// When the next Pod may be made after so many failures in a row, the last of them then.
pub(crate) fn after(failures: i32, last: Timestamp) -> Timestamp {
    let Ok(doublings) = u32::try_from(failures - 1) else {
        return last;
    };
    let factor = 2_i32.checked_pow(doublings).unwrap_or(i32::MAX);
    let pause = FIRST.checked_mul(factor).unwrap_or(LONGEST).min(LONGEST);
    last.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// When a Pod ended, as well as its status tells.
pub(crate) fn ended_at(pod: &Pod) -> Timestamp {
    let by_containers = pods::container_statuses(pod)
        .filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0)
        .max();
    let by_readiness = || {
        let ready = pods::condition(pod, "Ready").filter(|ready| ready.status == "False")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let by_deletion = || {
        let deleted = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        deleted.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    by_containers
        .or_else(by_readiness)
        .or_else(by_deletion)
        .or_else(|| pods::created(pod))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// When the next Pod may be made, given how those that are there ended.
pub(crate) fn next<'a>(
    succeeded: impl Iterator<Item = &'a Pod>,
    failed: impl Iterator<Item = &'a Pod>,
) -> Option<Timestamp> {
    let last_success = succeeded.map(ended_at).max();
    let since: Vec<Timestamp> = failed
        .map(ended_at)
        .filter(|time| last_success.is_none_or(|success| *time > success))
        .collect();
    let last = since.iter().max()?;
    Some(after(i32::try_from(since.len()).unwrap_or(i32::MAX), *last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_ten_seconds_to_ten_minutes() {
        for (failures, seconds) in [
            (0, 0),
            (1, 10),
            (2, 20),
            (3, 40),
            (6, 320),
            (7, 600),
            (40, 600),
            (i32::MAX, 600),
        ] {
            let expected = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
            assert_eq!(after(failures, Timestamp::UNIX_EPOCH), expected, "{failures}");
        }
    }
}
