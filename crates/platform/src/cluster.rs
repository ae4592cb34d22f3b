//! A cluster in the place of the embedded Kubernetes API and this machine's node: how it is
//! reached, and what is looked at before anything relies on it. Coracle has no
//! CustomResourceDefinitions of its own yet, so none are applied.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::HeaderValue;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::Node,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::{data_dir::InUse, server::PIPELINES};

pub(crate) mod passage;

/// What the engine does in the namespace: API group, resource, verbs.
const NEEDS: &[(&str, &str, &[&str])] = &[
    ("", "pods", &["create", "delete", "get", "list", "watch"]),
    ("", "persistentvolumeclaims", &["create", "delete", "get", "list"]),
];

/// How long a start waits for the cluster's answers, altogether.
const PATIENCE: Duration = Duration::from_secs(15);

/// The cluster to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// How to reach it.
    pub kubeconfig: PathBuf,
    /// The context of the kubeconfig; its current one when none is named.
    pub context: Option<String>,
    /// Where tasks run; where the context says when none is named.
    pub namespace: Option<String>,
    /// Where its Pods reach this server.
    pub advertise_url: Option<String>,
}

/// A cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig `{}`", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// No client could be made of it.
    #[error("cannot use the credentials in the kubeconfig `{}`", path.display())]
    Client {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// Its API does not answer.
    #[error(
        "the Kubernetes API at {server} (context `{context}` of `{}`) does not answer: start it, or say which other \
         one to use with `--context` or `--kubeconfig`",
        path.display()
    )]
    Unreachable {
        /// Where it should be.
        server: String,
        /// The context that says so.
        context: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Silence,
    },
    /// Its API answers that it will not.
    #[error(
        "the Kubernetes API at {server} refuses what context `{context}` of `{}` asks: get new credentials into that \
         file, or use another context",
        path.display()
    )]
    Refused {
        /// Where it is.
        server: String,
        /// The context.
        context: String,
        /// The file.
        path: PathBuf,
        /// What it answers.
        #[source]
        source: kube::Error,
    },
    /// The user of the kubeconfig may not do what is needed.
    #[error(
        "the user of context `{context}` may not do in the namespace `{namespace}` what tasks need: {lacking}; have \
         somebody grant it, or use another context"
    )]
    Forbidden {
        /// The context.
        context: String,
        /// The namespace.
        namespace: String,
        /// Verbs and resources.
        lacking: String,
    },
    /// Pods would not find this server.
    #[error(
        "Pods of this cluster run on {nodes}, where {url} is not this server: give them a URL that leads here with \
         `--advertise-url`"
    )]
    NotThisMachine {
        /// Where Pods run.
        nodes: String,
        /// Where this server listens.
        url: String,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// The request failed.
    #[error(transparent)]
    Failed(kube::Error),
    /// Nothing came.
    #[error("no answer in {0:?}")]
    TimedOut(Duration),
}

/// A cluster that can be used.
#[derive(Clone)]
pub struct Connection {
    /// A client of its API.
    pub client: Client,
    /// What it is, in words.
    pub in_use: InUse,
}

impl Cluster {
    /// Reads the kubeconfig, and asks the cluster whether it is there and lets us work.
    ///
    /// # Errors
    /// [`Error`]: what is in the way, and what to do about it.
    pub async fn connect(&self) -> Result<Connection, Error> {
        self.connect_within(PATIENCE).await
    }

    async fn connect_within(&self, patience: Duration) -> Result<Connection, Error> {
        let path = std::path::absolute(&self.kubeconfig).unwrap_or_else(|_| self.kubeconfig.clone());
        let unusable = |source| Error::Kubeconfig {
            path: path.clone(),
            source,
        };
        let kubeconfig = Kubeconfig::read_from(&path).map_err(unusable)?;
        let context = self
            .context
            .clone()
            .or_else(|| kubeconfig.current_context.clone());
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(unusable)?;
        // What the cluster says of who made the Pods.
        config
            .headers
            .push((http::header::USER_AGENT, HeaderValue::from_static(PIPELINES)));
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|source| Error::Client {
            path: path.clone(),
            source,
        })?;
        let connection = Connection {
            client,
            in_use: InUse {
                kubeconfig: path.clone(),
                context: context.unwrap_or_default(),
                server,
                namespace,
            },
        };
        match tokio::time::timeout(patience, connection.check_rights()).await {
            Ok(checked) => checked.map(|()| connection),
            Err(_) => Err(connection.unreachable(Silence::TimedOut(patience))),
        }
    }
}

impl Connection {
    fn unreachable(&self, source: Silence) -> Error {
        let InUse {
            server,
            context,
            kubeconfig,
            ..
        } = self.in_use.clone();
        Error::Unreachable {
            server,
            context,
            path: kubeconfig,
            source,
        }
    }

    /// What an error of the client says of the cluster.
    fn unusable(&self, source: kube::Error) -> Error {
        if !matches!(source, kube::Error::Api(_)) {
            return self.unreachable(Silence::Failed(source));
        }
        Error::Refused {
            server: self.in_use.server.clone(),
            context: self.in_use.context.clone(),
            path: self.in_use.kubeconfig.clone(),
            source,
        }
    }

    async fn check_rights(&self) -> Result<(), Error> {
        self.client
            .apiserver_version()
            .await
            .map_err(|error| self.unusable(error))?;
        let asked = NEEDS
            .iter()
            .flat_map(|(group, resource, verbs)| verbs.iter().map(move |verb| (*group, *resource, *verb)));
        let answers = stream::iter(asked).map(|need| async move { (need, self.may(need).await) });
        let answers: Vec<_> = answers.buffered(8).collect().await;
        let mut lacking = Vec::new();
        for ((_, resource, verb), may) in answers {
            if !may.map_err(|error| self.unusable(error))? {
                lacking.push(format!("{verb} {resource}"));
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        Err(Error::Forbidden {
            context: self.in_use.context.clone(),
            namespace: self.in_use.namespace.clone(),
            lacking: lacking.join(", "),
        })
    }

    async fn may(&self, (group, resource, verb): (&str, &str, &str)) -> Result<bool, kube::Error> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(self.in_use.namespace.clone()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Makes sure that Pods find the server at the URL: on this machine's own Coracle node they
    /// do, and wherever else only if the URL was given for them.
    ///
    /// # Errors
    /// [`Error::NotThisMachine`].
    pub async fn check_reach(&self, url: &str, is_advertised: bool) -> Result<(), Error> {
        if is_advertised {
            return Ok(());
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = match nodes.list(&ListParams::default()).await {
            Ok(found) => found.items,
            // Who may not look is told what cannot be known.
            Err(kube::Error::Api(status)) if status.code == 403 => Vec::new(),
            Err(error) => return Err(self.unusable(error)),
        };
        let here = coracle_node::machine_name();
        let others: Vec<_> = found.iter().filter(|node| !is_here(node, &here)).collect();
        if !found.is_empty() && others.is_empty() {
            return Ok(());
        }
        let mut names: Vec<_> = others
            .iter()
            .filter_map(|node| node.metadata.name.as_deref())
            .collect();
        names.truncate(3);
        let nodes = match names.as_slice() {
            [] => "nodes that the user of the kubeconfig may not list".to_owned(),
            names => format!("the nodes {}", names.join(", ")),
        };
        Err(Error::NotThisMachine {
            nodes,
            url: url.to_owned(),
        })
    }
}

/// Whether Pods of the node are processes of this machine, which share its loopback addresses.
fn is_here(node: &Node, here: &str) -> bool {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    node.metadata.name.as_deref() == Some(here)
        && info.is_some_and(|info| info.container_runtime_version.starts_with("process://"))
}

/// What tells Pods of this server from those of others on the same cluster, and stays the same
/// for a data directory.
#[must_use]
pub fn server_id(data_dir: &Path) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, data_dir.as_os_str().as_encoded_bytes());
    let machine = coracle_node::machine_name();
    let short: String = hash
        .as_ref()
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let machine: String = machine
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(40)
        .collect();
    format!("{machine}-{short}").trim_start_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_cluster_that_says_nothing_is_given_up_and_named() {
        let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = format!("https://{}", mute.local_addr().expect("an address"));
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("kubeconfig");
        let kubeconfig = serde_json::json!({
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "work", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "work",
        });
        std::fs::write(&path, kubeconfig.to_string()).expect("written");
        let cluster = Cluster {
            kubeconfig: path.clone(),
            context: None,
            namespace: None,
            advertise_url: None,
        };
        let error = cluster
            .connect_within(Duration::from_millis(100))
            .await
            .err()
            .expect("no answer");
        let Error::Unreachable {
            source: Silence::TimedOut(_),
            ..
        } = &error
        else {
            panic!("{error:?}")
        };
        let text = error.to_string();
        let named = [server, format!("context `work` of `{}`", path.display())];
        assert!(named.iter().all(|part| text.contains(part)), "{text}");
    }
}
