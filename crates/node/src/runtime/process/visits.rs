//! Who came to a running container: commands that were entered into it, and those who watch its main process.
//!
//! Part of the helper, which has one thread: nothing here blocks. Who watches and does not read holds the container's
//! output up for a while, as a terminal would, and is then left behind.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    poll::PollFlags,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};

use super::{
    control::{self, Answer, Request},
    enter,
    init::{Stdio, not_ready},
    spec::Spec,
};
use crate::runtime::run_dir::{Failure, RunDir};

/// How long the output waits for somebody who does not read.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many may be there at once.
const MOST: usize = 256;

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Somebody comes.
    Listener,
    /// Somebody who came says something, or went.
    Guest(usize),
    /// Somebody who watches can take more.
    Pipe(usize),
}

/// Which of the main process's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Its output, or its terminal's.
    Output = 0,
    Errors = 1,
}

/// The main process's input, as far as it has one.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// What leads to it: a pipe, or its terminal.
    pub(crate) fd: Option<OwnedFd>,
    /// It is a terminal.
    pub(crate) is_terminal: bool,
}

/// Where somebody comes to.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) spec: &'a Spec,
    /// The container's first process, once its command runs.
    pub(crate) first: Option<Pid>,
    pub(crate) input: &'a Input,
    /// Where commands hand over their filters.
    pub(crate) mediation: Option<BorrowedFd<'a>>,
}

#[derive(Debug)]
struct Guest {
    peer: OwnedFd,
    does: Does,
    is_gone: bool,
}

#[derive(Debug)]
enum Does {
    /// It has not said yet.
    Nothing,
    /// It waits for a command to end.
    Entered(Pid),
    /// It watches.
    Watches(Watching),
}

#[derive(Debug)]
struct Watching {
    pipes: [Option<File>; 2],
    /// What one of the pipes did not take yet.
    pending: Option<(Which, Vec<u8>)>,
    stuck_since: Instant,
    has_input: bool,
    /// It will write no more, although it still watches.
    has_ended_input: bool,
}

/// Everybody who came.
#[derive(Debug)]
pub(crate) struct Visits {
    listener: Option<OwnedFd>,
    guests: Vec<Guest>,
    /// Commands whose guest went, to be reaped.
    left: Vec<Pid>,
}

impl Visits {
    /// Nobody can come where no socket can be made; the container runs all the same.
    pub(crate) fn open(dir: &RunDir) -> io::Result<Self> {
        Ok(Self {
            listener: Some(control::listen(dir)?),
            ..Self::closed()
        })
    }

    pub(crate) const fn closed() -> Self {
        Self {
            listener: None,
            guests: Vec::new(),
            left: Vec::new(),
        }
    }

    /// What to wait for.
    pub(crate) fn polled(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>, PollFlags)> {
        let listener = self.listener.as_ref().filter(|_| self.guests.len() < MOST);
        let listener = listener.map(|fd| (Ready::Listener, fd.as_fd(), PollFlags::POLLIN));
        let guests = self.guests.iter().enumerate().flat_map(|(index, guest)| {
            let peer = (Ready::Guest(index), guest.peer.as_fd(), PollFlags::POLLIN);
            let pipe = guest.full_pipe();
            let pipe = pipe.map(|pipe| (Ready::Pipe(index), pipe.as_fd(), PollFlags::POLLOUT));
            std::iter::once(peer).chain(pipe)
        });
        listener.into_iter().chain(guests)
    }

    /// How long to wait for those who do not read; `None` if everybody has taken everything.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let waits = self.guests.iter().filter_map(|guest| match &guest.does {
            Does::Watches(watching) if watching.pending.is_some() => {
                Some(PATIENCE.saturating_sub(watching.stuck_since.elapsed()))
            }
            _ => None,
        });
        waits.min()
    }

    /// Something is ready. Indices hold until [`Self::see_off`].
    pub(crate) fn handle(&mut self, ready: Ready, place: Place<'_>) {
        match ready {
            Ready::Listener => {
                let peer = self.listener.as_ref().and_then(control::accept);
                self.guests.extend(peer.map(|peer| Guest {
                    peer,
                    does: Does::Nothing,
                    is_gone: false,
                }));
            }
            Ready::Guest(index) => {
                if let Some(guest) = self.guests.get_mut(index) {
                    guest.hear(place);
                }
            }
            Ready::Pipe(index) => {
                if let Some(Does::Watches(watching)) = self.guests.get_mut(index).map(|guest| &mut guest.does)
                {
                    watching.flush();
                }
            }
        }
    }

    /// What the main process wrote goes to all who watch.
    pub(crate) fn show(&mut self, which: Which, bytes: &[u8]) {
        for guest in &mut self.guests {
            if let Does::Watches(watching) = &mut guest.does {
                watching.pending = Some((which, bytes.to_vec()));
                watching.stuck_since = Instant::now();
                watching.flush();
            }
        }
    }

    /// One of the main process's streams is at its end.
    pub(crate) fn finish(&mut self, which: Which) {
        for guest in &mut self.guests {
            if let Does::Watches(watching) = &mut guest.does {
                watching.pipes[which as usize] = None;
            }
        }
    }

    /// Whether a process is a command that was entered.
    pub(crate) fn knows(&self, pid: Pid) -> bool {
        let entered = |guest: &Guest| matches!(guest.does, Does::Entered(own) if own == pid);
        self.left.contains(&pid) || self.guests.iter().any(entered)
    }

    /// Tells those who wait for a command that has ended.
    pub(crate) fn reap(&mut self) {
        self.left.retain(|pid| reaped(*pid, true).is_none());
        for guest in &mut self.guests {
            if let Does::Entered(pid) = guest.does
                && let Some(code) = reaped(pid, true)
            {
                guest.tell(code);
            }
        }
    }

    /// Ends every command that was entered: the container is over.
    pub(crate) fn end(&mut self) {
        for guest in &mut self.guests {
            if let Does::Entered(pid) = guest.does {
                enter::end_session(pid);
                guest.tell(reaped(pid, false).unwrap_or(KILLED));
            }
        }
        for pid in self.left.drain(..) {
            enter::end_session(pid);
            let _ = reaped(pid, false);
        }
    }

    /// Forgets who went, ends what they started, and leaves those behind who have not read for too long. `true` when
    /// one who wrote to the main process went, or will write no more.
    pub(crate) fn see_off(&mut self) -> bool {
        let mut has_input_ended = self
            .guests
            .iter()
            .any(|guest| matches!(&guest.does, Does::Watches(watching) if watching.has_ended_input));
        let left = &mut self.left;
        self.guests.retain(|guest| {
            let is_stuck = matches!(&guest.does, Does::Watches(watching) if watching.is_lost());
            if !guest.is_gone && !is_stuck {
                return true;
            }
            match &guest.does {
                Does::Nothing => {}
                Does::Entered(pid) => {
                    enter::end_session(*pid);
                    left.push(*pid);
                }
                Does::Watches(watching) => has_input_ended |= watching.has_input,
            }
            false
        });
        // What was ended just now may be gone already, and its signal with it.
        self.left.retain(|pid| reaped(*pid, true).is_none());
        has_input_ended
    }
}

/// What a command's end by SIGKILL is in a shell.
const KILLED: i32 = 137;

/// How a process ended, if it has; waits for that if it may.
fn reaped(pid: Pid, is_hasty: bool) -> Option<i32> {
    let flags = is_hasty.then_some(WaitPidFlag::WNOHANG);
    match waitpid(pid, flags) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        Ok(_) => None,
        // Somebody else has seen it.
        Err(_) => Some(KILLED),
    }
}

impl Guest {
    fn full_pipe(&self) -> Option<&File> {
        let Does::Watches(watching) = &self.does else {
            return None;
        };
        let (which, _) = watching.pending.as_ref()?;
        watching.pipes[*which as usize].as_ref()
    }

    fn tell(&mut self, code: i32) {
        let _ = control::send(&self.peer, &Answer::Exited(code), &[]);
        self.does = Does::Nothing;
        self.is_gone = true;
    }

    fn hear(&mut self, place: Place<'_>) {
        let heard = match control::receive::<Request>(&self.peer) {
            Ok(Some((request, with))) if matches!(self.does, Does::Nothing) => {
                self.begin(request, with, place)
            }
            Ok(Some((request, _))) => {
                if let (Does::Watches(watching), Request::EndInput) = (&mut self.does, request) {
                    watching.has_ended_input = watching.has_input;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Ok(None) | Err(_) => {
                self.is_gone = true;
                Ok(())
            }
        };
        if let Err(failure) = heard {
            let _ = control::send(&self.peer, &Answer::Failed(failure), &[]);
            self.is_gone = true;
        }
    }

    fn begin(&mut self, request: Request, with: Vec<OwnedFd>, place: Place<'_>) -> Result<(), Failure> {
        let unfit = || not_ready("the request holds other descriptors than it should".to_owned());
        let first = place
            .first
            .ok_or_else(|| not_ready("the container does not run".to_owned()))?;
        match request {
            Request::EndInput => return Err(unfit()),
            Request::Enter { command, tty } => {
                let stdio = if tty {
                    let to = self.peer.try_clone();
                    let to = to.map_err(|error| not_ready(format!("cannot share a socket: {error}")))?;
                    Stdio::Terminal { to }
                } else {
                    let [stdin, stdout, stderr] = with.try_into().map_err(|_| unfit())?;
                    Stdio::Files {
                        stdin: Some(stdin),
                        stdout,
                        stderr,
                    }
                };
                let pid = enter::begin(place.spec, first, command, stdio, place.mediation, &self.peer)
                    .map_err(|errno| not_ready(format!("cannot fork: {}", errno.desc())))?;
                self.does = Does::Entered(pid);
            }
            Request::Attach { stdin } => {
                let pipes: [OwnedFd; 2] = with.try_into().map_err(|_| unfit())?;
                for pipe in &pipes {
                    let _ = rustix::io::ioctl_fionbio(pipe, true);
                }
                let input = place.input.fd.as_ref().filter(|_| stdin);
                let with: Vec<BorrowedFd<'_>> = input.map(AsFd::as_fd).into_iter().collect();
                let tty = place.input.is_terminal;
                control::send(&self.peer, &Answer::Attached { tty }, &with)
                    .map_err(|error| not_ready(format!("cannot answer: {error}")))?;
                self.does = Does::Watches(Watching {
                    pipes: pipes.map(|pipe| Some(File::from(pipe))),
                    pending: None,
                    stuck_since: Instant::now(),
                    has_input: input.is_some(),
                    has_ended_input: false,
                });
            }
        }
        Ok(())
    }
}

impl Watching {
    fn is_lost(&self) -> bool {
        self.pending.is_some() && self.stuck_since.elapsed() >= PATIENCE
    }

    /// Writes as much as is taken now.
    fn flush(&mut self) {
        let Some((which, bytes)) = &mut self.pending else {
            return;
        };
        let pipe = &mut self.pipes[*which as usize];
        while !bytes.is_empty() {
            let Some(file) = pipe else { break };
            match file.write(bytes) {
                Ok(count) => {
                    bytes.drain(..count);
                    self.stuck_since = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => *pipe = None,
            }
        }
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_and_does_not_read_is_waited_for_and_then_left_behind() {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let (peer, _node) = control::pair().unwrap();
        let watching = Watching {
            pipes: [Some(File::from(OwnedFd::from(writer))), None],
            pending: None,
            stuck_since: Instant::now(),
            has_input: true,
            has_ended_input: false,
        };
        let mut visits = Visits::closed();
        visits.guests.push(Guest {
            peer,
            does: Does::Watches(watching),
            is_gone: false,
        });
        visits.show(Which::Errors, b"nobody asked for these");
        assert_eq!(visits.patience(), None);
        visits.show(Which::Output, &vec![b'x'; 1 << 20]);
        assert!(visits.patience().is_some());
        assert!(visits.polled().any(|(ready, ..)| ready == Ready::Pipe(0)));
        assert!(!visits.see_off());
        let Does::Watches(watching) = &mut visits.guests[0].does else {
            unreachable!()
        };
        watching.stuck_since = Instant::now().checked_sub(PATIENCE).unwrap();
        assert!(visits.see_off());
        assert_eq!(visits.patience(), None);
        drop(reader);
    }
}
