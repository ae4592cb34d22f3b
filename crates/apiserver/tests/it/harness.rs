//! An API server to send requests to.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, response::Response};
use coracle_apiserver::{
    Catalogue, Options, Reserve, bootstrap, collect_garbage, identity::Identity, router,
};
use coracle_store::{Location, Store, resources::Resources};
use futures::StreamExt as _;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The name of the only node.
pub(crate) const NODE: &str = "here";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";

/// An API server.
pub(crate) struct Api {
    pub(crate) router: Router,
    pub(crate) stop: CancellationToken,
    pub(crate) catalogue: Catalogue,
    store: Arc<Store>,
}

impl Api {
    pub(crate) async fn new() -> Self {
        Self::with_kubelet(Router::new()).await
    }

    pub(crate) async fn with_kubelet(kubelet: Router) -> Self {
        let store = Store::open(Location::Memory).await.unwrap();
        let resources = store.resources().clone();
        let catalogue = bootstrap(&resources).await.unwrap();
        let stop = CancellationToken::new();
        let options = Options {
            resources,
            catalogue: catalogue.clone(),
            kubelet,
            node_name: NODE.to_owned(),
            reserve: Reserve::default(),
            identity: Identity::ephemeral().unwrap(),
            stop: stop.clone(),
        };
        Self {
            router: router(options),
            stop,
            catalogue,
            store: Arc::new(store),
        }
    }

    /// With the garbage collector at work.
    pub(crate) async fn collecting() -> Self {
        let api = Self::new().await;
        tokio::spawn(collect_garbage(
            api.resources().clone(),
            api.catalogue.clone(),
            api.stop.clone(),
        ));
        api
    }

    /// Another server over the same objects.
    pub(crate) fn restarted(&self, catalogue: Catalogue) -> Self {
        let options = Options {
            resources: self.resources().clone(),
            catalogue: catalogue.clone(),
            kubelet: Router::new(),
            reserve: Reserve::default(),
            node_name: NODE.to_owned(),
            identity: Identity::ephemeral().unwrap(),
            stop: CancellationToken::new(),
        };
        Self {
            stop: options.stop.clone(),
            router: router(options),
            catalogue,
            store: Arc::clone(&self.store),
        }
    }

    pub(crate) fn resources(&self) -> &Resources {
        self.store.resources()
    }

    pub(crate) fn client(&self) -> kube::Client {
        let router = self.router.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            router.clone().oneshot(request.map(Body::new))
        });
        kube::Client::new(service, "default")
    }

    pub(crate) async fn raw(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.raw(request).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (
            code,
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()),
        )
    }

    /// Sends, and expects the code.
    pub(crate) async fn expect(&self, code: u16, request: Request<Body>) -> Value {
        let what = format!("{} {}", request.method(), request.uri());
        let (is, value) = self.send(request).await;
        assert_eq!(is.as_u16(), code, "{what}: {value:#}");
        value
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.expect(200, get(path)).await
    }

    pub(crate) async fn create(&self, path: &str, object: &Value) -> Value {
        self.expect(201, with_body("POST", path, "application/json", object))
            .await
    }

    pub(crate) async fn patch(&self, path: &str, media: &str, patch: &Value) -> Value {
        self.expect(200, with_body("PATCH", path, media, patch)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Value {
        self.expect(200, Request::delete(path).body(Body::empty()).unwrap())
            .await
    }

    /// A watch, to take events from.
    pub(crate) async fn watch(&self, path: &str) -> Events {
        let response = self.raw(get(path)).await;
        assert_eq!(response.status(), StatusCode::OK);
        Events {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// A Pod that is bound to the node and runs.
    pub(crate) async fn running_pod(&self, name: &str) -> Value {
        self.create(PODS, &pod(name)).await;
        let binding = json!({"target": {"kind": "Node", "name": NODE}});
        self.create(&format!("{PODS}/{name}/binding"), &binding).await;
        let status = json!({"status": {"phase": "Running"}});
        self.patch(&format!("{PODS}/{name}/status"), MERGE, &status).await
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The events of a watch.
pub(crate) struct Events {
    body: Body,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event, none when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.drain(..=end).collect::<Vec<_>>();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.buffer.extend_from_slice(&frame.into_data().unwrap());
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn summary(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch has ended");
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        (text("/type"), text("/object/metadata/name"))
    }

    /// Waits until the object of this name is gone.
    pub(crate) async fn until_deleted(&mut self, name: &str) {
        let wait = async { while self.summary().await != ("DELETED".to_owned(), name.to_owned()) {} };
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .expect("it was not deleted");
    }

    /// Everything until the watch ends.
    pub(crate) async fn rest(self) -> Vec<Value> {
        futures::stream::unfold(self, |mut events| async {
            events.next().await.map(|event| (event, events))
        })
        .collect()
        .await
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(crate) fn accepting(path: &str, accept: &str) -> Request<Body> {
    Request::get(path)
        .header(header::ACCEPT, accept)
        .body(Body::empty())
        .unwrap()
}

pub(crate) fn with_body(method: &str, path: &str, media: &str, body: &Value) -> Request<Body> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media);
    request.body(Body::from(body.to_string())).unwrap()
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "python:3.12"}]},
    })
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

/// An owner reference to the object.
pub(crate) fn owner(object: &Value) -> Value {
    json!([{
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "name": object["metadata"]["name"],
        "uid": object["metadata"]["uid"],
    }])
}
