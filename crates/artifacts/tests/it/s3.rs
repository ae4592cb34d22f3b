//! An object store in this process that speaks as much of S3 as clients here do.
//!
//! Signatures are not checked, only asked for when it is told to. Also used by the launcher's tests.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

#[derive(Clone)]
pub(crate) struct S3 {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By `bucket/key`.
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<(String, u32), Vec<u8>>,
    requests: Vec<String>,
    /// Answers to give before any work is done.
    failures: Vec<u16>,
    is_private: bool,
}

impl S3 {
    /// Starts with one bucket, `bucket`.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let store = Self {
            url,
            state: Arc::default(),
        };
        let accepting = store.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let store = accepting.clone();
                thread::spawn(move || store.converse(stream));
            }
        });
        store
    }

    /// What a client needs to know.
    pub(crate) fn variables(&self) -> [(String, String); 3] {
        [
            ("AWS_ENDPOINT_URL", &*self.url),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        self.state()
            .objects
            .insert(format!("bucket/{key}"), bytes.to_vec());
    }

    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.state().objects.get(&format!("bucket/{key}")).cloned()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        let state = self.state();
        let keys = state.objects.keys();
        keys.map(|key| key.trim_start_matches("bucket/").to_owned())
            .collect()
    }

    /// Methods and targets so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// The next requests are answered so.
    pub(crate) fn fail(&self, answers: &[u16]) {
        self.state().failures.extend(answers);
    }

    /// From now on, only signed requests are let in.
    pub(crate) fn make_private(&self) {
        self.state().is_private = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn converse(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
        let mut stream = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let mut headers = BTreeMap::new();
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header).unwrap_or(0) == 0 {
                    return;
                }
                match header.trim().split_once(':') {
                    Some((name, value)) => {
                        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
                    }
                    None => break,
                }
            }
            let length = headers.get("content-length").and_then(|text| text.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let mut words = line.split(' ');
            let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let (status, more, bytes) = self.answer(method, target, &headers, body);
            let length = bytes.len();
            let mut head = format!("HTTP/1.1 {status} x\r\n{more}");
            if !more.contains("Content-Length") {
                head.push_str(&format!("Content-Length: {length}\r\n"));
            }
            head.push_str("\r\n");
            let sent = stream.write_all(head.as_bytes());
            let bytes = if method == "HEAD" { &[][..] } else { &bytes };
            if sent.and_then(|()| stream.write_all(bytes)).is_err() {
                return;
            }
        }
    }

    fn answer(
        &self,
        method: &str,
        target: &str,
        headers: &BTreeMap<String, String>,
        body: Vec<u8>,
    ) -> (u16, String, Vec<u8>) {
        let mut state = self.state();
        state.requests.push(format!("{method} {target}"));
        if !state.failures.is_empty() {
            return (state.failures.remove(0), String::new(), b"busy".to_vec());
        }
        let refuse = |status: u16, code: &str, message: &str| {
            let xml = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
            (status, String::new(), xml.into_bytes())
        };
        if state.is_private && !headers.contains_key("authorization") {
            return refuse(403, "AccessDenied", "Access Denied");
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = decode(path.trim_start_matches('/'));
        let query: BTreeMap<_, _> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), decode(value)))
            .collect();
        if !path.starts_with("bucket/") && path != "bucket" {
            return refuse(404, "NoSuchBucket", "The specified bucket does not exist");
        }
        let ok = |xml: String| (200, "ETag: \"e\"\r\n".to_owned(), xml.into_bytes());
        match (method, query.get("uploadId")) {
            ("GET", _) if query.contains_key("list-type") => {
                let prefix = format!("bucket/{}", query.get("prefix").map_or("", String::as_str));
                let found: String = state
                    .objects
                    .iter()
                    .filter(|(key, _)| key.starts_with(&prefix))
                    .map(|(key, bytes)| {
                        format!(
                            "<Contents><Key>{}</Key><Size>{}</Size><ETag>\"e\"</ETag>\
                             <LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>",
                            key.trim_start_matches("bucket/"),
                            bytes.len()
                        )
                    })
                    .collect();
                ok(format!(
                    "<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
                ))
            }
            ("GET" | "HEAD", _) => {
                let Some(bytes) = state.objects.get(&path) else {
                    return refuse(404, "NoSuchKey", "The specified key does not exist.");
                };
                let size = bytes.len();
                let mut more = "ETag: \"e\"\r\nLast-Modified: Fri, 02 Jan 2026 03:04:05 GMT\r\n".to_owned();
                let range = headers.get("range").and_then(|range| {
                    let (start, last) = range.trim_start_matches("bytes=").split_once('-')?;
                    let last = last.parse::<usize>().unwrap_or(size).min(size.saturating_sub(1));
                    Some((start.parse::<usize>().ok()?, last))
                });
                match range {
                    Some((start, last)) if start <= last => {
                        more.push_str(&format!("Content-Range: bytes {start}-{last}/{size}\r\n"));
                        (206, more, bytes[start..=last].to_vec())
                    }
                    _ => {
                        more.push_str(&format!("Content-Length: {size}\r\n"));
                        (200, more, bytes.clone())
                    }
                }
            }
            ("PUT", Some(_)) => {
                let number = query.get("partNumber").and_then(|number| number.parse().ok());
                state.parts.insert((path, number.unwrap_or(0)), body);
                ok(String::new())
            }
            ("PUT", None) => {
                state.objects.insert(path, body);
                ok(String::new())
            }
            ("POST", Some(_)) => {
                let parts = state.parts.iter().filter(|((key, _), _)| *key == path);
                let whole: Vec<u8> = parts.flat_map(|(_, bytes)| bytes.clone()).collect();
                state.parts.retain(|(key, _), _| *key != path);
                state.objects.insert(path, whole);
                ok(
                    "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>"
                        .to_owned(),
                )
            }
            ("POST", None) if query.contains_key("delete") => {
                let body = String::from_utf8_lossy(&body);
                let mut deleted = String::new();
                for key in body.split("<Key>").skip(1) {
                    let key = key.split("</Key>").next().unwrap_or("");
                    state.objects.remove(&format!("bucket/{key}"));
                    deleted.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
                }
                ok(format!("<DeleteResult>{deleted}</DeleteResult>"))
            }
            ("POST", None) => ok(
                "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
                    .to_owned(),
            ),
            ("DELETE", upload) => {
                if upload.is_none() {
                    state.objects.remove(&path);
                }
                (204, String::new(), Vec::new())
            }
            _ => refuse(405, "MethodNotAllowed", "not here"),
        }
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
