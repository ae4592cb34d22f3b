//! Typed identifiers. Mixing the id of a run with that of a task is a compile error.
//!
//! On the wire and in the store each is a lower-case hyphenated UUID, as KFP's are. New ids are
//! version 7 (their order is creation order, which keyset paging likes). A task's id is not
//! drawn: it is a function of its run and its path, so that planning twice names the same rows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind} id: expected a UUID such as 0198c0de-0000-7000-8000-000000000000")]
pub struct InvalidId {
    /// What the id would have named, e.g. `run`.
    pub kind: &'static str,
    /// The offending text.
    pub text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, later than every id drawn before it in this process.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The UUID behind the id.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| InvalidId { kind: $kind, text: text.to_owned() })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, ":{}"), self.0)
            }
        }
    )*};
}

ids! {
    /// Names an experiment.
    ExperimentId = "experiment";
    /// Names a pipeline: a series of versions under one name.
    PipelineId = "pipeline";
    /// Names one version of a pipeline.
    PipelineVersionId = "pipeline version";
    /// Names a run.
    RunId = "run";
    /// Names a task: one node of a run's task tree, one iteration of a loop being a node of its own.
    TaskId = "task";
    /// Names an artifact.
    ArtifactId = "artifact";
    /// Names an entry of a task's history.
    EventId = "event";
    /// Names a recurring run.
    RecurringRunId = "recurring run";
}

impl TaskId {
    /// The id of the task at `path` in `run`: the same path always gives the same id.
    ///
    /// Paths are written `root`, `root.train`, `root.for-loop-1.3.train` (3 being an iteration).
    #[must_use]
    pub fn at(run: RunId, path: &str) -> Self {
        Self(Uuid::new_v5(&run.uuid(), path.as_bytes()))
    }
}

impl RunId {
    /// The id of the run that `recurring` makes for `due`, in microseconds since 1970: making it
    /// twice makes one run.
    #[must_use]
    pub fn of_schedule(recurring: RecurringRunId, due: i64) -> Self {
        Self(Uuid::new_v5(&recurring.uuid(), due.to_string().as_bytes()))
    }
}

impl ArtifactId {
    /// The id of output number `position` of `key`, as one attempt of a task produced it.
    ///
    /// Recording the same output twice therefore writes the same row.
    #[must_use]
    pub fn of_output(task: TaskId, attempt: u32, key: &str, position: usize) -> Self {
        Self(Uuid::new_v5(
            &task.uuid(),
            format!("{attempt}/{key}/{position}").as_bytes(),
        ))
    }
}

impl EventId {
    /// The id of something that happened to a task at `microsecond` since 1970: recording it
    /// twice writes one row.
    #[must_use]
    pub fn of(task: TaskId, reason: &str, message: &str, microsecond: i64) -> Self {
        Self(Uuid::new_v5(
            &task.uuid(),
            format!("{microsecond}/{reason}/{message}").as_bytes(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_id_is_a_function_of_run_and_path() {
        let (one, other) = (RunId::new(), RunId::new());
        assert_eq!(TaskId::at(one, "root.train"), TaskId::at(one, "root.train"));
        assert_ne!(TaskId::at(one, "root.train"), TaskId::at(one, "root.test"));
        assert_ne!(TaskId::at(one, "root.train"), TaskId::at(other, "root.train"));
    }

    #[test]
    fn text_that_is_no_uuid_is_refused_by_kind() {
        let error = "nonsense".parse::<RunId>().expect_err("must be refused");
        assert!(error.to_string().starts_with("`nonsense` is not a run id"));
    }
}
