//! From a request to a connection that is taken over: by a WebSocket, or by SPDY.

use axum::{
    body::Body,
    extract::{FromRequestParts as _, Request, ws::WebSocketUpgrade},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::{Refusal, spdy::Connection, websocket};

/// In which header SPDY's clients say what they want to do with it.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const SPDY: &str = "SPDY/3.1";

/// How a client wants its connection to go on.
pub(super) enum Upgrade {
    WebSocket(WebSocketUpgrade),
    Spdy(Spdy),
}

/// A connection that is about to speak SPDY.
pub(super) struct Spdy {
    headers: HeaderMap,
    upgrade: OnUpgrade,
}

impl Upgrade {
    /// What the request asks for.
    pub(super) async fn of(request: Request) -> Result<Self, Refusal> {
        let (mut parts, _) = request.into_parts();
        if names(&parts.headers, header::UPGRADE.as_str(), "websocket") {
            let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
                .await
                .map_err(|rejection| (rejection.status(), rejection.body_text()))?;
            return Ok(Self::WebSocket(websocket::limited(upgrade)));
        }
        if names(&parts.headers, header::UPGRADE.as_str(), SPDY) {
            return Spdy::of(parts).map(Self::Spdy);
        }
        let message = "unable to upgrade: missing upgrade headers in request".to_owned();
        Err((StatusCode::BAD_REQUEST, message))
    }
}

impl Spdy {
    fn of(mut parts: Parts) -> Result<Self, Refusal> {
        let upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(|| {
            let message = "unable to upgrade: this connection cannot be taken over".to_owned();
            (StatusCode::BAD_REQUEST, message)
        })?;
        Ok(Self {
            headers: parts.headers,
            upgrade,
        })
    }

    /// The first of `offered` that the client speaks.
    pub(super) fn protocol(&self, offered: &[&'static str]) -> Result<&'static str, Refusal> {
        let found = offered
            .iter()
            .find(|name| names(&self.headers, STREAM_PROTOCOL, name));
        found.copied().ok_or_else(|| {
            let asked: Vec<&str> = values(&self.headers, STREAM_PROTOCOL).collect();
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server accepts {offered:?}"
            );
            (StatusCode::FORBIDDEN, message)
        })
    }

    /// Answers the request; `serve` gets the connection.
    pub(super) fn accept<F, Serving>(self, protocol: &'static str, serve: F) -> Response
    where
        F: FnOnce(Connection) -> Serving + Send + 'static,
        Serving: Future<Output = ()> + Send,
    {
        let upgrade = self.upgrade;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(io) => serve(Connection::new(TokioIo::new(io))).await,
                Err(error) => tracing::debug!(%error, "a connection was not taken over"),
            }
        });
        let headers = [
            (header::CONNECTION.as_str(), "Upgrade"),
            (header::UPGRADE.as_str(), SPDY),
            (STREAM_PROTOCOL, protocol),
        ];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
    }
}

/// Everything that a header's lines list.
fn values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).into_iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    texts.flat_map(|line| line.split(',')).map(str::trim)
}

fn names(headers: &HeaderMap, name: &str, value: &str) -> bool {
    values(headers, name).any(|listed| listed.eq_ignore_ascii_case(value))
}

/// Accepts a WebSocket with the first of `offered` that the client asks for.
pub(super) fn negotiated(
    upgrade: WebSocketUpgrade,
    offered: &[&'static str],
    absent: &'static str,
) -> Result<(WebSocketUpgrade, &'static str), Refusal> {
    let asked: Vec<String> = upgrade
        .requested_protocols()
        .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
        .collect();
    if asked.is_empty() {
        return Ok((upgrade, absent));
    }
    let found = offered
        .iter()
        .find(|name| asked.iter().any(|asked| asked == *name));
    let Some(found) = found else {
        let message = format!("unable to upgrade: the client speaks {asked:?}, the server {offered:?}");
        return Err((StatusCode::BAD_REQUEST, message));
    };
    Ok((upgrade.protocols([*found]), found))
}
