//! Opening the database: refuses what it cannot use, before it changes a byte of it.

use std::{
    error::Error as StdError,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::{
    Location, checkpoint,
    database::{self, Cause, Database},
    resources,
};

static MIGRATOR: Migrator = sqlx::migrate!();

const READERS: usize = 4;
/// A file up to this size is read through before use. A larger one would delay the start; its
/// header and schema are checked, and damage elsewhere shows when it is read.
const CHECKED_WHOLE: u64 = 32 << 20;
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The database cannot be opened. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not a database, or a damaged one.
    #[error(
        "the database `{}` is damaged or not a database: restore it from a backup, or move it away to start afresh",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A newer version of Coracle has written it.
    #[error(
        "the database `{}` has schema {found}, and this version of Coracle knows schemas up to {known}: run the newer version",
        path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The schema found.
        found: i64,
        /// The newest schema known.
        known: i64,
    },
    /// It is a database of some other program.
    #[error(
        "the database `{}` belongs to another program: choose another data directory, or move the file away",
        path.display()
    )]
    NotCoracle {
        /// The file.
        path: PathBuf,
    },
    /// It, its folder or its disk cannot be written.
    #[error("the database `{}` cannot be written: make the file, its folder and its disk writable", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What was refused.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// There is no space left.
    #[error("the disk that holds the database `{}` is full: free some space, then start again", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// What was refused.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Another program holds it locked.
    #[error(
        "another program holds the database `{}` locked: find it (`fuser {}`) and end it, then start again",
        path.display(), path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
        /// What was refused.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Its folder does not exist.
    #[error("the folder of the database `{}` does not exist: create it, then start again", path.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// What was refused.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Anything else.
    #[error("the database `{}` cannot be opened", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

pub(crate) async fn open(location: Location) -> Result<Database, OpenError> {
    match location {
        Location::Memory => {
            let path = location.path();
            let mut connection = options()
                .in_memory(true)
                .connect()
                .await
                .map_err(|error| refused(&path, error))?;
            migrate(&path, &mut connection).await?;
            Ok(Database::in_memory(connection))
        }
        Location::File(path) => open_file(path).await,
    }
}

async fn open_file(path: PathBuf) -> Result<Database, OpenError> {
    let looked_at = path.clone();
    let found = tokio::task::spawn_blocking(move || look(&looked_at))
        .await
        .map_err(|error| OpenError::Other {
            path: path.clone(),
            source: error.into(),
        })??;
    if let Found::Database { bytes } = found {
        inspect(&path, bytes).await?;
    }
    let mut writer = options()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", "-8000")
        // Another connection folds the log into the file.
        .pragma("wal_autocheckpoint", "0")
        .pragma("journal_size_limit", checkpoint::KEPT.to_string())
        .thread_name(|_| "store-writer".to_owned())
        .connect()
        .await
        .map_err(|error| refused(&path, error))?;
    migrate(&path, &mut writer).await?;
    let reader = options()
        .filename(&path)
        .read_only(true)
        .pragma("cache_size", "-4000")
        .thread_name(|id| format!("store-reader-{id}"));
    let readers = futures::future::try_join_all((0..READERS).map(|_| reader.connect()))
        .await
        .map_err(|error| refused(&path, error))?;
    let folder = options()
        .filename(&path)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", "-1000")
        .thread_name(|_| "store-folder".to_owned())
        .connect()
        .await
        .map_err(|error| refused(&path, error))?;
    Ok(Database::in_file(&path, writer, readers, folder))
}

fn options() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .foreign_keys(true)
        // Nobody else should write here. Who does so for a moment, such as a tool, is waited for.
        .busy_timeout(Duration::from_secs(3))
        .statement_cache_capacity(256)
        .row_buffer_size(256)
        .pragma("temp_store", "memory")
}

/// The newest schema that this version knows.
fn known_schema() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

enum Found {
    Nothing,
    Database { bytes: u64 },
}

/// Looks at the file without SQLite, which might change it. Makes an empty one when there is none.
fn look(path: &Path) -> Result<Found, OpenError> {
    let refuse = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly {
            path: path.to_owned(),
            source: error.into(),
        },
        io::ErrorKind::NotFound => OpenError::NoFolder {
            path: path.to_owned(),
            source: error.into(),
        },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::DiskFull {
            path: path.to_owned(),
            source: error.into(),
        },
        _ => OpenError::Other {
            path: path.to_owned(),
            source: error.into(),
        },
    };
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(refuse)?;
    let bytes = file.metadata().map_err(refuse)?.len();
    if bytes == 0 {
        return Ok(Found::Nothing);
    }
    let corrupt = |what: &str| OpenError::Corrupt {
        path: path.to_owned(),
        source: what.into(),
    };
    if bytes < HEADER_BYTES as u64 {
        return Err(corrupt("the file is shorter than the header of a database"));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).map_err(refuse)?;
    if !header.starts_with(MAGIC) {
        return Err(corrupt("the file does not begin as a database does"));
    }
    let [.., a, b, c, d] = header[..64] else {
        return Err(corrupt("the file is shorter than the header of a database"));
    };
    check_schema(path, u32::from_be_bytes([a, b, c, d]).into())?;
    Ok(Found::Database { bytes })
}

/// Looks at the database through a connection that cannot write.
async fn inspect(path: &Path, bytes: u64) -> Result<(), OpenError> {
    // With nothing left over from a crash the file alone is all there is, and reading it as
    // immutable leaves no files of SQLite's own beside one that is then refused.
    let left_over = {
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        std::path::PathBuf::from(name)
    };
    let mut connection = options()
        .filename(path)
        .read_only(true)
        .immutable(!left_over.exists())
        .connect()
        .await
        .map_err(|error| refused(path, error))?;
    let checked = inspect_with(path, bytes, &mut connection).await;
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the connection that inspected the database did not close cleanly");
    }
    checked
}

async fn inspect_with(path: &Path, bytes: u64, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let refuse = |error| refused(path, error);
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .fetch_all(&mut *connection)
        .await
        .map_err(refuse)?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await
        .map_err(refuse)?;
    check_schema(path, version)?;
    if tables.iter().any(|table| table == MIGRATOR.table_name.as_ref()) {
        let applied: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&mut *connection)
            .await
            .map_err(refuse)?;
        check_schema(path, applied.unwrap_or(0))?;
    } else if !tables.is_empty() {
        return Err(OpenError::NotCoracle {
            path: path.to_owned(),
        });
    }
    if bytes <= CHECKED_WHOLE {
        let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut *connection)
            .await
            .map_err(refuse)?;
        if verdict != "ok" {
            return Err(OpenError::Corrupt {
                path: path.to_owned(),
                source: verdict.into(),
            });
        }
    }
    Ok(())
}

fn check_schema(path: &Path, found: i64) -> Result<(), OpenError> {
    let known = known_schema();
    if found > known {
        return Err(OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            known,
        });
    }
    Ok(())
}

/// Brings the schema up to date. Writes in any case, so that a disk that is full or cannot be
/// written shows now and not at the first request.
async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    MIGRATOR
        .run(&mut *connection)
        .await
        .map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => refused(path, error),
            MigrateError::VersionMissing(found) => OpenError::NewerSchema {
                path: path.to_owned(),
                found,
                known: known_schema(),
            },
            other => OpenError::Other {
                path: path.to_owned(),
                source: other.into(),
            },
        })?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "PRAGMA user_version = {}",
        known_schema()
    )))
    .execute(connection)
    .await
    .map_err(|error| refused(path, error))?;
    Ok(())
}

fn refused(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match Cause::of(&error) {
        // The file itself was opened before, so it is its folder that takes no new file.
        Cause::ReadOnly | Cause::CannotOpen => OpenError::ReadOnly {
            path,
            source: error.into(),
        },
        Cause::Corrupt => OpenError::Corrupt {
            path,
            source: error.into(),
        },
        Cause::DiskFull => OpenError::DiskFull {
            path,
            source: error.into(),
        },
        Cause::Busy => OpenError::Busy {
            path,
            source: error.into(),
        },
        Cause::Io | Cause::Other => OpenError::Other {
            path,
            source: error.into(),
        },
    }
}

/// Why the objects that the database holds cannot be read.
pub(crate) fn unreadable(path: &Path, error: resources::Error) -> OpenError {
    use resources::Error::{Database, Unreadable};
    let (path, source) = (path.to_owned(), Box::new(error));
    match &*source {
        Unreadable { .. } | Database(database::Error::Corrupt(_)) => OpenError::Corrupt { path, source },
        _ => OpenError::Other { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_without_space_for_the_schema_is_told() {
        let mut connection = options()
            .in_memory(true)
            .pragma("max_page_count", "5")
            .connect()
            .await
            .unwrap();
        let error = migrate(Path::new("store.db"), &mut connection).await.unwrap_err();
        assert!(matches!(error, OpenError::DiskFull { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the disk that holds the database `store.db` is full: free some space, then start again"
        );
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_written_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        open(Location::File(path.clone())).await.unwrap().close().await;
        let mut connection = options().filename(&path).read_only(true).connect().await.unwrap();
        let error = migrate(&path, &mut connection).await.unwrap_err();
        assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    }
}
