//! A container's output, written down as the Container Runtime Interface prescribes.
//!
//! `<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P> <text>`: `F` is a whole line, `P` a part of one, either
//! because it is very long or because the output ended without a newline.

use std::io::{self, Write};

use jiff::Timestamp;

/// The longest text in one record, as in containerd.
const LONGEST: usize = 16 * 1024;

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
