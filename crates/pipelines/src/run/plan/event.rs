//! What goes into the planner, and what comes out.

use coracle_api::{
    id::TaskId,
    launch::{Report, SpilledValue},
};
use coracle_store::records::{Artifact, CacheEntry, Commit};
use jiff::SignedDuration;
use serde_json::Value;

use crate::{run::observe::PodView, task::claim::ClaimOrder};

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The engine took the run up, for the first time or again after a restart.
    Resumed,
    /// There is room again for what was [`crate::run::state::State::postponed`].
    Room,
    /// The clock was set: what is waited for takes as long as it did before.
    ClockSet {
        /// By how much; less than nothing when it was set back.
        by: SignedDuration,
    },
    /// Somebody asked the run to stop.
    TerminationRequested,
    /// The time has come that [`crate::run::state::State::wakes_at`] gave.
    TimeCame,
    /// A Pod of the run looks like this.
    Pod {
        /// The task.
        task: TaskId,
        /// The attempt.
        number: u32,
        /// What its status says.
        view: PodView,
    },
    /// A list of all Pods does not have the one of an attempt under way.
    Missing {
        /// The task.
        task: TaskId,
        /// The attempt.
        number: u32,
    },
    /// A launcher reported.
    Reported {
        /// The task.
        task: TaskId,
        /// The attempt.
        number: u32,
        /// What it said.
        report: Report,
    },
    /// An import was made.
    Imported {
        /// The task.
        task: TaskId,
        /// The artifact, new or known before.
        artifact: Box<Artifact>,
    },
    /// What should be imported is not there.
    ImportRefused {
        /// The task.
        task: TaskId,
        /// What was looked for, and what was found.
        message: String,
    },
    /// A Pod was not accepted by the Kubernetes API.
    PodRefused {
        /// The task.
        task: TaskId,
        /// The attempt.
        number: u32,
        /// The API's words.
        message: String,
    },
    /// The cache was searched.
    LookedUp {
        /// The task.
        task: TaskId,
        /// What to take over, when there is something that can be.
        found: Option<Box<Known>>,
    },
    /// Large values were read.
    ValuesRead {
        /// The task that needs them.
        task: TaskId,
        /// Each value, or why it cannot be read.
        values: Vec<(SpilledValue, Result<Value, String>)>,
    },
    /// A claim was made or deleted.
    ClaimDone {
        /// The task that wanted it.
        task: TaskId,
        /// The claim's name.
        name: String,
    },
    /// A claim could not be made or deleted.
    ClaimRefused {
        /// The task that wanted it.
        task: TaskId,
        /// The API's words.
        message: String,
    },
}

/// Results that are known already, and are all still there.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The entry of the cache.
    pub entry: CacheEntry,
    /// The artifacts that it names.
    pub artifacts: Vec<Artifact>,
}

/// How many attempts one plan begins, about.
pub const MOST_ATTEMPTS: usize = 256;

/// What to do, in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Rows to write in one transaction.
    pub commit: Commit,
    /// Claims to make or delete.
    pub claims: Vec<Claim>,
    /// Pods to create, by attempt.
    pub create: Vec<(TaskId, u32)>,
    /// Artifacts to import.
    pub imports: Vec<Import>,
    /// Results to look for in the cache.
    pub lookups: Vec<Lookup>,
    /// Large values to read.
    pub reads: Vec<(TaskId, Vec<SpilledValue>)>,
    /// Pods to delete, by attempt.
    pub delete: Vec<(TaskId, u32)>,
    /// Pods to look for, by attempt.
    pub look: Vec<(TaskId, u32)>,
}

impl Plan {
    /// Whether it begins as many attempts as one plan may. What they are given is in memory until
    /// they have been made.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.create.len() >= MOST_ATTEMPTS
    }

    /// Adds what comes after.
    pub fn extend(&mut self, next: Self) {
        let Self {
            commit:
                Commit {
                    run,
                    tasks,
                    attempts,
                    specs,
                    events,
                    artifacts,
                    artifact_tasks,
                    cache_entries,
                },
            claims,
            create,
            imports,
            lookups,
            reads,
            delete,
            look,
        } = next;
        if let Some(mut run) = run {
            run.retried |= self.commit.run.as_ref().is_some_and(|before| before.retried);
            self.commit.run = Some(run);
        }
        self.commit.tasks.extend(tasks);
        self.commit.attempts.extend(attempts);
        self.commit.specs.extend(specs);
        self.commit.events.extend(events);
        self.commit.artifacts.extend(artifacts);
        self.commit.artifact_tasks.extend(artifact_tasks);
        self.commit.cache_entries.extend(cache_entries);
        self.claims.extend(claims);
        self.create.extend(create);
        self.imports.extend(imports);
        self.lookups.extend(lookups);
        self.reads.extend(reads);
        self.delete.extend(delete);
        self.look.extend(look);
    }
}

/// A claim to be made or deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The task that wants it: the root, for the run's workspace.
    pub task: TaskId,
    /// The namespace it is in.
    pub namespace: String,
    /// What to do.
    pub order: ClaimOrder,
}

/// Results to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The task that would do the work.
    pub task: TaskId,
    /// The name of its pipeline.
    pub pipeline: String,
    /// What it would do.
    pub key: String,
}

/// An artifact that exists, to be known under a task's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The importer task.
    pub task: TaskId,
    /// The row to add, unless one is known.
    pub artifact: Artifact,
    /// Whether to add it even if one of this URI is known.
    pub reimport: bool,
}
