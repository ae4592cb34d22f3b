//! The error policy of reconcilers: an effect that failed for a reason that may pass is repeated
//! until it works or the process stops. Effects are idempotent, so repeating is always safe.

use std::{error::Error, time::Duration};

use tokio_util::sync::CancellationToken;

/// The pause before the first repetition.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long to wait before the next attempt, after so many repetitions that failed.
#[must_use]
pub fn pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(LONGEST_PAUSE)
}

/// Repeats `attempt` until it succeeds. None when `cancel` comes first.
///
/// Only failures that may pass belong in the error: whatever will not change by waiting is an
/// answer, and the attempt's `Ok`. `what` completes "cannot …" in the log.
pub async fn until_done<T, E, F>(
    what: &str,
    cancel: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Option<T>
where
    E: Error + Send + Sync + 'static,
    F: Future<Output = Result<T, E>>,
{
    let mut failures = 0;
    loop {
        let pause = pause(failures);
        match attempt().await {
            Ok(done) => return Some(done),
            Err(error) => {
                let error: &(dyn Error + 'static) = &error;
                tracing::warn!(
                    retry_in_ms = pause.as_millis(),
                    error,
                    "cannot {what}; trying again"
                );
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return None,
            () = tokio::time::sleep(pause) => failures += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_passes_is_tried_again_with_growing_pauses() {
        let started = tokio::time::Instant::now();
        let cancel = CancellationToken::new();
        let mut left = 4;
        let done = until_done("open the door", &cancel, || {
            left -= 1;
            let result = if left == 0 {
                Ok("open")
            } else {
                Err(io::Error::other("stuck"))
            };
            async { result }
        });
        assert_eq!(done.await, Some("open"));
        assert_eq!(started.elapsed(), Duration::from_millis(100 + 200 + 400));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_repetition() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let done = until_done("open the door", &cancel, || async {
            Err::<(), _>(io::Error::other("stuck"))
        });
        assert_eq!(done.await, None);
    }
}
