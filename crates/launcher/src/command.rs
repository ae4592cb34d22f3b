//! Starting the command, its streams, signals on the way, its end.

use std::{
    ffi::{OsStr, OsString},
    io::{self, ErrorKind, PipeReader, PipeWriter, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use coracle_api::{labels, launch::Failure, reason::Reason};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{
    log::{Log, Stream},
    signals::{Event, Events},
};

/// A command that was started, in a process group of its own.
pub(crate) struct Process {
    /// The group's number is that of its first process.
    pub(crate) group: Pid,
    /// What it writes.
    pub(crate) streams: [(Stream, Box<dyn Read + Send>); 2],
    /// Waits for its end.
    pub(crate) wait: Box<dyn FnOnce() -> io::Result<ExitStatus> + Send>,
}

/// Runs a command line until its first process ends.
///
/// What that process leaves running ends with it, as it would in a container.
pub(crate) fn run(
    argv: &[String],
    variables: &[(&str, String)],
    log: &Arc<Log>,
    events: &mut Events,
) -> Result<ExitStatus, Failure> {
    follow(spawn(argv, variables)?, log, events)
}

/// Sees a process through to its end.
pub(crate) fn follow(process: Process, log: &Arc<Log>, events: &mut Events) -> Result<ExitStatus, Failure> {
    let Process {
        group,
        streams,
        wait: end,
    } = process;
    watch(streams, log, events)
        .and_then(|streams| wait(end, group, streams, log, events))
        .map_err(|error| Failure {
            reason: Reason::InternalError,
            message: format!("lost sight of the command after starting it: {error}"),
        })
}

/// What a command finds in its environment, besides `variables`.
pub(crate) fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    const OURS: [&str; 4] = [
        labels::SERVER_ENV,
        labels::TOKEN_ENV,
        labels::REQUIREMENTS_MET_ENV,
        labels::PYTHON_WORKER_ENV,
    ];
    const UNBUFFERED: &str = "PYTHONUNBUFFERED";
    // Output goes into a pipe here, where Python would otherwise hold it back in blocks.
    let unbuffered = std::env::var_os(UNBUFFERED)
        .is_none()
        .then(|| (UNBUFFERED.into(), "1".into()));
    std::env::vars_os()
        .filter(|(name, _)| !OURS.iter().any(|ours| name == ours))
        .chain(unbuffered)
}

fn spawn(argv: &[String], variables: &[(&str, String)]) -> Result<Process, Failure> {
    let (program, args) = argv.split_first().ok_or_else(|| Failure {
        reason: Reason::NotSupported,
        message:
            "the component has neither command nor args, and an image's own entrypoint is not known here"
                .to_owned(),
    })?;
    let (out, stdout) = pipe()?;
    let (err, stderr) = pipe()?;
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .env_clear()
        .envs(environment())
        .envs(variables.iter().map(|(name, value)| (name, value)));
    let mut child = command
        .spawn()
        .map_err(|error| not_started(program, args, &error))?;
    Ok(Process {
        // Both fit the system's own type.
        group: Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)),
        streams: [(Stream::Out, Box::new(out)), (Stream::Err, Box::new(err))],
        wait: Box::new(move || child.wait()),
    })
}

/// One of a command's streams: our end, and its own.
pub(crate) fn pipe() -> Result<(PipeReader, PipeWriter), Failure> {
    io::pipe().map_err(|error| Failure {
        reason: Reason::InternalError,
        message: format!("cannot make a pipe for the command's output: {error}"),
    })
}

/// Follows the streams, each on a thread of its own. Returns how many there are.
fn watch(streams: [(Stream, Box<dyn Read + Send>); 2], log: &Arc<Log>, events: &Events) -> io::Result<usize> {
    let count = streams.len();
    for (stream, mut reader) in streams {
        let (log, sender) = (Arc::clone(log), events.sender());
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match reader.read(&mut buffer) {
                    Ok(count) if count > 0 => log.write(stream, &buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => break,
                }
            }
            // Nobody listens any more only when the process is about to end.
            let _ = sender.send(Event::Drained);
        })?;
    }
    Ok(count)
}

/// Waits for the command's end and for the last of its output, passing signals on meanwhile.
fn wait(
    end: Box<dyn FnOnce() -> io::Result<ExitStatus> + Send>,
    group: Pid,
    mut streams: usize,
    log: &Log,
    events: &mut Events,
) -> io::Result<ExitStatus> {
    // Before the command was there to hear it, somebody may have asked it to stop.
    if let Some(signal) = events.stopped() {
        signal_group(group, signal);
    }
    let sender = events.sender();
    thread::Builder::new().name("wait".to_owned()).spawn(move || {
        let _ = sender.send(Event::Ended(end()));
    })?;
    let status = loop {
        match events.next(None) {
            Some(Event::Stop(signal)) => signal_group(group, signal),
            Some(Event::Drained) => streams -= 1,
            Some(Event::Transferred) => {}
            Some(Event::Ended(status)) => break status?,
            None => return Err(io::Error::other("its end was not reported")),
        }
    };
    // A moment for output on its way through other processes, such as `tee`; then they end too.
    drain(&mut streams, Duration::from_millis(200), log, events);
    signal_group(group, Signal::SIGKILL);
    drain(&mut streams, Duration::from_secs(2), log, events);
    Ok(status)
}

/// Waits until the streams end, or nothing has come out of them for `quiet`.
fn drain(streams: &mut usize, quiet: Duration, log: &Log, events: &mut Events) {
    let mut seen = log.written();
    while *streams > 0 {
        match events.next(Some(quiet)) {
            Some(Event::Drained) => *streams -= 1,
            Some(Event::Stop(_) | Event::Ended(_) | Event::Transferred) => {}
            None => {
                // Somebody who left the process group may write for ever: a stop ends that as well.
                let now = log.written();
                if now == seen || events.stopped().is_some() {
                    return;
                }
                seen = now;
            }
        }
    }
}

fn signal_group(group: Pid, signal: Signal) {
    // It fails only when nobody is left in the group.
    let _ = killpg(group, signal);
}

/// Why a command did not start.
fn not_started(program: &str, args: &[String], error: &io::Error) -> Failure {
    const E2BIG: i32 = 7;
    const ENOEXEC: i32 = 8;
    let is_path = program.contains('/');
    let (reason, why) = match (error.kind(), error.raw_os_error()) {
        (ErrorKind::NotFound, _) if is_path && Path::new(program).exists() => (
            Reason::CommandNotFound,
            "the file exists, and the interpreter that its first line names does not".to_owned(),
        ),
        (ErrorKind::NotFound, _) if is_path => (Reason::CommandNotFound, "no such file".to_owned()),
        (ErrorKind::NotFound, _) => {
            let path = std::env::var_os("PATH");
            let path = path.as_deref().map_or_else(|| "(not set)".into(), OsStr::to_string_lossy);
            (Reason::CommandNotFound, format!("no such program in PATH={path}"))
        }
        (ErrorKind::PermissionDenied, _) => {
            (Reason::CommandNotExecutable, "permission denied: the file is not executable".to_owned())
        }
        (_, Some(ENOEXEC)) => (
            Reason::CommandNotExecutable,
            "the file is no program of this machine; a script needs `#!` and an interpreter in its first line"
                .to_owned(),
        ),
        (_, Some(E2BIG)) => {
            let longest = args.iter().map(String::len).max().unwrap_or(0);
            let why = format!(
                "the command line is too long for this system (its longest argument has {longest} bytes, \
                 of 131071 at most); pass large values as artifacts"
            );
            (Reason::CommandNotExecutable, why)
        }
        (ErrorKind::InvalidInput, _) => {
            (Reason::CommandNotExecutable, "an argument holds a NUL byte, which no command line can".to_owned())
        }
        _ => (Reason::InternalError, error.to_string()),
    };
    Failure {
        reason,
        message: format!("cannot run `{program}`: {why}"),
    }
}
