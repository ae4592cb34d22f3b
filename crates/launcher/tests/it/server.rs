//! A server that speaks as much HTTP as the launcher's two requests need, and its bad days.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use serde_json::json;

use crate::task::Task;

/// What to answer to one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Status and body.
    With(u16, String),
    /// None: the connection is closed.
    Silence,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

#[derive(Default)]
struct State {
    spec: VecDeque<Answer>,
    report: VecDeque<Answer>,
    requests: Vec<Request>,
}

/// The server; its thread ends with the test's process.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = Self {
            url,
            state: Arc::default(),
        };
        let this = server.clone();
        thread::spawn(move || {
            listener
                .incoming()
                .flatten()
                .for_each(|stream| this.serve(stream))
        });
        server
    }

    /// The next answers to `GET /launch/v1/spec`; the last one stays.
    pub(crate) fn spec(&self, answers: impl IntoIterator<Item = Answer>) {
        self.with(|state| state.spec = answers.into_iter().collect());
    }

    /// The next answers to `PUT /launch/v1/report`; after them, 204.
    pub(crate) fn report(&self, answers: impl IntoIterator<Item = Answer>) {
        self.with(|state| state.report = answers.into_iter().collect());
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.with(|state| state.requests.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some(request) = read(&stream) else { return };
        let line = request.line.clone();
        self.with(|state| state.requests.push(request));
        let answer = match line.as_str() {
            "GET /launch/v1/spec" => self.with(|state| match state.spec.len() {
                0 => Answer::Silence,
                1 => state.spec[0].clone(),
                _ => state.spec.pop_front().expect("one is left"),
            }),
            "PUT /launch/v1/report" => self
                .with(|state| state.report.pop_front())
                .unwrap_or(Answer::With(204, String::new())),
            "GET /data/iris.csv" => Answer::With(200, "5.1,3.5".to_owned()),
            _ => Answer::With(404, json!({"message": "no such thing"}).to_string()),
        };
        if let Answer::With(status, body) = answer {
            // A client that has gone shows in what it says itself.
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = value.to_owned(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim().strip_suffix(" HTTP/1.1")?.to_owned();
    Some(Request {
        line,
        authorization,
        body: String::from_utf8(body).ok()?,
    })
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let mut task = Task::new("echo hello");
    task.before_spec = vec![
        Answer::Silence,
        Answer::With(503, "starting".to_owned()),
        Answer::Silence,
    ];
    task.server
        .report([Answer::Silence, Answer::With(500, "{}".to_owned())]);
    let done = task.run();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.stdout, "hello\n");
    let lines: Vec<_> = task
        .server
        .requests()
        .into_iter()
        .map(|request| request.line)
        .collect();
    let (get, put) = ("GET /launch/v1/spec", "PUT /launch/v1/report");
    assert_eq!(lines, [get, get, get, get, put, put, put]);
    assert!(
        task.server
            .requests()
            .iter()
            .all(|request| request.authorization == "Bearer the-token")
    );
}

#[test]
fn a_token_that_is_refused_ends_it_at_once() {
    let mut task = Task::new("echo never");
    task.before_spec = vec![Answer::With(401, json!({"message": "unknown token"}).to_string())];
    task.server.spec(task.before_spec.clone());
    let done = task.run_with_current_spec();
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert!(
        done.stderr.contains("answered 401") && done.stderr.contains("unknown token"),
        "{}",
        done.stderr
    );
    assert_eq!(task.server.requests().len(), 1);
}

#[test]
fn a_spec_of_another_version_is_not_guessed_at() {
    let task = Task::new("echo never");
    task.server
        .spec([Answer::With(200, json!({"novel": true}).to_string())]);
    let done = task.run_with_current_spec();
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert!(done.stderr.contains("does not understand"), "{}", done.stderr);
}

#[test]
fn a_result_that_nobody_takes_is_an_error_whatever_the_command_did() {
    let task = Task::new("exit 0");
    task.server.report([Answer::With(
        410,
        json!({"message": "the attempt is over"}).to_string(),
    )]);
    let done = task.run();
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("could not be handed over"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("the attempt is over"), "{}", done.stderr);
}

#[test]
fn without_its_environment_it_says_what_it_is_for() {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_coracle-launch"))
        .env_clear()
        .output()
        .expect("it runs");
    assert_eq!(done.status.code(), Some(1));
    let stderr = String::from_utf8(done.stderr).expect("text");
    assert!(stderr.contains("CORACLE_LAUNCH_SERVER is not set"), "{stderr}");
}
