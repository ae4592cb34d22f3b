//! Whole files and folders, from and to a store: in parallel, and bounded in number and memory.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path as Key};

use super::{Error, Remote};
use crate::{
    content,
    uri::{ArtifactUri, Object},
};

/// Files under way at once.
const FILES: usize = 8;
/// Parts of one large file under way at once.
const PARTS: usize = 4;
/// Bytes of a part; a file up to this size is sent as one.
const PART: u64 = 8 << 20;
/// Parts that a store takes at most, with room to spare.
const MOST_PARTS: u64 = 9_000;

impl Remote {
    /// Fetches what is at `uri`, a file or a folder, to `to`, which must not exist. Returns its
    /// bytes.
    ///
    /// # Errors
    /// [`Error`] when it is not there, not reachable, or cannot be written here.
    pub async fn get(&self, uri: &ArtifactUri, to: &Path) -> Result<u64, Error> {
        let parent = to.parent().unwrap_or(to).to_owned();
        on_disk(&parent, |parent| fs::create_dir_all(parent)).await?;
        let Some((store, key, object)) = self.find(uri)? else {
            return self.get_stream(uri, to).await;
        };
        if !uri.as_str().ends_with('/')
            && let Some(head) = self.head(uri).await?
        {
            let file = Source {
                store: &store,
                uri,
                object: &object,
                key,
                size: head.size,
            };
            return self.get_file(file, to.to_owned()).await;
        }
        let listed = self.list(uri).await?;
        if listed.is_empty() {
            return Err(Error::NotFound { uri: uri.to_string() });
        }
        // Folders first, once each.
        let files: Vec<(Key, u64, PathBuf)> = listed
            .into_iter()
            .map(|listed| {
                let below = below(&key, &listed.name, uri)?;
                Ok((below, listed.size, to.join(listed.name)))
            })
            .collect::<Result<_, Error>>()?;
        let folders: BTreeSet<_> = files
            .iter()
            .filter_map(|(_, _, path)| path.parent().map(Path::to_owned))
            .collect();
        for folder in folders {
            on_disk(&folder, |folder| fs::create_dir_all(folder)).await?;
        }
        stream::iter(files)
            .map(|(key, size, path)| {
                let file = Source {
                    store: &store,
                    uri,
                    object: &object,
                    key,
                    size,
                };
                self.get_file(file, path)
            })
            .buffer_unordered(FILES)
            .try_fold(0, async |sum, bytes| Ok(sum + bytes))
            .await
    }

    async fn get_stream(&self, uri: &ArtifactUri, to: &Path) -> Result<u64, Error> {
        let opened = self.open(uri, None).await?;
        let file = Arc::new(on_disk(to, |to| File::create(to)).await?);
        let mut bytes = opened.bytes;
        let mut written = 0;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(|error| Error::Unavailable {
                uri: uri.to_string(),
                why: super::told(&error),
            })?;
            let (file, length) = (Arc::clone(&file), chunk.len() as u64);
            on_disk(to, move |_| file.write_all_at(&chunk, written)).await?;
            written += length;
        }
        if opened.size > 0 && written != opened.size {
            return Err(cut_short(uri, written, opened.size));
        }
        Ok(written)
    }

    async fn get_file(&self, source: Source<'_>, to: PathBuf) -> Result<u64, Error> {
        let Source {
            store,
            uri,
            object,
            key,
            size,
        } = source;
        let file = Arc::new(on_disk(&to, |to| File::create(to)).await?);
        stream::iter(parts(size, PART))
            .map(|(start, end)| {
                let (file, key, to) = (Arc::clone(&file), &key, &to);
                async move {
                    let bytes = store
                        .get_range(key, start..end)
                        .await
                        .map_err(|error| self.failed(uri, object, &error))?;
                    if bytes.len() as u64 != end - start {
                        return Err(cut_short(uri, start + bytes.len() as u64, size));
                    }
                    on_disk(to, move |_| file.write_all_at(&bytes, start)).await
                }
            })
            .buffer_unordered(PARTS)
            .try_collect::<()>()
            .await?;
        Ok(size)
    }

    /// Sends the file or folder at `from` to `uri`. What was there of the same names is replaced.
    /// Returns the bytes sent. An empty folder leaves nothing in a store.
    ///
    /// # Errors
    /// [`Error`] when it cannot be read here or not be written there, or leads out of itself.
    pub async fn put(&self, from: &Path, uri: &ArtifactUri) -> Result<u64, Error> {
        let Some((store, key, object)) = self.find(uri)? else {
            return Err(Error::ReadOnly { uri: uri.to_string() });
        };
        let files = walk(from).await?;
        let files = files
            .into_iter()
            .map(|(names, path, size)| Ok((below(&key, &names.join("/"), uri)?, path, size)))
            .collect::<Result<Vec<_>, Error>>()?;
        stream::iter(files)
            .map(|(key, path, size)| {
                let target = Source {
                    store: &store,
                    uri,
                    object: &object,
                    key,
                    size,
                };
                self.put_file(path, target)
            })
            .buffer_unordered(FILES)
            .try_fold(0, async |sum, bytes| Ok(sum + bytes))
            .await
    }

    async fn put_file(&self, from: PathBuf, target: Source<'_>) -> Result<u64, Error> {
        let Source {
            store,
            uri,
            object,
            key,
            size,
        } = target;
        let failed = |error| self.failed(uri, object, &error);
        let file = Arc::new(on_disk(&from, |from| File::open(from)).await?);
        if size <= PART {
            let bytes = read_part(&from, &file, 0, size).await?;
            store.put(&key, PutPayload::from(bytes)).await.map_err(failed)?;
            return Ok(size);
        }
        let mut upload = store.put_multipart(&key).await.map_err(failed)?;
        let part = PART.max(size.div_ceil(MOST_PARTS));
        let mut under_way = futures::stream::FuturesUnordered::new();
        let result = async {
            for (start, end) in parts(size, part) {
                if under_way.len() >= PARTS
                    && let Some(done) = under_way.next().await
                {
                    done?;
                }
                let bytes = read_part(&from, &file, start, end).await?;
                let sent = upload.put_part(PutPayload::from(bytes));
                under_way.push(async move { sent.await.map_err(failed) });
            }
            while let Some(done) = under_way.next().await {
                done?;
            }
            Ok(())
        }
        .await;
        let result = match result {
            Ok(()) => upload.complete().await.map(drop).map_err(failed),
            Err(error) => Err(error),
        };
        if result.is_err() {
            // Parts without their whole cost space; a store that is away keeps them.
            let _ = upload.abort().await;
        }
        result.map(|()| size)
    }
}

/// One object, and what errors about it say.
struct Source<'a> {
    store: &'a Arc<dyn ObjectStore>,
    uri: &'a ArtifactUri,
    object: &'a Object,
    key: Key,
    size: u64,
}

/// The key of what is below another. Names stay as they are.
fn below(key: &Key, name: &str, uri: &ArtifactUri) -> Result<Key, Error> {
    if name.is_empty() {
        return Ok(key.clone());
    }
    // A store's keys are not ours: one that goes up would leave the folder it is fetched to.
    Key::parse(format!("{key}/{name}")).map_err(|error| Error::Unavailable {
        uri: uri.to_string(),
        why: format!("`{name}` in it is no name of a file: {error}"),
    })
}

fn cut_short(uri: &ArtifactUri, found: u64, expected: u64) -> Error {
    Error::Unavailable {
        uri: uri.to_string(),
        why: format!("only {found} of its {expected} bytes came"),
    }
}

/// The ranges of a file's parts; none for an empty file.
fn parts(size: u64, part: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size.div_ceil(part)).map(move |number| {
        let start = number * part;
        (start, (start + part).min(size))
    })
}

async fn read_part(path: &Path, file: &Arc<File>, start: u64, end: u64) -> Result<Bytes, Error> {
    let file = Arc::clone(file);
    on_disk(path, move |_| {
        let length = usize::try_from(end - start).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    })
    .await
}

/// Work on this machine's files, on a thread that may wait.
async fn on_disk<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let path = path.to_owned();
    let owned = path.clone();
    let result = tokio::task::spawn_blocking(move || work(&owned)).await;
    result
        .map_err(io::Error::other)
        .and_then(|result| result)
        .map_err(|source| Error::Local { path, source })
}

/// The files to send: names below the folder (none for a single file), path, size. Links count as
/// what they lead to, which must be in the folder.
async fn walk(from: &Path) -> Result<Vec<(Vec<String>, PathBuf, u64)>, Error> {
    let owned = from.to_owned();
    let result = tokio::task::spawn_blocking(move || walk_now(&owned)).await;
    result.map_err(|error| Error::Local {
        path: from.to_owned(),
        source: io::Error::other(error),
    })?
}

fn walk_now(from: &Path) -> Result<Vec<(Vec<String>, PathBuf, u64)>, Error> {
    const DEEPEST: usize = 100;
    let local = |path: &Path, source| Error::Local {
        path: path.to_owned(),
        source,
    };
    let root = from.canonicalize().map_err(|source| local(from, source))?;
    let mut files = Vec::new();
    let mut waiting = vec![(Vec::new(), root.clone())];
    while let Some((names, path)) = waiting.pop() {
        let real = path.canonicalize().map_err(|source| local(&path, source))?;
        if !real.starts_with(&root) || names.len() > DEEPEST {
            return Err(Error::LeadsOut { path });
        }
        let metadata = fs::metadata(&real).map_err(|source| local(&path, source))?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&real).map_err(|source| local(&path, source))? {
                let entry = entry.map_err(|source| local(&path, source))?;
                let name = entry.file_name().into_string().map_err(|_| {
                    let why = "its name is not UTF-8 text, which a store's keys are";
                    local(&entry.path(), io::Error::new(io::ErrorKind::InvalidInput, why))
                })?;
                let mut names: Vec<String> = names.clone();
                names.push(name);
                waiting.push((names, path.join(entry.file_name())));
            }
        } else if metadata.is_file() {
            files.push((names, real, metadata.len()));
        } else {
            let error = content::Error::NoContent { path: path.clone() };
            return Err(local(&path, io::Error::other(error.to_string())));
        }
    }
    Ok(files)
}
