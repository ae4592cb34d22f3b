//! How our own program runs inside an image that has another C library, or none.
//!
//! A task's command is `coracle launch`. The program is linked to this machine's C library, which an image need not
//! have: so its loader and libraries are shown to the container, and the loader is told where they are. They are not
//! in the environment, so what the launcher starts runs with the image's own.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::runtime::mount::{Mount, MountKind};

/// Where they are shown.
const FOLDER: &str = "/.coracle";

/// What a container needs to run our own program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Loader {
    /// What comes before the program in a command.
    pub(crate) prefix: Vec<String>,
    /// What the container is to see, the program itself included.
    pub(crate) mounts: Vec<Mount>,
}

/// For the program at `binary`, which this process runs as well.
pub(crate) fn of(binary: &Path) -> Loader {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    from_maps(&maps, binary, names)
}

/// What a library is called beside its own name: links to it that lie in its folder.
fn names(library: &Path) -> Vec<OsString> {
    let own = library.file_name().unwrap_or_default();
    let entries = library.parent().and_then(|folder| fs::read_dir(folder).ok());
    let links = entries.into_iter().flatten().flatten().filter(|entry| {
        let link = entry.path().read_link();
        link.is_ok_and(|link| link.as_os_str() == own)
    });
    std::iter::once(own.to_owned())
        .chain(links.map(|entry| entry.file_name()))
        .collect()
}

fn from_maps(maps: &str, binary: &Path, names: impl Fn(&Path) -> Vec<OsString>) -> Loader {
    let mut loader = Loader::default();
    let libraries: BTreeSet<&Path> = maps
        .lines()
        .filter_map(path)
        .filter(|path| is_library(path))
        .collect();
    let read_only = |source: &Path, target: PathBuf| Mount {
        source: source.to_path_buf(),
        target,
        kind: MountKind::ReadOnly,
    };
    for library in libraries {
        if is_loader(library) {
            let shown = Path::new(FOLDER).join(library.file_name().unwrap_or_default());
            let words = [&*shown.to_string_lossy(), "--library-path", FOLDER];
            loader.prefix = words.map(ToOwned::to_owned).to_vec();
        }
        let names = names(library).into_iter();
        let shown = names.map(|name| read_only(library, Path::new(FOLDER).join(name)));
        loader.mounts.extend(shown);
    }
    if loader.prefix.is_empty() {
        // It is linked to nothing.
        loader.mounts.clear();
    }
    loader.mounts.push(read_only(binary, binary.to_path_buf()));
    loader
}

/// The file of a line of `/proc/<pid>/maps`.
fn path(line: &str) -> Option<&Path> {
    let at = line.find('/')?;
    Some(Path::new(&line[at..]))
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".so") || name.contains(".so.")
}

fn is_loader(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("ld-linux") || name.starts_with("ld-musl") || name.starts_with("ld64")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0-55d1 r--p 00000000 fe:00 1 /opt/coracle
7f00-7f01 r--p 00000000 fe:00 2 /usr/lib/x86_64-linux-gnu/libc.so.6
7f01-7f02 r-xp 00000000 fe:00 2 /usr/lib/x86_64-linux-gnu/libc.so.6
7f03-7f04 rw-p 00000000 00:00 0
7f05-7f06 r--p 00000000 fe:00 3 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
7fff-8000 r-xp 00000000 00:00 0 [vdso]
";

    #[test]
    fn a_program_brings_its_loader_and_libraries_under_all_their_names() {
        let names = |path: &Path| {
            let own = path.file_name().unwrap().to_owned();
            let more = (own == "libc.so.6").then(|| "libc-2.so".into());
            [own].into_iter().chain(more).collect()
        };
        let loader = from_maps(MAPS, Path::new("/opt/coracle"), names);
        let prefix = ["/.coracle/ld-linux-x86-64.so.2", "--library-path", "/.coracle"];
        assert_eq!(loader.prefix, prefix);
        let targets: Vec<_> = loader
            .mounts
            .iter()
            .map(|mount| mount.target.to_str().unwrap())
            .collect();
        let expected = [
            "/.coracle/ld-linux-x86-64.so.2",
            "/.coracle/libc.so.6",
            "/.coracle/libc-2.so",
            "/opt/coracle",
        ];
        assert_eq!(targets, expected);
        assert!(
            loader
                .mounts
                .iter()
                .all(|mount| mount.kind == MountKind::ReadOnly)
        );
    }

    #[test]
    fn one_that_is_linked_to_nothing_brings_itself() {
        let loader = from_maps(
            "55d0-55d1 r--p 00000000 fe:00 1 /opt/coracle\n",
            Path::new("/opt/coracle"),
            names,
        );
        assert_eq!(loader.prefix, [""; 0]);
        assert_eq!(loader.mounts.len(), 1);
    }
}
