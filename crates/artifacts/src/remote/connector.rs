//! Requests to object stores and web servers, through the one HTTP client that Coracle has.
//!
//! `object_store` would bring another client and another TLS library; it is handed this one
//! instead. The client blocks, so each request has a thread of the runtime's blocking pool for as
//! long as its answer is read. Retrying is the caller's.

use std::{fs, io, io::Read, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{TryStreamExt, future::BoxFuture, stream};
use http::{Method, Request, Response, response::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use ureq::{
    Agent, Body,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

/// Requests under way at once: more of them than this make nothing faster.
const CONCURRENCY: usize = 32;
/// Bytes handed on at once.
const CHUNK: usize = 128 * 1024;

/// The client, as `object_store` wants it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    agent: Agent,
    places: Arc<Semaphore>,
}

impl Connector {
    /// A client that follows up to `redirects`, and trusts whom the file `authorities` names, or whom
    /// everybody trusts.
    pub(super) fn new(authorities: Option<&str>, redirects: u32) -> Result<Self, String> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = authorities {
            let pem = fs::read(path).map_err(|error| format!("cannot read `{path}`: {error}"))?;
            let certificates: Vec<_> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(format!("`{path}` holds no certificate"));
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(redirects)
            .max_redirects_will_error(redirects > 0)
            .max_idle_connections_per_host(CONCURRENCY)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .timeout_per_read(Some(Duration::from_mins(1)))
            .timeout_per_write(Some(Duration::from_mins(1)))
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build();
        Ok(Self {
            agent: config.into(),
            places: Arc::new(Semaphore::new(CONCURRENCY)),
        })
    }

    async fn request(self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body: Vec<Bytes> = body.into_data_stream().try_collect().await?;
        let body = match <[Bytes; 1]>::try_from(body) {
            Ok([whole]) => whole,
            Err(parts) => parts.concat().into(),
        };
        let place = self
            .places
            .acquire_owned()
            .await
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let (answer, answered) = oneshot::channel();
        let (chunks, mut chunk) = mpsc::channel(4);
        let agent = self.agent;
        tokio::task::spawn_blocking(move || {
            let _place = place;
            exchange(&agent, Request::from_parts(parts, body), answer, &chunks);
        });
        let parts = answered
            .await
            .map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))??;
        let frames = stream::poll_fn(move |context| chunk.poll_recv(context)).map_ok(Frame::data);
        let body = HttpResponseBody::new(StreamBody::new(frames));
        Ok(Response::from_parts(parts, body))
    }
}

/// One request and its answer, on a thread that may wait.
fn exchange(
    agent: &Agent,
    request: Request<Bytes>,
    answer: oneshot::Sender<Result<Parts, HttpError>>,
    chunks: &mpsc::Sender<Result<Bytes, HttpError>>,
) {
    let (parts, body) = request.into_parts();
    let has_body = !body.is_empty() || matches!(parts.method, Method::POST | Method::PUT);
    let result = if has_body {
        agent.run(Request::from_parts(parts, &*body))
    } else {
        agent.run(Request::from_parts(parts, ()))
    };
    let (parts, body) = match result {
        Ok(response) => response.into_parts(),
        Err(error) => {
            // Whoever asked may have gone.
            let _ = answer.send(Err(failed(error)));
            return;
        }
    };
    if answer.send(Ok(parts)).is_ok() {
        pass_on(body, chunks);
    }
}

fn pass_on(body: Body, chunks: &mpsc::Sender<Result<Bytes, HttpError>>) {
    let mut reader = body.into_with_config().limit(u64::MAX).reader();
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        let is_last = chunk.len() < CHUNK;
        if !chunk.is_empty() && chunks.blocking_send(Ok(chunk.into())).is_err() {
            return;
        }
        if let Err(error) = read {
            let _ = chunks.blocking_send(Err(HttpError::new(kind(&error), error)));
            return;
        }
        if is_last {
            return;
        }
    }
}

fn failed(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => HttpErrorKind::Connect,
        ureq::Error::Io(error) => kind(error),
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

fn kind(error: &io::Error) -> HttpErrorKind {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HttpErrorKind::Timeout,
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => HttpErrorKind::Connect,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    }
}

impl HttpService for Connector {
    fn call<'life, 'call>(
        &'life self,
        request: HttpRequest,
    ) -> BoxFuture<'call, Result<HttpResponse, HttpError>>
    where
        'life: 'call,
        Self: 'call,
    {
        Box::pin(self.clone().request(request))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}
