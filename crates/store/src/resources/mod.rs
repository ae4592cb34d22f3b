//! Kubernetes objects: one revision counter, optimistic concurrency, lists and watches that may
//! start in the past. Knows no kind, no schema and no defaulting: a body is JSON to it, except
//! that `metadata.resourceVersion` is always the object's revision.
//!
//! Every write takes the next revision and appends to a log. The log answers lists and watches at
//! old revisions, until [`Resources::compact`] drops its beginning.

mod body;
mod list;
mod row;
mod watch;
mod write;

use std::sync::Arc;

use tokio::sync::broadcast;

pub use body::Body;
pub use list::{At, List};
pub use watch::Watch;

use crate::database::{self, Database};

/// Events that a watcher may lag behind before it has to read the log.
const RING: usize = 1024;

/// What was asked of the resources was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object of this name exists.
    #[error("{key} already exists")]
    AlreadyExists {
        /// Its key.
        key: Key,
    },
    /// No object has this name.
    #[error("{key} does not exist")]
    NotFound {
        /// The key asked for.
        key: Key,
    },
    /// The object has changed since the caller read it.
    #[error(
        "{key} is at revision {current}, not {expected}: read it again and apply the change to what it is now"
    )]
    Conflict {
        /// Its key.
        key: Key,
        /// The revision the caller knows.
        expected: u64,
        /// The revision it has.
        current: u64,
    },
    /// The log no longer reaches back that far.
    #[error("revision {requested} is too old, the oldest kept is {oldest}: list again and go on from there")]
    Compacted {
        /// The revision asked for.
        requested: u64,
        /// The oldest revision that can be listed or watched from.
        oldest: u64,
    },
    /// No write has that revision yet.
    #[error(
        "revision {requested} does not exist yet, the latest is {latest}: list again and go on from there"
    )]
    FutureRevision {
        /// The revision asked for.
        requested: u64,
        /// The latest revision.
        latest: u64,
    },
    /// A row does not hold what this version writes.
    #[error("{key} cannot be read: its row at revision {revision} is damaged")]
    Unreadable {
        /// Its key.
        key: Key,
        /// Its revision.
        revision: i64,
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

/// The result of an operation on resources.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A kind of object, as it is named in URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// The API group, e.g. `apps`; empty for the core group.
    pub group: String,
    /// The plural, e.g. `deployments`.
    pub resource: String,
}

impl GroupResource {
    /// From group and plural.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
        }
    }
}

impl std::fmt::Display for GroupResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.resource)?;
        if self.group.is_empty() {
            Ok(())
        } else {
            write!(f, ".{}", self.group)
        }
    }
}

/// Names one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub resource: GroupResource,
    /// Its namespace; empty when it is cluster-scoped.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Key {
    /// `pods "default/web"`, `nodes "here"`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} \"", self.resource)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}\"", self.name)
    }
}

/// An object as it is at one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its key.
    pub key: Key,
    /// The revision of its last change.
    pub revision: u64,
    /// What it says. `metadata.resourceVersion` is the revision.
    pub body: Body,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; when it was deleted, as it last was, with the revision of the
    /// deletion.
    pub object: Object,
    /// The body before the change, with the revision of that time.
    pub previous: Option<Body>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum EventKind {
    /// It came to be.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// The objects. Clones share one database.
#[derive(Debug, Clone)]
pub struct Resources {
    database: Arc<Database>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Resources {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self {
            database,
            live: broadcast::Sender::new(RING),
        }
    }

    /// The latest revision.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn revision(&self) -> Result<u64> {
        let mut reader = self.database.reader().await?;
        Ok(row::counter(&mut reader).await?.latest)
    }

    /// The object, or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn get(&self, key: &Key) -> Result<Option<Object>> {
        let mut reader = self.database.reader().await?;
        row::object(&mut reader, key).await
    }
}
