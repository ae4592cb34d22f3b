//! What is so about a ReplicaSet: itself, its Pods, and Pods that nobody controls.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::ResourceExt as _;

use crate::{
    cache::Key,
    selection::{self, Belongings},
    world::World,
};

/// A ReplicaSet and its Pods.
pub(crate) struct Observed {
    pub(crate) set: Arc<ReplicaSet>,
    pub(crate) pods: Belongings<Pod>,
    /// The newest revision among its Pods: names of new ones depend on it, so that none is used again.
    pub(crate) seen: u64,
}

pub(crate) fn observe(world: &World, key: &Key) -> Option<Observed> {
    let set = world.replica_sets.get(key)?;
    let selector = selection::selector(&set.spec.as_ref()?.selector)?;
    let owned = world.pods.owned_by(&set.uid()?);
    let newest = owned.iter().map(|pod| crate::cache::revision(&**pod)).max();
    let is_leaving = set.metadata.deletion_timestamp.is_some();
    let orphans = world.pods.orphans(&key.namespace);
    Some(Observed {
        pods: selection::sort(&selector, is_leaving, owned, orphans),
        seen: newest.unwrap_or(0),
        set,
    })
}
