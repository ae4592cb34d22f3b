//! Which Pods a ReplicaSet makes, deletes, takes over and lets go. Pure.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::observe::Observed;
use crate::{pods, template};

/// The most Pods that are made or deleted in one round.
const MOST: usize = 500;

/// What to do about a ReplicaSet.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) adopt: Vec<Arc<Pod>>,
    pub(crate) release: Vec<Arc<Pod>>,
    pub(crate) create: Vec<Pod>,
    pub(crate) delete: Vec<Arc<Pod>>,
}

pub(crate) fn plan(observed: &Observed) -> Plan {
    let set = &*observed.set;
    let Some(spec) = set
        .spec
        .as_ref()
        .filter(|_| set.metadata.deletion_timestamp.is_none())
    else {
        return Plan::default();
    };
    let belongings = &observed.pods;
    let adopt: Vec<_> = belongings
        .adopt
        .iter()
        .filter(|pod| pods::is_active(pod))
        .cloned()
        .collect();
    let mut active: Vec<_> = belongings
        .own
        .iter()
        .chain(&adopt)
        .filter(|pod| pods::is_active(pod))
        .collect();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let mut plan = Plan {
        release: belongings.release.clone(),
        ..Plan::default()
    };
    if active.len() > wanted {
        active.sort_by_cached_key(|pod| pods::removal_rank(pod, 0));
        let excess = (active.len() - wanted).min(MOST);
        plan.delete = active.into_iter().take(excess).cloned().collect();
    } else {
        let missing = (wanted - active.len()).min(MOST);
        let template = spec.template.clone().unwrap_or_default();
        plan.create = names(observed)
            .take(missing)
            .map(|name| template::pod(&template, set, name))
            .collect();
    }
    plan.adopt = adopt;
    plan
}

/// Names that none of its Pods has. The same as long as nothing changed, so that what is made twice is made once.
fn names(observed: &Observed) -> impl Iterator<Item = String> {
    let set = &*observed.set;
    let taken: BTreeSet<String> = observed.pods.own.iter().map(|pod| pod.name_any()).collect();
    let prefix = format!("{}-", set.name_any());
    let (uid, seen) = (set.uid().unwrap_or_default(), observed.seen.to_string());
    (0_u32..)
        .map(move |number| template::name(&prefix, &[&uid, &seen, &number.to_string()]))
        .filter(move |name| !taken.contains(name))
}
