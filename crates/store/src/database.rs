//! The connections to the database, and what can go wrong with it. Knows no table.
//!
//! The pools here have no timers, no pings and no reconnects: an SQLite connection does not break,
//! and a timer would fire at once under a paused test clock.

use std::{
    future::Future,
    ops::{Deref, DerefMut},
};

use parking_lot::Mutex;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no space left.
    #[error("the disk that holds the database is full: free some space, then try again")]
    DiskFull(#[source] sqlx::Error),
    /// Writing is not allowed.
    #[error("the database cannot be written: make its file, folder and disk writable, then try again")]
    ReadOnly(#[source] sqlx::Error),
    /// What was read is not what was written.
    #[error("the database is damaged: stop the server, restore the file from a backup, then start again")]
    Corrupt(#[source] sqlx::Error),
    /// [`crate::Store::close`] was called.
    #[error("the database is closed because the server is stopping")]
    Closed,
    /// Anything else.
    #[error("the database refused an operation: please report this with the server's log")]
    Failed(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match result_code(&error) {
            Some(8) => Self::ReadOnly(error),
            Some(11 | 26) => Self::Corrupt(error),
            Some(13) => Self::DiskFull(error),
            _ => Self::Failed(error),
        }
    }
}

/// SQLite's primary result code: 8 is read-only, 11 and 26 are corruption, 13 is a full disk, 14
/// a file that cannot be opened.
pub(crate) fn result_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// The connections.
#[derive(Debug)]
pub(crate) struct Database {
    writer: Pool,
    /// Absent when the one connection serves both.
    readers: Option<Pool>,
}

impl Database {
    /// With no readers, the writer reads too.
    pub(crate) fn new(writer: SqliteConnection, readers: Vec<SqliteConnection>) -> Self {
        Self {
            writer: Pool::new(vec![writer]),
            readers: (!readers.is_empty()).then(|| Pool::new(readers)),
        }
    }

    /// A connection to read with. Holding two at once can wait for ever.
    pub(crate) async fn reader(&self) -> Result<Lease<'_>, Error> {
        self.readers.as_ref().unwrap_or(&self.writer).lease().await
    }

    /// The connection to write with. Whoever holds it is the only writer.
    pub(crate) async fn writer(&self) -> Result<Lease<'_>, Error> {
        self.writer.lease().await
    }

    pub(crate) async fn close(&self) {
        // Readers first: the last connection to close folds the write-ahead log into the file.
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        self.writer.close().await;
    }
}

#[derive(Debug)]
struct Pool {
    size: u32,
    permits: Semaphore,
    idle: Mutex<Vec<SqliteConnection>>,
}

impl Pool {
    fn new(connections: Vec<SqliteConnection>) -> Self {
        Self {
            size: u32::try_from(connections.len()).unwrap_or(u32::MAX),
            permits: Semaphore::new(connections.len()),
            idle: Mutex::new(connections),
        }
    }

    async fn lease(&self) -> Result<Lease<'_>, Error> {
        let permit = self.permits.acquire().await.map_err(|_| Error::Closed)?;
        let connection = self.idle.lock().pop().ok_or(Error::Closed)?;
        Ok(Lease {
            pool: self,
            connection: Some(connection),
            _permit: permit,
        })
    }

    async fn close(&self) {
        let Ok(_all) = self.permits.acquire_many(self.size).await else {
            return;
        };
        self.permits.close();
        let connections = std::mem::take(&mut *self.idle.lock());
        for connection in connections {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "a connection to the database did not close cleanly");
            }
        }
    }
}

/// A connection that goes back when dropped.
pub(crate) struct Lease<'pool> {
    pool: &'pool Pool,
    connection: Option<SqliteConnection>,
    // Released after `drop` has put the connection back.
    _permit: SemaphorePermit<'pool>,
}

impl Deref for Lease<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection
            .as_ref()
            .expect("a lease holds its connection until it is dropped")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection
            .as_mut()
            .expect("a lease holds its connection until it is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.pool.idle.lock().extend(self.connection.take());
    }
}

/// Runs a write to its end, whether or not the caller waits for it.
///
/// Without this, a caller that goes away between the commit and the announcement would leave a
/// change that nobody hears of.
pub(crate) async fn to_the_end<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Closed.into()),
        },
    }
}
