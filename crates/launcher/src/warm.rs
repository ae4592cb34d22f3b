//! A Python component as a copy of a process that has imported what it needs.
//!
//! The node may make such a process our standard input (`labels::PYTHON_WORKER_ENV`). It is told what the component's
//! shell script is given, and answers in lines of JSON: first with the number of the process that runs it, and then with
//! how that ended. Until the first answer nothing of the component has run, so that whatever is wrong before, its command
//! can still be run as it is written.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, BufRead as _, BufReader, IoSlice, PipeWriter, Write as _},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::ExitStatus,
};

use coracle_api::{ir::lightweight::Lightweight, labels};
use nix::{
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    command::{self, Process, environment},
    log::Stream,
};

/// What the worker is told. The names are those in the node's `worker.py`.
#[derive(Debug, Serialize)]
struct Task<'a> {
    source: &'a str,
    args: &'a [String],
    environment: BTreeMap<String, String>,
    directory: String,
}

/// What it answers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    /// It runs.
    Started {
        /// Its process, and the group of it.
        pid: i32,
    },
    /// It ended.
    Ended {
        /// As `waitpid` says it.
        ended: i32,
        /// What a shell would say of it.
        said: String,
    },
}

/// Starts the component in the worker that the node left us; `None` where its command is to be run instead.
pub(crate) fn start(component: Lightweight<'_>) -> Option<Process> {
    std::env::var_os(labels::PYTHON_WORKER_ENV)?;
    let worker: OwnedFd = io::stdin().as_fd().try_clone_to_owned().ok()?;
    let mut worker = UnixStream::from(worker);
    // What is no text cannot be told as JSON.
    let environment = environment()
        .map(|(name, value)| Ok((name.into_string()?, value.into_string()?)))
        .collect::<Result<_, OsString>>()
        .ok()?;
    let task = Task {
        source: component.source,
        args: component.args,
        environment,
        directory: std::env::current_dir()
            .ok()?
            .into_os_string()
            .into_string()
            .ok()?,
    };
    let (out, stdout) = command::pipe().ok()?;
    let (err, stderr) = command::pipe().ok()?;
    let mut line = serde_json::to_vec(&task).ok()?;
    line.push(b'\n');
    let descriptors = [stdout.as_raw_fd(), stderr.as_raw_fd()];
    let sent = sendmsg::<()>(
        worker.as_raw_fd(),
        &[IoSlice::new(&line)],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
    worker.write_all(&line[sent.ok()?..]).ok()?;
    drop(stdout);
    let mut answers = BufReader::new(worker);
    let Some(Answer::Started { pid }) = next(&mut answers) else {
        return None;
    };
    Some(Process {
        group: Pid::from_raw(pid),
        streams: [(Stream::Out, Box::new(out)), (Stream::Err, Box::new(err))],
        wait: Box::new(move || end(&mut answers, stderr)),
    })
}

fn next(answers: &mut BufReader<UnixStream>) -> Option<Answer> {
    let mut line = String::new();
    answers.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// How it ended, as the shell that would have waited for it puts it.
fn end(answers: &mut BufReader<UnixStream>, mut stderr: PipeWriter) -> io::Result<ExitStatus> {
    const KILLED: i32 = 9;
    let status = match next(answers) {
        Some(Answer::Ended { ended, said }) => {
            stderr.write_all(said.as_bytes())?;
            ExitStatus::from_raw(ended)
        }
        // Whoever waited for it was killed.
        Some(Answer::Started { .. }) | None => ExitStatus::from_raw(KILLED),
    };
    let as_code = |signal| ExitStatus::from_raw((128 + signal) << 8);
    Ok(status.signal().map_or(status, as_code))
}
