//! The command's output: one copy for whoever watches this process, one file that is kept, and
//! the last lines in memory for the failure's message.
//!
//! Bytes are passed on as they come, whatever their encoding.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use memchr::{memchr, memrchr_iter};
use nix::errno::Errno;

/// How much of the command's output is kept.
const KEPT: u64 = 1 << 30;

/// Which of the command's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Takes output from several threads.
#[derive(Debug)]
pub(crate) struct Log {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Absent until the place for it is known, and after it could not be written.
    file: Option<File>,
    tail: Tail,
    /// Bytes of the command's output so far.
    written: u64,
    /// Of them, those that may be kept.
    most: u64,
    /// And those that were not.
    dropped: u64,
    /// Whose line has no end yet in the file.
    open: Option<Stream>,
    /// Of each stream, whether the other cut its last line off.
    cut: [bool; 2],
}

impl Log {
    pub(crate) const fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                file: None,
                tail: Tail::new(),
                written: 0,
                most: KEPT,
                dropped: 0,
                open: None,
                cut: [false; 2],
            }),
        }
    }

    /// From now on, output is kept in `file` too.
    pub(crate) fn keep(&self, file: File) {
        self.lock().file = Some(file);
    }

    /// Output of the command.
    pub(crate) fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.pass_on(stream, bytes);
        inner.tail.push(stream, bytes);
        inner.written += bytes.len() as u64;
    }

    /// No more output comes: of what was too much to be kept, the last lines are.
    pub(crate) fn close(&self) {
        self.lock().close();
    }

    /// How much the command has written so far.
    pub(crate) fn written(&self) -> u64 {
        self.lock().written
    }

    /// A line of the launcher's own.
    pub(crate) fn say(&self, line: &str) {
        self.lock()
            .pass_on(Stream::Err, format!("coracle: {line}\n").as_bytes());
    }

    /// What went wrong, as the output tells it.
    pub(crate) fn story(&self) -> Story {
        self.lock().tail.story()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn pass_on(&mut self, stream: Stream, bytes: &[u8]) {
        // Whoever watches may have gone: that is no reason to stop the command.
        let _ = match stream {
            Stream::Out => write_at_once(bytes),
            Stream::Err => io::stderr().lock().write_all(bytes),
        };
        if self.written < self.most {
            self.mix(stream, bytes);
        } else {
            self.dropped += bytes.len() as u64;
        }
    }

    /// Keeps what a stream says so that no line begins inside one of the other's: Python writes a line's end by itself
    /// where its output is not buffered, so one that is cut off is mostly whole, and then its own end is left out.
    fn mix(&mut self, stream: Stream, bytes: &[u8]) {
        let was_cut = std::mem::take(&mut self.cut[stream as usize]);
        let bytes = match bytes {
            [b'\n', rest @ ..] if was_cut => rest,
            all => all,
        };
        let Some(last) = bytes.last() else { return };
        if let Some(other) = self.open.filter(|open| *open != stream) {
            self.cut[other as usize] = true;
            self.keep(b"\n");
        }
        self.keep(bytes);
        self.open = (*last != b'\n').then_some(stream);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            self.file = None;
            let _ = writeln!(io::stderr(), "coracle: the log is not kept from here on: {error}");
        }
    }

    fn close(&mut self) {
        if self.dropped == 0 {
            return;
        }
        let mut text = format!(
            "\ncoracle: {} bytes are missing here: of a task's output the first {} MiB are kept, and the last lines\n",
            std::mem::take(&mut self.dropped),
            self.most >> 20,
        );
        for line in self.tail.story().lines {
            text.push_str(&line);
            text.push('\n');
        }
        self.keep(text.as_bytes());
    }
}

/// Writes to the standard output as it comes; `io::Stdout` would cut it at the last line's end.
fn write_at_once(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(io::stdout(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What the last lines of an output say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Story {
    /// The line that names the error, as far as can be told.
    pub(crate) cause: Option<String>,
    /// The last lines, oldest first.
    pub(crate) lines: Vec<String>,
}

/// The last lines of both streams.
#[derive(Debug)]
struct Tail {
    lines: VecDeque<(Stream, Vec<u8>)>,
    /// What came after the last line's end, by stream.
    open: [Vec<u8>; 2],
}

impl Tail {
    const KEPT: usize = 100;
    const SHOWN: usize = 20;
    const LONGEST: usize = 1000;

    const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            open: [Vec::new(), Vec::new()],
        }
    }

    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let mut rest = bytes;
        // What is followed by so many lines is not looked at: a command may write millions of them a second.
        if let Some(end) = memrchr_iter(b'\n', bytes).nth(Self::KEPT) {
            self.open[stream as usize].clear();
            rest = &bytes[end + 1..];
        }
        while let Some(end) = memchr(b'\n', rest) {
            self.open(stream, &rest[..end]);
            self.close(stream);
            rest = &rest[end + 1..];
        }
        self.open(stream, rest);
    }

    fn open(&mut self, stream: Stream, bytes: &[u8]) {
        let open = &mut self.open[stream as usize];
        // Text after a carriage return replaces what was before it: a progress bar is its last state.
        let end = bytes
            .iter()
            .rposition(|byte| *byte != b'\r')
            .map_or(0, |last| last + 1);
        let start = bytes[..end]
            .iter()
            .rposition(|byte| *byte == b'\r')
            .map(|found| found + 1);
        if start.is_some() || (end > 0 && open.last() == Some(&b'\r')) {
            open.clear();
        }
        let room = Self::LONGEST.saturating_sub(open.len());
        let shown = &bytes[start.unwrap_or(0)..];
        open.extend_from_slice(&shown[..shown.len().min(room)]);
    }

    fn close(&mut self, stream: Stream) {
        // The space of the line that goes is that of the one that begins.
        let mut next = if self.lines.len() == Self::KEPT {
            self.lines.pop_front().unwrap_or((stream, Vec::new())).1
        } else {
            Vec::new()
        };
        next.clear();
        let line = std::mem::replace(&mut self.open[stream as usize], next);
        self.lines.push_back((stream, line));
    }

    fn story(&self) -> Story {
        let open = [Stream::Out, Stream::Err]
            .into_iter()
            .map(|stream| (stream, &self.open[stream as usize]));
        let lines: Vec<(Stream, String)> = self
            .lines
            .iter()
            .map(|(stream, line)| (*stream, line))
            .chain(open)
            .map(|(stream, line)| (stream, plain(line)))
            .filter(|(_, line)| !line.trim().is_empty())
            .collect();
        let of = |wanted: Stream| {
            lines
                .iter()
                .filter(move |(stream, _)| *stream == wanted)
                .map(|(_, line)| line.as_str())
        };
        let errors: Vec<&str> = of(Stream::Err).collect();
        let cause = exception(&errors)
            .or_else(|| errors.last().map(|line| (*line).to_owned()))
            .or_else(|| of(Stream::Out).next_back().map(str::to_owned));
        let mut shown = &lines[lines.len().saturating_sub(Self::SHOWN)..];
        // What was said before a traceback is seldom about it; of a chain, the first shows the cause.
        if let Some(start) = shown.iter().position(|(_, line)| is_traceback(line)) {
            shown = &shown[start..];
        }
        Story {
            cause: cause.map(|line| line.trim().to_owned()),
            lines: shown.iter().map(|(_, line)| line.clone()).collect(),
        }
    }
}

/// The line after the last Python traceback that names the exception; of an exception group, with
/// what is in it.
fn exception(lines: &[&str]) -> Option<String> {
    const SHOWN: usize = 3;
    let last = lines.iter().rposition(|line| is_traceback(line))?;
    if !lines[last].starts_with(' ') {
        let after = lines[last + 1..].iter();
        return after
            .copied()
            .find(|line| !line.starts_with([' ', '\t']))
            .map(str::to_owned);
    }
    // Everything about a group is indented, and what is in it further.
    let start = lines[..=last]
        .iter()
        .rposition(|line| line.starts_with("  + Exception Group Traceback"))?;
    let mut names = lines[start + 1..].iter().filter_map(|line| {
        let (frame, text) = line.split_once("| ")?;
        let is_name = frame.trim().is_empty() && !text.starts_with([' ', '\t']) && !is_traceback(text);
        is_name.then_some((frame.len(), text))
    });
    let (_, group) = names.next()?;
    let inner: Vec<&str> = names
        .filter(|(depth, _)| *depth > 2)
        .map(|(_, text)| text)
        .collect();
    let more = if inner.len() > SHOWN { ", …" } else { "" };
    let inner = inner[..inner.len().min(SHOWN)].join(", ");
    Some(if inner.is_empty() {
        group.to_owned()
    } else {
        format!("{group}: {inner}{more}")
    })
}

fn is_traceback(line: &str) -> bool {
    line.trim_start_matches([' ', '|', '+'])
        .trim_start_matches("Exception Group ")
        .starts_with("Traceback (most recent call last)")
}

/// The bytes as text that a terminal would show: no colour codes, no other control characters.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            if chars.next_if_eq(&'[').is_some() {
                while chars.next().is_some_and(|char| !char.is_ascii_alphabetic()) {}
            }
        } else if char == '\t' || !char.is_control() {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(writes: &[(Stream, &[u8])]) -> Story {
        let mut tail = Tail::new();
        writes
            .iter()
            .for_each(|(stream, bytes)| tail.push(*stream, bytes));
        tail.story()
    }

    #[test]
    fn the_exception_is_the_cause_even_when_more_follows() {
        let found = story(&[
            (Stream::Out, b"working\n"),
            (
                Stream::Err,
                b"Traceback (most recent call last):\n  File \"a.py\", line 1\n    x()\n",
            ),
            (Stream::Err, b"Value"),
            (Stream::Err, b"Error: much\nnotice: a new version exists\n"),
        ]);
        assert_eq!(found.cause.as_deref(), Some("ValueError: much"));
        assert_eq!(found.lines.len(), 5);
        assert_eq!(
            found.lines[0], "Traceback (most recent call last):",
            "not what came before"
        );
    }

    #[test]
    fn without_one_it_is_the_last_line_of_stderr_then_of_stdout() {
        let found = story(&[(Stream::Err, b"bad\n\n"), (Stream::Out, b"later")]);
        assert_eq!(found.cause.as_deref(), Some("bad"));
        assert_eq!(story(&[(Stream::Out, b"one\ntwo")]).cause.as_deref(), Some("two"));
        assert_eq!(story(&[]), Story::default());
    }

    #[test]
    fn only_the_last_lines_are_held() {
        let mut tail = Tail::new();
        for number in 0..10_000 {
            tail.push(Stream::Out, format!("line {number}\n").as_bytes());
        }
        let many: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        tail.push(Stream::Out, b"before ");
        tail.push(Stream::Out, many.as_bytes());
        assert_eq!(tail.lines.len(), Tail::KEPT);
        assert_eq!(tail.lines[0].1, b"line 19900");
        tail.push(Stream::Err, &vec![b'x'; 1 << 20]);
        tail.push(Stream::Err, b"\n");
        let story = tail.story();
        assert_eq!(story.lines.len(), Tail::SHOWN);
        assert_eq!(story.lines[0], "line 19981");
        assert_eq!(story.lines[19].len(), Tail::LONGEST);
        assert!(tail.lines.len() <= Tail::KEPT);
    }

    #[test]
    fn of_too_much_output_the_beginning_and_the_last_lines_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::new();
        log.lock().most = 10;
        log.keep(File::create(&path).unwrap());
        for line in ["first line\n", "second\n", "third\n"] {
            log.write(Stream::Out, line.as_bytes());
        }
        log.close();
        log.close();
        let kept = std::fs::read_to_string(&path).unwrap();
        let marker = "coracle: 13 bytes are missing here: of a task's output the first 0 MiB are kept, and the last lines";
        assert_eq!(
            kept,
            format!("first line\n\n{marker}\nfirst line\nsecond\nthird\n")
        );
    }

    #[test]
    fn what_is_kept_has_no_line_that_begins_inside_another() {
        use Stream::{Err, Out};
        let kept = |writes: &[(Stream, &str)]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let log = Log::new();
            log.keep(file.reopen().unwrap());
            for (stream, text) in writes {
                log.write(*stream, text.as_bytes());
            }
            std::fs::read_to_string(file.path()).unwrap()
        };
        let whole = [(Err, "a"), (Out, "b\n"), (Err, "\n"), (Err, "c\n")];
        assert_eq!(kept(&whole), "a\nb\nc\n");
        assert_eq!(
            kept(&[(Err, "a"), (Out, "b"), (Err, "\n"), (Out, "\n")]),
            "a\nb\n"
        );
        let parts = [(Err, "one "), (Out, "b\n"), (Err, "line\n"), (Err, "\n")];
        assert_eq!(kept(&parts), "one \nb\nline\n\n");
        let alone = [(Err, "a"), (Err, "b"), (Err, "\n"), (Err, "\n")];
        assert_eq!(kept(&alone), "ab\n\n");
        // A line of the launcher's own.
        let log = Log::new();
        let file = tempfile::NamedTempFile::new().unwrap();
        log.keep(file.reopen().unwrap());
        log.write(Out, b"half");
        log.say("over");
        assert_eq!(
            std::fs::read_to_string(file.path()).unwrap(),
            "half\ncoracle: over\n"
        );
    }

    #[test]
    fn lines_are_shown_as_a_terminal_would() {
        let found = story(&[(
            Stream::Err,
            b"\x1b[31mred\x1b[0m\n 1%\r 50%\r100%\r\n\xff\xfe ok\x07\n",
        )]);
        assert_eq!(found.lines, ["red", "100%", "\u{fffd}\u{fffd} ok"]);
    }
}
