//! Who did what: one line of JSON for each request, an `audit.k8s.io/v1` Event of level
//! `Metadata`. A thread of its own writes them, and puts a full file aside.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
};

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{User, attributes::Attributes};

/// The size at which a file is put aside.
const FILE_LIMIT: u64 = 64 << 20;
/// How many files are kept beside the one that is written.
const OLD_FILES: u32 = 3;
/// Lines that may wait for the disk. Requests wait when there are more: nothing is left out.
const WAITING: usize = 4096;

/// Which requests are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Every request.
    All,
    /// What changes or runs something, and everything that was refused.
    #[default]
    Writes,
    /// None.
    Off,
}

/// Where requests are written down. Clones write to the same place.
#[derive(Debug, Clone)]
pub struct Log {
    mode: Mode,
    lines: Option<mpsc::Sender<Line>>,
}

#[derive(Debug)]
enum Line {
    Event(String),
    /// Answered once everything before it is on its way to the disk.
    Flush(oneshot::Sender<()>),
}

impl Log {
    /// Writes nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            mode: Mode::Off,
            lines: None,
        }
    }

    /// Writes to the end of a file, which is made for this user only if it is not there.
    ///
    /// # Errors
    /// When the file cannot be opened, or no thread can be had.
    pub fn open(path: &Path, mode: Mode) -> io::Result<Self> {
        if mode == Mode::Off {
            return Ok(Self::off());
        }
        let mut file = LogFile::open(path.to_owned(), FILE_LIMIT)?;
        let (lines, mut waiting) = mpsc::channel(WAITING);
        thread::Builder::new().name("audit".to_owned()).spawn(move || {
            while let Some(line) = waiting.blocking_recv() {
                let written = match line {
                    Line::Event(line) => file.write(&line),
                    Line::Flush(done) => {
                        let flushed = file.out.flush();
                        // Nobody may be waiting any more.
                        let _ = done.send(());
                        flushed
                    }
                };
                let written = written.and_then(|()| if waiting.is_empty() { file.out.flush() } else { Ok(()) });
                if let Err(error) = written {
                    tracing::error!(%error, path = %file.path.display(), "the audit log could not be written");
                }
            }
        })?;
        Ok(Self {
            mode,
            lines: Some(lines),
        })
    }

    /// Returns when everything so far has been written.
    pub async fn flush(&self) {
        if let Some(lines) = &self.lines {
            let (done, flushed) = oneshot::channel();
            if lines.send(Line::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        }
    }

    pub(crate) fn wants(&self, asked: &Attributes, code: StatusCode) -> bool {
        let is_refused = matches!(code, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        match self.mode {
            Mode::All => asked.is_resource() || is_refused,
            Mode::Writes => is_refused || (asked.is_resource() && asked.is_write()),
            Mode::Off => false,
        }
    }

    pub(crate) async fn write(&self, record: &Record<'_>) {
        if let Some(lines) = &self.lines {
            // The thread ends with the process only.
            let _ = lines.send(Line::Event(record.event().to_string())).await;
        }
    }
}

/// A request that was answered.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) id: Uuid,
    pub(crate) asked: &'a Attributes,
    pub(crate) uri: &'a str,
    /// None when nobody is known to have made it.
    pub(crate) user: Option<&'a User>,
    pub(crate) acts_as: Option<&'a User>,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) agent: &'a str,
    pub(crate) code: StatusCode,
    /// Why it was allowed or not; may be empty.
    pub(crate) reason: &'a str,
    pub(crate) received: Timestamp,
    pub(crate) answered: Timestamp,
}

impl Record<'_> {
    fn event(&self) -> Value {
        let asked = self.asked;
        let time = |at: Timestamp| format!("{at:.6}");
        let stage = if asked.verb == "watch" {
            "ResponseStarted"
        } else {
            "ResponseComplete"
        };
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": self.id.to_string(),
            "stage": stage,
            "requestURI": self.uri,
            "verb": asked.verb,
            "user": self.user.map_or_else(|| json!({}), User::info),
        });
        if let Some(other) = self.acts_as {
            event["impersonatedUser"] = other.info();
        }
        if let Some(source) = self.source {
            event["sourceIPs"] = json!([source.ip().to_string()]);
        }
        if !self.agent.is_empty() {
            event["userAgent"] = self.agent.into();
        }
        if asked.is_resource() {
            let fields = [
                ("resource", &asked.resource),
                ("namespace", &asked.namespace),
                ("name", &asked.name),
                ("apiGroup", &asked.group),
                ("apiVersion", &asked.version),
                ("subresource", &asked.subresource),
            ];
            let fields = fields.iter().filter(|(_, value)| !value.is_empty());
            event["objectRef"] = fields
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
        }
        event["responseStatus"] = json!({"metadata": {}, "code": self.code.as_u16()});
        event["requestReceivedTimestamp"] = time(self.received).into();
        event["stageTimestamp"] = time(self.answered).into();
        if self.user.is_some() {
            let decision = if self.code == StatusCode::FORBIDDEN {
                "forbid"
            } else {
                "allow"
            };
            event["annotations"] = json!({
                "authorization.k8s.io/decision": decision,
                "authorization.k8s.io/reason": self.reason,
            });
        }
        event
    }
}

struct LogFile {
    path: PathBuf,
    out: BufWriter<File>,
    size: u64,
    limit: u64,
}

impl LogFile {
    fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            out: BufWriter::new(file),
            size,
            limit,
        })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 >= self.limit {
            self.put_aside()?;
        }
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")?;
        self.size += line.len() as u64 + 1;
        Ok(())
    }

    /// `audit.log` becomes `audit.log.1`, and so on; the oldest is gone.
    fn put_aside(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let old = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..OLD_FILES).rev() {
            match fs::rename(old(number), old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, old(1))?;
        *self = Self::open(self.path.clone(), self.limit)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_refusals_are_written_down() {
        let asked = |verb: &str, part: &str| Attributes {
            verb: verb.to_owned(),
            resource: "pods".to_owned(),
            subresource: part.to_owned(),
            ..Attributes::default()
        };
        let log = Log {
            mode: Mode::Writes,
            lines: None,
        };
        for (verb, part, code, expected) in [
            ("create", "", 201, true),
            ("get", "", 200, false),
            ("get", "", 403, true),
            ("list", "", 401, true),
            ("get", "exec", 101, true),
            ("deletecollection", "", 200, true),
        ] {
            let code = StatusCode::from_u16(code).unwrap();
            assert_eq!(
                log.wants(&asked(verb, part), code),
                expected,
                "{verb} {part} {code}"
            );
        }
    }

    #[test]
    fn an_event_says_who_did_what_and_when() {
        let asked = Attributes {
            verb: "create".to_owned(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            namespace: "team".to_owned(),
            ..Attributes::default()
        };
        let at = Timestamp::UNIX_EPOCH;
        let event = Record {
            id: Uuid::nil(),
            asked: &asked,
            uri: "/api/v1/namespaces/team/pods",
            user: Some(&User::admin()),
            acts_as: None,
            source: Some(([127, 0, 0, 1], 7).into()),
            agent: "kubectl",
            code: StatusCode::CREATED,
            reason: "",
            received: at,
            answered: at,
        };
        let event = event.event();
        assert_eq!(event["user"]["username"], "system:admin");
        assert_eq!(
            event["objectRef"],
            json!({"resource": "pods", "namespace": "team", "apiVersion": "v1"})
        );
        assert_eq!(event["sourceIPs"], json!(["127.0.0.1"]));
        assert_eq!(event["stageTimestamp"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(event["responseStatus"]["code"], 201);
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let folder = std::env::temp_dir().join(format!("coracle-audit-{}", Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("audit.log");
        let mut file = LogFile::open(path.clone(), 10).unwrap();
        for line in ["first", "second", "third", "fourth", "fifth", "sixth"] {
            file.write(line).unwrap();
        }
        file.out.flush().unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(read("audit.log"), "sixth\n");
        assert_eq!(read("audit.log.1"), "fifth\n");
        assert_eq!(read("audit.log.3"), "third\n");
        assert_eq!(read("audit.log.4"), "");
        fs::remove_dir_all(folder).unwrap();
    }
}
