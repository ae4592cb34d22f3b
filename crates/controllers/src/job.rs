//! Jobs: Pods until enough of them have succeeded, or too much has failed.
//!
//! What has ended is counted once, whatever happens in between: a Pod keeps the finalizer
//! `batch.kubernetes.io/job-tracking` until the status counts it (by its uid or its index), and only then loses it.
//!
//! - [`observe`]: what is so
//! - [`plan`]: what follows from it
//! - [`apply`]: doing it

mod apply;
mod backoff;
mod indexes;
mod observe;
mod plan;
mod policy;
mod status;
mod worker;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt as _;

use crate::{
    cache::{self, Key},
    context::{self, Context, Error},
};

/// The finalizer of Pods that are to be counted.
pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The index of a Pod, as label and as annotation.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Who controls Jobs that name nobody else.
const CONTROLLER: &str = "kubernetes.io/job-controller";
/// Who tells events about Jobs.
const COMPONENT: &str = "job-controller";

/// Whether the Pod is to be counted by a Job.
pub(crate) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

pub(crate) async fn look(context: &Context, key: &Key) -> Result<Option<Timestamp>, Error> {
    let Some(observed) = observe::observe(&context.world, key) else {
        return Ok(None);
    };
    let plan = plan::plan(&observed, context.now());
    apply::apply(context, &observed.job, plan).await
}

/// Takes the finalizer off a Pod whose Job is gone.
pub(crate) async fn release_orphan(context: &Context, key: &Key) -> Result<(), Error> {
    let Some(pod) = context.world.pods.get(key).filter(|pod| is_tracked(pod)) else {
        return Ok(());
    };
    let owners = pod.owner_references();
    if let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) {
        // The cache of Jobs may be behind that of Pods: what decides is the API.
        let jobs = context.api::<Job>(&key.namespace);
        let job = context::read(&jobs, &owner.name).await?;
        let is_there = job.is_some_and(|job| job.uid().as_deref() == cache::controller(&*pod));
        if owner.kind != "Job" || is_there {
            return Ok(());
        }
    }
    apply::release(context, &pod).await
}
