//! The connections to the database, and what can go wrong with it. Knows no table.
//!
//! The pools here have no timers, no pings and no reconnects: an SQLite connection does not break,
//! and a timer would fire at once under a paused test clock.

use std::{
    future::Future,
    ops::{Deref, DerefMut},
    path::Path,
    sync::{Arc, mpsc},
    time::Instant,
};

use coracle_api::reason::Reason;
use parking_lot::Mutex;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteArguments};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::checkpoint::Log;

/// The database did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no space left.
    #[error("the disk that holds the database is full: free some space, then try again")]
    DiskFull(#[source] Arc<sqlx::Error>),
    /// Somebody else writes, and does not end.
    #[error(
        "another program holds the database locked: find it (`fuser coracle.db`) and end it, then try again"
    )]
    Busy(#[source] Arc<sqlx::Error>),
    /// The disk does not do what it is asked.
    #[error(
        "the disk that holds the database does not read or write as it should: look at the kernel's log (`dmesg`), \
         then try again"
    )]
    Io(#[source] Arc<sqlx::Error>),
    /// Writing is not allowed.
    #[error("the database cannot be written: make its file, folder and disk writable, then try again")]
    ReadOnly(#[source] Arc<sqlx::Error>),
    /// What was read is not what was written.
    #[error("the database is damaged: stop the server, restore the file from a backup, then start again")]
    Corrupt(#[source] Arc<sqlx::Error>),
    /// [`crate::Store::close`] was called.
    #[error("the database is closed because the server is stopping")]
    Closed,
    /// Anything else.
    #[error("the database refused an operation: please report this with the server's log")]
    Failed(#[source] Arc<sqlx::Error>),
}

impl Error {
    /// The stable name.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::DiskFull(_) => Reason::DiskFull,
            Self::Busy(_) | Self::Io(_) | Self::ReadOnly(_) | Self::Closed => Reason::DatabaseUnavailable,
            Self::Corrupt(_) | Self::Failed(_) => Reason::InternalError,
        }
    }

    fn caused(cause: Cause, error: sqlx::Error) -> Self {
        let error = Arc::new(error);
        match cause {
            Cause::DiskFull => Self::DiskFull(error),
            Cause::Busy => Self::Busy(error),
            Cause::Io => Self::Io(error),
            Cause::ReadOnly => Self::ReadOnly(error),
            Cause::Corrupt => Self::Corrupt(error),
            Cause::CannotOpen | Cause::Other => Self::Failed(error),
        }
    }

    /// What a breakpoint says that a write comes to, as one of SQLite's codes.
    fn injected() -> Result<(), Self> {
        let Some(code) = coracle_breakpoint::error("store.write") else {
            return Ok(());
        };
        let error = sqlx::Error::Io(std::io::Error::other(format!("breakpoint: {code}")));
        Err(Self::caused(
            Cause::of_code(code.parse().unwrap_or_default()),
            error,
        ))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::caused(Cause::of(&error), error)
    }
}

/// What SQLite's result codes come down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    DiskFull,
    Busy,
    Io,
    ReadOnly,
    Corrupt,
    /// A file cannot be opened or made.
    CannotOpen,
    Other,
}

impl Cause {
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        let Some(code) = code.and_then(|code| code.parse::<i32>().ok()) else {
            return Self::Other;
        };
        Self::of_code(code)
    }

    const fn of_code(code: i32) -> Self {
        // The low byte is the kind of error, the rest says more.
        match (code, code & 0xff) {
            // 4874: no space for the index of the write-ahead log.
            (_, 13) | (4874, _) => Self::DiskFull,
            (_, 5 | 6) => Self::Busy,
            (_, 8) => Self::ReadOnly,
            (_, 10) => Self::Io,
            (_, 11 | 26) => Self::Corrupt,
            (_, 14) => Self::CannotOpen,
            _ => Self::Other,
        }
    }
}

/// The connections.
#[derive(Debug)]
pub(crate) struct Database {
    writer: Arc<Pool>,
    /// Absent when the one connection serves both.
    readers: Option<Arc<Pool>>,
}

impl Database {
    /// One that is nowhere else: the writer reads too.
    pub(crate) fn in_memory(connection: SqliteConnection) -> Self {
        let mut pool = Pool::new(vec![connection], None);
        pool.is_repeatable = true;
        Self {
            writer: Arc::new(pool),
            readers: None,
        }
    }

    /// In this file. `folder` folds its log.
    pub(crate) fn in_file(
        path: &Path,
        writer: SqliteConnection,
        readers: Vec<SqliteConnection>,
        folder: SqliteConnection,
    ) -> Self {
        let log = Log::new(path, Arc::new(Pool::new(vec![folder], None)));
        Self {
            writer: Arc::new(Pool::new(vec![writer], Some(log))),
            readers: Some(Arc::new(Pool::new(readers, None))),
        }
    }

    /// A connection to read with. Holding two at once can wait for ever.
    pub(crate) async fn reader(&self) -> Result<Lease, Error> {
        self.readers.as_ref().unwrap_or(&self.writer).lease().await
    }

    /// The connection to write with. Whoever holds it is the only writer.
    pub(crate) async fn writer(&self) -> Result<Lease, Error> {
        self.writer.lease().await
    }

    #[cfg(test)]
    pub(crate) const fn writers(&self) -> &Arc<Pool> {
        &self.writer
    }

    pub(crate) async fn close(&self) {
        // The writer last: the last connection to close folds the write-ahead log into the file.
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        if let Some(log) = &self.writer.log {
            log.folder().close().await;
        }
        self.writer.close().await;
    }
}

/// Connections for one purpose.
#[derive(Debug)]
pub(crate) struct Pool {
    size: u32,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<SqliteConnection>>,
    /// What these connections write to, and is to be folded.
    log: Option<Log>,
    /// Whether this is a database in memory, as tests have it: what happens in one must not depend
    /// on how fast the thread of its connection is.
    is_repeatable: bool,
    /// When somebody last waited for another program as long as one may.
    waited_in_vain: Mutex<Option<(Instant, Error)>>,
}

impl Pool {
    fn new(connections: Vec<SqliteConnection>, log: Option<Log>) -> Self {
        Self {
            size: u32::try_from(connections.len()).unwrap_or(u32::MAX),
            permits: Arc::new(Semaphore::new(connections.len())),
            idle: Mutex::new(connections),
            log,
            is_repeatable: false,
            waited_in_vain: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(crate) const fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// A connection, when one is free.
    pub(crate) async fn lease(self: &Arc<Self>) -> Result<Lease, Error> {
        let permits = Arc::clone(&self.permits);
        let came = Instant::now();
        let permit = permits.acquire_owned().await.map_err(|_| Error::Closed)?;
        if self.is_repeatable {
            // Nobody else is under way when the thread gets to work, so that it makes no difference
            // whether it answers at once.
            tokio::task::yield_now().await;
        }
        // Whoever stood in line behind somebody who waited in vain has waited as long.
        match &*self.waited_in_vain.lock() {
            Some((then, error)) if *then > came => return Err(error.clone()),
            _ => {}
        }
        let connection = self.idle.lock().pop().ok_or(Error::Closed)?;
        Ok(Lease {
            connection: Some(connection),
            is_in_transaction: false,
            place: Some(Place {
                pool: Arc::clone(self),
                permit,
                _still: self.is_repeatable.then(still_clock).flatten(),
            }),
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

/// Where a leased connection belongs.
struct Place {
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
    _still: Option<mpsc::Sender<()>>,
}

/// Keeps the paused clock of a test where it is, until the sender is dropped. It moves on by itself
/// when all tasks of a runtime wait, and would do so while they wait for the thread of a connection;
/// not so while a blocking task runs.
fn still_clock() -> Option<mpsc::Sender<()>> {
    let (hold, held) = mpsc::channel();
    let runtime = Handle::try_current().ok()?;
    runtime.spawn_blocking(move || held.recv());
    Some(hold)
}

impl Place {
    fn put_back(self, connection: SqliteConnection) {
        let Self { pool, permit, .. } = self;
        pool.idle.lock().push(connection);
        drop(permit);
        // Without a runtime the program is ending.
        if pool.log.as_ref().is_some_and(Log::is_due)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                if let Some(log) = &pool.log {
                    log.fold(&pool).await;
                }
            });
        }
    }
}

/// A connection that goes back when dropped, with what is open on it rolled back.
///
/// Transactions are plain statements here. SQLite rolls back by itself when a disk is full or
/// fails; `sqlx` counts that transaction as open for ever, makes savepoints inside it of all that
/// follow, and reports as committed what never will be.
pub(crate) struct Lease {
    connection: Option<SqliteConnection>,
    is_in_transaction: bool,
    place: Option<Place>,
}

impl Lease {
    /// Begins a transaction. One that is not committed is rolled back when the lease is dropped.
    pub(crate) async fn begin(&mut self) -> Result<(), Error> {
        self.is_in_transaction = true;
        let pool = self.place.as_ref().map(|place| Arc::clone(&place.pool));
        let Some(pool) = pool.filter(|pool| pool.log.is_some()) else {
            sqlx::query("BEGIN").execute(&mut **self).await?;
            return Ok(());
        };
        // A writer takes the lock at once: if another program has it, nothing was done yet.
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut **self).await;
        begun.map(drop).map_err(|error| {
            let error = Error::from(error);
            if let Error::Busy(_) = error {
                *pool.waited_in_vain.lock() = Some((Instant::now(), error.clone()));
            }
            error
        })
    }

    /// Runs statements that begin and commit a transaction themselves: one message to the thread
    /// of the connection instead of one for each of them.
    pub(crate) async fn transact(
        &mut self,
        statements: sqlx::query::Query<'_, sqlx::Sqlite, SqliteArguments>,
    ) -> Result<(), Error> {
        self.is_in_transaction = true;
        Error::injected()?;
        coracle_breakpoint::at("objects.before-commit");
        statements.execute(&mut **self).await?;
        coracle_breakpoint::at("objects.committed");
        self.is_in_transaction = false;
        Ok(())
    }

    /// Makes the transaction durable.
    pub(crate) async fn commit(&mut self) -> Result<(), Error> {
        Error::injected()?;
        coracle_breakpoint::at("rows.before-commit");
        sqlx::query("COMMIT").execute(&mut **self).await?;
        coracle_breakpoint::at("rows.committed");
        self.is_in_transaction = false;
        Ok(())
    }

    /// Ends a transaction that is not to be.
    pub(crate) async fn roll_back(&mut self) {
        // An error says that there is no transaction any more: SQLite ends some by itself.
        if let Err(error) = sqlx::query("ROLLBACK").execute(&mut **self).await {
            tracing::debug!(%error, "there was nothing to roll back");
        }
        self.is_in_transaction = false;
    }
}

impl Deref for Lease {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection
            .as_ref()
            .expect("a lease holds its connection until it is dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection
            .as_mut()
            .expect("a lease holds its connection until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(mut connection), Some(place)) = (self.connection.take(), self.place.take()) else {
            return;
        };
        if !self.is_in_transaction {
            place.put_back(connection);
            return;
        }
        // Without a runtime the program is ending, and the connection with it.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // An error says that there is no transaction any more.
                if let Err(error) = sqlx::query("ROLLBACK").execute(&mut connection).await {
                    tracing::debug!(%error, "there was nothing to roll back");
                }
                place.put_back(connection);
            });
        }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Location, Store,
        resources::{self, At, GroupResource, Key},
    };

    #[tokio::test]
    async fn a_store_whose_disk_was_full_goes_on_and_loses_nothing_it_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::File(directory.path().join("store.db"));
        let store = Store::open(location.clone()).await.unwrap();
        let pods = GroupResource::new("", "pods");
        let mut acknowledged = Vec::new();
        for round in 0..3 {
            limit_pages(&store, 200 + round * 50).await;
            let mut refused = 0;
            for number in 0.. {
                // Small ones fit in places where large ones do not.
                let text = "x".repeat(if number % 3 == 0 { 10 } else { 3000 });
                let name = format!("{round}-{number:04}");
                let key = Key {
                    resource: pods.clone(),
                    namespace: "a".to_owned(),
                    name,
                };
                match store.resources().create(key.clone(), json!({"text": text})).await {
                    Ok(object) => acknowledged.push(object),
                    Err(resources::Error::Database(Error::DiskFull(_))) => refused += 1,
                    Err(error) => panic!("{error:?}"),
                }
                if refused == 20 {
                    break;
                }
            }
        }
        limit_pages(&store, i64::from(i32::MAX)).await;
        let list = store
            .resources()
            .list(&pods, None, At::Latest, None, None)
            .await
            .unwrap();
        assert_eq!(list.objects, acknowledged);
        store.close().await;
        let store = Store::open(location).await.unwrap();
        let list = store
            .resources()
            .list(&pods, None, At::Latest, None, None)
            .await
            .unwrap();
        assert_eq!(list.objects, acknowledged);
    }

    #[tokio::test]
    async fn when_the_disk_is_full_a_batch_fails_as_a_whole_and_nothing_of_it_shows() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::File(directory.path().join("store.db"));
        let store = Store::open(location.clone()).await.unwrap();
        let resources = store.resources();
        let pods = GroupResource::new("", "pods");
        let before = resources.revision().await.unwrap();
        let mut watch = resources.watch(&pods, None, before).await.unwrap();
        limit_pages(&store, 60).await;
        // While the connection is taken, they queue up.
        let lease = store.database.writer().await.unwrap();
        let writes = (0..100).map(|number| {
            let key = Key {
                resource: pods.clone(),
                namespace: "a".to_owned(),
                name: format!("x{number}"),
            };
            resources.create(key, json!({"text": "x".repeat(3000)}))
        });
        let (written, ()) = tokio::join!(futures::future::join_all(writes), async { drop(lease) });
        for write in written {
            let refused = write.unwrap_err();
            assert!(
                matches!(refused, resources::Error::Database(Error::DiskFull(_))),
                "{refused:?}"
            );
        }
        assert_eq!(resources.revision().await.unwrap(), before);
        let list = resources.list(&pods, None, At::Latest, None, None).await.unwrap();
        assert_eq!((list.revision, list.objects), (before, Vec::new()));
        limit_pages(&store, i64::from(i32::MAX)).await;
        let key = Key {
            resource: pods.clone(),
            namespace: "a".to_owned(),
            name: "x0".to_owned(),
        };
        let made = resources.create(key, json!({})).await.unwrap();
        assert_eq!(made.revision, before + 1);
        assert_eq!(watch.next().await.unwrap().unwrap().object, made);
    }

    #[tokio::test]
    async fn what_is_abandoned_in_a_transaction_is_rolled_back() {
        let store = Store::open(Location::Memory).await.unwrap();
        let before = store.resources().revision().await.unwrap();
        let mut lease = store.database.writer().await.unwrap();
        lease.begin().await.unwrap();
        sqlx::query("UPDATE resource_revision SET latest = 99")
            .execute(&mut *lease)
            .await
            .unwrap();
        drop(lease);
        assert_eq!(store.resources().revision().await.unwrap(), before);
    }

    /// Makes the disk as large as so many pages, as far as the writer knows.
    async fn limit_pages(store: &Store, pages: i64) {
        let mut writer = store.database.writer().await.unwrap();
        let sql = format!("PRAGMA max_page_count = {pages}");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut *writer)
            .await
            .unwrap();
    }
}
