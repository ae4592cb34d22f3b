//! Connections to what a Pod runs: exec, attach and port-forward. Finds the Pod and the container
//! that is meant, then hands the whole request to the kubelet API of the Pod's node.

use axum::{extract::Request, response::Response};
use http::{Method, StatusCode, Uri};
use tower::ServiceExt as _;

use super::log;
use crate::{kinds::Subresource, object, server::Call, status::Error};

/// Answers GET and POST of a connection.
pub(crate) async fn connect(call: &Call, mut request: Request) -> Result<Response, Error> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(Error::MethodNotAllowed);
    }
    let (namespace, name) = (&call.target.namespace, &call.target.name);
    let pod = call.resources().get(&call.key()).await?;
    let pod = pod.ok_or_else(|| Error::not_found(call.kind(), name))?.body;
    let node = object::text(&pod, "/spec/nodeName");
    if node.is_empty() {
        return Err(Error::BadRequest(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    log::check_node(call, node)?;
    let phase = object::text(&pod, "/status/phase");
    if matches!(phase, "Succeeded" | "Failed") {
        let what = match call.target.subresource {
            Some(Subresource::Exec) => "cannot exec into a container in a completed pod; current phase is",
            Some(Subresource::Attach) => "cannot attach a container in a completed pod; current phase is",
            _ => "unable to forward port because pod is not running. Current status=",
        };
        let space = if what.ends_with('=') { "" } else { " " };
        return Err(Error::BadRequest(format!("{what}{space}{phase}")));
    }
    let container = || log::container(&pod, call.parameters.text("container"));
    let path = match call.target.subresource {
        Some(Subresource::Exec) => format!("/exec/{namespace}/{name}/{}", container()?),
        Some(Subresource::Attach) => format!("/attach/{namespace}/{name}/{}", container()?),
        _ => format!("/portForward/{namespace}/{name}"),
    };
    let query = request.uri().query().map(|query| format!("?{query}"));
    let uri = format!("{path}{}", query.unwrap_or_default());
    let uri = uri.parse::<Uri>();
    *request.uri_mut() =
        uri.map_err(|error| Error::bad_request(format!("the connection cannot be made: {error}")))?;
    let Ok(response) = call.server.kubelet.clone().oneshot(request).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS || response.status().is_success() {
        return Ok(response);
    }
    Err(log::refusal(response).await)
}
