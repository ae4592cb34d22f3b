//! A command that was entered into a running container, or a look at its main process: streams and an end.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::{
    container, process,
    run_dir::{Failure, RunDir},
};

/// How much of a command's output [`run`] keeps, as in kubelet.
const KEPT: usize = 10 * 1024;
/// How long output may still come after a command has ended: something it left behind may hold it open for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// How large a terminal is.
pub(crate) use super::process::control::Size;

/// What of a command's streams is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// A terminal, which holds all three streams in one.
    pub(crate) tty: bool,
}

/// A session cannot begin, or was cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing runs there.
    #[error("the container does not run")]
    NotRunning(#[source] std::io::Error),
    /// The kernel gave no pipe or socket.
    #[error("cannot reach into the container")]
    System(#[from] std::io::Error),
    /// The command did not start.
    #[error("{}", .0.message)]
    Failed(Failure),
}

/// What leads to a command.
pub(crate) type Input = Box<dyn AsyncWrite + Send + Sync + Unpin>;
/// What comes from it.
pub(crate) type Output = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// Tells its terminal how large it is.
pub(crate) type Resize = Box<dyn Fn(Size) + Send + Sync>;

/// A session at work. A command that was entered ends when this is dropped.
pub(crate) struct Session {
    pub(crate) stdin: Option<Input>,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
    pub(crate) resize: Option<Resize>,
    /// How it ended, as a shell counts.
    pub(crate) ended: BoxFuture<'static, Result<i32, Error>>,
}

/// Runs a command in the container whose run is in `dir`.
pub(crate) async fn enter(dir: &RunDir, command: Vec<String>, wanted: Wanted) -> Result<Session, Error> {
    match dir.read_claim() {
        Some(claim) => container::session::enter(&claim, command, wanted).await,
        None => process::session::enter(dir, command, wanted).await,
    }
}

/// Follows the main process of the container whose run is in `dir`.
pub(crate) async fn attach(dir: &RunDir, wanted: Wanted) -> Result<Session, Error> {
    match dir.read_claim() {
        Some(claim) => container::session::attach(&claim, wanted).await,
        None => process::session::attach(dir, wanted).await,
    }
}

/// How a command ended that was run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// As a shell counts.
    pub(crate) code: i32,
    /// The first of what it wrote, output and errors about as they came.
    pub(crate) output: Vec<u8>,
}

/// Runs a command in the container whose run is in `dir`, to its end. Dropped half-way, it ends the command.
pub(crate) async fn run(dir: &RunDir, command: Vec<String>) -> Result<Ended, Error> {
    let wanted = Wanted {
        stdout: true,
        stderr: true,
        ..Wanted::default()
    };
    let mut session = enter(dir, command, wanted).await?;
    let (mut stdout, mut stderr) = (session.stdout.take(), session.stderr.take());
    let mut kept = Vec::new();
    let (mut out, mut err) = (vec![0; KEPT], vec![0; KEPT]);
    let mut code = None;
    while stdout.is_some() || stderr.is_some() {
        let last = async {
            match code {
                Some(_) => tokio::time::sleep(LAST_OUTPUT).await,
                None => std::future::pending().await,
            }
        };
        let (count, from, buffer) = tokio::select! {
            count = read(&mut stdout, &mut out) => (count?, &mut stdout, &out),
            count = read(&mut stderr, &mut err) => (count?, &mut stderr, &err),
            end = &mut session.ended, if code.is_none() => {
                code = Some(end?);
                continue;
            }
            () = last => break,
        };
        if count == 0 {
            *from = None;
        }
        kept.extend_from_slice(&buffer[..count.min(KEPT - kept.len())]);
    }
    let code = match code {
        Some(code) => code,
        None => session.ended.await?,
    };
    Ok(Ended { code, output: kept })
}

/// Reads from what is open; waits for ever for what is not.
async fn read(from: &mut Option<Output>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => std::future::pending().await,
    }
}
