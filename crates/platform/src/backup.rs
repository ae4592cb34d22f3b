//! Backups of a data directory, and data directories out of backups.
//!
//! A backup is a tar file, compressed with gzip or not. Its first entry, `backup.json`, says what it is; then come the
//! database as it was at one moment, and what it speaks of: `pki/`, `artifacts/`, `volumes/`, `environments.yaml`,
//! `audit.log`. What can be made anew (environments) and what dies with a server (Pods' folders) is left out. The
//! database is copied first: an artifact's file is there before its row is, so every row finds its file.

mod pack;

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use coracle_store::{Location, OpenError, Store, database};
use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::data_dir::make;

/// The first entry.
const MANIFEST: &str = "backup.json";
const DATABASE: &str = "coracle.db";
const ARTIFACTS: &str = "artifacts";
/// What is in a backup beside the manifest.
const KEPT: [&str; 6] = [
    DATABASE,
    "pki",
    ARTIFACTS,
    "volumes",
    "environments.yaml",
    "audit.log",
];

/// A backup cannot be made, or not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to back up.
    #[error("`{}` is no data directory of Coracle: there is no `{DATABASE}` in it", path.display())]
    NoData {
        /// The directory.
        path: PathBuf,
    },
    /// The database was not copied.
    #[error("the database was not copied")]
    Snapshot(#[source] database::Error),
    /// A file or folder cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// To which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be read, or not to its end.
    #[error("the backup is damaged or cut off: use another one")]
    Damaged(#[source] io::Error),
    /// It is some other archive.
    #[error("this is no backup of Coracle: its first entry is not `{MANIFEST}`")]
    NotABackup,
    /// Something is there already.
    #[error(
        "`{}` is not empty: give another folder with `--data-dir`, or move this one away",
        path.display()
    )]
    NotEmpty {
        /// Where it is.
        path: PathBuf,
    },
    /// The database in it cannot be used by this version.
    #[error("the database of the backup cannot be used")]
    Database(#[source] OpenError),
    /// The database could not be told where its artifacts are now.
    #[error("the database of the backup was not changed to the new folder")]
    Relocate(#[source] database::Error),
    /// A thread was lost.
    #[error("the work on the backup was cut off")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version that made it.
    pub coracle: String,
    /// When the database was copied.
    pub made_at: Timestamp,
    /// The data directory that it was made of.
    pub data_dir: PathBuf,
}

/// What was written, or taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// How many files.
    pub files: u64,
    /// How many bytes they hold.
    pub bytes: u64,
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::Interrupted)?
}

/// Writes a backup of `data_dir` to `to`, compressed if it is to be. A server may be at work on it.
///
/// # Errors
/// When something of the data directory cannot be read, or `to` takes no more.
pub async fn backup(
    data_dir: &Path,
    to: impl Write + Send + 'static,
    is_compressed: bool,
) -> Result<Summary, Error> {
    let database = data_dir.join(DATABASE);
    if !database.is_file() {
        return Err(Error::NoData {
            path: data_dir.to_owned(),
        });
    }
    let data_dir = data_dir.canonicalize().map_err(file("read", data_dir))?;
    let copy = data_dir.join(format!("{DATABASE}.backup-{}", std::process::id()));
    let removed = Removed(copy.clone());
    let manifest = Manifest {
        coracle: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: Timestamp::now(),
        data_dir: data_dir.clone(),
    };
    coracle_store::snapshot(&database, &copy)
        .await
        .map_err(Error::Snapshot)?;
    blocking(move || {
        let to = BufWriter::new(to);
        let failed = |source| file("write", Path::new("the backup"))(source);
        let summary = if is_compressed {
            let mut packed = GzEncoder::new(to, Compression::fast());
            let summary = pack::write(&mut packed, manifest, &copy)?;
            let written = packed.finish().and_then(|mut to| to.flush());
            written.map_err(failed)?;
            summary
        } else {
            let mut to = to;
            let summary = pack::write(&mut to, manifest, &copy)?;
            to.flush().map_err(failed)?;
            summary
        };
        drop(removed);
        Ok(summary)
    })
    .await
}

/// Makes the data directory `data_dir`, which must not exist or be empty, out of a backup. Nothing is left of what fails.
///
/// # Errors
/// When the backup is none, is damaged, or is of a newer version; when the directory is in use or cannot be written.
pub async fn restore(from: impl Read + Send + 'static, data_dir: &Path) -> Result<Summary, Error> {
    let parent = match data_dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make(parent).map_err(file("make", parent))?;
    let parent = parent.canonicalize().map_err(file("read", parent))?;
    let Some(name) = data_dir.file_name() else {
        return Err(Error::NotEmpty {
            path: data_dir.to_owned(),
        });
    };
    let target = parent.join(name);
    check_empty(&target)?;
    let draft = parent.join(format!(".{}.restoring", name.to_string_lossy()));
    let lock = take(&draft)?;
    let removed = Removed(draft.clone());
    let (into, summary) = (draft.clone(), {
        let draft = draft.clone();
        blocking(move || pack::read(plain(from).map_err(Error::Damaged)?, &draft)).await?
    });
    let database = into.join(DATABASE);
    let store = Store::open(Location::File(database.clone()))
        .await
        .map_err(Error::Database)?;
    store.close().await;
    let folder = |data_dir: &Path| data_dir.join(ARTIFACTS).to_string_lossy().into_owned();
    if summary.manifest.data_dir != target {
        let (old, new) = (folder(&summary.manifest.data_dir), folder(&target));
        let relocated = coracle_store::relocate(&database, &old, &new).await;
        relocated.map_err(Error::Relocate)?;
    }
    blocking(move || {
        drop(lock);
        let _ = fs::remove_file(draft.join("coracle.lock"));
        check_empty(&target)?;
        let _ = fs::remove_dir(&target);
        fs::rename(&draft, &target).map_err(file("make", &target))?;
        drop(removed);
        let synced = File::open(&parent).and_then(|parent| parent.sync_all());
        synced.map_err(file("write", &parent))
    })
    .await?;
    Ok(summary)
}

/// The archive itself, whether it is compressed or not.
fn plain(from: impl Read + Send + 'static) -> io::Result<Box<dyn Read>> {
    let mut from = BufReader::new(from);
    let is_compressed = io::BufRead::fill_buf(&mut from)?.starts_with(&[0x1f, 0x8b]);
    Ok(if is_compressed {
        Box::new(MultiGzDecoder::new(from))
    } else {
        Box::new(from)
    })
}

fn check_empty(target: &Path) -> Result<(), Error> {
    let is_empty = match fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(file("read", target)(error)),
    };
    if is_empty {
        return Ok(());
    }
    Err(Error::NotEmpty {
        path: target.to_owned(),
    })
}

/// Makes the folder in which a backup is unpacked. One that a killed restore left is made anew.
fn take(draft: &Path) -> Result<Flock<File>, Error> {
    make(draft).map_err(file("make", draft))?;
    let lock = draft.join("coracle.lock");
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock);
    let locked = Flock::lock(
        opened.map_err(file("write", &lock))?,
        FlockArg::LockExclusiveNonblock,
    );
    let locked = locked.map_err(|(_, errno)| file("lock", &lock)(errno.into()))?;
    for entry in fs::read_dir(draft).map_err(file("read", draft))?.flatten() {
        let path = entry.path();
        if path != lock {
            remove(&path).map_err(file("remove", &path))?;
        }
    }
    Ok(locked)
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Removed when this is dropped, if it is there.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}
