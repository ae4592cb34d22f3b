//! A command that was entered into a running container, or a look at its main process: streams and an end.

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// How large a terminal is.
pub(crate) use super::process::control::Size;
use crate::runtime::run_dir::Failure;

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
