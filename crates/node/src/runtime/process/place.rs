//! Tells a Python worker ([`crate::warm`]) where the task of this container belongs, before any of its own code runs.
//!
//! Afterwards the connection is the command's standard input. Whoever has it can have one process started where this
//! module said, and nowhere else.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::Serialize;

use super::{control, filter, init, spec::Spec};

/// What a worker must know. The names and meanings are those in `worker.py`.
#[derive(Debug, Serialize)]
struct Place<'a> {
    cgroups: &'a [PathBuf],
    /// What the descriptors are that come along, in order.
    descriptors: Vec<&'static str>,
    filter: Option<filter::Described>,
    /// Those that its processes may have, a bit for each.
    capabilities: u64,
}

/// Connects to the worker at `path`; `None` if it is gone, or has too much to do.
pub(crate) fn reach(path: &Path) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    let (_folder, address) = control::address(path.parent()?, path.file_name()?.to_str()?).ok()?;
    rustix::net::connect(&socket, &address).ok()?;
    rustix::io::ioctl_fionbio(&socket, false).ok()?;
    Some(socket)
}

/// Sends where the calling process, the first of a container, has come to.
pub(crate) fn tell(worker: &OwnedFd, spec: &Spec, mediation: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let sandbox = spec.mode.sandbox().ok_or(io::ErrorKind::Unsupported)?;
    let mut spaces = vec!["pid", "uts", "mnt"];
    if sandbox.user {
        spaces.insert(0, "user");
    }
    let spaces = spaces
        .into_iter()
        .map(|name| Ok((name, OwnedFd::from(File::open(format!("/proc/self/ns/{name}"))?))))
        .collect::<io::Result<Vec<_>>>()?;
    let own = spaces.iter().map(|(name, space)| (*name, space.as_fd()));
    let (names, descriptors): (Vec<_>, Vec<_>) =
        own.chain(mediation.map(|socket| ("mediation", socket))).unzip();
    let place = Place {
        cgroups: &spec.cgroups,
        descriptors: names,
        filter: filter::describe(),
        capabilities: init::kept_capabilities().bits(),
    };
    let mut line = serde_json::to_vec(&place)?;
    line.push(b'\n');
    control::send_bytes(worker, &line, &descriptors)
}
