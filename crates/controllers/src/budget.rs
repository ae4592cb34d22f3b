//! The status of PodDisruptionBudgets: how many Pods there are, how many must be well, and how many may be evicted.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{apis::meta::v1::Condition, util::intstr::IntOrString},
};
use kube::ResourceExt as _;

use crate::{
    cache::{self, Key},
    context::{self, Context, Error},
    pods, selection,
    world::World,
};

/// What says whether a Pod may be evicted.
const ALLOWED: &str = "DisruptionAllowed";

/// How many Pods their controllers want; one for each that has none.
fn expected(world: &World, namespace: &str, pods: &[Arc<Pod>]) -> i32 {
    let mut seen = BTreeSet::new();
    let mut expected = 0;
    for pod in pods {
        let owner = pod
            .owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true));
        let Some(owner) = owner else {
            expected += 1;
            continue;
        };
        let key = Key::new(namespace, owner.name.as_str());
        let wanted = match owner.kind.as_str() {
            "ReplicaSet" => world
                .replica_sets
                .get(&key)
                .and_then(|set| set.spec.as_ref()?.replicas),
            "StatefulSet" => world
                .stateful_sets
                .get(&key)
                .and_then(|set| set.spec.as_ref()?.replicas),
            _ => None,
        };
        match wanted {
            Some(wanted) if seen.insert(cache::controller(&**pod).map(ToOwned::to_owned)) => {
                expected += wanted
            }
            Some(_) => {}
            None => expected += 1,
        }
    }
    expected
}

/// A number, or a share of `whole`, rounded up.
fn resolve(value: &IntOrString, whole: i32) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            i32::try_from((i64::from(whole) * percent + 99) / 100).unwrap_or(i32::MAX)
        }
    }
}

/// The status, given the Pods that the budget selects and how many there are to be. Pure.
fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: i32,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let spec = budget.spec.clone().unwrap_or_default();
    let desired = match (&spec.min_available, &spec.max_unavailable) {
        (Some(least), _) => resolve(least, expected),
        (None, Some(most)) => (expected - resolve(most, expected)).max(0),
        (None, None) => expected,
    };
    let healthy = pods
        .iter()
        .filter(|pod| pods::is_active(pod) && pods::is_ready(pod))
        .count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    let allowed = if expected > 0 {
        (healthy - desired).max(0)
    } else {
        0
    };
    let (truth, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let old = budget.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.unwrap_or_default();
    conditions.retain(|condition| condition.type_ != ALLOWED || condition.status == truth);
    if !conditions.iter().any(|condition| condition.type_ == ALLOWED) {
        conditions.push(Condition {
            type_: ALLOWED.to_owned(),
            status: truth.to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
            last_transition_time: pods::time(now),
            observed_generation: budget.metadata.generation,
        });
    }
    PodDisruptionBudgetStatus {
        conditions: Some(conditions),
        current_healthy: healthy,
        desired_healthy: desired,
        disrupted_pods: old.disrupted_pods,
        disruptions_allowed: allowed,
        expected_pods: expected,
        observed_generation: budget.metadata.generation,
    }
}

pub(crate) async fn look(context: &Context, key: &Key) -> Result<(), Error> {
    let world = &context.world;
    let Some(budget) = world.budgets.get(key) else {
        return Ok(());
    };
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let mut pods = Vec::new();
    if let Some(selector) =
        selector.and_then(|selector| kube::core::Selector::try_from(selector.clone()).ok())
    {
        pods = world.pods.within(&key.namespace);
        pods.retain(|pod| !pods::has_ended(pod) && selection::matches(&selector, &**pod));
    }
    let expected = expected(world, &key.namespace, &pods);
    let status = status(&budget, &pods, expected, context.now());
    if budget.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut written = PodDisruptionBudget::clone(&budget);
    written.status = Some(status);
    let api = context.api::<PodDisruptionBudget>(&key.namespace);
    context::write_status(&api, &world.budgets, &written)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::samples::pod;

    #[test]
    fn what_may_be_evicted_is_what_is_well_beyond_what_must_be() {
        let ready = Arc::new(pod("a").ready().0);
        let other = Arc::new(pod("b").phase("Running").0);
        for (spec, expected, wanted) in [
            (json!({"minAvailable": 1}), 3, (1, 1)),
            (json!({"minAvailable": "50%"}), 3, (2, 0)),
            (json!({"maxUnavailable": 1}), 3, (2, 0)),
            (json!({"maxUnavailable": "100%"}), 3, (0, 2)),
        ] {
            let budget = json!({"metadata": {"generation": 2}, "spec": spec});
            let budget: PodDisruptionBudget = serde_json::from_value(budget).expect("a budget");
            let all = [Arc::clone(&ready), Arc::clone(&ready), Arc::clone(&other)];
            let status = status(&budget, &all, expected, Timestamp::UNIX_EPOCH);
            assert_eq!(
                (status.desired_healthy, status.disruptions_allowed),
                wanted,
                "{:?}",
                budget.spec
            );
            assert_eq!((status.current_healthy, status.observed_generation), (2, Some(2)));
        }
    }
}
