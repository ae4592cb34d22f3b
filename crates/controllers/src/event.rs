//! Events about objects: what `kubectl describe` shows below them. Recording never waits and never fails: an event
//! that cannot be written is logged. The same event again counts up the one that is there.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Events that may wait to be written.
const MOST_WAITING: usize = 4096;
/// How many events are kept in mind, to be counted up.
const KEPT: usize = 4096;

/// Something to tell about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) is_warning: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Note {
    pub(crate) fn normal(reason: &str, message: impl Into<String>) -> Self {
        Self {
            is_warning: false,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    pub(crate) fn warning(reason: &str, message: impl Into<String>) -> Self {
        Self {
            is_warning: true,
            ..Self::normal(reason, message)
        }
    }
}

struct Told {
    about: ObjectReference,
    by: &'static str,
    note: Note,
    at: Timestamp,
}

/// Where events are handed in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<Told>);

/// Writes what its recorders hand in, until the last of them is gone.
pub(crate) struct Writer {
    receiver: mpsc::Receiver<Told>,
    client: Client,
    written: HashMap<String, (String, i32)>,
}

pub(crate) fn channel(client: Client) -> (Recorder, Writer) {
    let (sender, receiver) = mpsc::channel(MOST_WAITING);
    let writer = Writer {
        receiver,
        client,
        written: HashMap::new(),
    };
    (Recorder(sender), writer)
}

impl Recorder {
    /// Records an event. `by` is the controller, as Kubernetes names it.
    pub(crate) fn tell(&self, by: &'static str, about: ObjectReference, note: Note, at: Timestamp) {
        // The writer ends only with its recorders.
        if let Err(TrySendError::Full(told)) = self.0.try_send(Told { about, by, note, at }) {
            tracing::warn!(
                reason = told.note.reason,
                "an event was not written: too many wait to be"
            );
        }
    }
}

impl Writer {
    pub(crate) async fn run(mut self) {
        while let Some(told) = self.receiver.recv().await {
            let reason = told.note.reason.clone();
            if let Err(error) = self.write(told).await {
                tracing::debug!(%error, reason, "an event was not written");
            }
        }
    }

    async fn write(&mut self, told: Told) -> Result<(), kube::Error> {
        let Told { about, by, note, at } = told;
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let uid = about.uid.as_deref().unwrap_or_default();
        let same = format!("{uid} {} {}", note.reason, note.message);
        if let Some((name, count)) = self.written.get_mut(&same) {
            let more = json!({"count": *count + 1, "lastTimestamp": Time(at)});
            match api
                .patch(name, &PatchParams::default(), &Patch::Merge(more))
                .await
            {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => {
                    *count += 1;
                    return other.map(drop);
                }
            }
        }
        let event = event(about, by, note, at);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        if self.written.len() >= KEPT {
            self.written.clear();
        }
        self.written.insert(same, (name, 1));
        Ok(())
    }
}

fn event(about: ObjectReference, by: &'static str, note: Note, at: Timestamp) -> Event {
    let name = about.name.as_deref().unwrap_or_default();
    // Two events of one moment are told apart by what they say.
    let unique = crate::template::digest(&[&note.reason, &note.message, &at.as_nanosecond().to_string()]);
    let kind = if note.is_warning { "Warning" } else { "Normal" };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{}", &unique[..16])),
            namespace: about.namespace.clone().or_else(|| Some("default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: about,
        type_: Some(kind.to_owned()),
        reason: Some(note.reason),
        message: Some(note.message),
        count: Some(1),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        reporting_component: Some(by.to_owned()),
        source: Some(EventSource {
            component: Some(by.to_owned()),
            host: None,
        }),
        ..Event::default()
    }
}
