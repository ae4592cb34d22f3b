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
    pending: Vec<u8>,
}

impl Stream {
    pub(crate) const fn stdout() -> Self {
        Self {
            name: "stdout",
            pending: Vec::new(),
        }
    }

    pub(crate) const fn stderr() -> Self {
        Self {
            name: "stderr",
            pending: Vec::new(),
        }
    }

    /// Takes what came, and writes every line that is now complete.
    pub(crate) fn take(&mut self, bytes: &[u8], now: Timestamp, log: &mut impl Write) -> io::Result<()> {
        let mut records = Vec::with_capacity(bytes.len() + 64);
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.extend(line, now, &mut records);
            self.flush('F', now, &mut records);
            rest = &after[1..];
        }
        self.extend(rest, now, &mut records);
        if records.is_empty() {
            Ok(())
        } else {
            log.write_all(&records)
        }
    }

    /// The stream is at its end: writes what has no newline.
    pub(crate) fn finish(&mut self, now: Timestamp, log: &mut impl Write) -> io::Result<()> {
        let mut records = Vec::new();
        if !self.pending.is_empty() {
            self.flush('P', now, &mut records);
        }
        log.write_all(&records)
    }

    fn extend(&mut self, mut bytes: &[u8], now: Timestamp, records: &mut Vec<u8>) {
        while self.pending.len() + bytes.len() > LONGEST {
            let (part, after) = bytes.split_at(LONGEST - self.pending.len());
            self.pending.extend_from_slice(part);
            self.flush('P', now, records);
            bytes = after;
        }
        self.pending.extend_from_slice(bytes);
    }

    fn flush(&mut self, tag: char, now: Timestamp, records: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        let _ = write!(records, "{now:.9} {} {tag} ", self.name);
        records.append(&mut self.pending);
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
    fn an_ending_without_newline_is_a_part() {
        check(&[b"no newline"], "@ P no newline\n");
        check(&[], "");
    }

    #[test]
    fn a_very_long_line_is_cut_into_parts() {
        let long = vec![b'x'; LONGEST + 1];
        let part = "x".repeat(LONGEST);
        check(&[&long, b"\n"], &format!("@ P {part}\n@ F x\n"));
    }
}
