//! Waiting for a file descriptor of the kernel's own kinds (processes, notices of files) without a thread.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// The descriptor, to be waited for until it can be read. Must be called inside the runtime.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio cannot check that a descriptor stays open")]
    // SAFETY: an `OwnedFd` is open, and stays so and the same until the `AsyncFd` that owns it drops it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
