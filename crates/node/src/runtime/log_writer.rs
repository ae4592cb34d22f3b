//! A container's output, written down as the Container Runtime Interface prescribes.
//!
//! `<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P> <text>`: `F` is a whole line, `P` a part of one, either
//! because it is very long or because the output ended without a newline.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};

use jiff::Timestamp;
use memchr::memchr;

use super::run_dir::{LOG_FILES, RunDir};

/// The longest text in one record, as in containerd.
const LONGEST: usize = 16 * 1024;

/// The file that is written to. When it has grown large it becomes an older part, and the oldest parts go.
#[derive(Debug)]
pub(crate) struct Log {
    dir: RunDir,
    file: File,
    written: u64,
    limit: u64,
    /// The number of the next part.
    next: u64,
}

impl Log {
    pub(crate) fn open(dir: RunDir, limit: u64) -> io::Result<Self> {
        let file = open(&dir)?;
        Ok(Self {
            written: file.metadata()?.len(),
            next: dir.older_logs().last().map_or(1, |last| last + 1),
            file,
            dir,
            limit,
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(self.dir.log(), self.dir.older_log(self.next))?;
        if let Some(oldest) = (self.next + 1)
            .checked_sub(LOG_FILES)
            .filter(|oldest| *oldest > 0)
        {
            let oldest = self.dir.older_log(oldest);
            // Before it goes: nothing goes that nobody is told of.
            let bytes = fs::metadata(&oldest).map_or(0, |metadata| metadata.len());
            let _ = self.dir.write_dropped(self.dir.dropped() + bytes);
            let _ = fs::remove_file(oldest);
        }
        self.next += 1;
        self.file = open(&self.dir)?;
        self.written = 0;
        Ok(())
    }
}

fn open(dir: &RunDir) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(dir.log())
}

/// Each call takes whole records: a part of the log ends with one.
impl Write for Log {
    fn write(&mut self, records: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(records.len()).unwrap_or(u64::MAX);
        if self.written > 0 && self.written.saturating_add(length) > self.limit {
            self.rotate()?;
        }
        self.file.write_all(records)?;
        self.written += length;
        Ok(records.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// One of a container's two streams.
#[derive(Debug)]
pub(crate) struct Stream {
    name: &'static str,
    /// The beginning of a line whose end has not come.
    pending: Vec<u8>,
    /// What is being written; empty between two calls, and kept for its space.
    records: Vec<u8>,
}

impl Stream {
    pub(crate) const fn stdout() -> Self {
        Self::new("stdout")
    }

    pub(crate) const fn stderr() -> Self {
        Self::new("stderr")
    }

    const fn new(name: &'static str) -> Self {
        Self {
            name,
            pending: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Takes what came, and writes every line that is now complete, all of them at once.
    pub(crate) fn take(&mut self, bytes: &[u8], now: Timestamp, log: &mut impl Write) -> io::Result<()> {
        let stamp = Stamp::new(now, self.name);
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            if self.pending.is_empty() && line.len() <= LONGEST {
                stamp.write(b'F', line, &mut self.records);
            } else {
                self.extend(line, &stamp);
                self.flush(b'F', &stamp);
            }
            rest = &after[1..];
        }
        self.extend(rest, &stamp);
        self.write(log)
    }

    /// The stream is at its end: writes what has no newline.
    pub(crate) fn finish(&mut self, now: Timestamp, log: &mut impl Write) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.flush(b'P', &Stamp::new(now, self.name));
        }
        self.write(log)
    }

    fn extend(&mut self, mut bytes: &[u8], stamp: &Stamp) {
        while self.pending.len() + bytes.len() > LONGEST {
            let (part, after) = bytes.split_at(LONGEST - self.pending.len());
            self.pending.extend_from_slice(part);
            self.flush(b'P', stamp);
            bytes = after;
        }
        self.pending.extend_from_slice(bytes);
    }

    fn flush(&mut self, tag: u8, stamp: &Stamp) {
        stamp.write(tag, &self.pending, &mut self.records);
        self.pending.clear();
    }

    /// What cannot be written is lost: it is not tried again with what comes next.
    fn write(&mut self, log: &mut impl Write) -> io::Result<()> {
        let written = if self.records.is_empty() {
            Ok(())
        } else {
            log.write_all(&self.records)
        };
        self.records.clear();
        written
    }
}

/// What stands before the text of a record: made once for all that came together, for there may be millions of lines.
struct Stamp(Vec<u8>);

impl Stamp {
    fn new(now: Timestamp, stream: &str) -> Self {
        Self(format!("{now:.9} {stream} ").into_bytes())
    }

    fn write(&self, tag: u8, text: &[u8], records: &mut Vec<u8>) {
        records.extend_from_slice(&self.0);
        records.extend_from_slice(&[tag, b' ']);
        records.extend_from_slice(text);
        records.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&[u8]], expected: &str) {
        let now: Timestamp = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        let (mut stream, mut log) = (Stream::stdout(), Vec::new());
        for chunk in chunks {
            stream.take(chunk, now, &mut log).unwrap();
        }
        stream.finish(now, &mut log).unwrap();
        let expected = expected.replace('@', "2026-01-02T03:04:05.000000006Z stdout");
        assert_eq!(String::from_utf8(log).unwrap(), expected);
    }

    #[test]
    fn a_log_that_has_grown_large_is_set_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let dir = RunDir(folder.path().to_path_buf());
        let mut log = Log::open(dir.clone(), 8).unwrap();
        for text in ["aaaa", "bbbb", "cccc", "longer than the limit", "d", "e"] {
            log.write_all(text.as_bytes()).unwrap();
        }
        let read = |path| fs::read_to_string(path).unwrap();
        assert_eq!(dir.older_logs(), [1, 2, 3]);
        assert_eq!(dir.dropped(), 0);
        assert_eq!(read(dir.older_log(1)), "aaaabbbb");
        assert_eq!(read(dir.log()), "de");
        drop(log);
        let mut log = Log::open(dir.clone(), 1).unwrap();
        for text in ["f", "g"] {
            log.write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(dir.older_logs(), [2, 3, 4, 5]);
        assert_eq!(dir.dropped(), 8, "`aaaabbbb`");
        assert_eq!(
            (read(dir.older_log(5)), read(dir.log())),
            ("f".to_owned(), "g".to_owned())
        );
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        check(&[b"a\nb", b"c\n", b"\n"], "@ F a\n@ F bc\n@ F \n");
    }

    #[test]
    fn lines_that_come_together_are_written_at_once() {
        struct Counting(usize);
        impl Write for Counting {
            fn write(&mut self, records: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Ok(records.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut stream, mut log) = (Stream::stdout(), Counting(0));
        stream
            .take(&b"line\n".repeat(10_000), Timestamp::UNIX_EPOCH, &mut log)
            .unwrap();
        assert_eq!(log.0, 1);
        stream.take(b"no end", Timestamp::UNIX_EPOCH, &mut log).unwrap();
        assert_eq!(log.0, 1);
        stream.finish(Timestamp::UNIX_EPOCH, &mut log).unwrap();
        stream.finish(Timestamp::UNIX_EPOCH, &mut log).unwrap();
        assert_eq!(log.0, 2);
    }

    #[test]
    fn what_could_not_be_written_is_not_written_later() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut stream, mut log) = (Stream::stderr(), Vec::new());
        stream
            .take(b"lost\n", Timestamp::UNIX_EPOCH, &mut Full)
            .unwrap_err();
        stream.take(b"kept\n", Timestamp::UNIX_EPOCH, &mut log).unwrap();
        assert_eq!(log, b"1970-01-01T00:00:00.000000000Z stderr F kept\n");
    }

    #[test]
    fn an_ending_without_newline_is_a_part() {
        check(&[b"no newline"], "@ P no newline\n");
        check(&[], "");
    }

    #[test]
    fn a_very_long_line_is_cut_into_parts() {
        let long = vec![b'x'; LONGEST + 1];
        let part = "x".repeat(LONGEST);
        check(&[&long, b"\n"], &format!("@ P {part}\n@ F x\n"));
        check(&[&long[1..], b"\n"], &format!("@ F {part}\n"));
        check(
            &[&[&long[..], b"\ny\n"].concat()],
            &format!("@ P {part}\n@ F x\n@ F y\n"),
        );
    }
}
