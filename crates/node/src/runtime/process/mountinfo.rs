//! `/proc/self/mountinfo`, read for one question: what of the host's root is of other file systems?
//!
//! Pure text work. Format: `man 5 proc_pid_mountinfo`.

use std::path::{Path, PathBuf};

/// File systems that hold the kernel's or a program's state, not anybody's files.
const PSEUDO: [&str; 21] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// Folders that every sandbox has of its own, or that belong to other container engines.
const OWN: [&str; 9] = [
    "/dev",
    "/proc",
    "/sys",
    "/tmp",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/run/user",
];

/// The topmost mount points below `/` that hold real files, in the order of mounting. What is mounted below one
/// of them comes with it.
pub(crate) fn real_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in mountinfo.lines() {
        let Some((point, kind)) = parse(line) else {
            continue;
        };
        let is_own = OWN.iter().any(|own| point.starts_with(own));
        if point == Path::new("/") || PSEUDO.contains(&kind) || is_own {
            continue;
        }
        if !found.iter().any(|above| point.starts_with(above)) {
            found.retain(|below| !below.starts_with(&point));
            found.push(point);
        }
    }
    found
}

/// Whether a path belongs to another file system than `/`.
pub(crate) fn is_elsewhere(mountinfo: &str, path: &Path) -> bool {
    mountinfo
        .lines()
        .filter_map(parse)
        .any(|(point, _)| point != Path::new("/") && path.starts_with(&point))
}

fn parse(line: &str) -> Option<(PathBuf, &str)> {
    let (before, after) = line.split_once(" - ")?;
    Some((unescape(before.split(' ').nth(4)?), after.split(' ').next()?))
}

/// Space, tab, newline and backslash stand as `\ooo`.
fn unescape(text: &str) -> PathBuf {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};

    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\' && tail.len() >= 3)
            .then(|| std::str::from_utf8(&tail[..3]).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, expected: &[&str]) {
        let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(real_mounts(mountinfo), expected);
    }

    #[test]
    fn only_topmost_mounts_with_real_files_are_found() {
        check(
            "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
             23 22 0:21 / /proc rw - proc proc rw\n\
             24 22 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             25 22 0:23 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n\
             26 25 0:24 / /run/user/1000 rw - tmpfs tmpfs rw\n\
             27 22 8:1 / /home rw - btrfs /dev/sda1 rw\n\
             28 27 8:2 / /home/a\\040b rw - ext4 /dev/sda2 rw\n\
             29 22 8:3 / /mnt/my\\040disk rw - ext4 /dev/sda3 rw\n\
             30 22 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw\n\
             31 22 0:51 / /tmp rw - tmpfs tmpfs rw\n",
            &["/run", "/home", "/mnt/my disk"],
        );
    }

    #[test]
    fn a_mount_over_an_earlier_ones_parent_takes_its_place() {
        check(
            "27 22 8:1 / /data/a rw - ext4 /dev/sda1 rw\n28 22 8:2 / /data rw - ext4 /dev/sda2 rw\n",
            &["/data"],
        );
    }

    #[test]
    fn what_is_below_another_mount_point_is_elsewhere() {
        let mountinfo = "22 1 254:0 / / rw - ext4 /dev/vda rw\n27 22 8:1 / /home rw - btrfs /dev/sda1 rw\n";
        assert!(is_elsewhere(mountinfo, Path::new("/home/a")));
        assert!(!is_elsewhere(mountinfo, Path::new("/homes/a")));
    }

    #[test]
    fn lines_of_another_shape_are_passed_over() {
        check("\nnonsense\n1 2 3\n", &[]);
    }
}
