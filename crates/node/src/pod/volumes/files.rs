//! The files that a volume is made of, written into its folder.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::KeyToPath;

use super::Error;
use crate::pod::objects::{Objects, Reference};

/// Files of one volume.
pub(super) struct Files<'a> {
    pub(super) volume: &'a str,
    pub(super) folder: &'a Path,
}

impl Files<'_> {
    fn failed(&self, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let (volume, path) = (self.volume.to_owned(), path.to_path_buf());
        move |source| Error::Write { volume, path, source }
    }

    pub(super) fn make_folder(&self, mode: u32) -> Result<(), Error> {
        fs::create_dir_all(self.folder)
            .and_then(|()| fs::set_permissions(self.folder, fs::Permissions::from_mode(mode)))
            .map_err(self.failed(self.folder))
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8], mode: Option<i32>) -> Result<(), Error> {
        let path = join(self.folder, name).ok_or_else(|| Error::Refused {
            volume: self.volume.to_owned(),
            problem: format!("names the file `{name}`, which leads out of it"),
        })?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(self.failed(parent))?;
        }
        replace(&path, bytes, mode_of(mode)).map_err(self.failed(&path))
    }

    pub(super) fn write_keys(
        &self,
        objects: &Objects,
        object: &Reference,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<(), Error> {
        let missing = |missing| Error::Missing {
            volume: self.volume.to_owned(),
            missing,
        };
        let values = match objects.values(object) {
            Ok(values) => values,
            Err(_) if optional == Some(true) => return Ok(()),
            Err(error) => return Err(missing(error)),
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return values
                .iter()
                .try_for_each(|(key, bytes)| self.write(key, bytes, mode));
        };
        for item in items {
            match objects.value(object, &item.key) {
                Ok(bytes) => self.write(&item.path, bytes, item.mode.or(mode))?,
                Err(_) if optional == Some(true) => {}
                Err(error) => return Err(missing(error)),
            }
        }
        Ok(())
    }
}

/// The permissions of a file of a volume.
pub(crate) fn mode_of(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644) & 0o777
}

/// Puts a file in the place of the one that may be there. Who reads sees one of them whole.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = std::ffi::OsString::from("..new-");
    name.push(path.file_name().unwrap_or_default());
    let draft = path.with_file_name(name);
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)?;
    io::Write::write_all(&mut file, bytes)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(mode))?;
    fs::rename(&draft, path)
}

/// `below` under `folder`; `None` if it says `..` or is absolute.
pub(super) fn join(folder: &Path, below: &str) -> Option<PathBuf> {
    let below = Path::new(below);
    below
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        .then(|| folder.join(below))
}
