//! What a ReplicaSet says of itself. Pure.

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
    core::v1::Pod,
};

use super::{apply::Failure, observe::Observed};
use crate::pods;

/// The condition that says that Pods cannot be made or deleted.
pub(crate) const FAILURE: &str = "ReplicaFailure";

/// The status, and when it changes by time alone.
pub(crate) fn status(
    observed: &Observed,
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Timestamp>) {
    let set = &*observed.set;
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template = spec.template.and_then(|template| template.metadata);
    let labels = template.and_then(|metadata| metadata.labels).unwrap_or_default();
    let all = observed.pods.own.iter().chain(&observed.pods.adopt);
    let active: Vec<&Pod> = all.map(|pod| &**pod).filter(|pod| pods::is_active(pod)).collect();
    let count = |is_counted: &dyn Fn(&Pod) -> bool| {
        let counted = active.iter().filter(|pod| is_counted(pod)).count();
        i32::try_from(counted).unwrap_or(i32::MAX)
    };
    let some = |number: i32| (number != 0).then_some(number);
    let is_labeled = |pod: &Pod| {
        labels
            .iter()
            .all(|(label, value)| pods::label(pod, label) == Some(value.as_str()))
    };
    let old = set.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.unwrap_or_default();
    let known = conditions.iter().any(|condition| condition.type_ == FAILURE);
    match failure {
        Some(failure) if !known => conditions.push(ReplicaSetCondition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(pods::time(now)),
        }),
        None => conditions.retain(|condition| condition.type_ != FAILURE),
        Some(_) => {}
    }
    let status = ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&is_labeled)),
        ready_replicas: some(count(&pods::is_ready)),
        available_replicas: some(count(&|pod| pods::is_available(pod, min_ready, now))),
        terminating_replicas: None,
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    };
    (status, pods::next_available(active, min_ready, now))
}
