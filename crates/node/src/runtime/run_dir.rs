//! The folder of one run of one container: what is kept there, whichever way it runs.
//!
//! `log` (CRI format; older parts are `log.1`, `log.2` and so on, and `log-dropped` has how many bytes of them went),
//! `exit.json` (made when it is over) and `termination-log` are there for every run. A process has `spec.json` (removed
//! once read: it holds secrets), `pid` (who runs it: made once, never replaced), `control` (the socket of
//! [`super::process::control`]), `shim.err`, and the sandbox's own folders `root`, `upper`, `work`, `layers`, `tmp`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use coracle_api::reason::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How large one file of a container's log may get, as in kubelet.
pub(crate) const LOG_BYTES: u64 = 10 * 1024 * 1024;
/// How many files of a container's log are kept, as in kubelet.
pub(crate) const LOG_FILES: u64 = 5;

/// Whose process a run is: written by the shim before it does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The shim's PID, as the host counts.
    pub(crate) pid: i32,
    /// When it started, in the kernel's ticks since boot: PIDs come back, the pair does not.
    pub(crate) start_time: u64,
}

impl Identity {
    /// Of a living process; `None` when there is none with this PID.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self {
            pid,
            start_time: start_time(&stat)?,
        })
    }

    /// Whether this very process still lives.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// Field 22 of `/proc/<pid>/stat`; the name in field 2 may hold spaces and parentheses.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Why a container never got to run its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The stable name.
    pub(crate) reason: Reason,
    /// What happened, to what.
    pub(crate) message: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// As a shell counts: 128 + the signal's number for a signal.
    pub(crate) exit_code: i32,
    /// The signal that ended it, if one did.
    pub(crate) signal: Option<i32>,
    /// Whether the kernel killed something in it for want of memory.
    pub(crate) oom: bool,
    /// Whether we were asked to end it.
    pub(crate) stopped: bool,
    /// When its first process was made.
    pub(crate) started_at: Timestamp,
    /// When its last process was gone.
    pub(crate) finished_at: Timestamp,
    /// Why the command never ran, if it never ran.
    pub(crate) failure: Option<Failure>,
}

/// The names inside a run directory.
#[derive(Debug, Clone)]
pub(crate) struct RunDir(pub(crate) PathBuf);

impl RunDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    pub(crate) fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// An older part of the log; the first one is 1.
    pub(crate) fn older_log(&self, number: u64) -> PathBuf {
        self.0.join(format!("log.{number}"))
    }

    /// The numbers of the older parts of the log that are kept, oldest first.
    pub(crate) fn older_logs(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut numbers: Vec<u64> = entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("log.")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// How many bytes went with the oldest parts of the log; 0 when all of it is there.
    pub(crate) fn dropped(&self) -> u64 {
        let text = fs::read_to_string(self.0.join("log-dropped")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Writes that down, all or nothing.
    pub(crate) fn write_dropped(&self, bytes: u64) -> io::Result<()> {
        let draft = self.0.join("log-dropped.new");
        fs::write(&draft, bytes.to_string())?;
        fs::rename(&draft, self.0.join("log-dropped"))
    }

    pub(crate) fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    pub(crate) fn errors(&self) -> PathBuf {
        self.0.join("shim.err")
    }

    pub(crate) fn termination_log(&self) -> PathBuf {
        self.0.join("termination-log")
    }

    /// Private `/tmp`; the home lies inside.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.0.join("scratch")
    }

    /// The record of how the run ended, if it has.
    pub(crate) fn read_exit(&self) -> Option<Exit> {
        serde_json::from_slice(&fs::read(self.exit()).ok()?).ok()
    }

    /// Writes down how the run ended, all or nothing.
    pub(crate) fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        let draft = self.0.join("exit.json.new");
        fs::write(&draft, serde_json::to_vec(exit)?)?;
        fs::rename(&draft, self.exit())
    }

    /// Who runs it, if somebody does or did.
    pub(crate) fn read_identity(&self) -> Option<Identity> {
        serde_json::from_slice(&fs::read(self.pid()).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_process_name() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 98765 1000 10";
        assert_eq!(start_time(stat), Some(98765));
        assert_eq!(start_time("17 (x"), None);
    }

    #[test]
    fn this_process_is_itself_and_alive() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        let another = Identity {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(!another.is_alive());
    }
}
