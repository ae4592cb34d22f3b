//! Objects for tests, in few words.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodSpec},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The moment at which tests begin.
pub(crate) fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a moment")
}

/// So many seconds after [`start`].
pub(crate) fn at(second: i64) -> Timestamp {
    start() + SignedDuration::from_secs(second)
}

/// The object of this text.
pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

/// A Pod that is being made up.
#[derive(Debug, Clone)]
pub(crate) struct Sample(pub(crate) Pod);

/// A Pod of this name, whose uid is its name too.
pub(crate) fn pod(name: &str) -> Sample {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.namespace = Some("ns".to_owned());
    pod.metadata.uid = Some(name.to_owned());
    pod.metadata.creation_timestamp = Some(Time(start()));
    pod.spec = Some(PodSpec::default());
    Sample(pod)
}

impl Sample {
    pub(crate) fn phase(mut self, phase: &str) -> Self {
        self.0.status.get_or_insert_default().phase = Some(phase.to_owned());
        self
    }

    /// It runs and has been ready since [`start`].
    pub(crate) fn ready(self) -> Self {
        self.ready_since(0)
    }

    pub(crate) fn ready_since(self, second: i64) -> Self {
        let mut sample = self.phase("Running").address("127.1.0.1");
        let status = sample.0.status.get_or_insert_default();
        status.conditions = Some(vec![PodCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(at(second))),
            ..PodCondition::default()
        }]);
        sample
    }

    pub(crate) fn address(mut self, address: &str) -> Self {
        self.0.status.get_or_insert_default().pod_ip = Some(address.to_owned());
        self
    }

    pub(crate) fn leaving(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(start()));
        self
    }

    /// Its container ended with this code, then.
    pub(crate) fn exited(self, code: i32, second: i64) -> Self {
        let mut sample = self.phase(if code == 0 { "Succeeded" } else { "Failed" });
        let ended = ContainerStateTerminated {
            exit_code: code,
            finished_at: Some(Time(at(second))),
            ..ContainerStateTerminated::default()
        };
        sample.0.status.get_or_insert_default().container_statuses = Some(vec![ContainerStatus {
            name: "main".to_owned(),
            state: Some(ContainerState {
                terminated: Some(ended),
                ..ContainerState::default()
            }),
            ..ContainerStatus::default()
        }]);
        sample
    }

    pub(crate) fn label(mut self, name: &str, value: &str) -> Self {
        let labels = self.0.metadata.labels.get_or_insert_default();
        labels.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn annotation(mut self, name: &str, value: &str) -> Self {
        let annotations = self.0.metadata.annotations.get_or_insert_default();
        annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn finalizer(mut self, name: &str) -> Self {
        self.0
            .metadata
            .finalizers
            .get_or_insert_default()
            .push(name.to_owned());
        self
    }
}
