//! The node's side of a run: starts the helper, waits for its end, asks it to end.
//!
//! A run is named by its directory. Starting the same run twice is harmless: the second helper finds the first
//! one's claim and leaves, and the caller goes on with the first.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    io::{AsyncReadExt as _, unix::AsyncFd},
    process::{Child, ChildStdout, Command},
};

use super::{folders, spec::Spec};
use crate::readiness::readable;
use crate::runtime::run_dir::{Exit, Identity, RunDir};

/// How long a helper may take to record the end after it was told to end everything.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A helper that cannot be started or followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file of the run directory cannot be made.
    #[error("cannot prepare `{path}`")]
    Prepare {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The specification cannot be written as JSON.
    #[error("cannot write the sandbox's specification")]
    Encode(#[source] serde_json::Error),
    /// Our own executable does not start.
    #[error("cannot start `{binary}` as the sandbox helper")]
    Spawn {
        /// The executable.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread that prepares files was lost.
    #[error("the preparation of a run was cut off")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// A run that was started, by this node or by an earlier one.
#[derive(Debug)]
pub(crate) struct Run {
    dir: RunDir,
    helper: Helper,
    start: Option<Start>,
}

/// Tells when the command of a run that was started here runs.
#[derive(Debug)]
pub(crate) struct Start(ChildStdout);

impl Start {
    /// Waits for it; `false` if it never will.
    pub(crate) async fn wait(&mut self) -> bool {
        self.0.read_u8().await.is_ok()
    }
}

#[derive(Debug)]
enum Helper {
    /// Our child, to be reaped.
    Child(Child),
    /// An earlier node's child.
    Adopted(AsyncFd<OwnedFd>),
    /// There is none any more.
    Gone,
}

/// Starts the run that `spec` describes.
pub(crate) async fn start(binary: &Path, spec: Spec) -> Result<Run, Error> {
    let binary = binary.to_path_buf();
    // Files and the start itself block for some milliseconds.
    let started = tokio::task::spawn_blocking(move || {
        let dir = RunDir(spec.run_dir.clone());
        let errors = prepare(&spec)?;
        let mut command = Command::new(&binary);
        command
            .arg("sandbox")
            .arg(dir.spec())
            .env_clear()
            .envs(coracle_breakpoint::passed_on())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            // A Ctrl-C for the server is not meant for the tasks.
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(|source| Error::Spawn { binary, source })?;
        let start = child.stdout.take().map(Start);
        Ok(Run {
            dir,
            start,
            helper: Helper::Child(child),
        })
    });
    started.await.map_err(Error::Interrupted)?
}

/// Takes up the run in `dir` where an earlier node left it; `None` if no helper ever claimed it.
pub(crate) fn adopt(dir: RunDir) -> Option<Run> {
    let identity = dir.read_identity()?;
    let helper = follow(identity).unwrap_or(Helper::Gone);
    Some(Run {
        dir,
        helper,
        start: None,
    })
}

/// Opening comes before the check of the start time, so that it is this very process that is followed.
fn follow(identity: Identity) -> Option<Helper> {
    let pidfd = pidfd_open(Pid::from_raw(identity.pid)?, PidfdFlags::NONBLOCK).ok()?;
    if !identity.is_alive() {
        return None;
    }
    readable(pidfd).ok().map(Helper::Adopted)
}

fn prepare(spec: &Spec) -> Result<fs::File, Error> {
    let dir = RunDir(spec.run_dir.clone());
    let failed = |path: PathBuf| move |source| Error::Prepare { path, source };
    folders::make_folders(&dir).map_err(failed(dir.path().to_path_buf()))?;
    let text = serde_json::to_vec(spec).map_err(Error::Encode)?;
    let private = |path: PathBuf| {
        fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed(path))
    };
    private(dir.termination_log())?;
    let mut file = private(dir.spec())?;
    io::Write::write_all(&mut file, &text).map_err(failed(dir.spec()))?;
    private(dir.errors())
}

impl Run {
    /// What tells when the command runs. There is none for a run that was taken up: its command runs, or ran.
    pub(crate) fn take_start(&mut self) -> Option<Start> {
        self.start.take()
    }

    /// Waits until the helper is gone. `None` if it left no record: somebody killed it, or the machine went down.
    /// May be called again after it was dropped half-way.
    pub(crate) async fn wait(&mut self) -> Option<Exit> {
        loop {
            match &mut self.helper {
                Helper::Child(child) => {
                    let status = child.wait().await;
                    let is_claimed = status
                        .is_ok_and(|status| status.code() == Some(i32::from(super::shim::ALREADY_CLAIMED)));
                    self.helper = if is_claimed {
                        self.dir.read_identity().and_then(follow).unwrap_or(Helper::Gone)
                    } else {
                        Helper::Gone
                    };
                }
                Helper::Adopted(pidfd) => {
                    // It becomes readable once, when the process ends.
                    let _ = pidfd.readable().await;
                    self.helper = Helper::Gone;
                }
                Helper::Gone => return self.dir.read_exit(),
            }
        }
    }

    /// Asks the command to end (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends everything at once, and waits for the record.
    pub(crate) async fn kill(&mut self) -> Option<Exit> {
        self.signal(Signal::USR1);
        if let Ok(exit) = tokio::time::timeout(LAST_WORDS, self.wait()).await {
            return exit;
        }
        // Its end ends the container's first process, by the parent-death signal.
        self.signal(Signal::KILL);
        self.wait().await
    }

    fn signal(&self, signal: Signal) {
        let sent = match &self.helper {
            Helper::Child(child) => child
                .id()
                .and_then(|pid| Pid::from_raw(pid.cast_signed()))
                // Our own child's PID is not reused before we reap it.
                .map_or(Ok(()), |pid| rustix::process::kill_process(pid, signal)),
            Helper::Adopted(pidfd) => pidfd_send_signal(pidfd.get_ref().as_fd(), signal),
            Helper::Gone => Ok(()),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, run = %self.dir.path().display(), "the sandbox helper took no signal");
        }
    }

    /// What the helper itself had to say, for a run without a record.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.dir.errors()).unwrap_or_default()
    }
}
