//! How a container's end is told in its status.
//!
//! Pure. The reason is a name of [`Reason`] where something went wrong that has one, else kubelet's word.

use crate::runtime::run_dir::{Exit, Failure};
use coracle_api::reason::Reason;
use jiff::Timestamp;
use nix::sys::signal::Signal;

/// How much of a container's last words a status holds, as in kubelet.
pub(crate) const LONGEST_MESSAGE: usize = 4096;

/// The end of one run of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Termination {
    pub(crate) exit_code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
}

impl Termination {
    /// From the record of a run. `said` is what the container left as its message, `limit` its memory limit.
    pub(crate) fn of(exit: &Exit, said: Option<String>, limit: Option<&str>) -> Self {
        let (reason, message) = match exit {
            Exit {
                failure: Some(failure),
                ..
            } => (failure.reason.to_string(), Some(failure.message.clone())),
            Exit { exit_code: 0, .. } => ("Completed".to_owned(), None),
            Exit { oom: true, .. } => (Reason::OOMKilled.to_string(), Some(out_of_memory(limit))),
            Exit {
                signal: Some(signal),
                stopped: false,
                ..
            } => (
                Reason::KilledBySignal.to_string(),
                Some(format!("killed by {}", signal_name(*signal))),
            ),
            Exit {
                signal: Some(signal), ..
            } => (
                "Error".to_owned(),
                Some(format!("ended by {} on request", signal_name(*signal))),
            ),
            Exit { .. } => ("Error".to_owned(), None),
        };
        let message = match (message, said) {
            (Some(message), Some(said)) => Some(format!("{message}\n{said}")),
            (message, said) => message.or(said),
        };
        Self {
            exit_code: exit.exit_code,
            signal: exit.signal,
            reason,
            message,
            started_at: Some(exit.started_at),
            finished_at: exit.finished_at,
        }
    }

    /// Of a container that never ran.
    pub(crate) fn never_ran(failure: &Failure, now: Timestamp) -> Self {
        Self {
            exit_code: 128,
            signal: None,
            reason: failure.reason.to_string(),
            message: Some(failure.message.clone()),
            started_at: None,
            finished_at: now,
        }
    }

    /// Of a run whose helper left no record.
    pub(crate) fn without_record(errors: &str, started_at: Option<Timestamp>, now: Timestamp) -> Self {
        let errors = errors.trim();
        let (reason, message) = if errors.is_empty() {
            (
                Reason::KilledBySignal,
                "its sandbox ended without a record: something killed it from outside, or the machine was restarted"
                    .to_owned(),
            )
        } else {
            (
                Reason::SandboxNotReady,
                format!("its sandbox ended without a record: {errors}"),
            )
        };
        Self {
            exit_code: 137,
            signal: Some(Signal::SIGKILL as i32),
            reason: reason.to_string(),
            message: Some(message),
            started_at,
            finished_at: now,
        }
    }

    /// Of a container that its engine does not know any more. The reason is kubelet's.
    pub(crate) fn removed(started_at: Timestamp, now: Timestamp) -> Self {
        Self {
            exit_code: 137,
            signal: None,
            reason: "ContainerStatusUnknown".to_owned(),
            message: Some(
                "its container is not in the engine any more: something removed it from outside".to_owned(),
            ),
            started_at: Some(started_at),
            finished_at: now,
        }
    }
}

fn out_of_memory(limit: Option<&str>) -> String {
    match limit {
        Some(limit) => format!("killed for using more memory than its limit of {limit}"),
        None => "killed by SIGKILL after the kernel had to kill on this machine for want of memory: with no memory limit \
                 of its own, it is probably what was killed"
            .to_owned(),
    }
}

fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(
        |_| format!("signal {signal}"),
        |signal| signal.as_str().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(exit_code: i32) -> Exit {
        Exit {
            exit_code,
            signal: None,
            oom: false,
            stopped: false,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            failure: None,
        }
    }

    fn check(exit: &Exit, said: Option<&str>, expected: &str) {
        let end = Termination::of(exit, said.map(ToOwned::to_owned), Some("64Mi"));
        let found = format!(
            "{} {} {}",
            end.exit_code,
            end.reason,
            end.message.unwrap_or_default()
        );
        assert_eq!(found.trim(), expected);
    }

    #[test]
    fn every_end_has_its_reason() {
        check(&exit(0), None, "0 Completed");
        check(&exit(0), Some("accuracy 0.9"), "0 Completed accuracy 0.9");
        check(&exit(3), None, "3 Error");
        check(&exit(1), Some("Traceback"), "1 Error Traceback");
        let signal = |signal| Exit {
            signal: Some(signal),
            ..exit(128 + signal)
        };
        check(&signal(11), None, "139 KilledBySignal killed by SIGSEGV");
        check(&signal(40), None, "168 KilledBySignal killed by signal 40");
        let stopped = Exit {
            stopped: true,
            ..signal(15)
        };
        check(&stopped, None, "143 Error ended by SIGTERM on request");
        let oom = Exit {
            oom: true,
            ..signal(9)
        };
        check(
            &oom,
            None,
            "137 OOMKilled killed for using more memory than its limit of 64Mi",
        );
        check(&Exit { oom: true, ..exit(0) }, None, "0 Completed");
        let failure = Failure {
            reason: Reason::CommandNotFound,
            message: "the command `x` does not exist".to_owned(),
        };
        let not_found = Exit {
            failure: Some(failure),
            ..exit(127)
        };
        check(
            &not_found,
            None,
            "127 CommandNotFound the command `x` does not exist",
        );
    }

    #[test]
    fn an_end_without_record_is_no_success() {
        let end = Termination::without_record("", None, Timestamp::UNIX_EPOCH);
        assert_eq!((end.exit_code, end.reason.as_str()), (137, "KilledBySignal"));
        let end = Termination::without_record("cannot read", None, Timestamp::UNIX_EPOCH);
        assert_eq!(end.reason, "SandboxNotReady");
    }
}
