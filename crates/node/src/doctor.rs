//! What this machine gives to Pods, and what it lacks: the checks behind `coracle doctor`.

use std::path::{Path, PathBuf};

use crate::{
    environments::{
        interpreters::{self, Uv},
        python::Environments,
    },
    gpu::Gpus,
    node::describe,
    runtime::{
        container::engine::Engines,
        process::{
            cgroup::Cgroups,
            mediate, probe,
            spec::{Mode, Sandbox},
        },
    },
};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Pods run, with less.
    Warn,
    /// Some Pods cannot run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What: one word or two.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found, in a sentence.
    pub finding: String,
    /// What to do about it; nothing if all is well or nothing can be done.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Ok,
            finding: finding.into(),
            remedy: None,
        }
    }

    fn warn(name: &'static str, finding: impl Into<String>, remedy: &str) -> Self {
        Self {
            outcome: Outcome::Warn,
            remedy: Some(remedy.to_owned()),
            ..Self::ok(name, finding)
        }
    }

    fn fail(name: &'static str, finding: impl Into<String>, remedy: &str) -> Self {
        Self {
            outcome: Outcome::Fail,
            ..Self::warn(name, finding, remedy)
        }
    }
}

/// Looks at everything. `binary` is our own executable, `data_dir` where the node would keep its data; a folder
/// that does not exist yet is looked at where it would be made.
pub async fn checks(binary: &Path, data_dir: &Path) -> Vec<Check> {
    let place = data_dir
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(data_dir);
    let finding = probe::best(binary, place).await;
    let blocking = tokio::task::spawn_blocking(|| (Cgroups::detect(), Gpus::detect(), mediate::attempt()));
    let uv = Uv::find().await;
    let pythons = interpreters::discover(uv.as_ref()).await;
    let mut checks = vec![isolation(&finding), files(&finding)];
    if let Ok((cgroups, gpus, moving)) = blocking.await {
        checks.push(limits(&cgroups));
        checks.push(network(moving));
        checks.push(match gpus.all() {
            [] => Check::ok("gpu", "no NVIDIA GPU"),
            [gpu, rest @ ..] => Check::ok("gpu", format!("{} × {}", rest.len() + 1, gpu.name)),
        });
    }
    // As `coracle up` takes it.
    let socket = std::env::var_os("CORACLE_CONTAINER_SOCKET").map(PathBuf::from);
    checks.push(match Engines::new(socket).engine().await {
        Ok(engine) => Check::ok(
            "containers",
            format!(
                "{} {} at `{}`",
                engine.name,
                engine.version,
                engine.socket.display()
            ),
        ),
        Err(none) => Check::ok(
            "containers",
            format!("{none}: only images that this machine has run"),
        ),
    });
    let versions: Vec<String> = pythons
        .iter()
        .map(interpreters::Interpreter::version_text)
        .collect();
    checks.push(if versions.is_empty() {
        Check::fail(
            "python",
            "no Python on this machine, so tasks of Python images cannot run",
            "install one, for example with `uv python install 3.11`",
        )
    } else {
        Check::ok("python", versions.join(", "))
    });
    checks.push(match &uv {
        Some(uv) => Check::ok("uv", uv.name()),
        None => Check::warn(
            "uv",
            "not found: environments are made with Python's own venv and pip, which takes many times longer",
            "install uv (https://docs.astral.sh/uv/), or name it in CORACLE_UV",
        ),
    });
    checks.push(match Environments::new(data_dir, true) {
        Ok(_) => Check::ok("images", "the image table can be read"),
        Err(error) => Check::fail(
            "images",
            error.to_string(),
            "mend or remove `environments.yaml` in the data directory",
        ),
    });
    checks
}

fn isolation(finding: &probe::Finding) -> Check {
    let refusals: Vec<&str> = finding
        .refusals
        .iter()
        .map(|refusal| refusal.why.as_str())
        .collect();
    match finding.mode {
        Mode::Sandbox(sandbox) => Check::ok("isolation", describe(sandbox)),
        Mode::Plain => Check::warn(
            "isolation",
            format!(
                "Pods are plain processes of this user, and volumes cannot be mounted: {}",
                refusals.join("; ")
            ),
            "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, or \
             kernel.apparmor_restrict_unprivileged_userns=0), or run as root",
        ),
    }
}

fn files(finding: &probe::Finding) -> Check {
    match finding.mode {
        Mode::Sandbox(Sandbox {
            overlay: true,
            in_memory: false,
            ..
        }) => Check::ok(
            "overlayfs",
            "what Pods write outside their volumes is kept on disk and removed with them",
        ),
        Mode::Sandbox(Sandbox { overlay: true, .. }) => Check::warn(
            "overlayfs",
            "what Pods write outside their volumes is kept in memory: the data directory's file system cannot hold it",
            "put the data directory on ext4, xfs or btrfs",
        ),
        _ => Check::warn(
            "overlayfs",
            "Pods cannot install Python packages into their environment while they run, except to a folder of their own",
            "use a kernel with overlayfs (5.11 or later for users other than root)",
        ),
    }
}

fn network(moving: std::io::Result<()>) -> Check {
    match moving {
        Ok(()) => Check::ok("network", "every Pod has an address and ports of its own"),
        Err(error) => Check::warn(
            "network",
            format!("Pods share this machine's ports, so two of them cannot listen at the same one: {error}"),
            "use Linux 5.9 or later; inside a container, allow it the system calls `seccomp`, `pidfd_getfd` and \
             `process_vm_readv`",
        ),
    }
}

fn limits(cgroups: &Cgroups) -> Check {
    match (cgroups.has_memory(), cgroups.has_cpu()) {
        (true, true) => Check::ok("limits", "memory and CPU limits are enforced"),
        (memory, cpu) => {
            let loose: Vec<&str> = [(memory, "memory"), (cpu, "CPU")]
                .into_iter()
                .filter_map(|(holds, name)| (!holds).then_some(name))
                .collect();
            Check::warn(
                "limits",
                format!(
                    "limits on {} are counted and not enforced: no control group can be made",
                    loose.join(" and ")
                ),
                "run as root, or in a delegated scope: `systemd-run --user --scope -p Delegate=yes coracle up`",
            )
        }
    }
}
