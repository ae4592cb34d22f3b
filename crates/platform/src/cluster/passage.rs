//! The cluster's API for reading, in the place of an embedded one: what commands such as
//! `coracle get pods` ask for. Writing is kubectl's, with the user's own kubeconfig.

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::Connection;
use crate::data_dir::InUse;

/// `/readyz` is the cluster's answer, too; that this server lives is told by `/livez` and `/healthz`.
pub(crate) fn router(connection: Connection) -> Router {
    let passed = [
        "/version",
        "/readyz",
        "/openapi/{*rest}",
        "/api",
        "/api/{version}",
        "/api/{version}/{*rest}",
        "/apis",
        "/apis/{group}",
        "/apis/{group}/{version}",
        "/apis/{group}/{version}/{*rest}",
    ];
    let mut router = Router::new();
    for path in passed {
        router = router.route(path, get(pass_on).fallback(refuse));
    }
    for path in ["/healthz", "/livez"] {
        router = router.route(path, get(async || "ok"));
    }
    router.with_state(connection)
}

async fn pass_on(State(connection): State<Connection>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if parts.headers.contains_key(header::UPGRADE) {
        return answer(&not_here(&connection.in_use));
    }
    for header in [header::HOST, header::AUTHORIZATION, header::CONNECTION] {
        parts.headers.remove(header);
    }
    let request = http::Request::from_parts(parts, kube::client::Body::empty());
    match connection.client.send(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => answer(&silent(&connection.in_use, &error)),
    }
}

async fn refuse(State(connection): State<Connection>) -> Response {
    answer(&not_here(&connection.in_use))
}

fn answer(status: &Value) -> Response {
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let code = code.and_then(|code| StatusCode::from_u16(code).ok());
    (code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(status)).into_response()
}

fn not_here(cluster: &InUse) -> Value {
    let message = format!(
        "this server has no Kubernetes API of its own and shows {cluster}: use that file to change something there \
         or to enter a Pod, as `coracle kubectl` does"
    );
    status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message)
}

fn silent(cluster: &InUse, error: &kube::Error) -> Value {
    let mut message = format!("{cluster} does not answer");
    let mut why: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = why {
        message = format!("{message}: {error}");
        why = error.source();
    }
    let mut status = status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", &message);
    status["details"] = json!({"retryAfterSeconds": 1});
    status
}

fn status(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    })
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use kube::Client;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    fn over(client: Client) -> Router {
        router(Connection {
            client,
            in_use: InUse {
                kubeconfig: "/etc/kubeconfig".into(),
                context: "work".to_owned(),
                server: "https://cluster.example".to_owned(),
                namespace: "default".to_owned(),
            },
        })
    }

    fn passage(cluster: Router) -> Router {
        let service = service_fn(move |request: http::Request<kube::client::Body>| {
            cluster.clone().oneshot(request.map(Body::new))
        });
        over(Client::new(service, "default"))
    }

    async fn asked(router: Router, request: http::request::Builder) -> (StatusCode, String) {
        let request = request.body(Body::empty()).expect("a request");
        let answer = router.oneshot(request).await.expect("an answer");
        let code = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    fn echoing() -> Router {
        Router::new().fallback(async |request: Request| {
            let credentials = request.headers().get(header::AUTHORIZATION).is_some();
            format!("{} {} {credentials}", request.method(), request.uri())
        })
    }

    #[tokio::test]
    async fn reads_reach_the_cluster_without_the_callers_credentials() {
        for path in [
            "/api",
            "/apis/apps/v1/deployments?limit=5",
            "/readyz",
            "/openapi/v3",
        ] {
            let request = Request::get(path).header(header::AUTHORIZATION, "Bearer x");
            let (code, text) = asked(passage(echoing()), request).await;
            assert_eq!((code, text), (StatusCode::OK, format!("GET {path} false")));
        }
    }

    #[tokio::test]
    async fn whoever_would_change_something_is_told_where_to() {
        let pods = "/api/v1/namespaces/default/pods";
        let entering = Request::get(format!("{pods}/p/exec")).header(header::UPGRADE, "websocket");
        for request in [
            Request::post(pods),
            Request::delete(pods),
            Request::patch(pods),
            entering,
        ] {
            let (code, text) = asked(passage(echoing()), request).await;
            assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED);
            let status: Value = serde_json::from_str(&text).expect("a Status");
            assert_eq!(status["reason"], "MethodNotAllowed");
            let message = status["message"].as_str().expect("a message");
            assert!(
                message.contains("context `work` of `/etc/kubeconfig`"),
                "{message}"
            );
        }
    }

    #[tokio::test]
    async fn a_cluster_that_is_silent_is_named_and_this_server_is_alive() {
        let service = service_fn(async |_: http::Request<kube::client::Body>| {
            Err::<Response, _>(std::io::Error::other("nobody listens"))
        });
        let router = over(Client::new(service, "default"));
        let (code, text) = asked(router.clone(), Request::get("/api/v1/pods")).await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        let status: Value = serde_json::from_str(&text).expect("a Status");
        let message = status["message"].as_str().expect("a message");
        assert!(message.contains("https://cluster.example"), "{message}");
        assert!(message.contains("nobody listens"), "{message}");
        assert_eq!(
            asked(router, Request::get("/livez")).await,
            (StatusCode::OK, "ok".to_owned())
        );
    }
}
