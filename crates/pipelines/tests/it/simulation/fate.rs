//! What becomes of an attempt, by seed, path and number: the same whenever and however often its
//! Pod is made.

use coracle_api::{
    launch::{Failure, Report},
    reason::Reason,
};
use coracle_pipelines::run::observe::PodView;
use serde_json::{Value, json};

use super::{dice::fixed, pipelines::is_kept};

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It reports success.
    Succeeds,
    /// It reports that its command failed.
    Fails,
    /// It is killed before it can report.
    Dies,
    /// Its Pod ends well, and no report ever comes.
    SaysNothing,
    /// Somebody deletes its Pod while it runs.
    Vanishes,
    /// Its Pod never begins.
    Stuck,
    /// Its Pod is not accepted.
    Refused,
}

impl Fate {
    pub(super) fn of(seed: u64, path: &str, attempt: usize) -> Self {
        if is_kept(path) {
            return Self::Succeeds;
        }
        match fixed(seed, ("fate", path, attempt)) % 100 {
            0..=10 => Self::Fails,
            11..=15 => Self::Dies,
            16..=17 => Self::SaysNothing,
            18..=22 => Self::Vanishes,
            23..=25 => Self::Stuck,
            26..=28 => Self::Refused,
            _ => Self::Succeeds,
        }
    }

    /// What its launcher reports, if it does.
    pub(super) fn report(self, seed: u64, path: &str) -> Option<Report> {
        let failure = match self {
            Self::Succeeds => None,
            Self::Fails => Some(Failure {
                reason: Reason::CommandFailed,
                message: "exit code 1: boom".to_owned(),
            }),
            _ => return None,
        };
        let exit_code = Some(i32::from(failure.is_some()));
        let value = failure
            .is_none()
            .then(|| ("out".to_owned(), json!(output(seed, path))));
        Some(Report {
            parameters: value.into_iter().collect(),
            artifacts: Default::default(),
            failure,
            exit_code,
        })
    }

    /// The status in which its Pod ends up.
    pub(super) fn status(self) -> Value {
        let container = |state: Value| json!([{"name": "main", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        let ended = |phase: &str, code: i32, reason: &str| json!({"phase": phase, "containerStatuses": container(json!({"terminated": {"exitCode": code, "reason": reason}}))});
        match self {
            Self::Succeeds | Self::SaysNothing => ended("Succeeded", 0, "Completed"),
            Self::Dies => ended("Failed", 137, "OOMKilled"),
            Self::Stuck => {
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                "reason": "RequestExceedsNode", "message": "needs more than there is"}]})
            }
            Self::Fails | Self::Vanishes | Self::Refused => ended("Failed", 1, "Error"),
        }
    }

    /// What the engine sees of its Pod in the end.
    pub(super) fn view(self) -> PodView {
        PodView::of(&serde_json::from_value(json!({"status": self.status()})).unwrap())
    }
}

/// A Pod at work.
pub(super) fn running() -> Value {
    json!({"phase": "Running", "containerStatuses": [{"name": "main", "image": "x", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]})
}

/// What a task makes: the same at every attempt, and the same for all whose results may be kept.
pub(super) fn output(seed: u64, path: &str) -> &'static str {
    if is_kept(path) || fixed(seed, ("output", path)).is_multiple_of(2) {
        "a"
    } else {
        "b"
    }
}
