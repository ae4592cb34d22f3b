//! The file system that a container sees, made in the calling process's own mount namespace.
//!
//! Runs in the helper, as the sandbox's first process. The host is never changed: every mount is private to the
//! namespace and goes with it. Paths of the sandbox are resolved against the new root, link by link, so that a
//! link in it cannot lead a mount back to the host.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt, symlink},
        },
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode as Permissions, SFlag, mknod},
};

use super::{
    mountinfo,
    spec::{Sandbox, Spec},
};
use crate::runtime::mount::{Mount, MountKind};
use crate::runtime::run_dir::RunDir;

/// A step towards the sandbox that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{path}` for the sandbox")]
pub(crate) struct Error {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_path_buf();
    move |source| Error {
        action,
        path,
        source: source.into(),
    }
}

const NONE: Option<&str> = None;
/// Devices that every program may expect.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Makes what the container sees, and enters it. The caller is in its own mount and PID namespaces already.
pub(crate) fn enter(spec: &Spec, sandbox: Sandbox) -> Result<(), Error> {
    let run = RunDir(spec.run_dir.clone());
    let view = View {
        root: run.root(),
        scratch: run.scratch(),
        sandbox,
    };
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(failed("make private", Path::new("/")))?;
    // Before our own mounts are among them.
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if sandbox.in_memory {
        tmpfs(&view.scratch, "mode=700")?;
    }
    if sandbox.overlay_root {
        view.overlay(Path::new("/"), &view.root, "root")?;
        view.show_other_file_systems(&mountinfo);
    } else {
        tmpfs(&view.root, "mode=755")?;
        view.show_folders()?;
        view.bind(&run.tmp(), Path::new("/var/tmp"))?;
    }
    let of_root = view.of_root(&spec.mounts, &mountinfo);
    view.make_dev(&spec.devices)?;
    view.make_proc()?;
    view.show_sys();
    view.bind(&run.tmp(), Path::new("/tmp"))?;
    for hidden in &spec.hidden {
        view.hide(hidden)?;
    }
    // Over the host's folders, which only this namespace sees; from there they are shown where they belong.
    for memory in &spec.memory {
        let size = memory
            .bytes
            .map(|bytes| format!(",size={bytes}"))
            .unwrap_or_default();
        tmpfs(&memory.folder, &format!("mode=777{size}"))?;
    }
    for (index, (mount, of_root)) in spec.mounts.iter().zip(of_root).enumerate() {
        if spec
            .memory
            .iter()
            .any(|memory| mount.source.starts_with(&memory.folder))
        {
            // Part of a folder in memory, which was empty until now.
            fs::create_dir_all(&mount.source).map_err(failed("make", &mount.source))?;
        }
        view.show(mount, index, of_root.as_ref())?;
    }
    nix::unistd::chdir(&view.root).map_err(failed("enter", &view.root))?;
    nix::unistd::pivot_root(".", ".").map_err(failed("change the root to", &view.root))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("leave the host's root from", &view.root))?;
    nix::unistd::chdir("/").map_err(failed("enter", Path::new("/")))
}

struct View {
    root: PathBuf,
    scratch: PathBuf,
    sandbox: Sandbox,
}

impl View {
    /// Shows `lower` at `target` copy-on-write. `name` tells its layers from others'.
    fn overlay(&self, lower: &Path, target: &Path, name: &str) -> Result<(), Error> {
        let upper = self.scratch.join(name).join("upper");
        let work = self.scratch.join(name).join("work");
        for layer in [&upper, &work] {
            fs::create_dir_all(layer).map_err(failed("make the layer", layer))?;
        }
        let permissions = fs::metadata(lower).map_err(failed("read", lower))?.permissions();
        fs::set_permissions(&upper, permissions).map_err(failed("set the permissions of", &upper))?;
        let mut options = b"lowerdir=".to_vec();
        escape(&mut options, lower);
        options.extend_from_slice(b",upperdir=");
        escape(&mut options, &upper);
        options.extend_from_slice(b",workdir=");
        escape(&mut options, &work);
        // Nothing written here outlives the container, so nothing needs to reach the disk.
        options.extend_from_slice(b",volatile");
        if self.sandbox.user {
            options.extend_from_slice(b",userxattr");
        }
        mount(
            Some("overlay"),
            target,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_slice()),
        )
        .map_err(failed("lay a copy-on-write view over", lower))
    }

    /// The root's other file systems, read-only. One that cannot be shown (a dead network drive, a FUSE mount of
    /// another user) is left out: no task can have been meant to read it.
    fn show_other_file_systems(&self, mountinfo: &str) {
        for point in mountinfo::real_mounts(mountinfo) {
            let shown = self
                .target(&point, true)
                .and_then(|target| bind_recursive(&point, &target).and_then(|()| read_only(&target)));
            if let Err(error) = shown {
                note(&error);
            }
        }
    }

    /// The folders of the host's root, read-only, in a root of our own.
    fn show_folders(&self) -> Result<(), Error> {
        let host = Path::new("/");
        for entry in fs::read_dir(host).map_err(failed("read", host))? {
            let entry = entry.map_err(failed("read", host))?;
            let (path, target) = (entry.path(), self.root.join(entry.file_name()));
            let kind = entry.file_type().map_err(failed("read", &path))?;
            let is_own = ["dev", "proc", "sys", "tmp"]
                .iter()
                .any(|own| entry.file_name() == *own);
            if kind.is_symlink() {
                let to = fs::read_link(&path).map_err(failed("read", &path))?;
                symlink(to, &target).map_err(failed("make the link", &path))?;
            } else if kind.is_dir() {
                fs::create_dir(&target).map_err(failed("make", &path))?;
                if !is_own {
                    let shown = bind_recursive(&path, &target).and_then(|()| read_only(&target));
                    if let Err(error) = shown {
                        note(&error);
                    }
                }
            }
        }
        Ok(())
    }

    fn make_dev(&self, devices: &[PathBuf]) -> Result<(), Error> {
        let dev = self.root.join("dev");
        tmpfs(&dev, "mode=755")?;
        for name in DEVICES {
            self.device(&Path::new("/dev").join(name))?;
        }
        for device in devices {
            self.device(device)?;
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            symlink(to, dev.join(name)).map_err(failed("make the link", Path::new(name)))?;
        }
        let (pts, shm) = (dev.join("pts"), dev.join("shm"));
        for folder in [&pts, &shm] {
            fs::create_dir(folder).map_err(failed("make", folder))?;
        }
        tmpfs(&shm, "mode=1777")?;
        mount(
            Some("devpts"),
            &pts,
            Some("devpts"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            Some("newinstance,ptmxmode=0666,mode=0620"),
        )
        .map_err(failed("mount terminals at", Path::new("/dev/pts")))
    }

    /// One device node: made anew, or shown from the host where nodes may not be made.
    fn device(&self, path: &Path) -> Result<(), Error> {
        let target = self.root.join(path.strip_prefix("/").unwrap_or(path));
        let Ok(metadata) = fs::metadata(path) else {
            return Ok(());
        };
        let parent = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(failed("make", parent))?;
        if !self.sandbox.user && metadata.file_type().is_char_device() {
            let permissions = Permissions::from_bits_truncate(metadata.mode() & 0o777);
            if mknod(&target, SFlag::S_IFCHR, permissions, metadata.rdev()).is_ok() {
                return Ok(());
            }
        }
        fs::File::create(&target).map_err(failed("make", path))?;
        bind(path, &target)
    }

    fn make_proc(&self) -> Result<(), Error> {
        let (host, target) = (Path::new("/proc"), self.root.join("proc"));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if mount(Some("proc"), &target, Some("proc"), flags, NONE).is_err() {
            // In a container whose own /proc is partly covered, the kernel gives no fresh one.
            bind_recursive(host, &target)?;
        }
        for name in ["sys", "sysrq-trigger"] {
            let path = target.join(name);
            if path.exists() {
                bind_recursive(&path, &path).and_then(|()| read_only(&path))?;
            }
        }
        Ok(())
    }

    /// The kernel's devices and control groups, to read. A sandbox without them still runs most programs.
    fn show_sys(&self) {
        let target = self.root.join("sys");
        let shown = bind_recursive(Path::new("/sys"), &target).and_then(|()| read_only(&target));
        if let Err(error) = shown {
            note(&error);
        }
    }

    /// Covers a folder with an empty one. One that is not to be seen anyway needs no cover.
    fn hide(&self, path: &Path) -> Result<(), Error> {
        let target = resolve(&self.root, path);
        if target.is_dir() {
            tmpfs(&target, "mode=755")
        } else {
            Ok(())
        }
    }

    fn bind(&self, source: &Path, path: &Path) -> Result<(), Error> {
        bind(source, &self.target(path, true)?)
    }

    /// What is to be shown copy-on-write and is so already, because the root is: each such folder, while nothing lies
    /// over it.
    fn of_root(&self, mounts: &[Mount], mountinfo: &str) -> Vec<Option<fs::File>> {
        let open = |mount: &Mount| {
            let is_so = self.sandbox.overlay_root
                && mount.kind == MountKind::CopyOnWrite
                && !mountinfo::is_elsewhere(mountinfo, &mount.source);
            let path = self.root.join(mount.source.strip_prefix("/").ok()?);
            let mut options = fs::OpenOptions::new();
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            is_so.then(|| options.read(true).custom_flags(flags).open(path).ok())?
        };
        mounts.iter().map(open).collect()
    }

    fn show(&self, shown: &Mount, index: usize, of_root: Option<&fs::File>) -> Result<(), Error> {
        let is_dir = fs::metadata(&shown.source)
            .map_err(failed("find", &shown.source))?
            .is_dir();
        let target = self.target(&shown.target, is_dir)?;
        if let Some(folder) = of_root {
            let source = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
            if bind(&source, &target).is_ok() {
                return Ok(());
            }
        }
        match shown.kind {
            MountKind::ReadWrite => bind_recursive(&shown.source, &target),
            MountKind::CopyOnWrite if self.sandbox.overlay => {
                self.overlay(&shown.source, &target, &format!("layer-{index}"))
            }
            MountKind::ReadOnly | MountKind::CopyOnWrite => {
                bind_recursive(&shown.source, &target).and_then(|()| read_only(&target))
            }
        }
    }

    /// Where a path of the sandbox lies; made if it is missing.
    fn target(&self, path: &Path, is_dir: bool) -> Result<PathBuf, Error> {
        let target = resolve(&self.root, path);
        let missing = fs::symlink_metadata(&target).is_err();
        if missing && !self.sandbox.overlay_root {
            self.make_addable(&target)?;
        }
        if missing && is_dir {
            fs::create_dir_all(&target).map_err(failed("make the folder", path))?;
        } else if missing {
            let parent = target.parent().unwrap_or(&self.root);
            fs::create_dir_all(parent).map_err(failed("make the folder of", path))?;
            fs::File::create(&target).map_err(failed("make the file", path))?;
        }
        Ok(target)
    }
}

impl View {
    /// Puts the folder that `missing` is to be made in into memory if it is shown from the host, with what it holds shown
    /// in there.
    fn make_addable(&self, missing: &Path) -> Result<(), Error> {
        let exists = |folder: &&Path| fs::symlink_metadata(folder).is_ok();
        let Some(folder) = missing.ancestors().find(exists) else {
            return Ok(());
        };
        let is_own = nix::sys::statvfs::statvfs(folder)
            .is_ok_and(|found| !found.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
        if is_own {
            return Ok(());
        }
        let stage = self.scratch.join("stage");
        fs::create_dir_all(&stage).map_err(failed("make", &stage))?;
        tmpfs(&stage, "mode=755")?;
        for entry in fs::read_dir(folder).map_err(failed("read", folder))?.flatten() {
            if let Err(error) = show_entry(&entry, &stage) {
                note(&error);
            }
        }
        bind_recursive(&stage, folder)?;
        umount2(&stage, MntFlags::MNT_DETACH).map_err(failed("leave", &stage))
    }
}

/// Shows an entry of a folder in another one, as what it is.
fn show_entry(entry: &fs::DirEntry, folder: &Path) -> Result<(), Error> {
    let (path, target) = (entry.path(), folder.join(entry.file_name()));
    let kind = entry.file_type().map_err(failed("read", &path))?;
    if kind.is_symlink() {
        let to = fs::read_link(&path).map_err(failed("read", &path))?;
        return symlink(to, &target).map_err(failed("make the link", &path));
    }
    if kind.is_dir() {
        fs::create_dir(&target).map_err(failed("make", &path))?;
    } else {
        fs::File::create(&target).map_err(failed("make", &path))?;
    }
    bind_recursive(&path, &target)
}

/// Follows `path` from `root` as a process would whose root that is: links never lead out.
fn resolve(root: &Path, path: &Path) -> PathBuf {
    let mut inside = PathBuf::new();
    let mut todo: Vec<OsString> = reversed(path);
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            inside.pop();
            continue;
        }
        let next = inside.join(&part);
        match fs::read_link(root.join(&next)) {
            Ok(to) if links < 40 => {
                links += 1;
                if to.is_absolute() {
                    inside.clear();
                }
                todo.extend(reversed(&to));
            }
            _ => inside = next,
        }
    }
    root.join(inside)
}

/// The path's parts, last first, without `/` and `.`.
fn reversed(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<OsString> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect();
    parts.reverse();
    parts
}

/// The kernel splits options at `,` and layers at `:`.
fn escape(options: &mut Vec<u8>, path: &Path) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            options.push(b'\\');
        }
        options.push(byte);
    }
}

fn tmpfs(target: &Path, options: &str) -> Result<(), Error> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // A /dev without `nodev` holds device nodes; the others have no use for them.
    let flags = if target.ends_with("dev") {
        MsFlags::MS_NOSUID
    } else {
        flags
    };
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))
        .map_err(failed("mount memory at", target))
}

fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE).map_err(failed("show", source))
}

fn bind_recursive(source: &Path, target: &Path) -> Result<(), Error> {
    mount(
        Some(source),
        target,
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NONE,
    )
    .map_err(failed("show", source))
}

/// Makes the mount at `target`, and what is mounted below it, read-only (Linux 5.12 and later).
fn read_only(target: &Path) -> Result<(), Error> {
    let path = std::ffi::CString::new(target.as_os_str().as_bytes())
        .map_err(|error| failed("make read-only", target)(io::Error::from(error)))?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    #[expect(unsafe_code, reason = "neither nix nor rustix wraps mount_setattr")]
    // SAFETY: `path` is a C string and `attributes` a `mount_attr` of the size given; both outlive the call,
    // which keeps no pointer to them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(failed("make read-only", target)(io::Error::last_os_error()))
}

/// Says on the helper's own error stream what the sandbox goes without.
#[expect(clippy::print_stderr, reason = "the helper's error stream is its log file")]
fn note(error: &Error) {
    eprintln!("{}", coracle_api::reason::chain(error));
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn links_are_followed_inside_the_new_root_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("run/lock")).unwrap();
        fs::create_dir_all(root.join("var")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        symlink("../../../../etc", root.join("var/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(resolve(root, Path::new("/var/run/lock")), root.join("run/lock"));
        assert_eq!(resolve(root, Path::new("/var/up/x")), root.join("etc/x"));
        assert_eq!(resolve(root, Path::new("/../a/./b")), root.join("a/b"));
        assert_eq!(resolve(root, Path::new("/loop/x")), root.join("loop/x"));
    }

    #[test]
    fn separators_in_paths_are_escaped() {
        let mut options = Vec::new();
        escape(
            &mut options,
            &PathBuf::from(OsString::from_vec(b"/a:b,c\\d".to_vec())),
        );
        assert_eq!(options, br"/a\:b\,c\\d");
    }
}
