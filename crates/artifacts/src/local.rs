//! The artifact root on this machine: what may be reached through it, and reading it without
//! blocking a thread of the runtime.
//!
//! Paths come from user code and from clients. [`Artifacts::confine`] is the one gate: nothing
//! outside the root is read, whatever `..` or links a path goes through.

use std::{
    ffi::OsString,
    fmt, io,
    ops::Range,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use coracle_api::id::RunId;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path as Key};

use crate::{
    layout,
    remote::{self, Remote},
    uri::{ArtifactUri, NotLocal, Place},
};

/// The artifact root on this machine, and the object stores elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Artifacts {
    root: PathBuf,
    remote: Remote,
    files: Arc<LocalFileSystem>,
}

/// Why an artifact cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root cannot be made or used.
    #[error("cannot use `{}` as the artifact folder", path.display())]
    Root {
        /// The root.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The path leads out of the root.
    #[error("`{}` is outside the artifact folder `{}`", path.display(), root.display())]
    Outside {
        /// As asked for.
        path: PathBuf,
        /// The root.
        root: PathBuf,
    },
    /// Nothing is there.
    #[error("no artifact is at `{uri}`: it was never written, or has been removed")]
    NotFound {
        /// As asked for.
        uri: String,
    },
    /// A folder was opened as if it were a file.
    #[error("`{uri}` is a folder; ask for a file in it")]
    IsFolder {
        /// As asked for.
        uri: String,
    },
    /// It is on the web: whoever asks can fetch it there, and need not make this server do so.
    #[error("`{uri}` is on the web, and is read from there")]
    OnTheWeb {
        /// As asked for.
        uri: String,
    },
    /// It has no path here.
    #[error(transparent)]
    NotLocal(#[from] NotLocal),
    /// It is in an object store, and cannot be read.
    #[error(transparent)]
    Remote(#[from] remote::Error),
    /// It is there and cannot be read.
    #[error("cannot read `{uri}`")]
    Read {
        /// As asked for.
        uri: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A file being read.
pub struct Opened {
    /// Bytes of the whole file.
    pub size: u64,
    /// Which of them follow.
    pub range: Range<u64>,
    /// The bytes.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

/// One thing in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the folder.
    pub name: String,
    /// Whether it is itself a folder.
    pub is_folder: bool,
    /// Bytes, of a file.
    pub size: u64,
}

impl Artifacts {
    /// The artifacts under `root`, which is created if need be.
    ///
    /// # Errors
    /// [`Error::Root`] when it cannot be.
    pub fn local(root: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::over(root, Remote::from_env())
    }

    /// The same, with stores elsewhere that are reached in a certain way.
    ///
    /// # Errors
    /// [`Error::Root`] when the root cannot be used.
    pub fn over(root: impl Into<PathBuf>, remote: Remote) -> Result<Self, Error> {
        let root = root.into();
        let failed = |source| Error::Root {
            path: root.clone(),
            source,
        };
        std::fs::create_dir_all(&root).map_err(failed)?;
        let canonical = root.canonicalize().map_err(failed)?;
        let files = LocalFileSystem::new_with_prefix(&canonical).map_err(|error| failed(error.into()))?;
        Ok(Self {
            root: canonical,
            remote,
            files: Arc::new(files),
        })
    }

    /// The root: absolute, free of links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is not on this machine.
    #[must_use]
    pub const fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Whether an artifact is in an object store; the web is not for this server to read.
    fn is_stored_elsewhere(uri: &ArtifactUri) -> Result<bool, Error> {
        match uri.place() {
            Place::Local(_) => Ok(false),
            Place::Http => Err(Error::OnTheWeb { uri: uri.to_string() }),
            Place::Object(_) | Place::Unsupported { .. } => Ok(true),
        }
    }

    /// The folder of a run.
    #[must_use]
    pub fn run_root(&self, pipeline_name: &str, run: RunId) -> PathBuf {
        layout::run_root(&self.root, pipeline_name, run)
    }

    /// The real place of `path` (absolute, or relative to the root), which need not exist yet.
    /// Blocking.
    ///
    /// # Errors
    /// [`Error::Outside`] when it leads out of the root, by `..` or through a link.
    pub fn confine(&self, path: &Path) -> Result<PathBuf, Error> {
        let outside = || Error::Outside {
            path: path.to_owned(),
            root: self.root.clone(),
        };
        let mut existing = self.root.join(path);
        let mut missing: Vec<OsString> = Vec::new();
        let mut real = loop {
            match existing.canonicalize() {
                Ok(real) => break real,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // A link that leads nowhere: what is made through it could be anywhere.
                    if existing.is_symlink() {
                        return Err(outside());
                    }
                    match existing.components().next_back() {
                        Some(Component::Normal(name)) => missing.push(name.to_owned()),
                        _ => return Err(outside()),
                    }
                    existing.pop();
                }
                Err(source) => {
                    return Err(Error::Read {
                        uri: path.display().to_string(),
                        source: source.into(),
                    });
                }
            }
        };
        real.extend(missing.iter().rev());
        if real.starts_with(&self.root) {
            Ok(real)
        } else {
            Err(outside())
        }
    }

    /// Whether something is there: a file or folder of this machine, wherever it is, or of an object
    /// store. What is on the web is taken to be.
    ///
    /// # Errors
    /// [`Error`] when that cannot be known.
    pub async fn exists(&self, uri: &ArtifactUri) -> Result<bool, Error> {
        match uri.place() {
            Place::Local(path) => tokio::fs::try_exists(path).await.map_err(|source| Error::Read {
                uri: uri.to_string(),
                source: source.into(),
            }),
            Place::Http => Ok(true),
            Place::Object(_) | Place::Unsupported { .. } => Ok(self.remote.exists(uri).await?),
        }
    }

    /// Opens a file for reading, all of it or a range of its bytes.
    ///
    /// # Errors
    /// [`Error`] when there is no such file in this root.
    pub async fn open(&self, uri: &ArtifactUri, range: Option<Range<u64>>) -> Result<Opened, Error> {
        if Self::is_stored_elsewhere(uri)? {
            return Ok(self.remote.open(uri, range).await?);
        }
        let key = self.key(uri).await?;
        let options = GetOptions {
            range: range.map(Into::into),
            ..GetOptions::default()
        };
        let found = self
            .files
            .get_opts(&key, options)
            .await
            .map_err(|error| failed(uri, error))?;
        let (size, range) = (found.meta.size, found.range.clone());
        let uri = uri.clone();
        let bytes = found
            .into_stream()
            .map_err(move |error| failed(&uri, error))
            .boxed();
        Ok(Opened { size, range, bytes })
    }

    /// Reads at most the first `limit` bytes of a file.
    ///
    /// # Errors
    /// [`Error`] when there is no such file in this root.
    pub async fn read(&self, uri: &ArtifactUri, limit: u64) -> Result<Bytes, Error> {
        if Self::is_stored_elsewhere(uri)? {
            let head = self.remote.head(uri).await?;
            let size = head.map_or(limit, |head| head.size).min(limit);
            if size == 0 {
                return Ok(Bytes::new());
            }
            let opened = self.remote.open(uri, Some(0..size)).await?;
            let chunks: Vec<Bytes> = opened.bytes.try_collect().await?;
            return Ok(chunks.concat().into());
        }
        let key = self.key(uri).await?;
        let size = self
            .files
            .head(&key)
            .await
            .map_err(|error| failed(uri, error))?
            .size;
        if size == 0 || limit == 0 {
            return Ok(Bytes::new());
        }
        self.files
            .get_range(&key, 0..limit.min(size))
            .await
            .map_err(|error| failed(uri, error))
    }

    /// What is directly in a folder, by name.
    ///
    /// # Errors
    /// [`Error`] when there is no such folder in this root.
    pub async fn entries(&self, uri: &ArtifactUri) -> Result<Vec<Entry>, Error> {
        if Self::is_stored_elsewhere(uri)? {
            let listed = self.remote.list(uri).await?;
            if listed.is_empty() {
                return Err(Error::NotFound { uri: uri.to_string() });
            }
            let mut entries: Vec<Entry> = Vec::new();
            // They are sorted: what is in one folder follows on each other.
            for listed in listed {
                let (name, is_folder) = match listed.name.split_once('/') {
                    Some((folder, _)) => (folder.to_owned(), true),
                    None => (listed.name, false),
                };
                if !entries.iter().any(|entry| entry.is_folder && entry.name == name) {
                    let size = if is_folder { 0 } else { listed.size };
                    entries.push(Entry {
                        name,
                        is_folder,
                        size,
                    });
                }
            }
            return Ok(entries);
        }
        let (this, uri) = (self.clone(), uri.clone());
        blocking(move || {
            let path = this.confine(uri.local()?)?;
            let read = |source: io::Error| match source.kind() {
                io::ErrorKind::NotFound => Error::NotFound { uri: uri.to_string() },
                _ => Error::Read {
                    uri: uri.to_string(),
                    source: source.into(),
                },
            };
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(path).map_err(read)? {
                let entry = entry.map_err(read)?;
                // A link counts as what it leads to, when that is something.
                let Ok(metadata) = std::fs::metadata(entry.path()) else {
                    continue;
                };
                entries.push(Entry {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    is_folder: metadata.is_dir(),
                    size: if metadata.is_dir() { 0 } else { metadata.len() },
                });
            }
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
        .await
    }

    /// The key under which the object store knows the file at `uri`.
    async fn key(&self, uri: &ArtifactUri) -> Result<Key, Error> {
        let (this, uri) = (self.clone(), uri.clone());
        blocking(move || {
            let path = this.confine(uri.local()?)?;
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => return Err(Error::IsFolder { uri: uri.to_string() }),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::NotFound { uri: uri.to_string() });
                }
                Err(source) => {
                    return Err(Error::Read {
                        uri: uri.to_string(),
                        source: source.into(),
                    });
                }
            }
            let relative = path.strip_prefix(&this.root).unwrap_or(&path).to_string_lossy();
            Key::parse(relative).map_err(|source| Error::Read {
                uri: uri.to_string(),
                source: source.into(),
            })
        })
        .await
    }
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifacts")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

fn failed(uri: &ArtifactUri, error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => Error::NotFound { uri: uri.to_string() },
        other => Error::Read {
            uri: uri.to_string(),
            source: other.into(),
        },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Read {
            uri: "(interrupted)".to_owned(),
            source: error.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn artifacts() -> (tempfile::TempDir, Artifacts) {
        let folder = tempfile::tempdir().expect("a folder");
        let artifacts = Artifacts::local(folder.path().join("artifacts")).expect("usable");
        (folder, artifacts)
    }

    fn uri(artifacts: &Artifacts, relative: &str) -> ArtifactUri {
        ArtifactUri::from(&*artifacts.root().join(relative))
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let (folder, artifacts) = artifacts();
        let root = artifacts.root().to_owned();
        fs::create_dir_all(root.join("p/run")).expect("created");
        fs::write(folder.path().join("secret"), "x").expect("written");
        symlink(folder.path(), root.join("out")).expect("linked");
        symlink("/nowhere/at/all", root.join("dangling")).expect("linked");
        symlink(root.join("p"), root.join("in")).expect("linked");

        for path in ["p/run", "p/new/file", "p/../p/run", "in/run/x", "", "./p"] {
            let real = artifacts.confine(Path::new(path)).expect(path);
            assert!(real.starts_with(&root), "{path}: {real:?}");
        }
        assert_eq!(
            artifacts.confine(&root.join("in/run/x")).expect("inside"),
            root.join("p/run/x")
        );
        for path in [
            "..",
            "../secret",
            "p/../../secret",
            "out/secret",
            "out/new",
            "dangling/x",
            "/etc/passwd",
        ] {
            let found = artifacts.confine(Path::new(path));
            assert!(matches!(found, Err(Error::Outside { .. })), "{path}: {found:?}");
        }
        let found = artifacts.confine(Path::new("new/../../secret"));
        assert!(matches!(found, Err(Error::Outside { .. })), "{found:?}");
        let sibling = folder.path().join("artifacts-of-another");
        fs::create_dir(&sibling).expect("created");
        assert!(artifacts.confine(&sibling).is_err());
    }

    #[tokio::test]
    async fn files_are_read_whole_in_part_and_up_to_a_limit() {
        let (_folder, artifacts) = artifacts();
        let name = "p/run/1/odd name %20 #é~";
        let path = artifacts.root().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        fs::write(&path, "0123456789").expect("written");
        let uri = uri(&artifacts, name);

        let opened = artifacts.open(&uri, None).await.expect("opens");
        assert_eq!((opened.size, opened.range.clone()), (10, 0..10));
        let chunks: Vec<Bytes> = opened.bytes.try_collect().await.expect("reads");
        assert_eq!(chunks.concat(), b"0123456789");

        let opened = artifacts.open(&uri, Some(2..5)).await.expect("opens");
        assert_eq!((opened.size, opened.range.clone()), (10, 2..5));
        let chunks: Vec<Bytes> = opened.bytes.try_collect().await.expect("reads");
        assert_eq!(chunks.concat(), b"234");

        assert_eq!(artifacts.read(&uri, 4).await.expect("reads"), "0123");
        assert_eq!(artifacts.read(&uri, 400).await.expect("reads"), "0123456789");
        fs::write(&path, "").expect("written");
        assert_eq!(artifacts.read(&uri, 4).await.expect("reads"), "");
    }

    #[tokio::test]
    async fn what_cannot_be_read_says_which_and_why() {
        let (_folder, artifacts) = artifacts();
        fs::create_dir_all(artifacts.root().join("d/sub")).expect("created");
        fs::write(artifacts.root().join("d/a"), "123").expect("written");
        let read = async |uri: ArtifactUri| artifacts.read(&uri, 1).await.map_err(|error| error.to_string());

        let missing = read(uri(&artifacts, "none")).await.expect_err("missing");
        assert!(
            missing.starts_with("no artifact is at `") && missing.contains("/none`"),
            "{missing}"
        );
        assert!(
            read(uri(&artifacts, "d"))
                .await
                .expect_err("a folder")
                .contains("is a folder")
        );
        assert!(
            read("oci://b/k".parse().expect("a URI"))
                .await
                .expect_err("oci")
                .contains("(oci://)")
        );
        assert!(
            read("http://h/k".parse().expect("a URI"))
                .await
                .expect_err("the web")
                .contains("on the web")
        );
        assert!(
            read("/etc/hostname".parse().expect("a URI"))
                .await
                .expect_err("outside")
                .contains("outside")
        );

        let entries = artifacts.entries(&uri(&artifacts, "d")).await.expect("lists");
        let expected = [("a", false, 3), ("sub", true, 0)];
        assert_eq!(
            entries
                .iter()
                .map(|e| (&*e.name, e.is_folder, e.size))
                .collect::<Vec<_>>(),
            expected
        );
        assert!(matches!(
            artifacts.entries(&uri(&artifacts, "none")).await,
            Err(Error::NotFound { .. })
        ));
    }
}
