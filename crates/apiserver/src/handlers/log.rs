//! Logs: finds the Pod and the container that is meant, then hands the request to the kubelet API
//! of the Pod's node and streams what it answers.

use axum::{body::Body, response::Response};
use futures::StreamExt as _;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{object, server::Call, status::Error};

/// Of an error that the kubelet answers with.
const ERROR_LIMIT: usize = 4096;

const FLAGS: [&str; 3] = ["follow", "previous", "timestamps"];
const NUMBERS: [&str; 3] = ["tailLines", "sinceSeconds", "limitBytes"];
const CONTAINERS: [&str; 3] = [
    "/spec/containers",
    "/spec/initContainers",
    "/spec/ephemeralContainers",
];

/// Answers GET of a Pod's log.
pub(crate) async fn log(call: &Call) -> Result<Response, Error> {
    let name = &call.target.name;
    let pod = call.resources().get(&call.key()).await?;
    let pod = pod.ok_or_else(|| Error::not_found(call.kind(), name))?.body;
    let container = container(&pod, call.parameters.text("container"))?;
    let query = query(call)?;
    let node = object::text(&pod, "/spec/nodeName");
    if node.is_empty() {
        // It has not run anywhere, so it has said nothing.
        return Ok(empty());
    }
    check_node(call, node)?;
    let namespace = &call.target.namespace;
    let uri = format!("/containerLogs/{namespace}/{name}/{container}{query}");
    let request = Request::get(uri).body(Body::empty());
    let request =
        request.map_err(|error| Error::bad_request(format!("the log cannot be asked for: {error}")))?;
    let Ok(response) = call.server.kubelet.clone().oneshot(request).await;
    if response.status().is_success() {
        let (mut parts, body) = response.into_parts();
        parts
            .headers
            .entry(header::CONTENT_TYPE)
            .or_insert(header::HeaderValue::from_static("text/plain"));
        // A log that is followed ends with the server, as a watch does.
        let body = if call.parameters.flag("follow") {
            let stop = call.server.stop.clone().cancelled_owned();
            Body::from_stream(body.into_data_stream().take_until(stop))
        } else {
            body
        };
        return Ok(Response::from_parts(parts, body));
    }
    Err(refusal(response).await)
}

/// What the node answered instead of what it was asked for.
pub(super) async fn refusal(response: Response) -> Error {
    let code = response.status();
    let body = Limited::new(response.into_body(), ERROR_LIMIT).collect().await;
    let text = body
        .map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned())
        .unwrap_or_default();
    let message = if text.is_empty() {
        format!("the node answered {code}")
    } else {
        text
    };
    Error::Kubelet { code, message }
}

/// The Pod must be on this machine's node.
pub(super) fn check_node(call: &Call, node: &str) -> Result<(), Error> {
    let (name, own) = (&call.target.name, &call.server.node_name);
    if node == own {
        return Ok(());
    }
    Err(Error::Kubelet {
        code: StatusCode::SERVICE_UNAVAILABLE,
        message: format!("pod {name} is on node \"{node}\", which cannot be reached from node \"{own}\""),
    })
}

fn empty() -> Response {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain"),
    );
    response
}

/// The container that is meant: the one asked for, or the only one.
pub(super) fn container<'a>(pod: &'a Value, asked: &str) -> Result<&'a str, Error> {
    let name = object::name(pod);
    let names = |pointer: &str| {
        object::list(pod, pointer)
            .iter()
            .map(|container| object::text(container, "/name"))
            .collect::<Vec<_>>()
    };
    if !asked.is_empty() {
        let mut all = CONTAINERS.iter().flat_map(|pointer| names(pointer));
        return all
            .find(|container| *container == asked)
            .ok_or_else(|| Error::BadRequest(format!("container {asked} is not valid for pod {name}")));
    }
    let [containers, inits, _] = CONTAINERS.map(names);
    match containers.as_slice() {
        [one] => Ok(one),
        many => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !inits.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
            }
            Err(Error::BadRequest(message))
        }
    }
}

/// The query for the kubelet: the same parameters, each checked and in one spelling.
fn query(call: &Call) -> Result<String, Error> {
    let parameters = &call.parameters;
    let mut pairs = Vec::new();
    for flag in FLAGS {
        if parameters.flag(flag) {
            pairs.push(format!("{flag}=true"));
        }
    }
    for number in NUMBERS {
        if let Some(value) = parameters.number::<u64>(number)? {
            pairs.push(format!("{number}={value}"));
        }
    }
    if let Some(time) = parameters.given("sinceTime") {
        let time = time
            .parse::<jiff::Timestamp>()
            .map_err(|error| Error::BadRequest(format!("sinceTime: Invalid value: \"{time}\": {error}")))?;
        if parameters.given("sinceSeconds").is_some() {
            return Err(Error::bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        pairs.push(format!("sinceTime={time}"));
    }
    Ok(if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_is_chosen_or_asked_for() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "").unwrap(), "a");
        assert_eq!(container(&one, "i").unwrap(), "i");
        assert_eq!(
            container(&one, "x").unwrap_err().to_string(),
            "container x is not valid for pod p"
        );
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(
            container(&two, "").unwrap_err().to_string(),
            "a container name must be specified for pod p, choose one of: [a b]"
        );
    }
}
