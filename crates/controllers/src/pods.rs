//! What a Pod's status says, as controllers ask it. Pure.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

/// A moment as objects hold it: to the second.
pub(crate) fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// A moment so many seconds later.
pub(crate) fn later(from: Timestamp, seconds: i64) -> Timestamp {
    from.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

pub(crate) fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

pub(crate) fn has_succeeded(pod: &Pod) -> bool {
    phase(pod) == "Succeeded"
}

pub(crate) fn has_failed(pod: &Pod) -> bool {
    phase(pod) == "Failed"
}

/// Nothing of it runs any more.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    has_succeeded(pod) || has_failed(pod)
}

/// It is being deleted.
pub(crate) fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// It counts as one of its controller's Pods.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !is_leaving(pod)
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// When it became ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    let since = ready.last_transition_time.as_ref().map(|time| time.0);
    since.or_else(|| created(pod))
}

/// When it becomes available: ready for `min_ready` seconds.
pub(crate) fn available_at(pod: &Pod, min_ready: i32) -> Option<Timestamp> {
    Some(later(ready_since(pod)?, i64::from(min_ready)))
}

pub(crate) fn is_available(pod: &Pod, min_ready: i32, now: Timestamp) -> bool {
    is_ready(pod) && (min_ready == 0 || available_at(pod, min_ready).is_some_and(|at| at <= now))
}

/// When the next of them becomes available that is not yet.
pub(crate) fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready: i32,
    now: Timestamp,
) -> Option<Timestamp> {
    let times = pods.into_iter().filter_map(|pod| available_at(pod, min_ready));
    times.filter(|at| *at > now).min()
}

pub(crate) fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The statuses of its containers, then of its init containers.
pub(crate) fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref());
    let init = status.and_then(|status| status.init_container_statuses.as_deref());
    containers.into_iter().chain(init).flatten()
}

/// How often its containers were started again.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    container_statuses(pod).map(|status| status.restart_count).sum()
}

pub(crate) fn label<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    Some(pod.metadata.labels.as_ref()?.get(name)?.as_str())
}

pub(crate) fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    Some(pod.metadata.annotations.as_ref()?.get(name)?.as_str())
}

/// The cost of deleting a Pod, as its owner says.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Which of several Pods goes first when there are too many: the smallest, in Kubernetes' order. `together` is the
/// number of its set's Pods on its machine.
pub(crate) fn removal_rank(pod: &Pod, together: usize) -> impl Ord + use<> {
    let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let phase = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = annotation(pod, DELETION_COST).and_then(|text| text.parse::<i32>().ok());
    (
        (is_bound, phase, is_ready(pod), cost.unwrap_or(0)),
        Reverse(together),
        Reverse(ready_since(pod)),
        Reverse(restarts(pod)),
        Reverse(created(pod)),
        pod.metadata.name.clone(),
    )
}
