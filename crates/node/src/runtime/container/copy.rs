//! The engine's log of a container, copied into the run's own.
//!
//! The engine keeps every line with its time until the container is removed. A copy that was cut off goes on at the last
//! time that the run's log holds, and leaves out as many lines of that time as are there: Podman's times are whole
//! seconds.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
};

use bollard::{container::LogOutput, query_parameters::LogsOptions};
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;

use super::engine::Engine;
use crate::runtime::{
    log_writer::{Log, Stream},
    run_dir::RunDir,
};

/// The most messages that are written at once.
const BATCH: usize = 256;

/// What ends a copy before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The engine gives nothing more.
    #[error("the engine's log cannot be read")]
    Engine(#[from] bollard::errors::Error),
    /// The run's log takes nothing more.
    #[error("the log cannot be written")]
    Write(#[from] io::Error),
}

/// A log that is being written.
struct Writer {
    log: Log,
    stdout: Stream,
    stderr: Stream,
    /// What is there already, as far as it may come again.
    known: Known,
    /// The time of what was taken last.
    last: Timestamp,
}

/// The lines of a log that have the time of its last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    time: Option<Timestamp>,
    stdout: u64,
    stderr: u64,
}

impl Writer {
    fn open(dir: &RunDir, limit: u64) -> io::Result<Self> {
        Ok(Self {
            known: Known::of(dir)?,
            log: Log::open(dir.clone(), limit)?,
            stdout: Stream::stdout(),
            stderr: Stream::stderr(),
            last: Timestamp::UNIX_EPOCH,
        })
    }

    fn take(&mut self, output: LogOutput) -> io::Result<()> {
        let is_error = matches!(output, LogOutput::StdErr { .. });
        let message = output.into_bytes();
        let (time, text) = parse(&message).unwrap_or((self.last, &message));
        if self.known.has(time, is_error, text.ends_with(b"\n")) {
            return Ok(());
        }
        self.last = time;
        let stream = if is_error {
            &mut self.stderr
        } else {
            &mut self.stdout
        };
        stream.take(text, time, &mut self.log)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stdout.finish(self.last, &mut self.log)?;
        self.stderr.finish(self.last, &mut self.log)
    }
}

/// How much of a log is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// What comes, for as long as the container runs. Engines may stop a little early, or not at all.
    Ended,
    /// What is there; nothing more will come.
    Now,
}

/// Copies what the run's log does not hold yet.
pub(crate) async fn copy(
    engine: &Engine,
    id: &str,
    dir: &RunDir,
    limit: u64,
    until: Until,
) -> Result<(), Error> {
    let own = dir.clone();
    let mut writer = blocking(move || Writer::open(&own, limit)).await?;
    let options = LogsOptions {
        follow: until == Until::Ended,
        stdout: true,
        stderr: true,
        // In whole seconds, which an engine may leave out themselves.
        since: writer
            .known
            .time
            .and_then(|time| i32::try_from(time.as_second() - 1).ok())
            .unwrap_or_default(),
        timestamps: true,
        tail: "all".to_owned(),
        ..LogsOptions::default()
    };
    let mut messages = engine.docker.logs(id, Some(options)).ready_chunks(BATCH);
    while let Some(batch) = messages.next().await {
        let (mut taken, mut cut) = (Vec::with_capacity(batch.len()), None);
        for message in batch {
            match message {
                Ok(message) => taken.push(message),
                Err(error) => cut = Some(error),
            }
        }
        writer = blocking(move || {
            for output in taken {
                writer.take(output)?;
            }
            Ok(writer)
        })
        .await?;
        if let Some(error) = cut {
            return Err(error.into());
        }
    }
    if until == Until::Now {
        blocking(move || writer.finish()).await?;
    }
    Ok(())
}

/// The time in front of a message of the engine, and what follows.
fn parse(message: &Bytes) -> Option<(Timestamp, &[u8])> {
    let at = message.iter().position(|&byte| byte == b' ')?;
    let time = std::str::from_utf8(&message[..at]).ok()?.parse().ok()?;
    Some((time, &message[at + 1..]))
}

impl Known {
    fn of(dir: &RunDir) -> io::Result<Self> {
        let mut known = Self::default();
        let older = dir.older_logs().last().map(|number| dir.older_log(*number));
        for path in older.into_iter().chain([dir.log()]) {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for record in BufReader::new(file).split(b'\n') {
                known.count(&record?);
            }
        }
        Ok(known)
    }

    /// Takes a record: `<time> <stdout|stderr> <F|P> <text>`.
    fn count(&mut self, record: &[u8]) {
        let mut words = record.splitn(4, |&byte| byte == b' ');
        let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok());
        let Some((time, stream, tag)) = (|| Some((word()?.parse().ok()?, word()?, word()?)))() else {
            return;
        };
        if self.time.is_none_or(|last| time > last) {
            *self = Self {
                time: Some(time),
                ..Self::default()
            };
        }
        if self.time != Some(time) {
            // Engines may tell two streams' lines a little out of order.
            return;
        }
        match (tag, stream) {
            ("F", "stdout") => self.stdout += 1,
            ("F", _) => self.stderr += 1,
            _ => {}
        }
    }

    /// Whether a message is there already. It ends a line or does not.
    fn has(&mut self, time: Timestamp, is_error: bool, ends_line: bool) -> bool {
        let Some(last) = self.time else { return false };
        if time != last {
            return time < last;
        }
        let left = if is_error {
            &mut self.stderr
        } else {
            &mut self.stdout
        };
        let is_there = *left > 0;
        *left -= u64::from(is_there && ends_line);
        is_there
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &str) -> LogOutput {
        LogOutput::StdOut {
            message: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    /// What the log holds after `messages` came, were cut off after `cut`, and came again.
    fn copied(messages: &[LogOutput], cut: usize) -> String {
        let folder = tempfile::tempdir().unwrap();
        let dir = RunDir(folder.path().to_path_buf());
        for count in [cut, messages.len()] {
            let mut writer = Writer::open(&dir, 1 << 20).unwrap();
            for message in &messages[..count] {
                writer.take(message.clone()).unwrap();
            }
            if count == messages.len() {
                writer.finish().unwrap();
            }
        }
        std::fs::read_to_string(dir.log()).unwrap()
    }

    #[test]
    fn what_is_there_is_counted_at_its_last_time_only() {
        let mut known = Known::default();
        for record in [
            "2026-01-01T00:00:02Z stdout F two",
            "2026-01-01T00:00:01Z stdout F late",
            "2026-01-01T00:00:02Z stderr P part",
        ] {
            known.count(record.as_bytes());
        }
        assert_eq!((known.stdout, known.stderr), (1, 0));
    }

    fn err(text: &str) -> LogOutput {
        LogOutput::StdErr {
            message: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    #[test]
    fn a_copy_that_was_cut_off_anywhere_goes_on_where_it_stopped() {
        let messages = [
            out("2026-01-01T00:00:01.000000001Z one\n"),
            out("2026-01-01T00:00:02Z tw"),
            out("2026-01-01T00:00:02Z o\n"),
            err("2026-01-01T00:00:02Z same\n"),
            out("2026-01-01T00:00:02Z same\n"),
            out("2026-01-01T00:00:02Z same\n"),
            err("2026-01-01T02:00:03.5+02:00 four\n"),
            out("2026-01-01T00:00:03.500000000Z no end"),
        ];
        let expected = "2026-01-01T00:00:01.000000001Z stdout F one\n\
                        2026-01-01T00:00:02.000000000Z stdout F two\n\
                        2026-01-01T00:00:02.000000000Z stderr F same\n\
                        2026-01-01T00:00:02.000000000Z stdout F same\n\
                        2026-01-01T00:00:02.000000000Z stdout F same\n\
                        2026-01-01T00:00:03.500000000Z stderr F four\n\
                        2026-01-01T00:00:03.500000000Z stdout P no end\n";
        for cut in 0..messages.len() {
            assert_eq!(copied(&messages, cut), expected, "cut after {cut}");
        }
    }
}
