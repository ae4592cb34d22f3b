//! What is so about a StatefulSet: itself, its Pods, its revisions, and the claims of its namespace.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::ResourceExt as _;

use crate::{
    cache::Key,
    selection::{self, Belongings},
    world::World,
};

/// A StatefulSet and what belongs to it.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) set: Arc<StatefulSet>,
    pub(crate) pods: Belongings<Pod>,
    /// The templates it has had; none where the API does not keep them.
    pub(crate) revisions: Vec<Arc<ControllerRevision>>,
    pub(crate) keeps_revisions: bool,
    /// Claims by name.
    pub(crate) claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
}

pub(crate) fn observe(world: &World, key: &Key) -> Option<Observed> {
    let set = world.stateful_sets.get(key)?;
    let spec = set.spec.as_ref()?;
    let selector = selection::selector(&spec.selector)?;
    let uid = set.uid()?;
    let is_leaving = set.metadata.deletion_timestamp.is_some();
    let orphans = world.pods.orphans(&key.namespace);
    let claims = if spec.volume_claim_templates.is_some() {
        let claims = world.claims.within(&key.namespace);
        claims
            .into_iter()
            .map(|claim| (claim.name_any(), claim))
            .collect()
    } else {
        BTreeMap::new()
    };
    Some(Observed {
        pods: selection::sort(&selector, is_leaving, world.pods.owned_by(&uid), orphans),
        revisions: world.revisions.owned_by(&uid),
        keeps_revisions: world.revisions.is_served(),
        claims,
        set,
    })
}
