//! The archive: what goes into it, and what may come out.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Component, Path},
};

use tar::{Archive, Builder, EntryType, Header};

use super::{DATABASE, Error, KEPT, MANIFEST, Manifest, Summary, file};

/// Writes everything, the database from `database`.
pub(super) fn write(to: &mut impl Write, manifest: Manifest, database: &Path) -> Result<Summary, Error> {
    let mut summary = Summary {
        manifest,
        files: 0,
        bytes: 0,
    };
    let mut builder = Builder::new(to);
    builder.follow_symlinks(false);
    let text = serde_json::to_vec_pretty(&summary.manifest).unwrap_or_default();
    let mut header = Header::new_gnu();
    header.set_size(u64::try_from(text.len()).unwrap_or_default());
    header.set_mode(0o600);
    let written = builder.append_data(&mut header, MANIFEST, text.as_slice());
    written.map_err(file("write", Path::new(MANIFEST)))?;
    for name in KEPT {
        let data_dir = summary.manifest.data_dir.clone();
        let path = if name == DATABASE {
            database.to_owned()
        } else {
            data_dir.join(name)
        };
        append(&mut builder, &path, Path::new(name), &mut summary)?;
    }
    builder.finish().map_err(file("write", Path::new("the backup")))?;
    Ok(summary)
}

/// Adds what is at `path` as `name`. What goes away meanwhile is not needed any more.
fn append<W: Write>(
    builder: &mut Builder<W>,
    path: &Path,
    name: &Path,
    summary: &mut Summary,
) -> Result<(), Error> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file("read", path)(error)),
    };
    let mut header = Header::new_gnu();
    header.set_metadata(&metadata);
    let kind = metadata.file_type();
    if kind.is_dir() {
        header.set_size(0);
        let added = builder.append_data(&mut header, name, io::empty());
        added.map_err(file("write", path))?;
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = entries.map_err(file("read", path))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            append(builder, &entry.path(), &name.join(entry.file_name()), summary)?;
        }
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(file("read", path))?;
        header.set_size(0);
        header.set_entry_type(EntryType::Symlink);
        let added = builder.append_link(&mut header, name, target);
        added.map_err(file("write", path))?;
    } else if kind.is_file() {
        let content = match File::open(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(file("read", path)(error)),
        };
        // A volume's file that somebody writes to may have any length by now.
        let whole = content.chain(io::repeat(0)).take(metadata.len());
        let added = builder.append_data(&mut header, name, whole);
        added.map_err(file("write", path))?;
        summary.files += 1;
        summary.bytes += metadata.len();
    }
    // Sockets and the like are of whoever made them.
    Ok(())
}

/// Unpacks a backup into the folder `into`.
pub(super) fn read(from: impl Read, into: &Path) -> Result<Summary, Error> {
    let mut archive = Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(nix::unistd::geteuid().is_root());
    let mut entries = archive.entries().map_err(Error::Damaged)?;
    let mut first = entries
        .next()
        .ok_or(Error::NotABackup)?
        .map_err(|_| Error::NotABackup)?;
    if first.path().map_err(Error::Damaged)? != Path::new(MANIFEST) {
        return Err(Error::NotABackup);
    }
    let mut text = Vec::new();
    first.read_to_end(&mut text).map_err(Error::Damaged)?;
    let mut summary = Summary {
        manifest: serde_json::from_slice(&text).map_err(|_| Error::NotABackup)?,
        files: 0,
        bytes: 0,
    };
    for entry in entries {
        let mut entry = entry.map_err(Error::Damaged)?;
        let name = entry.path().map_err(Error::Damaged)?.into_owned();
        if !is_ours(&name) {
            let problem = format!("`{}` is not of a backup", name.display());
            return Err(Error::Damaged(io::Error::other(problem)));
        }
        if entry.header().entry_type().is_file() {
            summary.files += 1;
            summary.bytes += entry.size();
        }
        // It refuses what would come to lie outside.
        let is_inside = entry.unpack_in(into).map_err(Error::Damaged)?;
        if !is_inside {
            let problem = format!("`{}` would lie outside of the data directory", name.display());
            return Err(Error::Damaged(io::Error::other(problem)));
        }
    }
    if !into.join(DATABASE).is_file() {
        return Err(Error::Damaged(io::Error::other("there is no database in it")));
    }
    Ok(summary)
}

fn is_ours(name: &Path) -> bool {
    let mut parts = name.components();
    let is_known = |part: &OsStr| KEPT.iter().any(|kept| part == *kept);
    matches!(parts.next(), Some(Component::Normal(first)) if is_known(first))
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_backup_holds_comes_out() {
        for (name, expected) in [
            ("coracle.db", true),
            ("artifacts/run/task/file", true),
            ("pki", true),
            ("coracle.lock", false),
            ("artifacts/../../etc/passwd", false),
            ("/etc/passwd", false),
            ("", false),
        ] {
            assert_eq!(is_ours(Path::new(name)), expected, "{name}");
        }
    }
}
