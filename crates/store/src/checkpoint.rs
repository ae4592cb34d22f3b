//! Folding the write-ahead log into the file. That waits for the disk, so it is done beside those
//! who write, instead of in the middle of one's commit. Knows no table.
//!
//! | the log is | what is done | who waits |
//! |---|---|---|
//! | small | nothing | |
//! | large | it is folded on a connection of its own | nobody |
//! | huge | as well, then what was written meanwhile while nobody writes | writers, for that little |
//!
//! A log is begun anew by the first write after all of it was folded. When there is always someone who
//! writes, this moment has to be made, or the log would grow for ever.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::database::{Error, Lease, Pool};

/// A log of more bytes is large.
const LARGE: u64 = 16 << 20;
/// A log of more bytes is huge.
const HUGE: u64 = 32 << 20;
/// A log that grew while it was folded is folded again, so often: who writes may have stopped.
const ROUNDS: usize = 3;
/// What has been folded is folded again when it has grown by so many bytes.
const STEP: u64 = 4 << 20;
/// The bytes that the log is cut to when it is begun anew: its length is to tell how much is in it.
pub(crate) const KEPT: u64 = 4 << 20;

/// The log of a database in a file, and the connection that folds it.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    folder: Arc<Pool>,
    progress: Mutex<Progress>,
}

/// How far folding has come.
#[derive(Debug, Default)]
struct Progress {
    is_folding: bool,
    /// The length up to which the log was folded last.
    folded: u64,
}

impl Progress {
    /// Whether a log of this length is to be folded now. If so, [`Self::end`] has to follow.
    fn begin(&mut self, length: u64) -> bool {
        if length < self.folded {
            // It was begun anew.
            self.folded = 0;
        }
        let is_due = !self.is_folding && length > LARGE && length >= self.folded + STEP;
        self.is_folding |= is_due;
        is_due
    }

    const fn end(&mut self, length: u64) {
        self.is_folding = false;
        self.folded = length;
    }
}

impl Log {
    /// Of the database in this file. The one connection of `folder` is for nothing else.
    pub(crate) fn new(database: &Path, folder: Arc<Pool>) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self {
            path: path.into(),
            folder,
            progress: Mutex::default(),
        }
    }

    pub(crate) fn folder(&self) -> &Pool {
        &self.folder
    }

    /// Whether to call [`Self::fold`] now, which has to follow then.
    pub(crate) fn is_due(&self) -> bool {
        let length = self.length();
        self.progress.lock().begin(length)
    }

    /// The kernel knows it without asking the disk.
    fn length(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Folds the log. That it fails is no loss: what is in the log is safe there, and a later write
    /// leads here again.
    pub(crate) async fn fold(&self, writer: &Arc<Pool>) {
        let length = self.length();
        match self.try_fold(writer).await {
            // The server is stopping, and folds the log then.
            Ok(()) | Err(Error::Closed) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot fold the log of the database into its file");
            }
        }
        self.progress.lock().end(length);
    }

    async fn try_fold(&self, writer: &Arc<Pool>) -> Result<(), Error> {
        let mut folder = self.folder.lease().await?;
        for _ in 0..ROUNDS {
            let before = self.length();
            checkpoint(&mut folder).await?;
            if self.length() == before {
                return Ok(());
            }
        }
        if self.length() > HUGE {
            let _nobody_writes = writer.lease().await?;
            checkpoint(&mut folder).await?;
        }
        Ok(())
    }
}

/// Folds what can be folded without making anybody wait: what was in the log when it begins.
async fn checkpoint(folder: &mut Lease) -> Result<(), Error> {
    sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
        .execute(&mut **folder)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Location, Store,
        resources::{GroupResource, Key},
    };

    async fn write(store: &Store, number: usize, bytes: usize) {
        let key = Key {
            resource: GroupResource::new("", "configmaps"),
            namespace: "a".to_owned(),
            name: format!("x{number}"),
        };
        let body = json!({"text": "x".repeat(bytes)});
        store.resources().create(key, body).await.unwrap();
    }

    #[tokio::test]
    async fn a_log_that_was_folded_is_begun_anew_and_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let store = Store::open(Location::File(path)).await.unwrap();
        let writer = Arc::clone(store.database.writers());
        let log = writer.log().unwrap();
        // Each is written twice: as it is, and as what happened to it.
        for number in 0..6 {
            write(&store, number, 1 << 20).await;
        }
        assert!(log.length() > 2 * KEPT, "{}", log.length());
        log.fold(&writer).await;
        write(&store, 6, 1).await;
        assert!(log.length() <= KEPT, "{}", log.length());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_that_is_always_written_to_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let store = Store::open(Location::File(path)).await.unwrap();
        let writer = Arc::clone(store.database.writers());
        let log = writer.log().unwrap();
        let (mut number, mut longest) = (0, 0);
        while log.length() >= longest {
            longest = log.length();
            write(&store, number, 256 << 10).await;
            number += 1;
            assert!(number < 4000, "the log has {longest} bytes");
        }
        assert!(longest > LARGE, "{longest}");
    }

    #[test]
    fn a_large_log_is_folded_once_and_again_when_it_has_grown() {
        let mut progress = Progress::default();
        assert!(!progress.begin(LARGE));
        assert!(progress.begin(LARGE + 1));
        assert!(!progress.begin(2 * LARGE), "one folds");
        progress.end(LARGE + 1);
        assert!(!progress.begin(LARGE + STEP));
        assert!(progress.begin(LARGE + STEP + 1));
        progress.end(LARGE + STEP + 1);
        assert!(!progress.begin(0), "it was begun anew");
        assert!(progress.begin(LARGE + 1));
    }
}
