//! A container's log, read back: from the end, from a time, and on while it grows.
//!
//! Following waits for the file system to say that something changed; nothing is polled.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{io::unix::AsyncFd, sync::mpsc};

use crate::readiness::readable;
use crate::runtime::run_dir::{LOG_BYTES, LOG_FILES, RunDir};

/// How much is read and sent at once.
const CHUNK: usize = 64 * 1024;
/// What of a log's end a status shows: kubelet's numbers.
const LAST_BYTES: u64 = 2048;
const LAST_LINES: usize = 80;

/// What of a log is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Go on until the container ends.
    pub(crate) follow: bool,
    /// This many lines from the end.
    pub(crate) tail: Option<usize>,
    /// Nothing older.
    pub(crate) since: Option<Timestamp>,
    /// Each line with its time before it.
    pub(crate) timestamps: bool,
    /// No more bytes than this.
    pub(crate) limit: Option<usize>,
}

/// One record of a log in CRI format: time, whether the line is whole, text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record<'a> {
    time: &'a str,
    is_whole: bool,
    text: &'a [u8],
}

impl<'a> Record<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |&byte| byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let _stream = parts.next()?;
        let is_whole = parts.next()? == b"F";
        Some(Self {
            time,
            is_whole,
            text: parts.next()?,
        })
    }
}

/// Turns records into what is shown.
#[derive(Debug)]
struct Filter {
    query: Query,
    /// The last record was a part, so the next one goes on in the same line.
    in_line: bool,
    left: Option<usize>,
}

impl Filter {
    const fn new(query: Query) -> Self {
        Self {
            query,
            in_line: false,
            left: query.limit,
        }
    }

    /// Whether nothing more is wanted.
    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes whole lines of the file.
    fn take(&mut self, lines: &[u8], shown: &mut Vec<u8>) {
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let Some(record) = Record::parse(line) else {
                continue;
            };
            if let Some(since) = self.query.since
                && record.time.parse::<Timestamp>().is_ok_and(|time| time < since)
            {
                continue;
            }
            let start = shown.len();
            if self.query.timestamps && !self.in_line {
                shown.extend_from_slice(record.time.as_bytes());
                shown.push(b' ');
            }
            shown.extend_from_slice(record.text);
            if record.is_whole {
                shown.push(b'\n');
            }
            self.in_line = !record.is_whole;
            if let Some(left) = &mut self.left {
                let added = (shown.len() - start).min(*left);
                shown.truncate(start + added);
                *left -= added;
            }
        }
    }
}

/// The parts of a run's log, oldest first; the last one is written to, if the run goes on.
fn parts(dir: &RunDir) -> io::Result<Vec<File>> {
    let mut parts = Vec::new();
    let newest = File::open(dir.log());
    for number in dir.older_logs() {
        match File::open(dir.older_log(number)) {
            Ok(part) => parts.push(part),
            // It went meanwhile, as the oldest do.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match newest {
        Ok(newest) => {
            // What was the newest part may have become an older one meanwhile.
            let number = identity(&newest)?;
            let mut known = false;
            for part in &parts {
                known |= identity(part)? == number;
            }
            if !known {
                parts.push(newest);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(parts)
}

/// Which file it is, whatever its name.
fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What comes after `current`, which is at its end, and whether it does at once: what was between them may have gone.
/// `None` if nothing comes yet.
fn after(dir: &RunDir, current: &File) -> io::Result<Option<(File, bool)>> {
    let own = identity(current)?;
    let mut all = parts(dir)?;
    let mut place = None;
    for (index, part) in all.iter().enumerate() {
        if identity(part)? == own {
            place = Some(index);
        }
    }
    // One that went already was older than all that are there.
    let next = place.map_or(0, |index| index + 1);
    Ok((next < all.len()).then(|| (all.swap_remove(next), place.is_some())))
}

/// What a follower is told between two parts of which the one between went before it was read.
const OVERTAKEN: &[u8] =
    b"coracle: some bytes are missing here: the container wrote faster than this was read\n";

/// Says that what comes first is not the beginning; not to those who want only the end, or what is new, or so many
/// bytes of the container's own.
fn missing(dir: &RunDir, query: Query) -> Option<Vec<u8>> {
    let wants_all = query.tail.is_none() && query.since.is_none() && query.limit.is_none();
    let bytes = Some(dir.dropped()).filter(|bytes| wants_all && *bytes > 0)?;
    let line = format!(
        "coracle: {bytes} bytes are missing here: of a container's log the last {} MiB are kept\n",
        (LOG_FILES * LOG_BYTES) >> 20,
    );
    Some(line.into_bytes())
}

/// Leaves of `parts` those that hold the last `count` lines, and goes to where those begin.
fn keep_tail(parts: &mut Vec<File>, count: usize) -> io::Result<()> {
    let mut wanted = count;
    for index in (0..parts.len()).rev() {
        let (start, found) = tail_start(&mut parts[index], wanted)?;
        parts[index].seek(SeekFrom::Start(start))?;
        if found == wanted {
            parts.drain(..index);
            return Ok(());
        }
        wanted -= found;
    }
    Ok(())
}

/// Where the last `count` lines of a part of a log begin, and how many there are up to `count`. Records that are parts
/// of a line do not count.
fn tail_start(file: &mut File, count: usize) -> io::Result<(u64, usize)> {
    let length = file.seek(SeekFrom::End(0))?;
    if count == 0 {
        return Ok((length, 0));
    }
    let mut end = length;
    let mut found = 0;
    // What was read and begins in the middle of a line: the end of a line whose start is further in front.
    let mut rest: Vec<u8> = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(CHUNK)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        block.append(&mut rest);
        let mut line_end = block.len();
        while line_end > 0 {
            let line_start = block[..line_end - 1]
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map(|at| at + 1);
            if line_start.is_none() && start > 0 {
                break;
            }
            let line_start = line_start.unwrap_or(0);
            let line = block[line_start..line_end]
                .strip_suffix(b"\n")
                .unwrap_or_else(|| &block[line_start..line_end]);
            let position = start + line_start as u64;
            let is_at_end = position + (line_end - line_start) as u64 == length;
            // A line ends with a whole record; one that ends the file counts even if it has no newline.
            if Record::parse(line).is_some_and(|record| record.is_whole || is_at_end) {
                if found == count {
                    return Ok((start + line_end as u64, found));
                }
                found += 1;
            }
            line_end = line_start;
        }
        rest = block[..line_end].to_vec();
        end = start;
    }
    Ok((0, found))
}

/// The last lines of a log, for a container's status.
pub(crate) fn last_lines(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let dir = RunDir(path.parent().unwrap_or(path).to_path_buf());
        let mut parts = parts(&dir)?;
        keep_tail(&mut parts, LAST_LINES)?;
        let mut lines = Vec::new();
        for mut part in parts {
            part.read_to_end(&mut lines)?;
        }
        let mut shown = Vec::new();
        Filter::new(Query::default()).take(&lines, &mut shown);
        let from = shown
            .len()
            .saturating_sub(usize::try_from(LAST_BYTES).unwrap_or(0));
        Ok(shown.split_off(from))
    };
    String::from_utf8_lossy(&read().unwrap_or_default())
        .trim()
        .to_owned()
}

/// Sends what is asked for of a run's log into `sender`, until the end or until nobody listens.
pub(crate) async fn send(dir: RunDir, query: Query, sender: mpsc::Sender<io::Result<Vec<u8>>>) {
    let result = match read(&dir, query, &sender).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
        result => result,
    };
    if let Err(error) = result {
        let _ = sender.send(Err(error)).await;
    }
}

async fn read(dir: &RunDir, query: Query, sender: &mpsc::Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
    let mut changes = if query.follow {
        Some(Changes::of(dir)?)
    } else {
        None
    };
    let mut parts = loop {
        // Looked at before the files: what was written before the end is then read after it.
        let is_over = dir.read_exit().is_some();
        let (found, tail) = (dir.clone(), query.tail);
        let found = blocking(move || {
            let mut parts = parts(&found)?;
            if let Some(count) = tail {
                keep_tail(&mut parts, count)?;
            }
            Ok(parts)
        });
        let found = found.await?;
        match &mut changes {
            Some(changes) if found.is_empty() && !is_over => changes.next().await?,
            _ => break found.into_iter(),
        }
    };
    let Some(mut file) = parts.next() else {
        return Ok(());
    };
    let mut filter = Filter::new(query);
    if let Some(line) = missing(dir, query)
        && sender.send(Ok(line)).await.is_err()
    {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let is_over = dir.read_exit().is_some();
        loop {
            let (back, bytes) = blocking(move || {
                let mut bytes = vec![0; CHUNK];
                let count = file.read(&mut bytes)?;
                bytes.truncate(count);
                Ok((file, bytes))
            })
            .await?;
            file = back;
            if bytes.is_empty() {
                break;
            }
            pending.extend_from_slice(&bytes);
            let Some(end) = pending.iter().rposition(|&byte| byte == b'\n') else {
                continue;
            };
            let mut shown = Vec::with_capacity(end);
            filter.take(&pending[..=end], &mut shown);
            pending.drain(..=end);
            if !shown.is_empty() && sender.send(Ok(shown)).await.is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if filter.is_done() {
                return Ok(());
            }
        }
        if let Some(next) = parts.next() {
            file = next;
            continue;
        }
        let folder = dir.clone();
        let (back, next) = blocking(move || {
            let Some((next, is_next)) = after(&folder, &file)? else {
                return Ok((file, None));
            };
            // What was written before it was set aside.
            let mut rest = Vec::new();
            file.read_to_end(&mut rest)?;
            Ok((next, Some((rest, is_next))))
        })
        .await?;
        file = back;
        if let Some((rest, is_next)) = next {
            let mut shown = Vec::with_capacity(rest.len());
            filter.take(&rest, &mut shown);
            if !is_next {
                shown.extend_from_slice(OVERTAKEN);
            }
            if !shown.is_empty() && sender.send(Ok(shown)).await.is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if filter.is_done() {
                return Ok(());
            }
            continue;
        }
        let Some(changes) = &mut changes else {
            return Ok(());
        };
        if is_over {
            return Ok(());
        }
        tokio::select! {
            changed = changes.next() => changed?,
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Does something with files where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// Notices of the kernel that a run's log has grown, or that the run is over.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(dir: &RunDir) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(dir.path(), flags)?;
        let fd = inotify.as_fd().try_clone_to_owned()?;
        readable(fd).map(Self)
    }

    async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            let drained = guard.try_io(|fd| {
                let mut buffer = [0; 4096];
                nix::unistd::read(fd.get_ref(), &mut buffer).map_err(io::Error::from)
            });
            if let Ok(read) = drained {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n\
                       2026-01-01T00:00:02Z stderr P tw\n\
                       2026-01-01T00:00:02Z stderr F o\n\
                       2026-01-01T00:00:03Z stdout F \n\
                       2026-01-01T00:00:04Z stdout P three\n";

    fn shown(query: Query) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(LOG.as_bytes()).unwrap();
        let start = query
            .tail
            .map_or(0, |count| tail_start(&mut file, count).unwrap().0);
        let mut shown = Vec::new();
        Filter::new(query).take(&LOG.as_bytes()[usize::try_from(start).unwrap()..], &mut shown);
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn lines_are_shown_as_they_were_written() {
        assert_eq!(shown(Query::default()), "one\ntwo\n\nthree");
    }

    #[test]
    fn a_line_has_one_time_however_many_parts() {
        let query = Query {
            timestamps: true,
            ..Query::default()
        };
        assert_eq!(
            shown(query),
            "2026-01-01T00:00:01Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z \n2026-01-01T00:00:04Z three"
        );
    }

    #[test]
    fn the_tail_counts_lines_not_parts() {
        let tail = |count| {
            shown(Query {
                tail: Some(count),
                ..Query::default()
            })
        };
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), "three");
        assert_eq!(tail(2), "\nthree");
        assert_eq!(tail(3), "two\n\nthree");
        assert_eq!(tail(4), "one\ntwo\n\nthree");
        assert_eq!(tail(99), "one\ntwo\n\nthree");
    }

    #[test]
    fn the_tail_of_a_long_log_is_found_across_blocks() {
        let mut file = tempfile::tempfile().unwrap();
        let mut text = String::new();
        for index in 0..20_000 {
            text.push_str(&format!("2026-01-01T00:00:01Z stdout F line {index}\n"));
        }
        file.write_all(text.as_bytes()).unwrap();
        for count in [1, 3000, 19_999] {
            let start = usize::try_from(tail_start(&mut file, count).unwrap().0).unwrap();
            assert_eq!(text[start..].lines().count(), count);
            assert!(text[start..].starts_with("2026"));
        }
    }

    #[test]
    fn a_log_in_parts_is_one_log() {
        let folder = tempfile::tempdir().unwrap();
        let dir = RunDir(folder.path().to_path_buf());
        let line = |text: &str| format!("2026-01-01T00:00:01Z stdout F {text}\n");
        std::fs::write(dir.older_log(9), line("one") + &line("two")).unwrap();
        std::fs::write(dir.older_log(10), line("three")).unwrap();
        std::fs::write(dir.log(), line("four")).unwrap();
        assert_eq!(last_lines(&dir.log()), "one\ntwo\nthree\nfour");
        let tail = |count| {
            let mut parts = parts(&dir).unwrap();
            keep_tail(&mut parts, count).unwrap();
            let mut lines = String::new();
            for mut part in parts {
                part.read_to_string(&mut lines).unwrap();
            }
            lines
        };
        assert_eq!(tail(0), "");
        assert_eq!(tail(2), line("three") + &line("four"));
        assert_eq!(tail(3), line("two") + &line("three") + &line("four"));
        assert_eq!(tail(9).lines().count(), 4);
        let oldest = File::open(dir.older_log(9)).unwrap();
        let (next, is_next) = after(&dir, &oldest).unwrap().unwrap();
        assert!(is_next);
        assert_eq!(
            identity(&next).unwrap(),
            identity(&File::open(dir.older_log(10)).unwrap()).unwrap()
        );
        let newest = File::open(dir.log()).unwrap();
        assert!(after(&dir, &newest).unwrap().is_none());
        std::fs::rename(dir.log(), dir.older_log(11)).unwrap();
        std::fs::write(dir.log(), line("five")).unwrap();
        assert!(after(&dir, &newest).unwrap().is_some());
        std::fs::remove_file(dir.older_log(9)).unwrap();
        let (_, is_next) = after(&dir, &oldest).unwrap().unwrap();
        assert!(!is_next, "it went, and nobody knows what was after it");
    }

    #[tokio::test]
    async fn a_log_whose_beginning_went_says_so_to_those_who_want_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = RunDir(folder.path().to_path_buf());
        std::fs::write(dir.log(), "2026-01-01T00:00:01Z stdout F end\n").unwrap();
        let read = async |query| {
            let (sender, mut receiver) = mpsc::channel(10);
            send(dir.clone(), query, sender).await;
            let mut text = Vec::new();
            while let Some(bytes) = receiver.recv().await {
                text.extend(bytes.unwrap());
            }
            String::from_utf8(text).unwrap()
        };
        assert_eq!(read(Query::default()).await, "end\n");
        dir.write_dropped(123).unwrap();
        let marked =
            "coracle: 123 bytes are missing here: of a container's log the last 50 MiB are kept\nend\n";
        assert_eq!(read(Query::default()).await, marked);
        let tail = Query {
            tail: Some(1),
            ..Query::default()
        };
        assert_eq!(read(tail).await, "end\n");
    }

    #[test]
    fn older_lines_and_further_bytes_are_left_out() {
        let query = Query {
            since: Some("2026-01-01T00:00:03Z".parse().unwrap()),
            ..Query::default()
        };
        assert_eq!(shown(query), "\nthree");
        let query = Query {
            limit: Some(5),
            ..Query::default()
        };
        assert_eq!(shown(query), "one\nt");
    }
}
