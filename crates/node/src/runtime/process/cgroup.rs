//! Control groups: limits on memory, CPU and the number of processes, and whether the kernel had to kill for want of memory.
//!
//! Version 1 and version 2 hierarchies both occur, and both may be closed to us. What is not there is `None`:
//! the caller says so to the user, and runs the container without a limit.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where we may make control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
    version: Version,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    pids: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Version {
    #[default]
    One,
    Two,
}

/// What a container may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Thousandths of a core.
    pub(crate) cpu_milli: Option<u64>,
    /// Processes and threads. Where there is no group for it, there is no limit.
    pub(crate) pids: Option<u64>,
}

/// How many processes and threads one container may have: so many that none needs more, and so few that one that
/// makes ever more of them leaves this machine enough.
pub(crate) fn most_pids() -> u64 {
    const MOST: u64 = 16 * 1024;
    let all = fs::read_to_string("/proc/sys/kernel/pid_max").ok();
    let all = all.and_then(|text| text.trim().parse::<u64>().ok());
    all.map_or(MOST, |all| (all / 4).min(MOST))
}

/// A control group that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the control group `{path}`")]
pub(crate) struct Error {
    path: PathBuf,
    #[source]
    source: io::Error,
}

const ROOT: &str = "/sys/fs/cgroup";
/// Our own group, above one for each container.
const OURS: &str = "coracle";
const PERIOD_US: u64 = 100_000;

impl Cgroups {
    /// Finds where groups can be made, making our own group there.
    pub(crate) fn detect() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            return Self::detect_two(&own);
        }
        let find = |controller: &str| {
            [own_group(&own, controller).unwrap_or("/"), "/"]
                .into_iter()
                .map(|group| {
                    Path::new(ROOT)
                        .join(controller)
                        .join(group.trim_start_matches('/'))
                })
                .find_map(|parent| make_writable(&parent.join(OURS)))
        };
        Self {
            version: Version::One,
            memory: find("memory"),
            cpu: find("cpu"),
            pids: find("pids"),
        }
    }

    /// In the unified hierarchy a group with processes gives no controllers to groups below it, so we need one
    /// that the administrator delegated, or the root's.
    fn detect_two(own: &str) -> Self {
        let group = own_group(own, "").unwrap_or("/");
        let found = [group, "/"].into_iter().find_map(|group| {
            let parent = Path::new(ROOT).join(group.trim_start_matches('/'));
            enable(&parent);
            let ours = make_writable(&parent.join(OURS))?;
            enable(&ours);
            let enabled = fs::read_to_string(ours.join("cgroup.subtree_control")).ok()?;
            let has = |controller: &str| enabled.split_ascii_whitespace().any(|name| name == controller);
            (has("memory") || has("cpu")).then(|| Self {
                version: Version::Two,
                memory: has("memory").then(|| ours.clone()),
                cpu: has("cpu").then(|| ours.clone()),
                pids: has("pids").then(|| ours.clone()),
            })
        });
        found.unwrap_or_default()
    }

    /// Whether memory limits hold on this machine.
    pub(crate) fn has_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether CPU limits hold on this machine.
    pub(crate) fn has_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    /// Makes the groups that hold a container to `limits`; none for no limits.
    pub(crate) fn make(&self, name: &str, limits: Limits) -> Result<Vec<PathBuf>, Error> {
        let mut made = Vec::new();
        let wanted = [
            limits.memory.and(self.memory.as_ref()),
            limits.cpu_milli.and(self.cpu.as_ref()),
            limits.pids.and(self.pids.as_ref()),
        ];
        for parent in wanted.into_iter().flatten() {
            let path = parent.join(name);
            if made.contains(&path) {
                continue;
            }
            let result = match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => self.limit(&path, limits),
            };
            result.map_err(|source| Error {
                path: path.clone(),
                source,
            })?;
            made.push(path);
        }
        Ok(made)
    }

    /// Removes the groups of a container whose helper did not.
    pub(crate) fn remove(&self, name: &str) {
        for parent in self.memory.iter().chain(&self.cpu).chain(&self.pids) {
            let _ = fs::remove_dir(parent.join(name));
        }
    }

    fn limit(&self, group: &Path, limits: Limits) -> io::Result<()> {
        let has = |name: &str| group.join(name).exists();
        match (self.version, limits.memory) {
            (Version::One, Some(bytes)) if has("memory.limit_in_bytes") => {
                fs::write(group.join("memory.limit_in_bytes"), bytes.to_string())?;
                // Swap counts too, where it is accounted for at all.
                let _ = fs::write(group.join("memory.memsw.limit_in_bytes"), bytes.to_string());
            }
            (Version::Two, Some(bytes)) => {
                fs::write(group.join("memory.max"), bytes.to_string())?;
                let _ = fs::write(group.join("memory.swap.max"), "0");
            }
            _ => {}
        }
        if let Some(count) = limits.pids
            && has("pids.max")
        {
            fs::write(group.join("pids.max"), count.to_string())?;
        }
        let quota = limits.cpu_milli.map(|milli| (milli * PERIOD_US / 1000).max(1000));
        match (self.version, quota) {
            (Version::One, Some(quota)) if has("cpu.cfs_quota_us") => {
                fs::write(group.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
                fs::write(group.join("cpu.cfs_quota_us"), quota.to_string())
            }
            (Version::Two, Some(quota)) => fs::write(group.join("cpu.max"), format!("{quota} {PERIOD_US}")),
            _ => Ok(()),
        }
    }
}

/// How many processes of the group the kernel killed for want of memory, of the group or of the machine. Only a group
/// of the memory controller counts them.
pub(crate) fn oom_kills(group: &Path) -> Option<u64> {
    ["memory.events", "memory.oom_control"]
        .iter()
        .filter_map(|name| fs::read_to_string(group.join(name)).ok())
        .find_map(|text| counter(&text, "oom_kill"))
}

/// How many processes the kernel killed for want of memory on the whole machine, for the limits of groups included.
pub(crate) fn oom_kills_of_machine() -> u64 {
    fs::read_to_string("/proc/vmstat")
        .ok()
        .and_then(|text| counter(&text, "oom_kill"))
        .unwrap_or(0)
}

fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(key, value)| (key == name).then(|| value.trim().parse().ok())?)
}

/// The group of a process for a controller, from `/proc/<pid>/cgroup`; `""` is the unified hierarchy.
fn own_group<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, group) = (parts.next()?, parts.next()?);
        names.split(',').any(|name| name == controller).then_some(group)
    })
}

fn make_writable(group: &Path) -> Option<PathBuf> {
    if let Err(error) = fs::create_dir(group)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return None;
    }
    // A group from an earlier life may belong to somebody else.
    nix::unistd::access(group, nix::unistd::AccessFlags::W_OK).ok()?;
    Some(group.to_path_buf())
}

fn enable(group: &Path) {
    for controller in ["+memory", "+cpu", "+pids"] {
        let _ = fs::write(group.join("cgroup.subtree_control"), controller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_group_is_found_in_both_hierarchies() {
        let text = "4:memory:/a/b\n2:cpu,cpuacct:/c\n0::/user.slice/x\n";
        assert_eq!(own_group(text, "memory"), Some("/a/b"));
        assert_eq!(own_group(text, "cpu"), Some("/c"));
        assert_eq!(own_group(text, ""), Some("/user.slice/x"));
        assert_eq!(own_group(text, "pids"), None);
    }

    #[test]
    fn kills_are_counted_by_their_exact_name() {
        assert_eq!(
            counter("oom_kill_disable 0\nunder_oom 1\noom_kill 3\n", "oom_kill"),
            Some(3)
        );
        assert_eq!(
            counter(
                "low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n",
                "oom_kill"
            ),
            Some(2)
        );
        assert_eq!(counter("", "oom_kill"), None);
    }
}
