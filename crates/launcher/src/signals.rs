//! The signals that ask a task to stop, as events among others.

use std::{
    io,
    process::ExitStatus,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use signal_hook::{consts, iterator::Signals};

/// What can happen while the launcher waits.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody asks the task to stop.
    Stop(Signal),
    /// The command ended.
    Ended(io::Result<ExitStatus>),
    /// One of the command's streams ended.
    Drained,
    /// What was fetched or sent is where it should be, or cannot be.
    Transferred,
}

/// Where events arrive.
#[derive(Debug)]
pub(crate) struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    stopped: Option<Signal>,
}

impl Events {
    /// From now on, signals that would end this process are events instead.
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let mut signals = Signals::new([consts::SIGTERM, consts::SIGINT, consts::SIGHUP])?;
        let forward = sender.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for number in signals.forever() {
                if let Ok(signal) = Signal::try_from(number) {
                    // The receiver lives as long as the process.
                    let _ = forward.send(Event::Stop(signal));
                }
            }
        })?;
        Ok(Self {
            sender,
            receiver,
            stopped: None,
        })
    }

    /// A place to put events from other threads.
    pub(crate) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// The next event; `None` when `limit` passes first.
    pub(crate) fn next(&mut self, limit: Option<Duration>) -> Option<Event> {
        let event = match limit {
            Some(limit) => match self.receiver.recv_timeout(limit) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            },
            None => self.receiver.recv().ok()?,
        };
        if let Event::Stop(signal) = event {
            self.stopped = Some(signal);
        }
        Some(event)
    }

    /// Waits, unless somebody asks the task to stop: then it says which signal did.
    pub(crate) fn wait(&mut self, time: Duration) -> Option<Signal> {
        let deadline = Instant::now() + time;
        while self.stopped.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            self.next(Some(left))?;
        }
        self.stopped
    }

    /// The signal that asked the task to stop, if one has been seen.
    pub(crate) const fn stopped(&self) -> Option<Signal> {
        self.stopped
    }
}
