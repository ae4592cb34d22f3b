//! What a StatefulSet says of itself. Pure.

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::StatefulSetStatus, core::v1::Pod};

use super::{identity::REVISION, observe::Observed, revisions};
use crate::pods;

/// The status, and when it changes by time alone.
pub(crate) fn status(observed: &Observed, now: Timestamp) -> (StatefulSetStatus, Option<Timestamp>) {
    let set = &*observed.set;
    let spec = set.spec.clone().unwrap_or_default();
    let old = set.status.clone().unwrap_or_default();
    let revisions = revisions::revisions(observed);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let all = observed.pods.own.iter().chain(&observed.pods.adopt);
    let all: Vec<&Pod> = all.map(|pod| &**pod).collect();
    let count = |is_counted: &dyn Fn(&Pod) -> bool| {
        let counted = all.iter().filter(|pod| is_counted(pod)).count();
        i32::try_from(counted).unwrap_or(i32::MAX)
    };
    let is_running = |pod: &Pod| pods::phase(pod) == "Running" && pods::is_ready(pod);
    let has =
        |pod: &Pod, revision: &str| !pods::is_leaving(pod) && pods::label(pod, REVISION) == Some(revision);
    let ready = count(&is_running);
    let updated = count(&|pod| has(pod, &revisions.update));
    let mut current = (
        revisions.current.clone(),
        count(&|pod| has(pod, &revisions.current)),
    );
    let is_on_delete = spec
        .update_strategy
        .and_then(|strategy| strategy.type_)
        .as_deref()
        == Some("OnDelete");
    let wanted = spec.replicas.unwrap_or(1);
    if !is_on_delete && updated == wanted && ready == wanted && count(&|_| true) == wanted {
        current = (revisions.update.clone(), updated);
    }
    let some = |number: i32| (number != 0).then_some(number);
    let status = StatefulSetStatus {
        replicas: count(&|_| true),
        ready_replicas: some(ready),
        available_replicas: Some(count(&|pod| {
            is_running(pod) && pods::is_available(pod, min_ready, now)
        })),
        current_replicas: some(current.1),
        updated_replicas: some(updated),
        current_revision: Some(current.0),
        update_revision: Some(revisions.update),
        observed_generation: set.metadata.generation,
        collision_count: Some(old.collision_count.unwrap_or(0)),
        conditions: old.conditions,
    };
    (status, pods::next_available(all, min_ready, now))
}
