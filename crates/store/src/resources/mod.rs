//! Kubernetes objects: one revision counter, optimistic concurrency, lists and watches that may
//! start in the past. Knows no kind, no schema and no defaulting: a body is JSON to it, except
//! that `metadata.resourceVersion` is always the object's revision.
//!
//! Every write takes the next revision and appends to a log. The log answers lists and watches at
//! old revisions, until [`Resources::compact`] drops its beginning.
//!
//! All objects are in memory too, as text, and so are the latest events of each kind: what is now
//! is read there, and the database is asked about the past only. One task writes, many commands
//! at a time; what it has made durable it puts into memory, and then tells.

mod body;
mod compact;
mod draft;
mod list;
mod load;
mod row;
mod scan;
mod state;
mod statements;
mod watch;
mod write;
mod writer;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

pub use body::Body;
pub use list::{At, List};
pub use watch::Watch;

use self::{compact::Growth, state::Shared, writer::Message};
use crate::database::{self, Database};

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
    /// The body is nested so deeply that it could not be read again.
    #[error("{key} is nested too deeply: keep to 127 levels")]
    TooDeep {
        /// Its key.
        key: Key,
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
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; when it was deleted, as it last was, with the revision of the
    /// deletion.
    pub object: Object,
    /// The body before the change, with the revision of that time.
    pub previous: Option<Body>,
    frame: OnceLock<Bytes>,
}

impl Event {
    /// From its parts.
    #[must_use]
    pub const fn new(kind: EventKind, object: Object, previous: Option<Body>) -> Self {
        Self {
            kind,
            object,
            previous,
            frame: OnceLock::new(),
        }
    }

    /// What is sent to those who are told of the event as it is: made once, for all of them.
    pub fn frame(&self, make: impl FnOnce() -> Bytes) -> Bytes {
        self.frame.get_or_init(make).clone()
    }

    fn is_deletion(&self) -> bool {
        self.kind == EventKind::Deleted
    }

    /// How much text it holds.
    fn size(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |body| body.text().len());
        self.object.body.text().len() + previous
    }

    /// The same, without what has been made of its text.
    fn cold(&self) -> Self {
        let cold = |body: &Body| Body::from_text(body.text().clone());
        let object = Object {
            key: self.object.key.clone(),
            revision: self.object.revision,
            body: cold(&self.object.body),
        };
        Self::new(self.kind, object, self.previous.as_ref().map(cold))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.object == other.object && self.previous == other.previous
    }
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
    shared: Arc<Shared>,
    writer: mpsc::Sender<Message>,
}

impl Resources {
    /// Reads what there is into memory, and starts the writer.
    pub(crate) async fn open(database: Arc<Database>) -> Result<Self> {
        let state = load::load(&database).await?;
        let growth = Growth::new(state.oldest(), state.latest());
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
        });
        let (writer, messages) = mpsc::channel(writer::QUEUE);
        tokio::spawn(writer::run(
            Arc::clone(&shared),
            Arc::clone(&database),
            growth,
            messages,
        ));
        Ok(Self {
            database,
            shared,
            writer,
        })
    }

    /// Does what has been ordered, then nothing more. Watches end.
    pub(crate) async fn close(&self) {
        let (done, is_done) = oneshot::channel();
        if self.writer.send(Message::Close(done)).await.is_ok() {
            // An error says that the writer is gone, too.
            let _ = is_done.await;
        }
    }

    /// The latest revision.
    ///
    /// # Errors
    ///
    /// When the store is closed.
    pub async fn revision(&self) -> Result<u64> {
        let state = self.shared.state.read();
        state.check_open()?;
        Ok(state.latest())
    }

    /// Waits until there is the revision.
    ///
    /// # Errors
    ///
    /// When the store is closed.
    pub async fn reach(&self, revision: u64) -> Result<()> {
        let mut reached = self.shared.state.read().reached();
        // An error says that the state is gone, which it is not as long as it is shared.
        let _ = reached.wait_for(|latest| *latest >= revision).await;
        self.shared.state.read().check_open()
    }

    /// The object, or none.
    ///
    /// # Errors
    ///
    /// When the store is closed.
    pub async fn get(&self, key: &Key) -> Result<Option<Object>> {
        let stored = {
            let state = self.shared.state.read();
            state.check_open()?;
            state.object(key).cloned()
        };
        Ok(stored.map(|stored| stored.object(key.clone())))
    }
}
