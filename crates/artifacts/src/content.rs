//! Blocking work on the bytes of an artifact: digest, size, copy.
//!
//! A folder is digested as the sorted list of what is in it, so that two equal folders have equal
//! digests whatever order or time they were written in. Links inside a folder are not followed:
//! what they say counts, not where they lead.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// What an artifact weighs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// `sha256:HEX`.
    pub digest: String,
    /// Bytes in all.
    pub size: u64,
}

/// Why bytes could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a socket, a pipe or a device.
    #[error("`{}` is neither a file nor a folder", path.display())]
    NoContent {
        /// Which.
        path: PathBuf,
    },
}

/// Digest and size of the file or folder at `path`; `None` when there is nothing.
///
/// # Errors
/// [`Error`] when something is there that cannot be read.
pub fn measure(path: &Path) -> Result<Option<Measure>, Error> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let (digest, size) = if metadata.is_dir() {
        let mut listing = Listing::default();
        listing.add_folder(path, "")?;
        listing.lines.sort_unstable();
        let mut hash = Sha256::new();
        listing.lines.iter().for_each(|line| hash.update(line.as_bytes()));
        (hex(hash), listing.size)
    } else {
        digest_file(path, &metadata)?
    };
    Ok(Some(Measure {
        digest: format!("sha256:{digest}"),
        size,
    }))
}

/// Copies the file or folder at `from` to `to`, which appears whole or not at all, and replaces
/// what is there.
///
/// # Errors
/// [`Error`] when one cannot be read or the other not written.
pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let write = |source| Error::Write {
        path: to.to_owned(),
        source,
    };
    let metadata = fs::metadata(from).map_err(|source| Error::Read {
        path: from.to_owned(),
        source,
    })?;
    let parent = to
        .parent()
        .ok_or_else(|| write(io::Error::other("it has no parent folder")))?;
    fs::create_dir_all(parent).map_err(write)?;
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = parent.join(name);
    remove(&partial)?;
    if metadata.is_dir() {
        copy_folder(from, &partial)?;
    } else {
        copy_file(from, &partial, &metadata)?;
    }
    remove(to)?;
    coracle_breakpoint::at("artifacts.copied");
    fs::rename(&partial, to).map_err(write)?;
    coracle_breakpoint::at("artifacts.moved");
    Ok(())
}

/// Removes the file or folder at `path`, if there is one.
///
/// # Errors
/// [`Error::Write`] when it is there and stays.
pub fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// The lines of a folder's digest, `KIND DIGEST PATH`, and its size.
#[derive(Default)]
struct Listing {
    lines: Vec<String>,
    size: u64,
}

impl Listing {
    fn add_folder(&mut self, folder: &Path, prefix: &str) -> Result<(), Error> {
        for (path, metadata) in entries(folder)? {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            // Escaped, so that no name can look like two lines.
            let name = format!("{prefix}{}", name.escape_ascii());
            if metadata.is_dir() {
                self.lines.push(format!("{name}/\n"));
                self.add_folder(&path, &format!("{name}/"))?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).map_err(|source| Error::Read { path, source })?;
                let target = target.as_os_str().as_encoded_bytes().escape_ascii().to_string();
                self.lines.push(format!("{name} -> {target}\n"));
            } else {
                let (digest, size) = digest_file(&path, &metadata)?;
                self.lines.push(format!("{name} {digest}\n"));
                self.size += size;
            }
        }
        Ok(())
    }
}

/// What is directly in a folder, links as links.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>, Error> {
    let read = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    fs::read_dir(folder)
        .map_err(read)?
        .map(|entry| {
            let entry = entry.map_err(read)?;
            let metadata = entry.metadata().map_err(|source| Error::Read {
                path: entry.path(),
                source,
            })?;
            Ok((entry.path(), metadata))
        })
        .collect()
}

fn digest_file(path: &Path, metadata: &Metadata) -> Result<(String, u64), Error> {
    if !metadata.is_file() {
        return Err(Error::NoContent {
            path: path.to_owned(),
        });
    }
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut hash, mut size) = (Sha256::new(), 0_u64);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hex(hash), size)),
            Ok(count) => {
                hash.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read(error)),
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), Error> {
    let entries = entries(from)?;
    fs::create_dir(to).map_err(|source| Error::Write {
        path: to.to_owned(),
        source,
    })?;
    for (path, metadata) in entries {
        let target = to.join(path.file_name().unwrap_or_default());
        if metadata.is_dir() {
            copy_folder(&path, &target)?;
        } else if metadata.is_symlink() {
            let link = fs::read_link(&path).map_err(|source| Error::Read { path, source })?;
            std::os::unix::fs::symlink(link, &target)
                .map_err(|source| Error::Write { path: target, source })?;
        } else {
            copy_file(&path, &target, &metadata)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, metadata: &Metadata) -> Result<(), Error> {
    if !metadata.is_file() {
        return Err(Error::NoContent {
            path: from.to_owned(),
        });
    }
    // `fs::copy` shares blocks where the file system can.
    fs::copy(from, to).map(drop).map_err(|source| Error::Write {
        path: to.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        fs::write(path, bytes).expect("written");
    }

    fn digest(path: &Path) -> String {
        measure(path).expect("measurable").expect("present").digest
    }

    #[test]
    fn file_digest_is_plain_sha256() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "a", b"abc");
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let found = measure(&folder.path().join("a")).expect("measurable");
        assert_eq!(
            found,
            Some(Measure {
                digest: expected.to_owned(),
                size: 3
            })
        );
        assert_eq!(measure(&folder.path().join("none")).expect("measurable"), None);
    }

    #[test]
    fn folder_digest_is_about_content_alone() {
        let (one, other) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        for name in ["b", "a", "sub/c", "sub-x"] {
            write(one.path(), name, name.as_bytes());
        }
        for name in ["sub-x", "sub/c", "a", "b"] {
            write(other.path(), name, name.as_bytes());
        }
        assert_eq!(digest(one.path()), digest(other.path()));
        assert_eq!(
            measure(one.path()).expect("measurable").expect("present").size,
            12
        );

        fs::rename(other.path().join("a"), other.path().join("z")).expect("renamed");
        assert_ne!(digest(one.path()), digest(other.path()), "a name counts");
        let empty = tempfile::tempdir().expect("a folder");
        let with_folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(with_folder.path().join("x")).expect("created");
        assert_ne!(
            digest(empty.path()),
            digest(with_folder.path()),
            "an empty folder counts"
        );
    }

    #[test]
    fn links_in_a_folder_are_not_followed_and_a_link_to_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        symlink("..", folder.path().join("loop")).expect("linked");
        write(folder.path(), "a", b"1");
        let link = folder
            .path()
            .parent()
            .expect("a parent")
            .join(format!("link-{}", std::process::id()));
        symlink(folder.path(), &link).expect("linked");
        let through = digest(&link);
        fs::remove_file(&link).expect("removed");
        assert_eq!(digest(folder.path()), through);
    }

    #[test]
    fn what_has_no_bytes_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).expect("bound");
        assert!(matches!(
            measure(&folder.path().join("s")),
            Err(Error::NoContent { .. })
        ));
        assert!(matches!(measure(folder.path()), Err(Error::NoContent { .. })));
    }

    #[test]
    fn copies_are_whole_and_replace() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "from/x/y", b"deep");
        symlink("x/y", folder.path().join("from/l")).expect("linked");
        write(folder.path(), "to/old", b"old");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        copy(&from, &to).expect("copied");
        assert_eq!(digest(&from), digest(&to));
        copy(&from.join("x/y"), &folder.path().join("new/deep/file")).expect("copied");
        assert_eq!(
            fs::read(folder.path().join("new/deep/file")).expect("readable"),
            b"deep"
        );
        assert!(matches!(
            copy(&folder.path().join("none"), &to),
            Err(Error::Read { .. })
        ));
    }
}
