//! What tells the time and wakes at one: the system's clock, or a test's.

use std::{future::Future, pin::Pin, time::Duration};

use jiff::Timestamp;

/// The clock is looked at this often at least: it may have been set, or the machine have slept.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;

    /// Ends at `time` or earlier, never later: whoever waits looks at [`Clock::now`] again.
    fn until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let left = time.duration_since(self.now());
        let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
        Box::pin(tokio::time::sleep(left.min(LONGEST_SLEEP)))
    }
}
