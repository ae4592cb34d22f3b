//! What others need to check tokens by themselves: OpenID discovery and the public keys.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use super::tokens::ISSUER;
use crate::server::{Options, reply};

/// Answers `/.well-known/openid-configuration`.
pub(crate) async fn configuration(headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let keys = match host {
        Some(host) => format!("https://{host}/openid/v1/jwks"),
        None => format!("{ISSUER}/openid/v1/jwks"),
    };
    let configuration = json!({
        "issuer": ISSUER,
        "jwks_uri": keys,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    reply(StatusCode::OK, &configuration, false)
}

/// Answers `/openid/v1/jwks`.
pub(crate) async fn keys(State(server): State<Arc<Options>>) -> Response {
    let media = [(header::CONTENT_TYPE, "application/jwk-set+json")];
    (media, server.identity.signer.key_set().to_string()).into_response()
}
