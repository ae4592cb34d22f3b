//! One worker: a process that prints what it has to say as lines of JSON.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::environment::Place;
use crate::runtime::process::control;

/// What workers run, and the file that it is in.
const PROGRAM: &str = include_str!("worker.py");
const FILE: &str = "worker.py";
/// Tasks that wait to be taken. The next one runs its command as it is written.
const BACKLOG: i32 = 128;

/// What a worker says. The names are those in `worker.py`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Said {
    /// It takes tasks.
    Ready(u32),
    /// A task names these modules, which it has not.
    Imports(Vec<String>),
    /// It will not take tasks, because of this module; of none, if the environment has no KFP executor.
    #[serde(untagged)]
    Refused {
        /// Which.
        refused: Option<String>,
        /// Why.
        why: String,
    },
}

/// A worker. It takes no more tasks once this is dropped; those that it became go on.
#[derive(Debug)]
pub(super) struct Worker {
    socket: PathBuf,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Makes the folder of an environment's workers, with what they run.
pub(super) fn prepare(place: &Place) -> io::Result<()> {
    fs::create_dir_all(&place.folder)?;
    fs::write(place.folder.join(FILE), PROGRAM)
}

impl Worker {
    /// Starts one. Connections wait from now on until it is ready.
    pub(super) fn start<'a>(
        place: &Place,
        name: &str,
        modules: impl IntoIterator<Item = &'a String>,
    ) -> io::Result<Self> {
        let socket = place.folder.join(name);
        let listener = listen(&socket)?;
        let mut child = Command::new(&place.python)
            .arg(place.folder.join(FILE))
            .arg(place.memory.to_string())
            .args(modules)
            .env_clear()
            .envs(place.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::from(listener))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A Ctrl-C for the server is not meant for it.
            .process_group(0)
            .spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            socket,
            child,
            lines: BufReader::new(output).lines(),
        })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it says next; `None` when it has ended. Nothing is lost when this is dropped half-way.
    pub(super) async fn next(&mut self) -> Option<Said> {
        loop {
            // Its tasks hold its output too, so that it says nothing of its end.
            let line = tokio::select! {
                biased;
                line = self.lines.next_line() => line.ok()??,
                _ = self.child.wait() => return None,
            };
            match serde_json::from_str(&line) {
                Ok(said) => return Some(said),
                Err(error) => tracing::debug!(%error, line, "a Python worker said something else"),
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    let unusable = || io::Error::from(io::ErrorKind::InvalidInput);
    let folder = path.parent().ok_or_else(unusable)?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(unusable)?;
    // From a server that was killed.
    let _ = fs::remove_file(path);
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let (_folder, address) = control::address(folder, name)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_says_one_thing_in_a_line() {
        for (line, expected) in [
            (r#"{"ready": 7}"#, Said::Ready(7)),
            (r#"{"imports": ["a.b"]}"#, Said::Imports(vec!["a.b".to_owned()])),
            (
                r#"{"refused": null, "why": "no kfp"}"#,
                Said::Refused {
                    refused: None,
                    why: "no kfp".to_owned(),
                },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Said>(line).unwrap(), expected);
        }
    }
}
