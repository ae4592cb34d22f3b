//! Rows that grow without bound: runs, tasks, artifacts and lineage. Who may write which is said
//! at the fields in the model; authorization and defaults are the caller's.

mod artifacts;
mod cache;
mod documents;
mod entity;
mod experiments;
mod launch;
mod lineage;
mod model;
mod page;
mod pipelines;
pub mod query;
mod recurring;
mod retention;
mod row;
mod runs;
mod tasks;
mod versions;
mod write;

use std::sync::Arc;

use tokio::sync::broadcast;

pub use cache::CacheFilter;
pub use lineage::{ArtifactScope, LinkFilter};
pub use model::*;
pub use query::{Cursor, Page};
pub use retention::{StoredArtifact, StoredRun};
pub use runs::RunScope;

use crate::database::{self, Database};

/// Changes that a receiver may lag behind.
const CHANGES: usize = 4096;

/// What was asked of the records was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name or id is taken.
    #[error("a {kind} named `{name}` already exists: choose another name")]
    AlreadyExists {
        /// What it is, e.g. `experiment`.
        kind: &'static str,
        /// The name, or the id when that is what is taken.
        name: String,
    },
    /// There is no such row.
    #[error("there is no {kind} with id {id}")]
    NotFound {
        /// What was asked for, e.g. `run`.
        kind: &'static str,
        /// The id asked for.
        id: String,
    },
    /// Other rows depend on it.
    #[error("the {kind} {id} still has {dependents}: delete those first")]
    InUse {
        /// What it is.
        kind: &'static str,
        /// Its id.
        id: String,
        /// What depends on it.
        dependents: &'static str,
    },
    /// What is asked for can only be done to a run that has ended.
    #[error("run {id} has not ended: wait until it has, or terminate it, then try again")]
    NotEnded {
        /// The run.
        id: String,
    },
    /// No such field can be filtered or sorted by.
    #[error("`{field}` is not a field that a list of {entity}s can be filtered or sorted by")]
    UnknownField {
        /// What is listed.
        entity: &'static str,
        /// The field named.
        field: String,
    },
    /// A value does not fit its field and operation.
    #[error("`{field}` of a {entity} cannot be compared so: expected {expected}")]
    InvalidValue {
        /// What is listed.
        entity: &'static str,
        /// The field named.
        field: String,
        /// What would fit.
        expected: &'static str,
    },
    /// The place to go on from is not one that this list gave.
    #[error("the page token does not belong to this list of {entity}s: start again without it")]
    InvalidCursor {
        /// What is listed.
        entity: &'static str,
    },
    /// A commit names rows that do not exist, or that belong to another run.
    #[error("the commit to run {run} was not made: {problem}")]
    InvalidCommit {
        /// The run.
        run: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A row does not hold what this version writes.
    #[error("column `{column}` of table `{table}` holds something that this version of Coracle cannot read")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database itself failed.
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Error {
    /// For an insert: a taken key is told from other failures.
    fn inserting(error: sqlx::Error, kind: &'static str, name: &str) -> Self {
        let is_taken = error
            .as_database_error()
            .is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        if is_taken {
            Self::AlreadyExists {
                kind,
                name: name.to_owned(),
            }
        } else {
            error.into()
        }
    }

    fn not_found(kind: &'static str, id: impl std::fmt::Display) -> Self {
        Self::NotFound {
            kind,
            id: id.to_string(),
        }
    }
}

/// The result of an operation on records.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The records. Clones share one database.
#[derive(Debug, Clone)]
pub struct Records {
    database: Arc<Database>,
    changes: broadcast::Sender<Change>,
    waiting: Arc<write::Waiting>,
}

impl Records {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self {
            database,
            changes: broadcast::Sender::new(CHANGES),
            waiting: Arc::default(),
        }
    }

    /// What changes from now on, each told once it is durable, in the order of the commits.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// To be called while the writer is still held: that is what keeps changes in order.
    fn announce(&self, change: Change) {
        // An error only says that nobody listens.
        let _ = self.changes.send(change);
    }
}
