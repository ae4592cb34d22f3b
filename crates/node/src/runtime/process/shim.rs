//! The process between the node and a container: it outlives the node, keeps the log, and records the end.
//!
//! It sees the host, not the sandbox. SIGTERM is passed on to the command; SIGUSR1 ends everything at once. It has
//! one thread from start to end: user namespaces and `fork` ask for that.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use coracle_api::reason::Reason;
use jiff::Timestamp;
use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork, getgid, getuid, pipe2},
};

use super::{
    cgroup, control,
    init::{self, PASSED_ON, Report, Stdio, Streams},
    mediate::Mediation,
    spec::{Sandbox, Spec},
    visits::{Input, Visits},
    watch::{Ends, Watch},
};
use crate::runtime::log_writer::Log;
use crate::runtime::mount::RunAs;
use crate::runtime::run_dir::{Exit, Failure, Identity, RunDir};

/// The helper's exit status when another helper already runs what it was given.
pub(crate) const ALREADY_CLAIMED: u8 = 75;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("usage: coracle sandbox <spec.json>")]
    Usage,
    #[error("cannot {action} `{path}`")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is not a sandbox specification")]
    Spec {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot {action}")]
    System {
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::File { action, path, source }
}

fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::System {
        action,
        source: source.into(),
    }
}

/// The helper's whole life: `arguments` are those after `coracle sandbox`.
///
/// The calling process must have one thread only.
#[expect(clippy::print_stderr, reason = "the helper's error stream is its log file")]
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let result = match (arguments.next(), arguments.next()) {
        (Some(spec), None) => run(Path::new(&spec)),
        _ => Err(Error::Usage),
    };
    result.unwrap_or_else(|error| {
        eprintln!("coracle sandbox: {}", coracle_api::reason::chain(&error));
        ExitCode::FAILURE
    })
}

fn run(path: &Path) -> Result<ExitCode, Error> {
    let text = fs::read(path).map_err(file("read", path))?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|source| Error::Spec {
        path: path.to_path_buf(),
        source,
    })?;
    let run = RunDir(spec.run_dir.clone());
    keep_from_commands();
    // No file system is to be busy because of us.
    let _ = nix::unistd::chdir("/");
    // From here on signals wait until somebody takes them, here and in every process below.
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGCHLD);
    blocked.add(Signal::SIGUSR1);
    PASSED_ON.into_iter().for_each(|signal| blocked.add(signal));
    blocked.thread_block().map_err(system("block signals"))?;
    if !claim(&run)? {
        return Ok(ExitCode::from(ALREADY_CLAIMED));
    }
    coracle_breakpoint::at("helper.claimed");
    // It holds secrets, and nobody needs it any more.
    let _ = fs::remove_file(path);
    let log = Log::open(run.clone(), spec.log_bytes).map_err(file("open the log", &run.log()))?;
    let exit = contain(&spec, blocked, log)?;
    coracle_breakpoint::at("helper.all-gone");
    run.write_exit(&exit).map_err(file("write", &run.exit()))?;
    coracle_breakpoint::at("helper.end-recorded");
    Ok(ExitCode::SUCCESS)
}

/// What those who started us left open is not for the container.
fn keep_from_commands() {
    #[expect(unsafe_code, reason = "neither nix nor rustix wraps close_range")]
    // SAFETY: nothing is closed now; descriptors are marked to be closed when a command takes a process over. Kernels
    // before 5.11 refuse.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Writes down that this process runs it; `false` if another one does. The link makes it all or nothing.
fn claim(run: &RunDir) -> Result<bool, Error> {
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let text = Identity::of(pid)
        .and_then(|identity| serde_json::to_vec(&identity).ok())
        .unwrap_or_default();
    let draft = run.path().join(format!("pid.{pid}"));
    fs::write(&draft, text).map_err(file("write", &draft))?;
    let linked = fs::hard_link(&draft, run.pid());
    let _ = fs::remove_file(&draft);
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(file("claim", run.path())(error)),
    }
}

/// Starts the container's first process and stays until the last one is gone.
fn contain(spec: &Spec, blocked: SigSet, log: Log) -> Result<Exit, Error> {
    let signals = SignalFd::with_flags(&blocked, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(system("listen for signals"))?;
    let _ = prctl::set_child_subreaper(true);
    let oom_before = cgroup::oom_kills_of_machine();
    let started_at = Timestamp::now();
    let not_started = |failure: Failure| Exit {
        exit_code: 128,
        signal: None,
        oom: false,
        stopped: false,
        started_at,
        finished_at: Timestamp::now(),
        failure: Some(failure),
    };
    if let Some(sandbox) = spec.mode.sandbox()
        && let Err((what, source)) = separate(sandbox, spec.run_as)
    {
        return Ok(not_started(Failure {
            reason: Reason::SandboxNotReady,
            message: format!("cannot {what}: {source}"),
        }));
    }
    let visits = Visits::open(&RunDir(spec.run_dir.clone())).unwrap_or_else(|error| {
        note(&error);
        Visits::closed()
    });
    let (mut streams, ends, input) = streams(spec).map_err(system("make a pipe"))?;
    let mediation = spec.address.map(Mediation::new).transpose();
    let mediation = mediation.map_err(system("make a socket"))?;
    let inside = mediation
        .as_ref()
        .map(|mediation| mediation.inside().try_clone_to_owned());
    streams.mediation = inside.transpose().map_err(system("share a socket"))?;
    #[expect(unsafe_code, reason = "fork is unsafe in a process with threads")]
    // SAFETY: the helper never starts a thread, so the child may do anything the parent could.
    let forked = unsafe { fork() }.map_err(system("fork"))?;
    let first = match forked {
        ForkResult::Child => {
            drop((ends, input, visits, mediation));
            init::run(spec, streams)
        }
        ForkResult::Parent { child } => child,
    };
    drop(streams);
    // From here on children are born inside and see the host for a moment: nobody inside may look into them.
    let _ = prctl::set_dumpable(false);
    let mut watched = Watch {
        spec,
        first,
        signals,
        log,
        visits,
        mediation,
        input,
        has_started: false,
        stopped: false,
        killed: false,
    };
    let reports = watched
        .until_gone(ends)
        .map_err(system("wait for the container's output"))?;
    let ended = waitpid(first, None).map_err(system("wait for the container"))?;
    // Only a container without a PID namespace can have left anything behind.
    init::end_descendants();
    let own_kills = spec.cgroups.iter().find_map(|group| cgroup::oom_kills(group));
    for group in &spec.cgroups {
        let _ = fs::remove_dir(group);
    }
    let failure = reports.iter().find_map(|report| match report {
        Report::Failed(failure) => Some(failure.clone()),
        Report::Started | Report::Exited(_) | Report::Killed(_) => None,
    });
    let (exit_code, signal) = ending(&reports, ended);
    // Nobody counted for it alone: a kill that nobody here sent, after the kernel had killed somewhere.
    let by_machine = || {
        signal == Some(Signal::SIGKILL as i32)
            && !watched.killed
            && cgroup::oom_kills_of_machine() > oom_before
    };
    Ok(Exit {
        exit_code: failure.as_ref().map_or(exit_code, start_error_code),
        signal,
        oom: own_kills.map_or_else(by_machine, |kills| kills > 0),
        stopped: watched.stopped,
        started_at,
        finished_at: Timestamp::now(),
        failure,
    })
}

/// The container's streams: what its processes get, and what stays here.
fn streams(spec: &Spec) -> io::Result<(Streams, Ends, Input)> {
    let (report, report_inside) = pipe2(OFlag::O_CLOEXEC)?;
    let mut ends = Ends {
        report: Some(report.into()),
        ..Ends::default()
    };
    let mut input = Input::default();
    let stdio = if spec.tty {
        let (console, to) = control::pair()?;
        ends.console = Some(console);
        Stdio::Terminal { to }
    } else {
        let (stdout, stdout_inside) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, stderr_inside) = pipe2(OFlag::O_CLOEXEC)?;
        ends.stdout = Some(stdout.into());
        ends.stderr = Some(stderr.into());
        let stdin = if spec.stdin {
            let (stdin_inside, stdin) = pipe2(OFlag::O_CLOEXEC)?;
            input.fd = Some(stdin);
            Some(stdin_inside)
        } else {
            None
        };
        Stdio::Files {
            stdin,
            stdout: stdout_inside,
            stderr: stderr_inside,
        }
    };
    let streams = Streams {
        stdio,
        report: report_inside,
        mediation: None,
    };
    Ok((streams, ends, input))
}

/// Says on the helper's own error stream that nobody can come to the container.
#[expect(clippy::print_stderr, reason = "the helper's error stream is its log file")]
fn note(error: &io::Error) {
    eprintln!("nobody can enter the container or attach to it: {error}");
}

/// As a shell says it.
fn start_error_code(failure: &Failure) -> i32 {
    match failure.reason {
        Reason::CommandNotFound => 127,
        Reason::CommandNotExecutable => 126,
        _ => 128,
    }
}

fn ending(reports: &[Report], first: WaitStatus) -> (i32, Option<i32>) {
    let reported = reports.iter().rev().find_map(|report| match report {
        Report::Exited(code) => Some((*code, None)),
        Report::Killed(signal) => Some((128 + signal, Some(*signal))),
        Report::Started | Report::Failed(_) => None,
    });
    reported.unwrap_or(match first {
        WaitStatus::Exited(_, code) => (code, None),
        WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, Some(signal as i32)),
        _ => (255, None),
    })
}

/// Makes the namespaces that the container's first process is born into.
fn separate(sandbox: Sandbox, run_as: Option<RunAs>) -> Result<(), (&'static str, io::Error)> {
    if sandbox.user {
        let same = RunAs {
            user: getuid().as_raw(),
            group: getgid().as_raw(),
        };
        become_another(run_as.unwrap_or(same))?;
    }
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| ("make a PID namespace", errno.into()))
}

/// Gives this process a user namespace in which its user and group have other numbers. What they may do with the
/// host's files is what they might before, less what only root may.
pub(crate) fn become_another(run_as: RunAs) -> Result<(), (&'static str, io::Error)> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| ("make a user namespace", errno.into()))?;
    fs::write("/proc/self/setgroups", "deny").map_err(|error| ("give up changing groups", error))?;
    fs::write("/proc/self/uid_map", format!("{} {uid} 1", run_as.user))
        .map_err(|error| ("map the user", error))?;
    fs::write("/proc/self/gid_map", format!("{} {gid} 1", run_as.group))
        .map_err(|error| ("map the group", error))
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn what_the_first_process_reports_comes_before_how_it_ended_itself() {
        let gone = WaitStatus::Exited(Pid::from_raw(1), 0);
        let killed = WaitStatus::Signaled(Pid::from_raw(1), Signal::SIGKILL, false);
        assert_eq!(ending(&[Report::Exited(3)], gone), (3, None));
        assert_eq!(ending(&[Report::Killed(15)], gone), (143, Some(15)));
        assert_eq!(ending(&[], killed), (137, Some(9)));
    }

    #[test]
    fn only_the_first_claim_on_a_run_holds() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir(folder.path().to_path_buf());
        assert!(claim(&run).unwrap());
        assert!(!claim(&run).unwrap());
        assert!(run.read_identity().unwrap().is_alive());
    }
}
