//! The data directory: one per server, one server per directory.
//!
//! ```text
//! coracle.lock       held while a server runs
//! coracle.db         objects and records
//! pki/               keys and certificates of the server
//! audit.log          who changed what through the Kubernetes API
//! artifacts/         what tasks make
//! environments/      Python environments, by content
//! environments.yaml  which image is which environment (optional, yours to edit)
//! pods/, volumes/    what running Pods see
//! server.json        where the running server is
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// A data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be made.
    #[error("cannot make the data directory `{}`", path.display())]
    NotMade {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory cannot be written to.
    #[error("cannot write to the data directory `{}`", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another server has it.
    #[error("another server ({holder}) is using the data directory `{}`", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// What is known of the other server.
        holder: String,
    },
}

/// Where a running server is: the content of `server.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub url: String,
    /// Where the Kubernetes API is to be found with TLS, where it is this server's.
    #[serde(default)]
    pub kubernetes: Option<String>,
    /// The cluster that is used instead of this machine.
    #[serde(default)]
    pub cluster: Option<InUse>,
    /// Its version.
    pub version: String,
}

/// The cluster that a server uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InUse {
    /// The file that says how to reach it.
    pub kubeconfig: PathBuf,
    /// The context of that file.
    pub context: String,
    /// Where its API is.
    pub server: String,
    /// Where tasks run.
    pub namespace: String,
}

impl std::fmt::Display for InUse {
    /// `the cluster https://… (context a of b), namespace c`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the cluster at {} (context `{}` of `{}`), in the namespace `{}`",
            self.server,
            self.context,
            self.kubeconfig.display(),
            self.namespace
        )
    }
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDir {
    /// Makes the directory if need be, and takes it.
    ///
    /// # Errors
    /// [`Error`] when it cannot be made or written, or when another server has it.
    pub fn take(path: &Path) -> Result<Self, Error> {
        let not_made = |source| Error::NotMade {
            path: path.to_owned(),
            source,
        };
        make(path).map_err(not_made)?;
        let path = path.canonicalize().map_err(not_made)?;
        let not_writable = |source| Error::NotWritable {
            path: path.clone(),
            source,
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("coracle.lock"))
            .map_err(not_writable)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::errno::Errno::EWOULDBLOCK {
                let holder = running(&path).map_or_else(
                    || "starting or stopping right now".to_owned(),
                    |server| format!("process {} at {}", server.pid, server.url),
                );
                Error::InUse {
                    path: path.clone(),
                    holder,
                }
            } else {
                not_writable(errno.into())
            }
        })?;
        for folder in ["artifacts", "environments", "pods", "volumes"] {
            make(&path.join(folder)).map_err(not_writable)?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// The directory, as an absolute path without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says where the server is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn announce(&self, running: &Running) -> io::Result<()> {
        let whole = self.path.join("server.json.new");
        fs::write(&whole, serde_json::to_vec_pretty(running)?)?;
        fs::rename(whole, self.path.join("server.json"))
    }

    /// Says that the server is no more.
    pub fn withdraw(&self) {
        if let Err(error) = fs::remove_file(self.path.join("server.json")) {
            tracing::debug!(%error, "server.json was not removed");
        }
    }
}

/// Makes a directory for this user only, if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The server that last announced itself in a data directory, alive or not.
#[must_use]
pub fn running(path: &Path) -> Option<Running> {
    serde_json::from_slice(&fs::read(path.join("server.json")).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_data_directory_is_for_its_user_and_one_server() {
        let temp = tempfile::tempdir().expect("tempdir");
        let path = temp.path().join("deep/data");
        let taken = DataDir::take(&path).expect("taken");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let running = Running {
            pid: 7,
            url: "http://127.0.0.1:4242".into(),
            kubernetes: None,
            cluster: None,
            version: "0.1.0".into(),
        };
        taken.announce(&running).expect("announced");
        let error = DataDir::take(&path).expect_err("taken already");
        assert!(
            error
                .to_string()
                .starts_with("another server (process 7 at http://127.0.0.1:4242)"),
            "{error}"
        );
        drop(taken);
        DataDir::take(&path).expect("free again");
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_left_alone() {
        let temp = tempfile::tempdir().expect("tempdir");
        let path = temp.path().join("data");
        fs::write(&path, "mine").expect("written");
        assert!(matches!(
            DataDir::take(&path),
            Err(Error::NotMade { .. } | Error::NotWritable { .. })
        ));
        assert_eq!(fs::read_to_string(&path).expect("there"), "mine");
    }
}
