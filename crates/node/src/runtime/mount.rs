//! What a container sees of this machine's files, and who it is to them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
