//! States, in the words of KFP's `v2beta1.RuntimeState` and `v2beta1.Run.StorageState`
//! (kubeflow/pipelines `backend/api/v2beta1/run.proto`).

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr};

/// Where a run, a task or an attempt stands.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum RuntimeState {
    /// Accepted and waiting to start.
    Pending,
    /// At work.
    Running,
    /// Ended well.
    Succeeded,
    /// Not needed: its condition was false, or it consumed something that was skipped.
    Skipped,
    /// Ended with an error.
    Failed,
    /// Asked to stop; processes are being ended.
    Canceling,
    /// Stopped because somebody asked.
    Canceled,
    /// Held; nothing starts until it is resumed.
    Paused,
}

impl RuntimeState {
    /// Whether this state is the last one.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Skipped | Self::Failed | Self::Canceled
        )
    }
}

/// Whether an experiment or run is shown in the main lists.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum StorageState {
    /// Shown.
    Available,
    /// Kept, and left out of the main lists.
    Archived,
}
