//! The router, and the way from a request to the handler of its verb. What verbs do is in
//! [`crate::handlers`].

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use bytes::Bytes;
use coracle_store::resources::{self, Key, Resources};
use futures::stream;
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    body, crd, discovery, handlers,
    identity::{self, Identity, User},
    kinds::{CUSTOM_RESOURCE_DEFINITIONS, Catalogue, Handling, KindRef, Subresource},
    negotiate, openapi,
    render::{ListMetadata, View},
    request::{Parameters, Target},
    reserve::Reserve,
    status::{self, Error},
};

/// What the server is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The objects.
    pub resources: Resources,
    /// The kinds that are served: what [`bootstrap`](crate::bootstrap()) found.
    pub catalogue: Catalogue,
    /// The kubelet API of this machine's node, which streams logs:
    /// `GET /containerLogs/{namespace}/{pod}/{container}`.
    pub kubelet: Router,
    /// The name of this machine's node.
    pub node_name: String,
    /// Where Services get their addresses.
    pub reserve: Reserve,
    /// Who is who, and where it is written down what they do.
    pub identity: Identity,
    /// Ends watches, so that the process can.
    pub stop: CancellationToken,
}

/// The Kubernetes API as a router, to be merged with the others of the process.
pub fn router(options: Options) -> Router {
    let discovery = Router::new()
        .route("/version", get(discovery::version))
        .route("/api", get(discovery::core))
        .route("/apis", get(discovery::groups))
        .route("/apis/{group}", get(discovery::group))
        .route("/api/{version}", get(discovery::core_resources))
        .route("/apis/{group}/{version}", get(discovery::group_resources))
        .route("/openapi/v2", get(openapi::v2))
        .route("/openapi/v3", get(openapi::index))
        .route("/openapi/v3/{*path}", get(openapi::document));
    let tokens = Router::new()
        .route(
            "/.well-known/openid-configuration",
            get(identity::discovery::configuration),
        )
        .route("/openid/v1/jwks", get(identity::discovery::keys));
    let health = Router::new()
        .route("/healthz", get(healthy))
        .route("/livez", get(healthy))
        .route("/readyz", get(ready));
    let options = Arc::new(options);
    discovery
        .merge(tokens)
        .merge(health)
        .route("/api/{version}/{*rest}", any(dispatch))
        .route("/apis/{group}/{version}/{*rest}", any(dispatch))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&options),
            identity::layer::layer,
        ))
        .with_state(options)
}

async fn healthy() -> &'static str {
    "ok"
}

async fn ready(State(options): State<Arc<Options>>) -> Result<&'static str, Error> {
    options.resources.revision().await?;
    Ok("ok")
}

/// One request to objects, read as far as all verbs have it in common.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) server: Arc<Options>,
    /// Who makes it.
    pub(crate) user: User,
    pub(crate) target: Target,
    pub(crate) parameters: Parameters,
    pub(crate) headers: HeaderMap,
    pub(crate) now: Timestamp,
}

impl Call {
    fn new(server: Arc<Options>, parts: &mut Parts, now: Timestamp) -> Result<Self, Error> {
        Ok(Self {
            target: Target::parse(&server.catalogue, parts.uri.path())?,
            parameters: Parameters::parse(&parts.uri)?,
            headers: std::mem::take(&mut parts.headers),
            user: parts.extensions.get::<User>().cloned().unwrap_or_default(),
            server,
            now,
        })
    }

    pub(crate) fn kind(&self) -> &KindRef {
        &self.target.kind
    }

    pub(crate) fn resources(&self) -> &Resources {
        &self.server.resources
    }

    /// The key of the object that the path names.
    pub(crate) fn key(&self) -> Key {
        self.target.kind.key(&self.target.namespace, &self.target.name)
    }

    /// The form that the client accepts.
    pub(crate) fn view(&self) -> Result<View, Error> {
        View::new(
            Arc::clone(self.kind()),
            negotiate::form(&self.headers)?,
            &self.parameters,
        )
    }

    /// An object as the answer.
    pub(crate) fn show(&self, code: StatusCode, view: &View, object: &resources::Body) -> Response {
        if self.parameters.flag("pretty") {
            return self.reply(code, &view.object(Value::clone(object), self.now));
        }
        let mut text = Vec::with_capacity(object.text().len() + 1);
        text.extend_from_slice(&view.text(object, self.now));
        text.push(b'\n');
        (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
    }

    /// A list as the answer. A long one is sent while it is put together.
    pub(crate) fn show_list(
        &self,
        view: &View,
        metadata: ListMetadata,
        objects: Vec<resources::Body>,
    ) -> Response {
        if self.parameters.flag("pretty") {
            let objects = objects.into_iter().map(resources::Body::into_value).collect();
            return self.reply(StatusCode::OK, &view.list(metadata, objects, self.now));
        }
        let mut pieces = view.list_text(metadata, objects, self.now).peekable();
        let first = pieces.next().unwrap_or_default();
        let body = if pieces.peek().is_none() {
            Body::from(first)
        } else {
            let pieces = std::iter::once(first).chain(pieces);
            Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)))
        };
        (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }

    /// An answer in JSON.
    pub(crate) fn reply(&self, code: StatusCode, value: &Value) -> Response {
        reply(code, value, self.parameters.flag("pretty"))
    }
}

/// An answer in JSON.
pub(crate) fn reply(code: StatusCode, value: &Value, is_pretty: bool) -> Response {
    let body = if is_pretty {
        format!("{value:#}\n")
    } else {
        format!("{value}\n")
    };
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn dispatch(State(server): State<Arc<Options>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let call = match Call::new(server, &mut parts, Timestamp::now()) {
        Ok(call) => call,
        Err(error) => return error.into_response(),
    };
    let warning = call.kind().deprecation.clone();
    let answer = if call.target.subresource.is_some_and(Subresource::is_stream) {
        // The connection is taken over, so the request stays whole.
        parts.headers.clone_from(&call.headers);
        handlers::stream::connect(&call, Request::from_parts(parts, body)).await
    } else {
        let defines = *parts.method.as_str() != *"GET" && **call.kind() == **CUSTOM_RESOURCE_DEFINITIONS;
        let server = defines.then(|| Arc::clone(&call.server));
        let answer = serve(call, &parts.method, body).await;
        if let Some(server) = server {
            // What was defined is served when the client hears that it was.
            let refreshed = crd::refresh(&server.resources, &server.catalogue).await;
            answer.and_then(|answer| refreshed.map(|()| answer).map_err(Error::from))
        } else {
            answer
        }
    };
    let answer = answer.unwrap_or_else(IntoResponse::into_response);
    status::with_warnings(answer, warning.into_iter().collect())
}

async fn serve(call: Call, method: &Method, body: Body) -> Result<Response, Error> {
    let bytes = if matches!(*method, Method::GET | Method::HEAD) {
        Bytes::new()
    } else {
        body::read(body).await?
    };
    let is_collection = call.target.is_collection();
    if let Handling::Answered(answer) = call.kind().handling {
        return match *method {
            Method::POST if is_collection => {
                let question = body::decode_object(&call.headers, &bytes)?;
                answer(call, question).await
            }
            _ => Err(Error::MethodNotAllowed),
        };
    }
    match (method.as_str(), call.target.subresource) {
        ("GET", None) if call.parameters.flag("watch") => handlers::watch::watch(call).await,
        ("GET" | "HEAD", None) if is_collection => handlers::read::list(&call).await,
        ("GET" | "HEAD", None | Some(Subresource::Status)) => handlers::read::get(&call).await,
        ("GET" | "HEAD", Some(Subresource::Scale)) => handlers::scale::get(&call).await,
        ("PUT", Some(Subresource::Scale)) => handlers::scale::replace(&call, &bytes).await,
        ("PATCH", Some(Subresource::Scale)) => handlers::scale::patch(&call, &bytes).await,
        ("GET", Some(Subresource::Log)) => handlers::log::log(&call).await,
        ("POST", None) if is_collection => handlers::write::create(&call, &bytes).await,
        ("POST", Some(Subresource::Token)) => identity::token_request::create(&call, &bytes).await,
        ("POST", Some(Subresource::Binding)) => handlers::pod::bind(&call, &bytes).await,
        ("POST", Some(Subresource::Eviction)) => handlers::pod::evict(&call, &bytes).await,
        ("PUT", None | Some(Subresource::Status | Subresource::Finalize)) if !is_collection => {
            handlers::write::replace(&call, &bytes).await
        }
        ("PATCH", None | Some(Subresource::Status)) if !is_collection => {
            handlers::write::patch(&call, &bytes).await
        }
        ("DELETE", None) if is_collection => handlers::delete::collection(&call, &bytes).await,
        ("DELETE", None) => handlers::delete::delete(&call, &bytes).await,
        _ => Err(Error::MethodNotAllowed),
    }
}
