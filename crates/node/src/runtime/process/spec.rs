//! What the node tells the sandbox helper, what the helper leaves behind, and where both lie.
//!
//! Everything of one run of one container is in one directory, the *run directory*:
//! `spec.json` (removed once read: it holds secrets), `pid` (who runs it: made once, never replaced),
//! `log` (CRI format; older parts are `log.1`, `log.2` and so on), `control` (the socket of [`super::control`]),
//! `exit.json` (made when it is over), `termination-log`, `shim.err`, and the sandbox's own folders `root`, `upper`, `work`, `layers`, `tmp`.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use coracle_api::reason::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a process finds its home, which is also where it starts, unless its container says otherwise.
pub(crate) const HOME: &str = "/tmp/home";

/// How far a container is kept apart from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// Own mounts and PIDs.
    Sandbox(Sandbox),
    /// Nothing: a process among the host's.
    Plain,
}

/// What this kernel lets us do inside own mounts and PIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    /// Through a user namespace, because we are not root.
    pub(crate) user: bool,
    /// The host's root is seen copy-on-write; else its folders are seen read-only.
    pub(crate) overlay_root: bool,
    /// Single folders can be shown copy-on-write.
    pub(crate) overlay: bool,
    /// What is written stays in memory, because the data directory's file system cannot be an upper layer.
    pub(crate) in_memory: bool,
}

impl Mode {
    pub(crate) fn sandbox(self) -> Option<Sandbox> {
        match self {
            Self::Sandbox(sandbox) => Some(sandbox),
            Self::Plain => None,
        }
    }

    /// Whether a folder can be shown copy-on-write.
    pub(crate) fn has_overlay(self) -> bool {
        self.sandbox().is_some_and(|sandbox| sandbox.overlay)
    }
}

/// One thing to show inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// On the host.
    pub(crate) source: PathBuf,
    /// Inside. Made if it is missing.
    pub(crate) target: PathBuf,
    /// How.
    pub(crate) kind: MountKind,
}

/// How a [`Mount`] is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MountKind {
    /// The very files, to read and write.
    ReadWrite,
    /// The very files, to read.
    ReadOnly,
    /// To read and write; what is written is gone afterwards. Read-only where there is no overlay.
    CopyOnWrite,
}

/// A folder of the host that is in memory inside the sandbox, and empty at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// On the host, where nothing is written to it.
    pub(crate) folder: PathBuf,
    /// How much it may hold.
    pub(crate) bytes: Option<u64>,
}

/// Who a container's processes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunAs {
    /// The user, as they see themselves.
    pub(crate) user: u32,
    /// The group, as they see themselves.
    pub(crate) group: u32,
}

/// One run of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The run directory.
    pub(crate) run_dir: PathBuf,
    /// How far it is kept apart.
    pub(crate) mode: Mode,
    /// Host folders whose content is not to be seen inside.
    pub(crate) hidden: Vec<PathBuf>,
    /// What is in memory; mounts may show it.
    #[serde(default)]
    pub(crate) memory: Vec<Memory>,
    /// What is shown inside, in order.
    pub(crate) mounts: Vec<Mount>,
    /// Further device nodes to show, e.g. `/dev/nvidia0`.
    pub(crate) devices: Vec<PathBuf>,
    /// Program and arguments. Empty: only try whether the sandbox can be made.
    pub(crate) command: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Where the command starts; made if it is missing.
    pub(crate) workdir: PathBuf,
    /// Who the processes are; absent for who the node is.
    #[serde(default)]
    pub(crate) run_as: Option<RunAs>,
    /// Where its servers are moved to; absent where they stay at this machine's addresses.
    #[serde(default)]
    pub(crate) address: Option<Ipv4Addr>,
    /// What the machine is called inside; absent for its own name.
    #[serde(default)]
    pub(crate) hostname: Option<String>,
    /// Control groups to enter; removed afterwards.
    pub(crate) cgroups: Vec<PathBuf>,
    /// Whether the command has an input that somebody can attach to. Else it is empty.
    #[serde(default)]
    pub(crate) stdin: bool,
    /// Whether the input ends when the first who attached to it goes.
    #[serde(default)]
    pub(crate) stdin_once: bool,
    /// Whether the command has a terminal.
    #[serde(default)]
    pub(crate) tty: bool,
    /// How large one file of its log may get.
    #[serde(default = "default_log_bytes")]
    pub(crate) log_bytes: u64,
}

/// How large one file of a container's log may get, as in kubelet.
pub(crate) const LOG_BYTES: u64 = 10 * 1024 * 1024;
/// How many files of a container's log are kept, as in kubelet.
pub(crate) const LOG_FILES: u64 = 5;

const fn default_log_bytes() -> u64 {
    LOG_BYTES
}

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
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
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
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut numbers: Vec<u64> = entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("log.")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
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
        serde_json::from_slice(&std::fs::read(self.exit()).ok()?).ok()
    }

    /// Who runs it, if somebody does or did.
    pub(crate) fn read_identity(&self) -> Option<Identity> {
        serde_json::from_slice(&std::fs::read(self.pid()).ok()?).ok()
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
