//! OpenAPI v3: an index, and a document for each group and version, with the schemas of its kinds and the paths to
//! them. By these `kubectl explain` explains, and `kubectl apply` knows that writes can be validated.
//!
//! Schemas of Kubernetes' own kinds come with the program (`scripts/kubernetes-schemas` makes the file); those of
//! custom kinds are what their definitions say. A document is made when it is first asked for.

mod paths;
mod schemas;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::{Map, Value, json};

use crate::{
    kinds::{Catalogue, KindRef, Scope},
    negotiate,
    server::{Options, reply},
    status::Error,
};

/// How clients ask for version 2: Go's read nothing else.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same in an answer, where `@` would be no media type.
const V2_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const TITLE: &str = "Coracle";
const VERSION: &str = "v1.34.0";

/// Answers `/openapi/v2`, which clients ask for about kinds that version 3 lets nobody patch. It describes nothing: what it
/// does not describe is for the server to judge.
pub(crate) async fn v2(headers: HeaderMap) -> Result<Response, Error> {
    let accepts = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    if accepts.into_iter().any(|value| value.contains(V2_PROTOBUF)) {
        let content = HeaderValue::from_static(V2_ANSWER);
        return Ok(([(header::CONTENT_TYPE, content)], v2_document()).into_response());
    }
    negotiate::json_only(&headers)?;
    let document = json!({
        "swagger": "2.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": {},
        "definitions": {},
    });
    Ok(reply(StatusCode::OK, &document, false))
}

/// The same in protobuf: `Document` of gnostic's `OpenAPIv2.proto`, with `swagger` (1), `info` (2: title and version) and
/// `paths` (8).
fn v2_document() -> Vec<u8> {
    // Every length is below 128, so that one byte holds it.
    let part = |number: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap_or_default();
        [&[number << 3 | 2, length], content].concat()
    };
    let info = [part(1, TITLE.as_bytes()), part(2, VERSION.as_bytes())].concat();
    [part(1, b"2.0"), part(2, &info), part(8, b"")].concat()
}

/// Answers `/openapi/v3`.
pub(crate) async fn index(State(server): State<Arc<Options>>, headers: HeaderMap) -> Result<Response, Error> {
    negotiate::json_only(&headers)?;
    let paths = documents(&server.catalogue).into_iter().map(|(group, version)| {
        let path = path(&group, &version);
        let hash = hash(&server.catalogue.of(&group, &version));
        let url = format!("/openapi/v3/{path}?hash={hash}");
        (path, json!({"serverRelativeURL": url}))
    });
    let paths = paths.collect::<Map<_, _>>();
    Ok(reply(StatusCode::OK, &json!({"paths": paths}), false))
}

/// Documents that were asked for, by path, each with the hash that it had.
static MADE: LazyLock<Mutex<HashMap<String, (String, Bytes)>>> = LazyLock::new(Mutex::default);

/// Answers `/openapi/v3/{path}`.
pub(crate) async fn document(
    State(server): State<Arc<Options>>,
    Path(path): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    negotiate::json_only(&headers)?;
    let segments = path.split('/').collect::<Vec<_>>();
    let (group, version) = match segments.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(Error::NoSuchPath),
    };
    let kinds = server.catalogue.of(group, version);
    if kinds.is_empty() {
        return Err(Error::NoSuchPath);
    }
    let hash = hash(&kinds);
    let known = {
        let made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.get(&path)
            .filter(|(of, _)| *of == hash)
            .map(|(_, text)| text.clone())
    };
    let text = known.unwrap_or_else(|| {
        let text = Bytes::from(make(&path, &kinds).to_string());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.insert(path.clone(), (hash.clone(), text.clone()));
        text
    });
    let mut response = (
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::VARY, "Accept"),
        ],
        text,
    )
        .into_response();
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        headers.insert(header::ETAG, tag);
    }
    // What was asked for by its hash never becomes another.
    if uri.query().is_some_and(|query| query == format!("hash={hash}")) {
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        headers.insert(header::CACHE_CONTROL, forever);
    }
    Ok(response)
}

fn make(path: &str, kinds: &[KindRef]) -> Value {
    let mut components = schemas::Components::default();
    let mut paths = Map::new();
    for kind in kinds {
        let schema = components.add_kind(kind);
        paths::add(&mut paths, path, kind, &schema, &mut components);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": paths,
        "components": {"schemas": components.finish()},
    })
}

fn documents(catalogue: &Catalogue) -> Vec<(String, String)> {
    let groups = catalogue.groups();
    let named = groups
        .into_iter()
        .flat_map(|(group, versions)| versions.into_iter().map(move |version| (group.clone(), version)));
    std::iter::once((String::new(), "v1".to_owned()))
        .chain(named)
        .collect()
}

fn path(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// Another one when the document would be.
fn hash(kinds: &[KindRef]) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    schemas::FILE.hash(&mut hasher);
    for kind in kinds {
        (&kind.kind, &kind.plural, kind.scope == Scope::Cluster).hash(&mut hasher);
        for part in &kind.subresources {
            part.segment().hash(&mut hasher);
        }
        kind.schema
            .as_ref()
            .map(|schema| schema.digest())
            .hash(&mut hasher);
    }
    format!("{:016X}", hasher.finish())
}
