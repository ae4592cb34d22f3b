//! The first process of a container: makes the sandbox, starts the command, reaps, passes signals on.
//!
//! It is PID 1 of its namespace, so its end is the end of everything inside. Without a PID namespace it adopts
//! every orphan below it and ends them itself. It tells the shim what happened as lines of JSON in a pipe.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use coracle_api::{
    labels::PYTHON_WORKER_ENV,
    reason::{Reason, chain},
};
use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
        stat::umask,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid},
};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, move_into_link_name_space, remove_capability_from_bounding_set,
};
use serde::{Deserialize, Serialize};

use super::{
    control::{self, Answer},
    exec, filter, mounts, place, shim,
    spec::Spec,
};
use crate::runtime::run_dir::Failure;

/// What the first process tells the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The command runs.
    Started,
    /// The command could not be started.
    Failed(Failure),
    /// The command ended by itself.
    Exited(i32),
    /// A signal ended the command.
    Killed(i32),
}

/// What a container's first process is given.
pub(crate) struct Streams {
    pub(crate) stdio: Stdio,
    pub(crate) report: OwnedFd,
    /// Where the command hands over its filter, if it is to have one.
    pub(crate) mediation: Option<OwnedFd>,
}

/// The three streams of a command.
pub(crate) enum Stdio {
    /// Files that were made outside.
    Files {
        /// None for an empty input.
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A terminal, made where the command sees it.
    Terminal {
        /// The socket that its other end is sent into.
        to: OwnedFd,
    },
}

/// How a command's process comes to be who its specification says.
pub(crate) enum Who {
    /// By itself.
    Anew,
    /// As another process of the container, by its user namespace.
    As(fs::File),
}

/// Signals that are passed on to the command. They are blocked here, so that they wait to be taken.
pub(crate) const PASSED_ON: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// The whole life of the first process.
pub(crate) fn run(spec: &Spec, streams: Streams) -> ! {
    // If the shim dies, so does the container: nobody would see its end.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let mut report = fs::File::from(streams.report);
    let outcome = match start(spec, streams.stdio, streams.mediation) {
        Ok(child) => {
            tell(&mut report, &Report::Started);
            reap_until(child)
        }
        Err(failure) => Report::Failed(failure),
    };
    if spec.mode.sandbox().is_none() {
        end_descendants();
    }
    tell(&mut report, &outcome);
    std::process::exit(0)
}

fn tell(report: &mut fs::File, what: &Report) {
    if let Ok(mut line) = serde_json::to_vec(what) {
        line.push(b'\n');
        // If the shim is gone, the parent-death signal is on its way.
        let _ = report.write_all(&line);
    }
}

/// Makes the sandbox and starts the command in it. What the command's own process could not do comes back through
/// a pipe that closes when it becomes the command.
fn start(spec: &Spec, mut stdio: Stdio, mediation: Option<OwnedFd>) -> Result<Option<Pid>, Failure> {
    let mut has_worker = false;
    // While its socket can be seen; it gets ready meanwhile.
    let worker = spec.python_worker.as_deref().and_then(place::reach);
    prepare(spec)?;
    if spec.command.is_empty() {
        return Ok(None);
    }
    if let (Some(worker), Stdio::Files { stdin, .. }) = (worker, &mut stdio)
        && place::tell(&worker, spec, mediation.as_ref().map(AsFd::as_fd)).is_ok()
    {
        *stdin = Some(worker);
        has_worker = true;
    }
    let (failed, failed_inside) = pipe2(OFlag::O_CLOEXEC)
        .map_err(|errno| not_ready(format!("cannot make a pipe: {}", errno.desc())))?;
    #[expect(unsafe_code, reason = "fork is unsafe in a process with threads")]
    // SAFETY: the helper never starts a thread, so the child may do anything the parent could.
    let forked = unsafe { fork() };
    match forked {
        Ok(ForkResult::Parent { child }) => {
            drop((failed_inside, stdio, mediation));
            let mut text = Vec::new();
            let _ = fs::File::from(failed).read_to_end(&mut text);
            serde_json::from_slice(&text).map_or(Ok(Some(child)), Err)
        }
        Ok(ForkResult::Child) => {
            let mut spec = spec.clone();
            if has_worker {
                spec.env.push((PYTHON_WORKER_ENV.to_owned(), "1".to_owned()));
            }
            let failure = command(&spec, stdio, Who::Anew, mediation.as_ref().map(AsFd::as_fd));
            if let Ok(text) = serde_json::to_vec(&failure) {
                let _ = fs::File::from(failed_inside).write_all(&text);
            }
            std::process::exit(127)
        }
        Err(errno) => Err(not_ready(format!("cannot fork: {}", errno.desc()))),
    }
}

/// Everything before the command's own process.
fn prepare(spec: &Spec) -> Result<(), Failure> {
    join_cgroups(spec)?;
    umask(nix::sys::stat::Mode::empty());
    if let Some(sandbox) = spec.mode.sandbox() {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| not_ready(format!("cannot make a mount namespace: {}", errno.desc())))?;
        if let Some(name) = &spec.hostname {
            rename(name);
        }
        mounts::enter(spec, sandbox).map_err(|error| not_ready(chain(&error)))?;
        drop_capabilities();
    } else {
        let _ = prctl::set_child_subreaper(true);
    }
    umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok(())
}

/// Gives the machine another name, here only. A program that asks is told the old one where that may not be.
fn rename(name: &str) {
    if unshare(CloneFlags::CLONE_NEWUTS).is_ok() {
        let _ = nix::unistd::sethostname(name);
    }
}

/// Takes this process into the container's control groups.
pub(crate) fn join_cgroups(spec: &Spec) -> Result<(), Failure> {
    for cgroup in &spec.cgroups {
        fs::write(cgroup.join("cgroup.procs"), "0").map_err(|error| {
            not_ready(format!(
                "cannot enter the control group `{}`: {error}",
                cgroup.display()
            ))
        })?;
    }
    Ok(())
}

pub(crate) fn not_ready(message: String) -> Failure {
    Failure {
        reason: Reason::SandboxNotReady,
        message,
    }
}

/// What a container engine leaves to root in a container, without the right to make device nodes: there is no
/// device control group behind it here.
pub(crate) const fn kept_capabilities() -> CapabilitySet {
    use CapabilitySet as C;
    C::CHOWN
        .union(C::DAC_OVERRIDE)
        .union(C::FOWNER)
        .union(C::FSETID)
        .union(C::KILL)
        .union(C::SETGID)
        .union(C::SETUID)
        .union(C::SETPCAP)
        .union(C::NET_BIND_SERVICE)
        .union(C::NET_RAW)
        .union(C::SYS_CHROOT)
        .union(C::SETFCAP)
        .union(C::AUDIT_WRITE)
}

/// Gives up the rest, for every program that is started from here.
pub(crate) fn drop_capabilities() {
    let given_up = CapabilitySet::all().difference(kept_capabilities());
    for capability in given_up.iter() {
        // Without the right to give up rights there are none to give up.
        let _ = remove_capability_from_bounding_set(capability);
    }
}

/// The command's own process, up to the command.
pub(crate) fn command(spec: &Spec, stdio: Stdio, who: Who, mediation: Option<BorrowedFd<'_>>) -> Failure {
    let _ = setsid();
    if let Err(error) = redirect(stdio) {
        return not_ready(format!("cannot connect the command's streams: {error}"));
    }
    if spec.mode.sandbox().is_none() {
        // No PID namespace ends it with the first process.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    }
    // With a user namespace around everything, it is who it should be already.
    if let Who::As(space) = &who {
        if let Err(error) = move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::User)) {
            return not_ready(format!("cannot become the container's user: {error}"));
        }
    } else if let Some(run_as) = spec.run_as
        && !spec.mode.sandbox().is_some_and(|sandbox| sandbox.user)
        && let Err((what, error)) = shim::become_another(run_as)
    {
        return not_ready(format!(
            "cannot run as user {} and group {}: cannot {what}: {error}",
            run_as.user, run_as.group
        ));
    }
    let _ = SigSet::all().thread_unblock();
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    #[expect(unsafe_code, reason = "changing a signal's handling is unsafe in general")]
    // SAFETY: the default handling runs none of our code.
    let _ = unsafe { sigaction(Signal::SIGPIPE, &default) };
    // After everything that asks for rights: it may have to give up getting more.
    if let Some(socket) = mediation {
        filter::hand_over(socket);
    }
    exec::become_command(spec)
}

fn redirect(stdio: Stdio) -> io::Result<()> {
    let (stdin, stdout, stderr) = match stdio {
        Stdio::Files {
            stdin,
            stdout,
            stderr,
        } => {
            let stdin = match stdin {
                Some(stdin) => stdin,
                None => fs::File::open("/dev/null")?.into(),
            };
            (stdin, stdout, stderr)
        }
        Stdio::Terminal { to } => {
            let ours = terminal(&to)?;
            (ours.try_clone()?, ours.try_clone()?, ours)
        }
    };
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    Ok(())
}

/// Makes a terminal, the controlling one of this session, and sends its other end away.
fn terminal(to: &OwnedFd) -> io::Result<OwnedFd> {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = openpt(flags)?;
    unlockpt(&theirs)?;
    let ours = ioctl_tiocgptpeer(&theirs, flags)?;
    rustix::process::ioctl_tiocsctty(&ours)?;
    control::send(to, &Answer::Terminal, &[theirs.as_fd()])?;
    Ok(ours)
}

/// Waits for `child`, reaping whatever else ends and passing signals on.
fn reap_until(child: Option<Pid>) -> Report {
    let Some(child) = child else {
        return Report::Exited(0);
    };
    let mut awaited = SigSet::empty();
    awaited.add(Signal::SIGCHLD);
    PASSED_ON.into_iter().for_each(|signal| awaited.add(signal));
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == child => return Report::Exited(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                    return Report::Killed(signal as i32);
                }
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        if let Ok(signal) = awaited.wait()
            && signal != Signal::SIGCHLD
        {
            let _ = kill(child, signal);
        }
    }
}

/// Ends everything below this process, which adopts orphans.
pub(crate) fn end_descendants() {
    let me = std::process::id();
    loop {
        let children = fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
        for pid in children
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if waitpid(None, None).is_err() {
            return;
        }
    }
}
