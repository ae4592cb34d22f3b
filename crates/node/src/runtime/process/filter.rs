//! The system call filter that a container's processes carry: `bind`, `connect` and `getsockname` are asked about
//! outside.
//!
//! It is no wall: it makes Pods that share this machine's network look as if each had its own. Whoever answers
//! (see [`super::mediate`]) may let every call go on as it is, and does so with most.

use std::{
    fmt::Write as _,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, FromRawFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, send, sendmsg,
};
use serde::Serialize;

/// What the kernel calls this machine's processor (`AUDIT_ARCH_…`).
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xc000_00f3)
} else {
    None
};

/// An Internet address is at least this long.
const SHORTEST: u32 = size_of::<libc::sockaddr_in>() as u32;
/// The usual length of a Unix socket's address, which is nobody's business here.
const UNIX: u32 = size_of::<libc::sockaddr_un>() as u32;

/// How a filter is set, best first. Speculation is left as it is: the filter guards nothing. Signals wait while a call
/// is being answered (Linux 5.19 and later), so that no call is made twice.
const FLAGS: [libc::c_ulong; 2] = {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    [flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, flags]
};

/// The filter, for a process that puts it over itself and hands it over as [`hand_over`] does.
#[derive(Debug, Serialize)]
pub(crate) struct Described {
    /// The number of the system call that sets it.
    call: libc::c_long,
    /// As [`FLAGS`].
    flags: [libc::c_ulong; 2],
    /// The instructions as they lie in memory, in hexadecimal.
    program: String,
}

/// The filter described; `None` for a processor without one.
pub(crate) fn describe() -> Option<Described> {
    let mut text = String::new();
    for step in program(ARCHITECTURE?) {
        let code = step.code.to_ne_bytes();
        let bytes = code
            .into_iter()
            .chain([step.jt, step.jf])
            .chain(step.k.to_ne_bytes());
        for byte in bytes {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
    }
    Some(Described {
        call: libc::SYS_seccomp,
        flags: FLAGS,
        program: text,
    })
}

/// Puts the filter over the calling thread and all that it will start, and gives what says which calls were made.
/// That must be answered from now on: until somebody does, such calls wait.
fn install() -> io::Result<OwnedFd> {
    let Some(architecture) = ARCHITECTURE else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let mut program = program(architecture);
    let [best, flags] = FLAGS;
    let with = |program: &mut [libc::sock_filter]| match apply(program, best) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => apply(program, flags),
        applied => applied,
    };
    match with(&mut program) {
        // Who may do little in their user namespace must promise first never to become more.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            rustix::thread::set_no_new_privs(true)?;
            with(&mut program)
        }
        applied => applied,
    }
}

fn apply(program: &mut [libc::sock_filter], flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let described = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    #[expect(unsafe_code, reason = "neither nix nor rustix wraps seccomp")]
    // SAFETY: `described` names `program` with its length, and both outlive the call, which copies them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const described,
        )
    };
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "a raw file descriptor becomes an owned one")]
    // SAFETY: the kernel just made it for us, and nobody else knows its number.
    let listener = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(listener)
}

/// Everything is allowed, but `bind` and `connect` with what may be an Internet address, and `getsockname`, are asked
/// about.
fn program(architecture: u32) -> [libc::sock_filter; 11] {
    let number = |number: libc::c_long| u32::try_from(number).unwrap_or(u32::MAX);
    let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let give = |action: u32| statement(libc::BPF_RET | libc::BPF_K, action);
    let if_equal = |value, then, or_else| jump(libc::BPF_JEQ, value, then, or_else);
    // Offsets in `seccomp_data`: the architecture at 4, the call's number at 0, its third argument at 32.
    [
        load(4),
        if_equal(architecture, 0, 7),
        load(0),
        if_equal(number(libc::SYS_getsockname), 6, 0),
        if_equal(number(libc::SYS_bind), 1, 0),
        if_equal(number(libc::SYS_connect), 0, 3),
        load(32),
        jump(libc::BPF_JGE, SHORTEST, 0, 1),
        if_equal(UNIX, 0, 1),
        give(libc::SECCOMP_RET_ALLOW),
        give(libc::SECCOMP_RET_USER_NOTIF),
    ]
}

fn statement(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: 0,
        k: value,
    }
}

fn jump(how: u32, value: u32, then: u8, or_else: u8) -> libc::sock_filter {
    libc::sock_filter {
        jt: then,
        jf: or_else,
        ..statement(libc::BPF_JMP | how | libc::BPF_K, value)
    }
}

/// Puts the filter over this thread and sends what must be answered through `socket`; or sends why there is none,
/// and goes on without. The last step before a process becomes its command.
pub(crate) fn hand_over(socket: impl AsFd) {
    // With nobody to answer, the kernel refuses such calls by itself.
    let _ = match install() {
        Ok(listener) => {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let listeners = [listener.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&listeners));
            let nothing = 0_i32.to_ne_bytes();
            sendmsg(
                &socket,
                &[IoSlice::new(&nothing)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        }
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(libc::ENOSYS);
            send(&socket, &number.to_ne_bytes(), SendFlags::NOSIGNAL)
        }
    };
}

/// What a process sent by [`hand_over`], if there is something.
pub(crate) fn take_over(socket: impl AsFd) -> Option<io::Result<OwnedFd>> {
    let mut number = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut number)], &mut control, flags).ok()?;
    if received.bytes != number.len() {
        return None;
    }
    let listener = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Some(listener.ok_or_else(|| io::Error::from_raw_os_error(i32::from_ne_bytes(number))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn verdict(architecture: u32, call: libc::c_long, length: u32) -> u32 {
        let program = program(0xc000_003e);
        let (mut value, mut at) = (0, 0_usize);
        loop {
            let step = program[at];
            let code = u32::from(step.code);
            at += 1;
            if code == libc::BPF_RET | libc::BPF_K {
                return step.k;
            }
            if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                value = match step.k {
                    0 => u32::try_from(call).unwrap(),
                    4 => architecture,
                    32 => length,
                    other => panic!("{other}"),
                };
                continue;
            }
            let holds = if code & libc::BPF_JGE == libc::BPF_JGE {
                value >= step.k
            } else {
                value == step.k
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }

    #[test]
    fn only_bind_and_connect_to_what_may_be_an_internet_address_are_asked_about() {
        let asked = |call, length| verdict(0xc000_003e, call, length) == libc::SECCOMP_RET_USER_NOTIF;
        for call in [libc::SYS_bind, libc::SYS_connect] {
            assert!(asked(call, 16));
            assert!(asked(call, 28));
            assert!(asked(call, 128));
            assert!(!asked(call, 12), "a netlink socket's");
            assert!(!asked(call, 110), "a Unix socket's");
        }
        assert!(asked(libc::SYS_getsockname, 0));
        for call in [
            libc::SYS_read,
            libc::SYS_accept4,
            libc::SYS_execve,
            libc::SYS_sendto,
        ] {
            assert!(!asked(call, 16));
        }
        assert_eq!(
            verdict(0x4000_0003, libc::SYS_connect, 16),
            libc::SECCOMP_RET_ALLOW,
            "a 32-bit program"
        );
    }
}
