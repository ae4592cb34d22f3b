//! The node's side of what is entered into a running process container, or attached to it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::FutureExt;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use super::control::{self, Answer, Request};
use crate::runtime::run_dir::RunDir;
use crate::{
    readiness::registered,
    runtime::session::{Error, Resize, Session, Size, Wanted},
};

/// What a command's end by SIGKILL is in a shell.
const KILLED: i32 = 137;

/// A pipe or terminal.
#[derive(Debug, Clone)]
struct Stream(Arc<AsyncFd<OwnedFd>>);

impl Stream {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        registered(fd).map(|fd| Self(Arc::new(fd)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let free = buffer.initialize_unfilled();
            let read = guard.try_io(|fd| rustix::io::read(fd.get_ref(), free).map_err(io::Error::from));
            return Poll::Ready(match read {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    Ok(())
                }
                // Nobody holds the terminal any more.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => Ok(()),
                Ok(Err(error)) => Err(error),
                Err(_would_block) => continue,
            });
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            let written = guard.try_io(|fd| rustix::io::write(fd.get_ref(), bytes).map_err(io::Error::from));
            if let Ok(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Dropping it closes it.
        Poll::Ready(Ok(()))
    }
}

/// What leads to a main process's input. Its helper holds it open as well, so it is told when there is no more.
#[derive(Debug)]
struct MainInput {
    stream: Stream,
    peer: OwnedFd,
}

impl AsyncWrite for MainInput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(control::send(&self.peer, &Request::EndInput, &[]))
    }
}

/// The connection to a container's helper.
#[derive(Debug)]
struct Peer(AsyncFd<OwnedFd>);

impl Peer {
    fn ask(dir: &RunDir, request: &Request, with: &[BorrowedFd<'_>]) -> Result<Self, Error> {
        let socket = control::connect(dir).map_err(Error::NotRunning)?;
        control::send(&socket, request, with)?;
        Ok(Self(registered(socket)?))
    }

    /// The next answer; `None` if the helper is gone.
    async fn answer(&mut self) -> io::Result<Option<(Answer, Vec<OwnedFd>)>> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            match guard.try_io(|fd| control::receive(fd.get_ref())) {
                // It went before it had read what we said.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Ok(answer) => return answer,
                Err(_would_block) => {}
            }
        }
    }

    /// The first answer, which is to be about the start.
    async fn first_answer(&mut self) -> Result<(Answer, Vec<OwnedFd>), Error> {
        match self.answer().await? {
            Some((Answer::Failed(failure), _)) => Err(Error::Failed(failure)),
            Some(answer) => Ok(answer),
            None => Err(Error::NotRunning(io::ErrorKind::ConnectionReset.into())),
        }
    }

    async fn end(mut self) -> Result<i32, Error> {
        loop {
            match self.answer().await? {
                Some((Answer::Exited(code), _)) => return Ok(code),
                Some((Answer::Failed(failure), _)) => return Err(Error::Failed(failure)),
                Some(_) => {}
                // The container went, and everything in it.
                None => return Ok(KILLED),
            }
        }
    }
}

/// One pipe: the end that stays here if it is wanted, and the end for the command.
fn pipe(is_wanted: bool) -> io::Result<(Option<Stream>, OwnedFd)> {
    if !is_wanted {
        return Ok((None, null()?));
    }
    let (ours, theirs) = io::pipe()?;
    Ok((Some(Stream::new(ours.into())?), theirs.into()))
}

fn null() -> io::Result<OwnedFd> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    Ok(null.into())
}

fn resize(terminal: &Stream) -> Resize {
    let terminal = terminal.clone();
    Box::new(move |size: Size| {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let _ = tcsetwinsize(terminal.0.get_ref(), size);
    })
}

/// Runs a command in the container whose run is in `dir`.
pub(crate) async fn enter(dir: &RunDir, command: Vec<String>, wanted: Wanted) -> Result<Session, Error> {
    if wanted.tty {
        let request = Request::Enter { command, tty: true };
        let mut peer = Peer::ask(dir, &request, &[])?;
        let (_, mut with) = peer.first_answer().await?;
        let terminal = with
            .pop()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let terminal = Stream::new(terminal).map_err(Error::System)?;
        return Ok(Session {
            resize: Some(resize(&terminal)),
            stdin: wanted.stdin.then(|| Box::new(terminal.clone()) as _),
            stdout: Some(Box::new(terminal)),
            stderr: None,
            ended: peer.end().boxed(),
        });
    }
    let (stdin_inside, stdin) = if wanted.stdin {
        let (theirs, ours) = io::pipe()?;
        (theirs.into(), Some(Stream::new(ours.into())?))
    } else {
        (null()?, None)
    };
    let (stdout, stdout_inside) = pipe(wanted.stdout)?;
    let (stderr, stderr_inside) = pipe(wanted.stderr)?;
    let request = Request::Enter { command, tty: false };
    let with = [&stdin_inside, &stdout_inside, &stderr_inside].map(AsFd::as_fd);
    let peer = Peer::ask(dir, &request, &with)?;
    Ok(Session {
        stdin: stdin.map(|stream| Box::new(stream) as _),
        stdout: stdout.map(|stream| Box::new(stream) as _),
        stderr: stderr.map(|stream| Box::new(stream) as _),
        resize: None,
        ended: peer.end().boxed(),
    })
}

/// Follows the main process of the container whose run is in `dir`.
pub(crate) async fn attach(dir: &RunDir, wanted: Wanted) -> Result<Session, Error> {
    let (stdout, stdout_inside) = pipe(wanted.stdout)?;
    let (stderr, stderr_inside) = pipe(wanted.stderr && !wanted.tty)?;
    let request = Request::Attach { stdin: wanted.stdin };
    let mut peer = Peer::ask(dir, &request, &[stdout_inside.as_fd(), stderr_inside.as_fd()])?;
    let (answer, mut with) = peer.first_answer().await?;
    let input = with.pop().map(Stream::new).transpose()?;
    let terminal = input
        .as_ref()
        .filter(|_| answer == Answer::Attached { tty: true });
    let resize = terminal.map(resize);
    let stdin = match input {
        Some(stream) => Some(MainInput {
            stream,
            peer: peer.0.get_ref().try_clone()?,
        }),
        None => None,
    };
    Ok(Session {
        resize,
        stdin: stdin.map(|input| Box::new(input) as _),
        stdout: stdout.map(|stream| Box::new(stream) as _),
        stderr: stderr.map(|stream| Box::new(stream) as _),
        // The helper says nothing more, and goes when the container has.
        ended: peer.end().map(|ended| ended.map(|_| 0)).boxed(),
    })
}
