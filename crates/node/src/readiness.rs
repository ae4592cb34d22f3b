//! Waiting for a file descriptor of the kernel's own kinds (processes, notices of files) without a thread.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// The descriptor, to be waited for until it can be read. Must be called inside the runtime.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE)
}

/// The descriptor, to be waited for until it can be read or written. Must be called inside the runtime.
pub(crate) fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE | Interest::WRITABLE)
}

fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio cannot check that a descriptor stays open")]
    // SAFETY: an `OwnedFd` is open, and stays so and the same until the `AsyncFd` that owns it drops it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(io::Error::from)
}
