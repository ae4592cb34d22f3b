//! What is so about a Job: itself and the Pods that it controls.

use std::sync::Arc;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt as _;

use crate::{cache::Key, world::World};

/// A Job and its Pods.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) job: Arc<Job>,
    pub(crate) pods: Vec<Arc<Pod>>,
}

pub(crate) fn observe(world: &World, key: &Key) -> Option<Observed> {
    let job = world.jobs.get(key)?;
    let pods = world.pods.owned_by(&job.uid()?);
    Some(Observed { job, pods })
}
