//! The only SQL of Coracle: Kubernetes objects and platform records, in one database.
//!
//! - [`resources`]: Kubernetes objects, their revisions and watches. Used by the API server only
//! - [`records`]: rows that grow without bound: runs, tasks, artifacts and lineage
//! - [`database`]: what can go wrong with the database itself
//!
//! The database is SQLite, in one file or in memory. The SQL keeps to what PostgreSQL takes
//! too, but for what makes lists of runs fast (triggers, full-text search) and a few functions.
//! Writes go one at a time through one connection. Once started, a write runs to its end even
//! when the caller goes away, so that whoever listens for changes hears of all that happened.

mod checkpoint;
pub mod database;
mod open;
pub mod records;
pub mod resources;
mod snapshot;

use std::{path::PathBuf, sync::Arc};

pub use open::OpenError;
pub use snapshot::{relocate, snapshot};

use self::{database::Database, records::Records, resources::Resources};

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In memory: gone when the store is.
    Memory,
    /// In this file, made when absent. Its folder must exist.
    File(PathBuf),
}

impl Location {
    fn path(&self) -> PathBuf {
        match self {
            Self::Memory => PathBuf::from(":memory:"),
            Self::File(path) => path.clone(),
        }
    }
}

/// An open database.
#[derive(Debug)]
pub struct Store {
    database: Arc<Database>,
    resources: Resources,
    records: Records,
}

impl Store {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// When the database cannot be used. A file that is corrupt, not Coracle's, or written by a
    /// newer Coracle is left as it was.
    pub async fn open(location: Location) -> Result<Self, OpenError> {
        let path = location.path();
        let database = Arc::new(open::open(location).await?);
        let resources = match Resources::open(Arc::clone(&database)).await {
            Ok(resources) => resources,
            Err(error) => {
                database.close().await;
                return Err(open::unreadable(&path, error));
            }
        };
        Ok(Self {
            resources,
            records: Records::new(Arc::clone(&database)),
            database,
        })
    }

    /// Kubernetes objects.
    #[must_use]
    pub const fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Platform records.
    #[must_use]
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// Waits for what is at work, then closes the database. Whoever still holds a handle is told
    /// [`database::Error::Closed`].
    pub async fn close(self) {
        self.resources.close().await;
        self.database.close().await;
    }
}
