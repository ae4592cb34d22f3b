//! `exec` and `attach`: a client's streams and a session in a container, over whichever connection.

use std::{collections::HashMap, time::Duration};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Kubelet, Refusal,
    remote::{self, Event, Remote, relay},
    spdy::{self, Connection, headers},
    upgrade::{Upgrade, negotiated},
    websocket::{self, Protocol},
};
use crate::runtime::{
    run_dir::RunDir,
    session::{self, Error, Session, Wanted},
};

/// The versions of the protocol over SPDY, best first.
const SPDY: [&str; 4] = [
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
/// How long a client may take to open its streams, as in kubelet.
const OPENING: Duration = Duration::from_secs(30);
const QUEUE: usize = 8;

/// What a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Asked {
    command: Vec<String>,
    stdin: Option<bool>,
    stdout: Option<bool>,
    stderr: Option<bool>,
    tty: Option<bool>,
}

impl Asked {
    fn parse(query: &str) -> Self {
        let mut asked = Self::default();
        for (name, value) in form(query) {
            let flag = Some(!value.eq_ignore_ascii_case("false") && value != "0");
            match name.as_str() {
                "command" => asked.command.push(value),
                "stdin" | "input" => asked.stdin = flag,
                "stdout" | "output" => asked.stdout = flag,
                "stderr" | "error" => asked.stderr = flag,
                "tty" => asked.tty = flag,
                _ => {}
            }
        }
        asked
    }

    /// What is wanted; `absent` is whether output is that nobody speaks of.
    fn wanted(&self, absent: bool) -> Result<Wanted, Refusal> {
        let tty = self.tty == Some(true);
        let wanted = Wanted {
            stdin: self.stdin == Some(true),
            stdout: self.stdout.unwrap_or(absent),
            // A terminal has one stream for both.
            stderr: self.stderr.unwrap_or(absent) && !tty,
            tty,
        };
        if wanted.stdin || wanted.stdout || wanted.stderr {
            return Ok(wanted);
        }
        let message = "you must specify at least 1 of stdin, stdout, stderr".to_owned();
        Err((StatusCode::BAD_REQUEST, message))
    }
}

/// The pairs of a query, with their escapes undone.
pub(super) fn form(query: &str) -> Vec<(String, String)> {
    let uri = format!("/?{query}").parse();
    let pairs = uri
        .ok()
        .and_then(|uri| axum::extract::Query::try_from_uri(&uri).ok());
    pairs.map(|axum::extract::Query(pairs)| pairs).unwrap_or_default()
}

/// What the path names, behind what is to be done: names need no escapes. An API server hands on what its own router
/// found out as well, so this one's is not asked.
pub(super) fn names<const COUNT: usize>(request: &Request) -> Result<[String; COUNT], Refusal> {
    let segments = request.uri().path().trim_matches('/').split('/').skip(1);
    let names: Vec<String> = segments.map(ToOwned::to_owned).collect();
    names
        .try_into()
        .map_err(|_| (StatusCode::NOT_FOUND, "404 page not found".to_owned()))
}

/// Begins a session once the client is there.
type Begin = Box<dyn FnOnce(Wanted) -> BoxFuture<'static, Result<Session, Error>> + Send>;

/// `GET` and `POST /exec/{namespace}/{pod}/{container}`.
pub(super) async fn exec(State(kubelet): State<Kubelet>, request: Request) -> Result<Response, Refusal> {
    let [namespace, name, container] = names(&request)?;
    let asked = Asked::parse(request.uri().query().unwrap_or_default());
    if asked.command.is_empty() {
        let message = "you must specify at least one command for the container".to_owned();
        return Err((StatusCode::BAD_REQUEST, message));
    }
    let run = kubelet.running(&namespace, &name, &container).await?;
    let command = asked.command.clone();
    let begin: Begin =
        Box::new(move |wanted| Box::pin(async move { session::enter(&run, command, wanted).await }));
    serve(request, &asked, None, begin).await
}

/// `GET` and `POST /attach/{namespace}/{pod}/{container}`.
pub(super) async fn attach(State(kubelet): State<Kubelet>, request: Request) -> Result<Response, Refusal> {
    let [namespace, name, container] = names(&request)?;
    let asked = Asked::parse(request.uri().query().unwrap_or_default());
    let run: RunDir = kubelet.running(&namespace, &name, &container).await?;
    let tty = kubelet.has_terminal(&namespace, &name, &container).await?;
    let begin: Begin = Box::new(move |wanted| Box::pin(async move { session::attach(&run, wanted).await }));
    serve(request, &asked, Some(tty), begin).await
}

/// Takes the connection over. The main process has a terminal or not, whatever the client thinks.
async fn serve(
    request: Request,
    asked: &Asked,
    main_tty: Option<bool>,
    begin: Begin,
) -> Result<Response, Refusal> {
    let settle = |mut wanted: Wanted| {
        wanted.tty = main_tty.unwrap_or(wanted.tty);
        wanted
    };
    match Upgrade::of(request).await? {
        Upgrade::WebSocket(upgrade) => {
            let wanted = settle(asked.wanted(true)?);
            let (upgrade, name) = negotiated(upgrade, &websocket::REMOTE, "channel.k8s.io")?;
            let protocol = Protocol::of(name);
            Ok(upgrade.on_upgrade(async move |socket| {
                let remote = websocket::remote(socket, protocol);
                relay(begin(wanted).await, remote).await;
            }))
        }
        Upgrade::Spdy(upgrade) => {
            let client = asked.wanted(false)?;
            let wanted = settle(client);
            let name = upgrade.protocol(&SPDY)?;
            Ok(upgrade.accept(name, async move |connection| {
                serve_spdy(connection, name, client, wanted, begin).await;
            }))
        }
    }
}

async fn serve_spdy(mut connection: Connection, version: &str, client: Wanted, wanted: Wanted, begin: Begin) {
    let has_sizes = client.tty && (version.starts_with("v4") || version.starts_with("v3"));
    let expected = [
        ("error", true),
        ("stdin", client.stdin),
        ("stdout", client.stdout),
        ("stderr", client.stderr),
        ("resize", has_sizes),
    ];
    let expected: Vec<&str> = expected
        .into_iter()
        .filter_map(|(name, is_expected)| is_expected.then_some(name))
        .collect();
    let opening = open(&mut connection, &expected);
    let Ok(Some(mut streams)) = tokio::time::timeout(OPENING, opening).await else {
        tracing::debug!("a client did not open its streams in time");
        return connection.close().await;
    };
    let (events, to_send) = mpsc::channel(QUEUE);
    let (sized, sizes) = mpsc::channel(QUEUE);
    let stdin = streams.remove("stdin");
    let (_, no_input) = mpsc::channel(1);
    let gone = CancellationToken::new();
    let resize = streams.remove("resize");
    let resizing = tokio::spawn(async move {
        let Some(mut resize) = resize else { return };
        while let Some(bytes) = resize.input.recv().await {
            for size in remote::sizes(&bytes) {
                let _ = sized.send(size).await;
            }
        }
    });
    let telling = tokio::spawn(tell(streams, version.starts_with("v4"), to_send, gone.clone()));
    let remote = Remote {
        stdin: stdin.map_or(no_input, |stream| stream.input),
        sizes,
        events,
        gone: gone.clone(),
    };
    let lost = connection.gone.clone();
    tokio::select! {
        () = async { relay(begin(wanted).await, remote).await } => {}
        () = lost.cancelled() => gone.cancel(),
    }
    let _ = telling.await;
    resizing.abort();
    connection.close().await;
}

/// Waits for the streams that are expected.
async fn open(
    connection: &mut Connection,
    expected: &[&'static str],
) -> Option<HashMap<&'static str, spdy::Stream>> {
    let mut streams = HashMap::new();
    while streams.len() < expected.len() {
        let stream = connection.opened.recv().await?;
        let kind = headers::value(&stream.headers, "streamtype").unwrap_or_default();
        match expected.iter().find(|name| **name == kind) {
            Some(name) => {
                streams.insert(*name, stream);
            }
            None => tracing::debug!(
                stream = headers::show(&stream.headers),
                "a client opened a stream that nobody expects"
            ),
        }
    }
    Some(streams)
}

async fn tell(
    streams: HashMap<&'static str, spdy::Stream>,
    has_status: bool,
    mut events: mpsc::Receiver<Event>,
    gone: CancellationToken,
) {
    let to = |name: &str| streams.get(name).map(|stream| &stream.output);
    while let Some(event) = events.recv().await {
        let (name, bytes) = match event {
            Event::Output(bytes) => ("stdout", bytes),
            Event::Errors(bytes) => ("stderr", bytes),
            Event::Ended(outcome) if has_status => ("error", outcome.status().to_string().into()),
            Event::Ended(outcome) => ("error", Bytes::from(outcome.text())),
        };
        if let Some(to) = to(name)
            && to.send(bytes).await.is_err()
            && name != "error"
        {
            // The client wants no more of it.
            gone.cancel();
            return;
        }
    }
    for name in ["stdout", "stderr", "error"] {
        if let Some(to) = to(name) {
            to.finish().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_wants() {
        let asked = Asked::parse("command=sh&command=-c&command=echo%20a%26b&stdin=true&tty=1&stderr=false");
        assert_eq!(asked.command, ["sh", "-c", "echo a&b"]);
        let wanted = asked.wanted(true).unwrap();
        assert_eq!(
            wanted,
            Wanted {
                stdin: true,
                stdout: true,
                stderr: false,
                tty: true
            }
        );
        // As Python's client writes it.
        assert_eq!(Asked::parse("tty=False").tty, Some(false));
        assert!(Asked::parse("command=x").wanted(false).is_err());
        assert!(
            Asked::parse("command=x&stdout=false&stderr=0")
                .wanted(true)
                .is_err()
        );
    }
}
