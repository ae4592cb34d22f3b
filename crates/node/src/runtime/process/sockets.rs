//! Whether somebody listens at an address of this machine, asked of the kernel.
//!
//! One exact question by netlink (`sock_diag`), which takes microseconds. Where the kernel has no answer to such
//! questions, the tables in `/proc/net` are read instead.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// Streams or datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// How questions are answered on this machine.
#[derive(Debug)]
enum Way {
    Netlink(OwnedFd),
    Proc,
}

/// Answers questions about sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    tcp: Option<Way>,
    udp: Option<Way>,
}

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
const HEADER: usize = 16;
const QUESTION: usize = 56;
/// Where a socket's own address is in an answer.
const OWN_ADDRESS: usize = HEADER + 8;

impl Sockets {
    /// Whether a socket of exactly this address (not of all addresses) listens at it, or, for datagrams, is bound.
    pub(crate) fn is_open(&mut self, transport: Transport, at: SocketAddrV4) -> bool {
        let way = match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp => &mut self.udp,
        };
        match way.get_or_insert_with(|| choose(transport)) {
            Way::Netlink(socket) => ask(socket, transport, at).unwrap_or_default(),
            Way::Proc => look_up(transport, at),
        }
    }
}

/// The kernel may answer "there is none" to everything: it is tried with a socket that there is.
fn choose(transport: Transport) -> Way {
    let tried = || {
        let (_tcp, _udp);
        let at = match transport {
            Transport::Tcp => {
                let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                let at = socket.local_addr().ok()?;
                _tcp = socket;
                at
            }
            Transport::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                let at = socket.local_addr().ok()?;
                _udp = socket;
                at
            }
        };
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )
        .ok()?;
        let is_found = ask(
            &socket,
            transport,
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, at.port()),
        )?;
        is_found.then_some(socket)
    };
    tried().map_or(Way::Proc, Way::Netlink)
}

/// `None` if the kernel cannot be asked.
fn ask(socket: &OwnedFd, transport: Transport, at: SocketAddrV4) -> Option<bool> {
    send(socket, &question(transport, at), SendFlags::empty()).ok()?;
    let mut answer = [0_u8; 1024];
    let (length, _) = recv(socket, &mut answer, RecvFlags::empty()).ok()?;
    Some(is_about(&answer[..length], at))
}

/// An `nlmsghdr` and an `inet_diag_req_v2` that names one socket.
fn question(transport: Transport, at: SocketAddrV4) -> [u8; HEADER + QUESTION] {
    let mut bytes = [0; HEADER + QUESTION];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let length = u32::try_from(HEADER + QUESTION).unwrap_or_default();
    put(0, &length.to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &REQUEST.to_ne_bytes());
    let protocol = match transport {
        Transport::Tcp => libc::IPPROTO_TCP,
        Transport::Udp => libc::IPPROTO_UDP,
    };
    put(HEADER, &[libc::AF_INET as u8, protocol as u8]);
    // All states.
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    let (port, address) = (at.port().to_be_bytes(), at.ip().octets());
    // For datagrams the kernel takes the two ends the other way round.
    match transport {
        Transport::Tcp => {
            put(HEADER + 8, &port);
            put(HEADER + 12, &address);
        }
        Transport::Udp => {
            put(HEADER + 10, &port);
            put(HEADER + 28, &address);
        }
    }
    // No cookie.
    put(HEADER + 48, &[0xff; 8]);
    bytes
}

/// Whether the answer is a socket of exactly this address: one of all addresses is found as well.
fn is_about(answer: &[u8], at: SocketAddrV4) -> bool {
    let kind = answer
        .get(4..6)
        .map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    if kind != Some(BY_FAMILY) {
        return false;
    }
    let Some(address) = answer.get(OWN_ADDRESS..OWN_ADDRESS + 16) else {
        return false;
    };
    let is_six = answer.get(HEADER).copied() == Some(libc::AF_INET6 as u8);
    let own = if is_six { &address[12..] } else { &address[..4] };
    own == at.ip().octets()
}

fn look_up(transport: Transport, at: SocketAddrV4) -> bool {
    let (files, states) = match transport {
        Transport::Tcp => (["tcp", "tcp6"], "0A"),
        Transport::Udp => (["udp", "udp6"], "07"),
    };
    files.iter().any(|name| {
        let table = fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
        table.lines().any(|line| is_row_of(line, states, at))
    })
}

/// Addresses are written in words of the machine's byte order, in hexadecimal.
fn is_row_of(line: &str, state: &str, at: SocketAddrV4) -> bool {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (Some(own), Some(_), Some(its_state)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let number = u32::from_ne_bytes(at.ip().octets());
    let wanted = format!("{number:08X}:{:04X}", at.port());
    its_state == state && own.ends_with(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Ipv4Addr = Ipv4Addr::new(127, 250, 3, 4);

    #[test]
    fn only_a_socket_of_the_very_address_is_found_by_either_way() {
        let own = TcpListener::bind((HERE, 0)).unwrap();
        let port = own.local_addr().unwrap().port();
        let everywhere = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let everywhere = everywhere.local_addr().unwrap().port();
        let datagrams = UdpSocket::bind((HERE, 0)).unwrap();
        let datagrams = datagrams.local_addr().unwrap().port();
        let mut sockets = Sockets::default();
        let at = |port| SocketAddrV4::new(HERE, port);
        let mut check = |transport, port, expected| {
            assert_eq!(sockets.is_open(transport, at(port)), expected, "{transport:?}");
            assert_eq!(look_up(transport, at(port)), expected, "{transport:?} by /proc");
        };
        check(Transport::Tcp, port, true);
        check(Transport::Tcp, everywhere, false);
        check(Transport::Udp, datagrams, true);
        drop(own);
        check(Transport::Tcp, port, false);
    }

    #[test]
    fn a_row_of_either_table_is_read() {
        let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0x1F90);
        let four = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000";
        let six = "   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0";
        assert!(is_row_of(four, "0A", at));
        assert!(is_row_of(six, "0A", at));
        assert!(!is_row_of(four, "07", at));
        assert!(!is_row_of("  sl  local_address rem_address   st", "0A", at));
    }
}
