//! The helper's one loop while a container runs: its output, its signals, and who comes to it.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, OwnedFd},
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        signalfd::SignalFd,
        wait::{Id, WaitPidFlag, waitid, waitpid},
    },
    unistd::Pid,
};

use super::{
    control::{self, Answer},
    enter,
    init::Report,
    mediate::Mediation,
    spec::Spec,
    visits::{self, Input, Place, Visits, Which},
};
use crate::runtime::log_writer::{Log, Stream};

/// The ends of a container's streams that its helper holds.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) stdout: Option<File>,
    pub(crate) stderr: Option<File>,
    pub(crate) report: Option<File>,
    /// Where the main process's terminal comes from, if it has one.
    pub(crate) console: Option<OwnedFd>,
}

/// A container at work, as its helper sees it.
pub(crate) struct Watch<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) first: Pid,
    pub(crate) signals: SignalFd,
    pub(crate) log: Log,
    pub(crate) visits: Visits,
    /// Answers for the processes' servers and connections, where they have an address of their own.
    pub(crate) mediation: Option<Mediation>,
    pub(crate) input: Input,
    /// The command runs.
    pub(crate) has_started: bool,
    /// It was asked to end.
    pub(crate) stopped: bool,
    /// It was ended.
    pub(crate) killed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Signals,
    Stdout,
    Stderr,
    Report,
    Console,
    Visit(visits::Ready),
    Mediation,
}

impl Watch<'_> {
    /// Keeps the log and passes signals on until no process holds the container's streams any more.
    pub(crate) fn until_gone(&mut self, mut ends: Ends) -> io::Result<Vec<Report>> {
        let (mut output, mut errors) = (Stream::stdout(), Stream::stderr());
        let mut reports = Vec::new();
        let mut unread = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while ends.stdout.is_some() || ends.stderr.is_some() || ends.report.is_some() {
            for ready in self.wait(&ends)? {
                let now = Timestamp::now();
                if matches!(ready, Ready::Stdout | Ready::Stderr) && self.visits.patience().is_some() {
                    // Somebody has not taken yet what the other stream held.
                    continue;
                }
                match ready {
                    Ready::Signals => self.take_signals(),
                    // A full disk must not stop the container, so what cannot be logged is lost.
                    Ready::Stdout => match take(&mut ends.stdout, &mut buffer) {
                        Some(bytes) => {
                            drop(output.take(bytes, now, &mut self.log));
                            self.visits.show(Which::Output, bytes);
                        }
                        None => {
                            drop(output.finish(now, &mut self.log));
                            self.visits.finish(Which::Output);
                        }
                    },
                    Ready::Stderr => match take(&mut ends.stderr, &mut buffer) {
                        Some(bytes) => {
                            drop(errors.take(bytes, now, &mut self.log));
                            self.visits.show(Which::Errors, bytes);
                        }
                        None => {
                            drop(errors.finish(now, &mut self.log));
                            self.visits.finish(Which::Errors);
                        }
                    },
                    Ready::Report => {
                        unread.extend_from_slice(take(&mut ends.report, &mut buffer).unwrap_or_default());
                        while let Some(end) = unread.iter().position(|&byte| byte == b'\n') {
                            let line: Vec<u8> = unread.drain(..=end).collect();
                            let read: Option<Report> = serde_json::from_slice(&line).ok();
                            if read == Some(Report::Started) {
                                self.has_started = true;
                                announce();
                            }
                            reports.extend(read);
                        }
                    }
                    Ready::Mediation => self.mediate(),
                    Ready::Console => self.connect_terminal(&mut ends),
                    Ready::Visit(ready) => {
                        let place = Place {
                            spec: self.spec,
                            first: self.has_started.then_some(self.first),
                            input: &self.input,
                            mediation: self.mediation.as_ref().map(Mediation::inside),
                        };
                        self.visits.handle(ready, place);
                    }
                }
            }
            let has_input_ended = self.visits.see_off();
            if has_input_ended && self.spec.stdin_once && !self.input.is_terminal {
                self.input.fd = None;
            }
        }
        self.visits.end();
        Ok(reports)
    }

    fn wait(&self, ends: &Ends) -> io::Result<Vec<Ready>> {
        let patience = self.visits.patience();
        // Somebody who watches has not taken everything: no more is read until then.
        let has_room = patience.is_none();
        let own = [
            (Ready::Signals, Some(self.signals.as_fd())),
            (
                Ready::Stdout,
                ends.stdout.as_ref().filter(|_| has_room).map(AsFd::as_fd),
            ),
            (
                Ready::Stderr,
                ends.stderr.as_ref().filter(|_| has_room).map(AsFd::as_fd),
            ),
            (Ready::Report, ends.report.as_ref().map(AsFd::as_fd)),
            (Ready::Mediation, self.mediation.as_ref().map(AsFd::as_fd)),
            (Ready::Console, ends.console.as_ref().map(AsFd::as_fd)),
        ];
        let own = own
            .into_iter()
            .filter_map(|(ready, fd)| Some((ready, fd?, PollFlags::POLLIN)));
        let visits = self.visits.polled();
        let visits = visits.map(|(ready, fd, flags)| (Ready::Visit(ready), fd, flags));
        let (what, mut polled): (Vec<Ready>, Vec<PollFd<'_>>) = own
            .chain(visits)
            .map(|(ready, fd, flags)| (ready, PollFd::new(fd, flags)))
            .unzip();
        let timeout = patience.map_or(PollTimeout::NONE, |patience| {
            PollTimeout::try_from(patience.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut polled, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
        let results = polled.iter().map(|fd| fd.any().unwrap_or(false));
        let ready = what.into_iter().zip(results);
        Ok(ready
            .filter_map(|(what, is_ready)| is_ready.then_some(what))
            .collect())
    }

    #[expect(clippy::print_stderr, reason = "the helper's error stream is its log file")]
    fn mediate(&mut self) {
        let Some(mediation) = &mut self.mediation else {
            return;
        };
        mediation.serve();
        if let Some(error) = mediation.take_refusal() {
            eprintln!("a process shares this machine's ports: {error}");
        }
    }

    /// The main process has made its terminal, or never will.
    fn connect_terminal(&mut self, ends: &mut Ends) {
        let Some(console) = ends.console.take() else {
            return;
        };
        if let Ok(Some((Answer::Terminal, mut with))) = control::receive(&console)
            && let Some(terminal) = with.pop()
        {
            if self.spec.stdin {
                self.input.fd = terminal.try_clone().ok();
            }
            self.input.is_terminal = true;
            ends.stdout = Some(File::from(terminal));
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(taken)) = self.signals.read_signal() {
            match i32::try_from(taken.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGCHLD)) => {
                    self.visits.reap();
                    if self.spec.mode.sandbox().is_none() {
                        self.reap_orphans();
                    }
                }
                Err(_) | Ok(Err(_)) => {}
                Ok(Ok(Signal::SIGUSR1)) => {
                    (self.stopped, self.killed) = (true, true);
                    let _ = kill(self.first, Signal::SIGKILL);
                    // The first process of a namespace is gone only when all in it are reaped.
                    self.visits.end();
                    // Without a PID namespace what is left below is now ours.
                    end_orphans(self.first);
                }
                Ok(Ok(signal)) => {
                    self.stopped |= signal == Signal::SIGTERM;
                    let _ = kill(self.first, signal);
                }
            }
        }
    }
}

impl Watch<'_> {
    /// Without a PID namespace, what entered commands leave behind falls to us.
    fn reap_orphans(&self) {
        for pid in enter::children(Pid::this()) {
            if pid != self.first && !self.visits.knows(pid) {
                let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            }
        }
    }
}

/// Tells the node, which may be gone, that the command runs: one byte on our standard output.
fn announce() {
    let mut output = io::stdout();
    let _ = output.write_all(b"s").and_then(|()| output.flush());
}

/// Ends processes that fell to us because the first process is dying, so that they let go of the streams. The
/// first process itself is left for the caller to wait for.
fn end_orphans(first: Pid) {
    // Its end comes first: only then is everything below it handed to us.
    let _ = waitid(Id::Pid(first), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    let me = Pid::this();
    loop {
        let mut others = enter::children(me)
            .into_iter()
            .filter(|pid| *pid != first)
            .peekable();
        if others.peek().is_none() {
            return;
        }
        for pid in others {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

/// Reads once; `None` when the end was reached, and the file is closed.
fn take<'b>(file: &mut Option<File>, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    match file.as_mut()?.read(buffer) {
        Ok(0) => {
            *file = None;
            None
        }
        Ok(count) => Some(&buffer[..count]),
        // Who attached to a terminal makes it one that does not wait.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
            ) =>
        {
            Some(&[])
        }
        // A terminal that nobody holds any more is an error to read.
        Err(_) => {
            *file = None;
            None
        }
    }
}
