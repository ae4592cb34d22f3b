//! A run's folders on the host: made before its sandbox, removed once it is over.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use crate::runtime::run_dir::RunDir;

/// Makes the sandbox's own folders, on the host.
pub(crate) fn make_folders(run: &RunDir) -> io::Result<()> {
    for folder in [run.root(), run.scratch(), run.tmp(), run.tmp().join("home")] {
        fs::create_dir_all(folder)?;
    }
    fs::set_permissions(run.tmp(), fs::Permissions::from_mode(0o1777))
}

/// Removes the sandbox's own folders once the run is over; its log and records stay.
pub(crate) fn remove_folders(run: &RunDir) {
    for folder in [run.root(), run.scratch(), run.tmp()] {
        if let Err(error) = remove_tree(&folder) {
            tracing::warn!(%error, folder = %folder.display(), "what a container wrote was not removed");
        }
    }
}

/// Removes a folder and all in it, whatever its permissions. One that is not there is removed.
pub(crate) fn remove_tree(folder: &Path) -> io::Result<()> {
    let removed = fs::remove_dir_all(folder).or_else(|_| {
        open_up(folder);
        fs::remove_dir_all(folder)
    });
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An overlay's work folder is closed even to its owner.
fn open_up(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
