//! The other end of the tables when CORACLE_TEST_KUBECONFIG names one: a cluster, over HTTPS and
//! with the credentials of the file. Each table has a namespace of its own, which goes with it.

use std::{path::Path, time::SystemTime};

use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api as Objects, Client, Config,
    api::{DeleteParams, PostParams},
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions},
};
use serde_json::json;

/// What tables define beside what is in their namespace.
const DEFINED: &str = "widgets.example.com";

pub(super) struct Cluster {
    client: Client,
    pub(super) namespace: String,
}

impl Cluster {
    /// The cluster of the kubeconfig, if there is one, with a namespace for the table.
    pub(super) async fn from_environment(table: &str) -> Option<Self> {
        let path = std::env::var_os("CORACLE_TEST_KUBECONFIG")?;
        let kubeconfig =
            Kubeconfig::read_from(Path::new(&path)).expect("CORACLE_TEST_KUBECONFIG is a kubeconfig");
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        // A refusal is what is looked at, not something to be overcome.
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let namespace = format!("wire-{table}-{}", now.as_micros() % 1_000_000_000);
        let made = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        Objects::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &made)
            .await
            .unwrap();
        // What controllers put into every namespace is there before the first request.
        let accounts: Objects<ServiceAccount> = Objects::namespaced(client.clone(), &namespace);
        let maps: Objects<ConfigMap> = Objects::namespaced(client.clone(), &namespace);
        await_condition(accounts, "default", conditions::is_created())
            .await
            .unwrap();
        await_condition(maps, "kube-root-ca.crt", conditions::is_created())
            .await
            .unwrap();
        Some(Self { client, namespace })
    }

    pub(super) async fn send(&self, request: Request<Vec<u8>>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let response = self.client.send(request.map(Body::from)).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, bytes.into())
    }

    pub(super) async fn leave(self, defines: bool) {
        let background = DeleteParams::background();
        Objects::<Namespace>::all(self.client.clone())
            .delete(&self.namespace, &background)
            .await
            .unwrap();
        if defines {
            let definitions: Objects<CustomResourceDefinition> = Objects::all(self.client);
            let gone = definitions.delete(DEFINED, &background).await.unwrap();
            if let Some(going) = gone.left() {
                let uid = going.metadata.uid.unwrap();
                await_condition(definitions, DEFINED, conditions::is_deleted(&uid))
                    .await
                    .unwrap();
            }
        }
    }
}
