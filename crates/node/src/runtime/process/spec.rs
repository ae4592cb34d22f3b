//! What the node tells the sandbox helper, as `spec.json` in the [run's folder].
//!
//! [run's folder]: crate::runtime::run_dir::RunDir

use std::{net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::{
    mount::{Memory, Mount, RunAs},
    run_dir::LOG_BYTES,
};

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
    /// The socket of a Python process that the command may become a copy of; see [`crate::warm`].
    #[serde(default)]
    pub(crate) python_worker: Option<PathBuf>,
    /// How large one file of its log may get.
    #[serde(default = "default_log_bytes")]
    pub(crate) log_bytes: u64,
}

const fn default_log_bytes() -> u64 {
    LOG_BYTES
}
