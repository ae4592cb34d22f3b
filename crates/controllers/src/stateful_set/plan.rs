//! Which Pods and claims a StatefulSet makes and deletes. Pure.
//!
//! In order, unless the policy is `Parallel`: a Pod is made when all before it are available, and removed when all
//! after it are gone. A new template is taken over from the last place down to the partition, one at a time.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::ResourceExt as _;

use super::{
    identity::{self, REVISION},
    observe::Observed,
    revisions::{self, Revisions},
};
use crate::pods;

/// What to do about a StatefulSet, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) release: Vec<Arc<Pod>>,
    pub(crate) adopt: Vec<Arc<Pod>>,
    pub(crate) create_revision: Option<ControllerRevision>,
    pub(crate) renew_revision: Option<(Arc<ControllerRevision>, i64)>,
    /// Claims that get the set as their owner, and those that lose it.
    pub(crate) own_claims: Vec<Arc<PersistentVolumeClaim>>,
    pub(crate) disown_claims: Vec<Arc<PersistentVolumeClaim>>,
    /// Each Pod with the claims that it needs first.
    pub(crate) create: Vec<(Vec<PersistentVolumeClaim>, Pod)>,
    pub(crate) delete: Vec<Arc<Pod>>,
    pub(crate) remove_claims: Vec<Arc<PersistentVolumeClaim>>,
    pub(crate) remove_revisions: Vec<Arc<ControllerRevision>>,
}

/// The places of a set, the first one and the one after the last.
pub(crate) fn places(set: &StatefulSet) -> std::ops::Range<i32> {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|spec| spec.ordinals.as_ref()?.start).unwrap_or(0);
    start..start.saturating_add(spec.and_then(|spec| spec.replicas).unwrap_or(1))
}

pub(crate) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let set = &*observed.set;
    if set.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let mut revisions = revisions::revisions(observed);
    let mut plan = Plan {
        release: observed.pods.release.clone(),
        create_revision: revisions.create.take(),
        renew_revision: revisions.renew.take(),
        remove_revisions: std::mem::take(&mut revisions.remove),
        ..Plan::default()
    };
    let name = set.name_any();
    let is_own = |pod: &&Arc<Pod>| identity::ordinal(&name, &pod.name_any()).is_some();
    plan.adopt = observed.pods.adopt.iter().filter(is_own).cloned().collect();
    let all = observed.pods.own.iter().chain(&plan.adopt);
    let by_place: BTreeMap<i32, Arc<Pod>> = all
        .filter_map(|pod| Some((identity::ordinal(&name, &pod.name_any())?, Arc::clone(pod))))
        .collect();
    claims(&mut plan, observed, &by_place);
    Places {
        observed,
        revisions: &revisions,
        by_place: &by_place,
        now,
    }
    .plan(&mut plan);
    plan
}

/// The Pods of a set by their places.
struct Places<'a> {
    observed: &'a Observed,
    revisions: &'a Revisions,
    by_place: &'a BTreeMap<i32, Arc<Pod>>,
    now: Timestamp,
}

impl Places<'_> {
    fn plan(&self, plan: &mut Plan) {
        let set = &*self.observed.set;
        let spec = set.spec.clone().unwrap_or_default();
        let is_ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
        let places = places(set);
        for place in places.clone() {
            let is_waited_for = match self.by_place.get(&place) {
                None => {
                    plan.create.push(self.make(place));
                    true
                }
                Some(pod) if pods::is_leaving(pod) => true,
                Some(pod) if pods::has_ended(pod) => {
                    plan.delete.push(Arc::clone(pod));
                    true
                }
                Some(pod) => !self.is_available(pod),
            };
            if is_waited_for && is_ordered {
                return;
            }
        }
        let first_unhealthy = self.by_place.values().find(|pod| !self.is_healthy(pod));
        let condemned = self
            .by_place
            .iter()
            .rev()
            .filter(|(place, _)| !places.contains(place));
        for (_, pod) in condemned {
            if pods::is_leaving(pod) {
                if is_ordered {
                    return;
                }
                continue;
            }
            let is_first = first_unhealthy.is_some_and(|first| first.name_any() == pod.name_any());
            if is_ordered && !self.is_healthy(pod) && !is_first {
                return;
            }
            plan.delete.push(Arc::clone(pod));
            if is_ordered {
                return;
            }
        }
        let strategy = spec.update_strategy.unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return;
        }
        for place in places.rev().take_while(|place| *place >= self.first_updated()) {
            let Some(pod) = self.by_place.get(&place) else {
                return;
            };
            let is_updated = pods::label(pod, REVISION) == Some(&self.revisions.update);
            if !is_updated && !pods::is_leaving(pod) {
                if !plan.delete.iter().any(|other| other.name_any() == pod.name_any()) {
                    plan.delete.push(Arc::clone(pod));
                }
                return;
            }
            if !self.is_healthy(pod) {
                return;
            }
        }
    }

    /// The first place that takes over a new template.
    fn first_updated(&self) -> i32 {
        let spec = self.observed.set.spec.as_ref();
        let rolling = spec.and_then(|spec| spec.update_strategy.as_ref()?.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        places(&self.observed.set).start.saturating_add(partition)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self
            .observed
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds);
        pods::phase(pod) == "Running" && pods::is_available(pod, min_ready.unwrap_or(0), self.now)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        !pods::is_leaving(pod) && self.is_available(pod)
    }

    fn make(&self, place: i32) -> (Vec<PersistentVolumeClaim>, Pod) {
        let set = &*self.observed.set;
        let spec = set.spec.clone().unwrap_or_default();
        let is_rolling = spec
            .update_strategy
            .as_ref()
            .and_then(|strategy| strategy.type_.as_deref())
            != Some("OnDelete");
        let keeps = is_rolling && place < self.first_updated();
        let pod = match self.revisions.current_template.as_ref().filter(|_| keeps) {
            Some(template) => identity::pod(set, template, &self.revisions.current, place),
            None => identity::pod(set, &spec.template, &self.revisions.update, place),
        };
        let mut claims = identity::claims(set, place);
        claims.retain(|claim| !self.observed.claims.contains_key(&claim.name_any()));
        (claims, pod)
    }
}

/// What becomes of the claims that are there.
fn claims(plan: &mut Plan, observed: &Observed, by_place: &BTreeMap<i32, Arc<Pod>>) {
    let set = &*observed.set;
    let uid = set.uid().unwrap_or_default();
    let places = places(set);
    for (name, claim) in &observed.claims {
        let Some(place) = identity::claim_ordinal(set, name) else {
            continue;
        };
        if claim.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let is_needed = places.contains(&place) || by_place.contains_key(&place);
        let is_owned = claim.owner_references().iter().any(|owner| owner.uid == uid);
        if !is_needed && identity::scales_claims(set) {
            plan.remove_claims.push(Arc::clone(claim));
        } else if identity::owns_claims(set) && !is_owned {
            plan.own_claims.push(Arc::clone(claim));
        } else if !identity::owns_claims(set) && is_owned {
            plan.disown_claims.push(Arc::clone(claim));
        }
    }
}
