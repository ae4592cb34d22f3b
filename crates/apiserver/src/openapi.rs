//! OpenAPI, as little of it as clients need to go on: which paths there are, and that writes take
//! `fieldValidation`. There are no schemas of fields here, so `kubectl explain` has nothing to
//! tell, and `kubectl apply` merges by the types that it is built with.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::{
    kinds::{Catalogue, Kind},
    negotiate,
    server::{Options, reply},
    status::Error,
};

/// Answers `/openapi/v2`, which clients ask for when version 3 did not do.
pub(crate) async fn v2(headers: HeaderMap) -> Result<Response, Error> {
    negotiate::json_only(&headers)?;
    let document = json!({
        "swagger": "2.0",
        "info": {"title": "Coracle", "version": "v1.34.0"},
        "paths": {},
        "definitions": {},
    });
    Ok(reply(StatusCode::OK, &document, false))
}

/// Answers `/openapi/v3`.
pub(crate) async fn index(State(server): State<Arc<Options>>, headers: HeaderMap) -> Result<Response, Error> {
    negotiate::json_only(&headers)?;
    let mut paths = Map::new();
    for path in documents(&server.catalogue) {
        let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    Ok(reply(StatusCode::OK, &json!({"paths": paths}), false))
}

/// Answers `/openapi/v3/{path}`.
pub(crate) async fn document(
    State(server): State<Arc<Options>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    negotiate::json_only(&headers)?;
    let segments = path.split('/').collect::<Vec<_>>();
    let (group, version) = match segments.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(Error::NoSuchPath),
    };
    let mut paths = Map::new();
    for kind in server.catalogue.of(group, version) {
        let scope = if kind.is_namespaced() {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let collection = format!("/{path}/{scope}{}", kind.plural);
        let parameters = json!([
            parameter("dryRun"),
            parameter("fieldManager"),
            parameter("fieldValidation")
        ]);
        let operation = |action: &str, media: &[&str]| {
            let content = media
                .iter()
                .map(|media| ((*media).to_owned(), json!({})))
                .collect::<Map<_, _>>();
            json!({
                "parameters": parameters,
                "requestBody": {"content": content},
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": exchanged(&kind),
            })
        };
        let json_body = ["application/json", "application/yaml"];
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({
                "put": operation("put", &json_body),
                "patch": operation("patch", &["application/json-patch+json", "application/merge-patch+json"]),
            }),
        );
        paths.insert(collection, json!({"post": operation("post", &json_body)}));
    }
    if paths.is_empty() {
        return Err(Error::NoSuchPath);
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Coracle", "version": "v1.34.0"},
        "paths": paths,
        "components": {"schemas": {}},
    });
    Ok(reply(StatusCode::OK, &document, false))
}

fn documents(catalogue: &Catalogue) -> Vec<String> {
    let prefixed = |version: String| match version.as_str() {
        "v1" => "api/v1".to_owned(),
        _ => format!("apis/{version}"),
    };
    catalogue.api_versions().into_iter().map(prefixed).collect()
}

fn exchanged(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn parameter(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
}
