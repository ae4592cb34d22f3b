//! Answers for some network calls of a container's processes, so that Pods that share this machine's
//! network do not get in each other's way.
//!
//! ```text
//! bind 0.0.0.0:p, [::]:p, 127.0.0.1:p, [::1]:p   is done at the Pod's own address
//! connect 127.0.0.1:p, [::1]:p                   goes to the Pod's own address, if somebody listens there
//! connect to another address of this machine     the same, where it is not one of the loopback
//! connect to an address of the block, p < 1024   goes to p's stand-in, if that is where somebody listens
//! getsockname of datagrams to the world outside  says the Pod's own address: so programs ask for theirs
//! ```
//!
//! Everything else goes on as it was called. A `bind` is done here, on a copy of the socket; a `connect` gets
//! another address written where it was read from and goes on in its own process, so that it waits, is
//! interrupted and fails there as ever. None of this is a wall: a process that gets around it harms itself only.
//!
//! Runs in the shim: it outlives the server, may look into the processes (they are below it), and has one thread.
//! Nothing here waits.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use coracle_api::network::{Block, stand_in};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use rustix::{
    event::epoll,
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, bind, getsockname, socketpair,
        sockopt::{ipv6_v6only, socket_domain, socket_type},
    },
    process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use super::{
    filter,
    sockets::{Sockets, Transport},
};

/// Everything that a container's processes ask. Readable when there is something to [`serve`](Self::serve).
pub(crate) struct Mediation {
    ready: OwnedFd,
    socket: OwnedFd,
    /// The other end, for processes to come.
    inside: OwnedFd,
    /// By the number under which they are waited for.
    listeners: HashMap<u64, OwnedFd>,
    next: u64,
    mediator: Mediator,
    /// Why a process goes without.
    refusal: Option<io::Error>,
}

/// The number of the socket through which listeners come.
const SOCKET: u64 = 0;

impl AsFd for Mediation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl Mediation {
    /// For a container of the Pod with this address.
    pub(crate) fn new(address: Ipv4Addr) -> io::Result<Self> {
        let (socket, inside) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(SOCKET);
        epoll::add(&ready, &socket, data, epoll::EventFlags::IN)?;
        Ok(Self {
            ready,
            socket,
            inside,
            listeners: HashMap::new(),
            next: SOCKET + 1,
            mediator: Mediator::new(address),
            refusal: None,
        })
    }

    /// What processes [`filter::hand_over`] their filters with.
    pub(crate) fn inside(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }

    /// Why a process goes without, if one does. Said once.
    pub(crate) fn take_refusal(&mut self) -> Option<io::Error> {
        self.refusal.take()
    }

    /// Answers what there is to answer. Does not wait.
    pub(crate) fn serve(&mut self) {
        let mut events = Vec::with_capacity(16);
        let at_once = rustix::event::Timespec::default();
        if epoll::wait(
            &self.ready,
            rustix::buffer::spare_capacity(&mut events),
            Some(&at_once),
        )
        .is_err()
        {
            return;
        }
        for event in events {
            let (number, flags) = (event.data.u64(), event.flags);
            let is_asked = flags.contains(epoll::EventFlags::IN);
            match self.listeners.get(&number) {
                Some(listener) if is_asked => self.mediator.answer(listener.as_fd()),
                // The last process that it was for is gone.
                Some(_) => drop(self.listeners.remove(&number)),
                None if is_asked => self.listen(),
                // Nobody is left who could hand over more.
                None => drop(epoll::delete(&self.ready, &self.socket)),
            }
        }
    }

    fn listen(&mut self) {
        match filter::take_over(&self.socket) {
            Some(Ok(listener)) => {
                let number = self.next;
                self.next += 1;
                let data = epoll::EventData::new_u64(number);
                // Dropped otherwise, and the kernel refuses the calls.
                if epoll::add(&self.ready, &listener, data, epoll::EventFlags::IN).is_ok() {
                    self.listeners.insert(number, listener);
                }
            }
            Some(Err(error)) => self.refusal = Some(error),
            None => drop(epoll::delete(&self.ready, &self.socket)),
        }
    }
}

/// What a call comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It goes on.
    Continue,
    /// It was done here.
    Done,
    /// It was tried here.
    Failed(Errno),
}

struct Mediator {
    address: Ipv4Addr,
    block: Block,
    sockets: Sockets,
    /// Ports at which sockets that take IPv6 alone believe to listen, and where they do.
    six: HashMap<u16, u16>,
}

/// Where a call's address is, as it stands there.
struct Name {
    /// In the process that calls.
    pointer: u64,
    bytes: [u8; 28],
    address: SocketAddr,
}

impl Name {
    fn parse(pointer: u64, bytes: [u8; 28], length: usize) -> Option<Self> {
        let family = libc::c_int::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        let ip = if family == libc::AF_INET && length >= 16 {
            IpAddr::from(<[u8; 4]>::try_from(&bytes[4..8]).ok()?)
        } else if family == libc::AF_INET6 && length >= 24 {
            IpAddr::from(<[u8; 16]>::try_from(&bytes[8..24]).ok()?)
        } else {
            return None;
        };
        Some(Self {
            pointer,
            bytes,
            address: SocketAddr::new(ip, port),
        })
    }

    /// What of it changes when it is to mean `to`, and where that is.
    fn changed(mut self, to: SocketAddrV4) -> (u64, Vec<u8>) {
        self.bytes[2..4].copy_from_slice(&to.port().to_be_bytes());
        let end = if self.address.is_ipv4() {
            self.bytes[4..8].copy_from_slice(&to.ip().octets());
            8
        } else {
            self.bytes[8..24].copy_from_slice(&to.ip().to_ipv6_mapped().octets());
            24
        };
        (self.pointer + 2, self.bytes[2..end].to_vec())
    }
}

/// The socket of a call.
struct Socket {
    fd: OwnedFd,
    transport: Transport,
    /// It takes IPv6, and IPv4 as part of it.
    is_six: bool,
    /// It takes IPv6 alone.
    is_six_only: bool,
}

impl Mediator {
    fn new(address: Ipv4Addr) -> Self {
        Self {
            address,
            block: Block::new(address.octets()[1]),
            sockets: Sockets::default(),
            six: HashMap::new(),
        }
    }

    /// Takes one call and answers it.
    fn answer(&mut self, listener: BorrowedFd<'_>) {
        let Ok(call) = receive(listener) else { return };
        let verdict = self.decide(listener, &call).unwrap_or(Verdict::Continue);
        respond(listener, call.id, verdict);
    }

    /// `None` if it does not concern us, or cannot be looked into.
    fn decide(&mut self, listener: BorrowedFd<'_>, call: &libc::seccomp_notif) -> Option<Verdict> {
        let [fd, pointer, length, ..] = call.data.args;
        let pid = i32::try_from(call.pid).ok().filter(|pid| *pid > 0)?;
        if libc::c_long::from(call.data.nr) == libc::SYS_getsockname {
            return self.tell_name(listener, call);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(28);
        let name = read_name(pid, pointer, length)?;
        let is_bind = libc::c_long::from(call.data.nr) == libc::SYS_bind;
        let concerns = if is_bind {
            self.concerns_bind(name.address)
        } else {
            self.concerns_connect(name.address)
        };
        if !concerns {
            return None;
        }
        let process = open_process(pid)?;
        // Nobody else can have got the number meanwhile, so what was read and opened is the caller's.
        if !is_waiting(listener, call.id) {
            return None;
        }
        let socket = Socket::of(&process, fd)?;
        if is_bind {
            self.bind(&socket, name.address)
        } else {
            let to = self.connect_to(&socket, name.address)?;
            redirect(listener, call, name, to)
        }
    }

    fn concerns_bind(&self, address: SocketAddr) -> bool {
        address.port() != 0 && (is_own_machine(address.ip()) || self.is_pod(address.ip()))
    }

    fn concerns_connect(&self, address: SocketAddr) -> bool {
        let is_near = || match address.ip().to_canonical() {
            IpAddr::V4(ip) if self.block.contains(ip) => stand_in(address.port()).is_some(),
            IpAddr::V4(ip) => is_of_this_machine(ip),
            IpAddr::V6(_) => false,
        };
        address.port() != 0 && (is_own_machine(address.ip()) || is_near())
    }

    fn is_pod(&self, ip: IpAddr) -> bool {
        ip.to_canonical() == IpAddr::V4(self.address)
    }

    fn bind(&mut self, socket: &Socket, address: SocketAddr) -> Option<Verdict> {
        let port = address.port();
        if socket.is_six != address.is_ipv6() {
            return None;
        }
        if socket.is_six_only {
            return self.bind_six(socket, port);
        }
        let bind_at = |port| {
            if socket.is_six {
                let ip = self.address.to_ipv6_mapped();
                bind(&socket.fd, &SocketAddrV6::new(ip, port, 0, 0))
            } else {
                bind(&socket.fd, &SocketAddrV4::new(self.address, port))
            }
        };
        let bound = match (bind_at(port), stand_in(port)) {
            (Err(Errno::ACCESS), Some(port)) => bind_at(port),
            (bound, _) => bound,
        };
        Some(bound.map_or_else(Verdict::Failed, |()| Verdict::Done))
    }

    /// There is one address of IPv6 here, for all Pods, and theirs are of IPv4. Such a socket stands mostly beside
    /// one of IPv4 with the same port: it gets any port, which only this container knows.
    fn bind_six(&mut self, socket: &Socket, port: u16) -> Option<Verdict> {
        bind(&socket.fd, &SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0)).ok()?;
        let bound: Option<SocketAddr> = getsockname(&socket.fd).ok().and_then(|any| any.try_into().ok());
        if let Some(bound) = bound {
            self.six.insert(port, bound.port());
        }
        Some(Verdict::Done)
    }

    fn connect_to(&mut self, socket: &Socket, address: SocketAddr) -> Option<To> {
        let port = address.port();
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) if self.block.contains(ip) => ip,
            _ => self.address,
        };
        let transport = socket.transport;
        let mut is_open = |port| self.sockets.is_open(transport, SocketAddrV4::new(ip, port));
        let found = if is_open(port) {
            Some(port)
        } else {
            stand_in(port).filter(|port| is_open(*port))
        };
        match found {
            Some(port) if !socket.is_six_only => Some(To::Four(SocketAddrV4::new(ip, port))),
            _ if address.ip() == IpAddr::V6(Ipv6Addr::LOCALHOST) => {
                self.six.get(&port).map(|port| To::Six(*port))
            }
            _ => None,
        }
    }
}

impl Mediator {
    /// Many programs find out their own address by asking which one they would send datagrams from. That is this
    /// machine's; theirs is another.
    fn tell_name(&self, listener: BorrowedFd<'_>, call: &libc::seccomp_notif) -> Option<Verdict> {
        let [fd, name, length, ..] = call.data.args;
        let process = open_process(i32::try_from(call.pid).ok()?)?;
        let memory = open_memory(call, true)?;
        if !is_waiting(listener, call.id) {
            return None;
        }
        let socket = Socket::of(&process, fd)?;
        if socket.transport != Transport::Udp || socket.is_six {
            return None;
        }
        let bound: SocketAddr = getsockname(&socket.fd).ok()?.try_into().ok()?;
        if bound.ip().is_loopback() || bound.ip().is_unspecified() {
            return None;
        }
        let mut own = [0; 16];
        own[..2].copy_from_slice(&u16::try_from(libc::AF_INET).ok()?.to_ne_bytes());
        own[2..4].copy_from_slice(&bound.port().to_be_bytes());
        own[4..8].copy_from_slice(&self.address.octets());
        let mut room = [0; 4];
        memory.read_exact_at(&mut room, length).ok()?;
        let room = usize::try_from(i32::from_ne_bytes(room)).ok()?.min(own.len());
        memory.write_all_at(&own[..room], name).ok()?;
        memory.write_all_at(&16_i32.to_ne_bytes(), length).ok()?;
        Some(Verdict::Done)
    }
}

/// Where a `connect` goes instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Four(SocketAddrV4),
    /// The same address, at this port.
    Six(u16),
}

/// Whether it is another address of this machine: only such a one can be bound to.
fn is_of_this_machine(ip: Ipv4Addr) -> bool {
    !ip.is_loopback() && !ip.is_broadcast() && !ip.is_multicast() && UdpSocket::bind((ip, 0)).is_ok()
}

/// Whether an address means the very machine, or all of its addresses.
fn is_own_machine(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip == Ipv4Addr::LOCALHOST || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified(),
    }
}

impl Socket {
    fn of(process: &OwnedFd, number: u64) -> Option<Self> {
        let number = i32::try_from(number & u64::from(u32::MAX)).ok()?;
        let fd = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
        let kind = socket_type(&fd).ok()?;
        let transport = if kind == SocketType::STREAM {
            Transport::Tcp
        } else if kind == SocketType::DGRAM {
            Transport::Udp
        } else {
            return None;
        };
        let domain = socket_domain(&fd).ok()?;
        let is_six = domain == AddressFamily::INET6;
        if !is_six && domain != AddressFamily::INET {
            return None;
        }
        Some(Self {
            transport,
            is_six,
            is_six_only: is_six && ipv6_v6only(&fd).unwrap_or_default(),
            fd,
        })
    }
}

/// Writes another address where the call reads its own from, and lets it go on.
fn redirect(listener: BorrowedFd<'_>, call: &libc::seccomp_notif, name: Name, to: To) -> Option<Verdict> {
    let (pointer, bytes) = match to {
        To::Four(to) => name.changed(to),
        To::Six(port) => (name.pointer + 2, port.to_be_bytes().to_vec()),
    };
    // The memory of this very process, whoever has its number later; and also what it may only read itself.
    let memory = open_memory(call, false)?;
    if !is_waiting(listener, call.id) {
        return None;
    }
    memory.write_all_at(&bytes, pointer).ok()?;
    Some(Verdict::Continue)
}

fn open_memory(call: &libc::seccomp_notif, is_read: bool) -> Option<File> {
    let path = format!("/proc/{}/mem", call.pid);
    OpenOptions::new().read(is_read).write(true).open(path).ok()
}

fn read_name(pid: i32, pointer: u64, length: usize) -> Option<Name> {
    let mut bytes = [0; 28];
    let remote = RemoteIoVec {
        base: usize::try_from(pointer).ok()?,
        len: length,
    };
    let read = process_vm_readv(
        Pid::from_raw(pid),
        &mut [IoSliceMut::new(&mut bytes[..length])],
        &[remote],
    )
    .ok()?;
    Name::parse(pointer, bytes, read)
}

/// Opens the process of a thread. Descriptors are opened for threads since Linux 6.9.
fn open_process(thread: i32) -> Option<OwnedFd> {
    let open = |number, flags| pidfd_open(rustix::process::Pid::from_raw(number)?, flags).ok();
    let of_thread = PidfdFlags::from_bits_retain(libc::PIDFD_THREAD);
    open(thread, of_thread).or_else(|| {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        open(group.trim().parse().ok()?, PidfdFlags::empty())
    })
}

fn receive(listener: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    let mut call = libc::seccomp_notif {
        id: 0,
        pid: 0,
        flags: 0,
        data: libc::seccomp_data {
            nr: 0,
            arch: 0,
            instruction_pointer: 0,
            args: [0; 6],
        },
    };
    ask(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &mut call)?;
    Ok(call)
}

/// Whether the call still waits for its answer: its process has neither ended nor gone on.
fn is_waiting(listener: BorrowedFd<'_>, mut id: u64) -> bool {
    ask(listener, libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
}

fn respond(listener: BorrowedFd<'_>, id: u64, verdict: Verdict) {
    let mut response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: match verdict {
            Verdict::Failed(errno) => -errno.raw_os_error(),
            Verdict::Continue | Verdict::Done => 0,
        },
        flags: match verdict {
            Verdict::Continue => u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or_default(),
            Verdict::Done | Verdict::Failed(_) => 0,
        },
    };
    // Nobody waits any more if that fails.
    drop(ask(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &mut response));
}

fn ask<T>(listener: BorrowedFd<'_>, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    #[expect(unsafe_code, reason = "neither nix nor rustix wraps a filter's requests")]
    // SAFETY: each request is called here with the type that its number names, which the kernel reads and fills
    // while the exclusive reference lives; it keeps no pointer to it.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Tries all of it once, in a thread of this process: no error if Pods can have their own ports here.
pub(crate) fn attempt() -> io::Result<()> {
    use std::{
        net::TcpListener,
        time::{Duration, Instant},
    };

    const PATIENCE: Duration = Duration::from_secs(2);

    let address = Ipv4Addr::new(127, 15, 255, 254);
    let free = TcpListener::bind((address, 0))?.local_addr()?.port();
    let mut mediation = Mediation::new(address)?;
    let inside = mediation.inside.try_clone()?;
    // The filter is over this thread alone, and goes with it.
    let tried = std::thread::spawn(move || -> io::Result<bool> {
        filter::hand_over(&inside);
        let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, free))?;
        Ok(bound.local_addr()?.ip() == IpAddr::V4(address))
    });
    let until = Instant::now() + PATIENCE;
    while !tried.is_finished() && mediation.refusal.is_none() && Instant::now() < until {
        let soon = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        let mut polled = [rustix::event::PollFd::new(
            &mediation,
            rustix::event::PollFlags::IN,
        )];
        let _ = rustix::event::poll(&mut polled, Some(&soon));
        mediation.serve();
    }
    let refusal = mediation.take_refusal();
    // Whatever the thread still waits for fails now.
    drop(mediation);
    let moved = tried
        .join()
        .map_err(|_| io::Error::other("the attempt was cut off"))?;
    match (refusal, moved?) {
        (Some(error), _) => Err(error),
        (None, true) => Ok(()),
        (None, false) => Err(io::Error::other(
            "a server's address cannot be changed from outside",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(address: SocketAddr) -> ([u8; 28], usize) {
        let mut bytes = [0; 28];
        let family = match address {
            SocketAddr::V4(_) => libc::AF_INET as u16,
            SocketAddr::V6(_) => libc::AF_INET6 as u16,
        };
        bytes[..2].copy_from_slice(&family.to_ne_bytes());
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => bytes[4..8].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes[8..24].copy_from_slice(&ip.octets()),
        }
        (bytes, if address.is_ipv4() { 16 } else { 28 })
    }

    fn name(text: &str) -> Name {
        let (bytes, length) = bytes(text.parse().unwrap());
        Name::parse(1000, bytes, length).unwrap()
    }

    #[test]
    fn addresses_are_read_and_changed_where_they_stand() {
        for (from, to, expected) in [
            ("127.0.0.1:80", "127.20.64.9:61080", "127.20.64.9:61080"),
            ("[::1]:8080", "127.20.64.9:8080", "[::ffff:127.20.64.9]:8080"),
        ] {
            let read = name(from);
            assert_eq!(read.address.to_string(), from);
            let (mut bytes, length) = bytes(read.address);
            let (pointer, changed) = read.changed(to.parse().unwrap());
            let at = usize::try_from(pointer - 1000).unwrap();
            bytes[at..at + changed.len()].copy_from_slice(&changed);
            let now = Name::parse(0, bytes, length).unwrap();
            assert_eq!(now.address.to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_internet_address_or_cut_short_is_left_alone() {
        let (bytes, _) = bytes("[::1]:8080".parse().unwrap());
        assert!(Name::parse(0, bytes, 23).is_none());
        assert!(Name::parse(0, [1; 28], 28).is_none());
    }

    #[test]
    fn only_what_means_this_machine_or_a_service_is_looked_into() {
        let mediator = Mediator::new(Ipv4Addr::new(127, 20, 64, 9));
        let check = |text: &str, bind, connect| {
            let address = text.parse().unwrap();
            assert_eq!(mediator.concerns_bind(address), bind, "bind {text}");
            assert_eq!(mediator.concerns_connect(address), connect, "connect {text}");
        };
        check("0.0.0.0:80", true, true);
        check("[::]:80", true, true);
        check("[::ffff:0.0.0.0]:80", true, true);
        check("127.0.0.1:8080", true, true);
        check("[::1]:8080", true, true);
        check("0.0.0.0:0", false, false);
        check("127.20.64.9:80", true, true);
        check("127.20.64.9:8080", true, false);
        check("127.20.0.7:80", false, true);
        check("127.20.0.7:8080", false, false);
        check("127.21.0.7:80", false, false);
        check("127.0.0.53:53", false, false);
        check("10.0.0.1:80", false, false);
        check("[2001:db8::1]:80", false, false);
    }

    #[test]
    fn the_attempt_says_whether_it_works_here() {
        // What the kernel, or a container around us, does not allow is no failure.
        match attempt() {
            Ok(()) => {}
            Err(error) => eprintln!("LEFT OUT: {error}"),
        }
    }
}
