//! Copies of a database, and what is to be changed in one that lies elsewhere than it was made for.

use std::{fs::File, path::Path, time::Duration};

use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

use crate::database;

/// How long another process may keep the database from being read.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everywhere that the place of an artifact is written: alone, or in JSON, where it follows a quotation mark.
const RELOCATIONS: [&str; 4] = [
    "UPDATE artifacts SET uri = ?2 || substr(uri, length(?1) + 1) WHERE substr(uri, 1, length(?1) + 1) = ?1 || '/'",
    "UPDATE attempts SET log_uri = ?2 || substr(log_uri, length(?1) + 1) \
     WHERE substr(log_uri, 1, length(?1) + 1) = ?1 || '/'",
    "UPDATE attempt_specs SET launch = replace(launch, '\"' || ?1 || '/', '\"' || ?2 || '/')",
    "UPDATE reports SET report = replace(report, '\"' || ?1 || '/', '\"' || ?2 || '/')",
];

/// A copy of the database in the file `from` as the file `to`, which must not exist: everything that was acknowledged
/// before the call, and of each write all or nothing. A server may be at work on `from`, here or in another process.
///
/// # Errors
/// When `from` is no database that can be read, or `to` cannot be written.
pub async fn snapshot(from: &Path, to: &Path) -> Result<(), database::Error> {
    let mut connection = options(from).connect().await?;
    let copied = sqlx::query("VACUUM INTO ?1")
        .bind(to.to_string_lossy().into_owned())
        .execute(&mut connection)
        .await;
    connection.close().await?;
    copied?;
    let to = to.to_owned();
    let synced = tokio::task::spawn_blocking(move || File::open(to)?.sync_all()).await;
    let synced = synced.map_err(std::io::Error::other).flatten();
    synced.map_err(|error| sqlx::Error::Io(error).into())
}

/// Says in the database in `file`, on which nobody is at work, that the artifacts below the folder `old` are below the
/// folder `new`. Neither ends with a slash.
///
/// # Errors
/// When the database cannot be written.
pub async fn relocate(file: &Path, old: &str, new: &str) -> Result<(), database::Error> {
    let mut connection = options(file).connect().await?;
    let mut transaction = connection.begin().await?;
    for statement in RELOCATIONS {
        let moved = sqlx::query(statement).bind(old).bind(new);
        moved.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .busy_timeout(PATIENCE)
        .disable_statement_logging()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Location, Store};

    #[tokio::test]
    async fn a_database_of_this_version_can_be_moved() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store.db");
        Store::open(Location::File(file.clone()))
            .await
            .unwrap()
            .close()
            .await;
        relocate(&file, "/old", "/new").await.unwrap();
    }
}
