//! What is so about a Deployment: itself, its ReplicaSets, and how many Pods they have.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::PodTemplateSpec,
};
use kube::ResourceExt as _;

use super::HASH;
use crate::{cache::Key, pods, selection, template, world::World};

/// A Deployment and its ReplicaSets.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) deployment: Arc<Deployment>,
    /// What tells its template apart.
    pub(crate) hash: String,
    /// The set of its template.
    pub(crate) new: Option<Arc<ReplicaSet>>,
    /// The sets of other templates, the oldest first.
    pub(crate) old: Vec<Arc<ReplicaSet>>,
    pub(crate) adopt: Vec<Arc<ReplicaSet>>,
    pub(crate) release: Vec<Arc<ReplicaSet>>,
    /// Whether Pods of other templates still run.
    pub(crate) has_old_pods: bool,
}

impl Observed {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }
}

pub(crate) fn observe(world: &World, key: &Key) -> Option<Observed> {
    let deployment = world.deployments.get(key)?;
    let selector = selection::selector(&deployment.spec.as_ref()?.selector)?;
    let is_leaving = deployment.metadata.deletion_timestamp.is_some();
    let owned = world.replica_sets.owned_by(&deployment.uid()?);
    let orphans = world.replica_sets.orphans(&key.namespace);
    let sets = selection::sort(&selector, is_leaving, owned, orphans);
    let own = sets.own.into_iter().chain(sets.adopt.iter().cloned()).collect();
    let mut observed = of(deployment, own);
    observed.has_old_pods = observed.old.iter().any(|set| {
        let pods = world.pods.owned_by(&set.uid().unwrap_or_default());
        pods.iter().any(|pod| !pods::has_ended(pod))
    });
    observed.adopt = sets.adopt;
    observed.release = sets.release;
    Some(observed)
}

/// Tells the set of the Deployment's template from the others.
pub(crate) fn of(deployment: Arc<Deployment>, mut sets: Vec<Arc<ReplicaSet>>) -> Observed {
    sets.sort_by_key(|set| {
        (
            set.metadata.creation_timestamp.clone().map(|time| time.0),
            set.name_any(),
        )
    });
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let hash = template::hash(&spec.template, collisions.unwrap_or(0));
    let place = sets
        .iter()
        .position(|set| is_of(set, &spec.template))
        // Where the API has filled in what the Deployment leaves out.
        .or_else(|| sets.iter().position(|set| set.labels().get(HASH) == Some(&hash)));
    let new = place.map(|place| sets.remove(place));
    Observed {
        deployment,
        hash,
        new,
        old: sets,
        adopt: Vec::new(),
        release: Vec::new(),
        has_old_pods: false,
    }
}

/// Whether the set's template is this one.
fn is_of(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let own = set.spec.as_ref().and_then(|spec| spec.template.clone());
    plain(own.unwrap_or_default()) == plain(template.clone())
}

/// The template without what tells it apart.
fn plain(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let metadata = template.metadata.get_or_insert_default();
    let mut labels = metadata.labels.take().unwrap_or_default();
    labels.remove(HASH);
    metadata.labels = Some(labels);
    metadata.creation_timestamp = None;
    template
}
