//! What is entered into a running container of an engine, or attached to it.

use std::{io, pin::Pin, time::Duration};

use bollard::{
    Docker,
    container::LogOutput,
    exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults},
    query_parameters::{AttachContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder},
};
use coracle_api::reason::Reason;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::{oneshot, watch},
};

use super::{
    claim::Claim,
    engine::{is_missing, said, status},
    run::reach,
};
use crate::runtime::{
    run_dir::Failure,
    session::{Error, Input, Output, Resize, Session, Size, Wanted},
};

/// How much output waits for its reader.
const BUFFER: usize = 64 * 1024;
/// The exit code of a command that is killed.
const KILLED: i32 = 137;
/// How often the engine is asked for the end of a command whose streams have ended.
const PAUSE: Duration = Duration::from_millis(20);

type Messages = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Writer = Pin<Box<dyn AsyncWrite + Send>>;

fn failed(error: &bollard::errors::Error) -> Error {
    match status(error) {
        Some(404 | 409) => Error::NotRunning(io::Error::other(said(error))),
        Some(_) => Error::Failed(Failure {
            reason: Reason::ContainerNotStarted,
            message: said(error),
        }),
        None => Error::System(io::Error::other(said(error))),
    }
}

/// Runs a command in the container.
pub(crate) async fn enter(claim: &Claim, command: Vec<String>, wanted: Wanted) -> Result<Session, Error> {
    let (docker, id) = reach(claim)?;
    let options = CreateExecOptions {
        attach_stdin: Some(wanted.stdin),
        attach_stdout: Some(wanted.stdout || wanted.tty),
        attach_stderr: Some(wanted.stderr && !wanted.tty),
        tty: Some(wanted.tty),
        cmd: Some(command),
        ..CreateExecOptions::default()
    };
    let made = docker
        .create_exec(&id, options)
        .await
        .map_err(|error| failed(&error))?;
    let options = StartExecOptions {
        detach: false,
        tty: wanted.tty,
        output_capacity: None,
    };
    let started = docker.start_exec(&made.id, Some(options)).await;
    let StartExecResults::Attached { output, input } = started.map_err(|error| failed(&error))? else {
        return Err(Error::System(io::ErrorKind::InvalidData.into()));
    };
    let (streams, copied) = Streams::of(output, wanted);
    let resize = wanted.tty.then(|| {
        let (docker, exec) = (docker.clone(), made.id.clone());
        resize(move |size| {
            let (docker, exec) = (docker.clone(), exec.clone());
            async move {
                let size = ResizeExecOptions {
                    height: size.rows,
                    width: size.columns,
                };
                let _ = docker.resize_exec(&exec, size).await;
            }
            .boxed()
        })
    });
    let guard = Guard {
        docker: docker.clone(),
        exec: made.id.clone(),
        container: id,
        is_over: false,
    };
    Ok(Session {
        stdin: wanted.stdin.then(|| type_in(input)),
        stdout: streams.stdout,
        stderr: streams.stderr,
        resize,
        ended: end(guard, copied).boxed(),
    })
}

/// Waits for the command's last output, and asks how it ended.
async fn end(mut guard: Guard, copied: oneshot::Receiver<()>) -> Result<i32, Error> {
    let _ = copied.await;
    loop {
        match guard.docker.inspect_exec(&guard.exec).await {
            Ok(found) if found.running == Some(true) => tokio::time::sleep(PAUSE).await,
            Ok(found) => {
                guard.is_over = true;
                let code = found.exit_code.and_then(|code| i32::try_from(code).ok());
                return Ok(code.unwrap_or(KILLED));
            }
            // The container went, and everything in it.
            Err(error) if is_missing(&error) => {
                guard.is_over = true;
                return Ok(KILLED);
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// Ends a command that nobody waits for any more. Engines have no word for that, so its process is killed, if it is one
/// of this machine's and in the container.
struct Guard {
    docker: Docker,
    exec: String,
    container: String,
    is_over: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (docker, exec, container) = (self.docker.clone(), self.exec.clone(), self.container.clone());
        tokio::spawn(async move {
            let Ok(found) = docker.inspect_exec(&exec).await else {
                return;
            };
            let pid = found.pid.and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.filter(|pid| found.running == Some(true) && is_inside(*pid, &container)) {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        });
    }
}

/// Whether a process is in a container: its control groups are called so.
fn is_inside(pid: i32, container: &str) -> bool {
    pid > 1
        && std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|groups| groups.contains(container))
}

/// Follows the container's main process.
pub(crate) async fn attach(claim: &Claim, wanted: Wanted) -> Result<Session, Error> {
    let (docker, id) = reach(claim)?;
    let options = AttachContainerOptionsBuilder::default()
        .stream(true)
        .stdin(wanted.stdin)
        .stdout(wanted.stdout || claim.tty)
        .stderr(wanted.stderr && !claim.tty)
        .build();
    let attached = docker.attach_container(&id, Some(options)).await;
    let attached = attached.map_err(|error| failed(&error))?;
    let (streams, copied) = Streams::of(
        attached.output,
        Wanted {
            tty: claim.tty,
            ..wanted
        },
    );
    let resize = claim.tty.then(|| {
        resize(move |size| {
            let (docker, id) = (docker.clone(), id.clone());
            async move {
                let options = ResizeContainerTTYOptionsBuilder::default()
                    .h(size.rows.into())
                    .w(size.columns.into())
                    .build();
                let _ = docker.resize_container_tty(&id, options).await;
            }
            .boxed()
        })
    });
    Ok(Session {
        stdin: wanted.stdin.then(|| type_in(attached.input)),
        stdout: streams.stdout,
        stderr: streams.stderr,
        resize,
        ended: copied.map(|_| Ok(0)).boxed(),
    })
}

/// What comes from a command, each stream by itself.
struct Streams {
    stdout: Option<Output>,
    stderr: Option<Output>,
}

impl Streams {
    /// Takes `messages` apart. The other end tells when there are no more.
    fn of(mut messages: Messages, wanted: Wanted) -> (Self, oneshot::Receiver<()>) {
        let (mut stdout, out) = pipe(wanted.stdout || wanted.tty);
        let (mut stderr, err) = pipe(wanted.stderr && !wanted.tty);
        let (sender, ended) = oneshot::channel();
        tokio::spawn(async move {
            let mut sender = sender;
            loop {
                let message = tokio::select! {
                    message = messages.next() => message,
                    // Nobody waits for the end.
                    () = sender.closed() => return,
                };
                let Some(Ok(message)) = message else { break };
                let to = match &message {
                    LogOutput::StdErr { .. } => &mut stderr,
                    _ => &mut stdout,
                };
                let is_refused = match to {
                    Some(open) => open.write_all(message.as_ref()).await.is_err(),
                    None => false,
                };
                if is_refused {
                    // Whoever read it has gone; what comes is still taken, so that the command goes on.
                    *to = None;
                }
            }
            drop((stdout, stderr));
            let _ = sender.send(());
        });
        let boxed = |stream: Option<DuplexStream>| stream.map(|stream| Box::new(stream) as Output);
        let streams = Self {
            stdout: boxed(out),
            stderr: boxed(err),
        };
        (streams, ended)
    }
}

fn pipe(is_wanted: bool) -> (Option<DuplexStream>, Option<DuplexStream>) {
    if !is_wanted {
        return (None, None);
    }
    let (inside, outside) = tokio::io::duplex(BUFFER);
    (Some(inside), Some(outside))
}

/// What is typed goes through a pipe, because the engine's connection may only be used by one thread at a time.
fn type_in(mut to: Writer) -> Input {
    let (outside, mut inside) = tokio::io::duplex(BUFFER);
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut inside, &mut to).await;
        let _ = to.shutdown().await;
    });
    Box::new(outside)
}

/// The newest size wins when they come faster than the engine takes them.
fn resize(set: impl Fn(Size) -> BoxFuture<'static, ()> + Send + 'static) -> Resize {
    let (sender, mut sizes) = watch::channel(None);
    tokio::spawn(async move {
        while sizes.changed().await.is_ok() {
            let size = *sizes.borrow_and_update();
            if let Some(size) = size {
                set(size).await;
            }
        }
    });
    Box::new(move |size| {
        let _ = sender.send(Some(size));
    })
}
