//! Finds out what this kernel lets us do, by doing it: makes each kind of sandbox once, best first.

use std::{fs, path::Path};

use super::{
    folders, launch,
    spec::{Mode, Sandbox, Spec},
};
use crate::runtime::mount::{Mount, MountKind};
use crate::runtime::run_dir::{LOG_BYTES, RunDir};

/// One kind of sandbox, and why it cannot be made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) mode: Mode,
    pub(crate) why: String,
}

/// The best that this machine gives, and what was refused before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) mode: Mode,
    pub(crate) refusals: Vec<Refusal>,
}

/// Tries every kind, best first, in a folder of its own below `pods`.
pub(crate) async fn best(binary: &Path, pods: &Path) -> Finding {
    let is_root = nix::unistd::geteuid().is_root();
    let mut refusals = Vec::new();
    for mode in candidates(is_root) {
        match attempt(binary, pods, mode).await {
            Ok(()) => return Finding { mode, refusals },
            Err(why) => refusals.push(Refusal { mode, why }),
        }
    }
    Finding {
        mode: Mode::Plain,
        refusals,
    }
}

/// Every kind of sandbox, best first.
pub(crate) fn candidates(is_root: bool) -> Vec<Mode> {
    let sandbox = |user, overlay_root, overlay, in_memory| {
        Mode::Sandbox(Sandbox {
            user,
            overlay_root,
            overlay,
            in_memory,
        })
    };
    let as_user = [
        sandbox(true, false, true, false),
        sandbox(true, false, true, true),
        sandbox(true, false, false, false),
    ];
    let as_root = [
        sandbox(false, true, true, false),
        sandbox(false, true, true, true),
        sandbox(false, false, false, false),
    ];
    // Root in somebody's container may lack root's rights, and still have a user's.
    if is_root {
        as_root.into_iter().chain(as_user).collect()
    } else {
        as_user.into()
    }
}

/// Makes one sandbox with nothing in it.
pub(crate) async fn attempt(binary: &Path, pods: &Path, mode: Mode) -> Result<(), String> {
    let folder = pods.join(format!(".probe-{}", std::process::id()));
    let _ = folders::remove_tree(&folder);
    let run = RunDir(folder.join("run"));
    let shown = folder.join("shown");
    fs::create_dir_all(&shown).map_err(|error| format!("cannot make `{}`: {error}", shown.display()))?;
    let spec = Spec {
        run_dir: run.path().to_path_buf(),
        mode,
        hidden: Vec::new(),
        memory: Vec::new(),
        mounts: vec![Mount {
            source: shown,
            target: "/tmp/shown".into(),
            kind: MountKind::CopyOnWrite,
        }],
        devices: Vec::new(),
        command: Vec::new(),
        env: Vec::new(),
        workdir: "/".into(),
        run_as: None,
        address: None,
        hostname: None,
        cgroups: Vec::new(),
        stdin: false,
        stdin_once: false,
        tty: false,
        python_worker: None,
        log_bytes: LOG_BYTES,
    };
    let result = match launch::start(binary, spec).await {
        Ok(mut started) => match started.wait().await {
            Some(exit) => exit.failure.map_or(Ok(()), |failure| Err(failure.message)),
            None => Err(format!(
                "the sandbox helper left no record: {}",
                started.errors().trim()
            )),
        },
        Err(error) => Err(coracle_api::reason::chain(&error)),
    };
    let _ = folders::remove_tree(&folder);
    result
}
