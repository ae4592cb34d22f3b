//! Which HTTP requests are let in, before anybody looks at them.
//!
//! The server listens on loopback and trusts whoever reaches it, so it must not be reached by a
//! web page that the user happens to look at. A page of another site can make the browser send
//! requests here in two ways: by a name that resolves to 127.0.0.1 (DNS rebinding), which shows in
//! `Host`; and by a form or script on its own site, which shows in `Origin`. Neither is let in.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Why a request was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No host, more than one, or one that cannot be read.
    #[error("the request names no host that can be read; send one `Host` header")]
    HostMissing,
    /// A name that is not this machine's own.
    #[error(
        "the host `{0}` is not this machine; use http://127.0.0.1 or http://localhost with the server's port"
    )]
    HostForeign(String),
    /// A page of another site.
    #[error("a page of `{0}` may not use this server; open the server's own address instead")]
    OriginForeign(String),
}

/// Checks the headers of a request.
///
/// # Errors
/// A [`Refusal`] that says what was wrong.
pub fn check(headers: &HeaderMap, authority: Option<&str>) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map_err(|_| Refusal::HostMissing)?,
        // HTTP/2 carries the host in the request's authority.
        (None, None) => authority.ok_or(Refusal::HostMissing)?,
        _ => return Err(Refusal::HostMissing),
    };
    if !is_this_machine(name_of(host)) {
        return Err(Refusal::HostForeign(host.to_owned()));
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or("unreadable");
    let own = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    if own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
        Ok(())
    } else {
        Err(Refusal::OriginForeign(origin.to_owned()))
    }
}

/// The name of `name:port`, `[::1]:port` or either without a port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_this_machine(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// What Pods on a cluster ask for, by the name that the server was given for them.
const LAUNCH: &str = "/launch/v1/";

/// The name in a URL.
#[must_use]
pub fn host_of(url: &str) -> Option<String> {
    let uri: axum::http::Uri = url.parse().ok()?;
    uri.host().map(str::to_owned)
}

/// Lets a request through, or answers with the refusal. Launchers, which bring a token of their
/// own, may also call this server `launch_host`.
pub async fn layer(State(launch_host): State<Option<String>>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_launcher = launch_host.is_some_and(|name| host.is_some_and(|host| name_of(host) == name))
        && request.uri().path().starts_with(LAUNCH)
        && !headers.contains_key(header::ORIGIN);
    match check(headers, authority) {
        Err(Refusal::HostForeign(_)) if is_launcher => next.run(request).await,
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::warn!(path = request.uri().path(), "a request was refused: {refusal}");
            // The code is gRPC's PERMISSION_DENIED, as the KFP clients read it.
            let body = json!({"code": 7, "message": refusal.to_string(), "reason": "Forbidden"});
            (StatusCode::FORBIDDEN, Json(body)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pairs: &[(&str, &str)]) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: header::HeaderName = name.parse().expect("a header name");
            headers.append(name, value.parse().expect("a header value"));
        }
        check(&headers, None).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn this_machine_s_own_names_are_let_in() {
        for host in [
            "127.0.0.1:4242",
            "localhost:4242",
            "LOCALHOST",
            "[::1]:4242",
            "127.8.9.1",
        ] {
            assert_eq!(checked(&[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(
            checked(&[("host", "localhost:4242"), ("origin", "http://localhost:4242")]),
            Ok(())
        );
    }

    #[test]
    fn names_that_only_resolve_to_this_machine_are_refused() {
        for host in [
            "evil.example:4242",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            "[::2]",
        ] {
            assert!(
                checked(&[("host", host)])
                    .expect_err(host)
                    .contains("is not this machine")
            );
        }
        assert!(checked(&[]).is_err());
        assert!(checked(&[("host", "localhost"), ("host", "evil.example")]).is_err());
    }

    #[test]
    fn the_name_for_launchers_is_that_of_the_url() {
        assert_eq!(
            host_of("https://tunnel.example:8443/x").as_deref(),
            Some("tunnel.example")
        );
        assert_eq!(host_of("nonsense url"), None);
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:3000",
            "https://localhost:4242.evil.example",
        ] {
            let refused = checked(&[("host", "localhost:4242"), ("origin", origin)]).expect_err(origin);
            assert!(refused.starts_with(&format!("a page of `{origin}`")), "{refused}");
        }
    }
}
