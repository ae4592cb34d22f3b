//! Events about Pods: what `kubectl describe` and the page show below an object.
//!
//! Recording never waits and never fails: an event that cannot be written is logged.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::mpsc::{self, error::TrySendError};

/// The name that events and other writes of this crate carry.
pub(crate) const COMPONENT: &str = "coracle-node";

/// Events that may wait to be written.
const MOST_WAITING: usize = 4096;

/// Whether an event is news or trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Warning,
}

/// Where events are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<Event>,
    node: String,
}

/// Writes what its recorders hand in.
pub(crate) struct Writer {
    receiver: mpsc::Receiver<Event>,
    client: Client,
}

pub(crate) fn channel(client: Client, node: &str) -> (Recorder, Writer) {
    let (sender, receiver) = mpsc::channel(MOST_WAITING);
    let recorder = Recorder {
        sender,
        node: node.to_owned(),
    };
    (recorder, Writer { receiver, client })
}

impl Recorder {
    /// Records an event about a Pod.
    pub(crate) fn pod(&self, pod: &Pod, kind: Kind, reason: &str, message: impl Into<String>) {
        let metadata = &pod.metadata;
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            ..ObjectReference::default()
        };
        self.object(about, kind, reason, message);
    }

    /// Records an event about any object.
    pub(crate) fn object(
        &self,
        about: ObjectReference,
        kind: Kind,
        reason: &str,
        message: impl Into<String>,
    ) {
        let now = Timestamp::now();
        let name = about.name.clone().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(
                if kind == Kind::Warning {
                    "Warning"
                } else {
                    "Normal"
                }
                .to_owned(),
            ),
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.node.clone()),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(self.node.clone()),
            }),
            ..Event::default()
        };
        // The writer ends only with the node.
        if let Err(TrySendError::Full(event)) = self.sender.try_send(event) {
            tracing::warn!(
                reason = event.reason,
                "an event was not written: too many wait to be"
            );
        }
    }
}

impl Writer {
    pub(crate) async fn run(mut self) {
        while let Some(event) = self.receiver.recv().await {
            let namespace = event
                .metadata
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned());
            let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                tracing::debug!(%error, reason = event.reason, "an event was not written");
            }
        }
    }
}
