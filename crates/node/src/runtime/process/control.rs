//! What the node and the helper around a running container say to each other.
//!
//! The helper listens at a socket in the run's directory. One connection is one command that is entered into the
//! container, or one who watches its main process. Descriptors go along with the messages; the bytes of a command's
//! streams never do.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use crate::runtime::run_dir::{Failure, RunDir};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// How large a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    /// Characters in a line.
    pub(crate) columns: u16,
    /// Lines.
    pub(crate) rows: u16,
}

/// What the node asks for, first of all on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Run a command in the container. Without a terminal, its three streams come along.
    Enter {
        /// Program and arguments.
        command: Vec<String>,
        /// Whether it gets a terminal of its own instead of three streams.
        tty: bool,
    },
    /// Follow the container's main process: pipes for its output and its errors come along.
    Attach {
        /// Whether to write to its input as well.
        stdin: bool,
    },
    /// Later, from who writes to the main process: there is no more.
    EndInput,
}

/// What the helper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The other end of the command's terminal comes along.
    Terminal,
    /// What the main process writes is copied from now on. If it was asked for and is there, what leads to its
    /// input comes along.
    Attached {
        /// The main process has a terminal, and that is what comes along.
        tty: bool,
    },
    /// It cannot be done.
    Failed(Failure),
    /// The command ended, and how a shell would put it.
    Exited(i32),
}

/// The longest message, which is about the longest that the kernel takes.
const LONGEST: usize = 256 * 1024;
/// The most descriptors that go along with one.
const DESCRIPTORS: usize = 5;

/// A socket's path by way of its folder: a socket's own path must be short. It holds as long as the folder is open.
pub(crate) fn address(folder: &Path, name: &str) -> io::Result<(File, SocketAddrUnix)> {
    let folder = File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
    let address = SocketAddrUnix::new(&path)?;
    Ok((folder, address))
}

/// The socket in a run's directory.
const NAME: &str = "control";

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(io::Error::from)
}

/// Listens in a run's directory.
pub(crate) fn listen(dir: &RunDir) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::NONBLOCK)?;
    let (_folder, address) = address(dir.path(), NAME)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Reaches the helper that listens in a run's directory.
pub(crate) fn connect(dir: &RunDir) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::empty())?;
    let (_folder, address) = address(dir.path(), NAME)?;
    rustix::net::connect(&socket, &address)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// The next connection, if there is one.
pub(crate) fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()
}

/// Two ends of one connection, for a child process.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(io::Error::from)
}

/// Sends one message and descriptors with it.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, with: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_bytes(socket, &serde_json::to_vec(message)?, with)
}

/// Sends a few bytes at once and descriptors with them.
pub(crate) fn send_bytes(socket: impl AsFd, bytes: &[u8], with: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !with.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(with));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message and what came with it; `None` when the other end is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
    let with = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(with) => Some(with),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..received.bytes])?, with)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn messages_and_descriptors_go_through_a_socket_whose_path_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let dir = RunDir(deep);
        let listener = listen(&dir).unwrap();
        let node = connect(&dir).unwrap();
        let shim = accept(&listener).unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        send(&node, &Request::Attach { stdin: true }, &[write.as_fd()]).unwrap();
        drop(write);
        let (request, mut with) = receive::<Request>(&shim).unwrap().unwrap();
        assert_eq!(request, Request::Attach { stdin: true });
        File::from(with.remove(0)).write_all(b"through").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(node);
        assert!(receive::<Request>(&shim).unwrap().is_none());
    }
}
