//! How many Pods each ReplicaSet of a Deployment gets: while it rolls, and when it is scaled. Pure.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt as _;

use super::{
    amounts::{Amounts, DESIRED, MAX, available, number, replicas},
    observe::Observed,
};

/// New sizes of sets, by name.
pub(crate) type Sizes = BTreeMap<String, i32>;

fn total<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>) -> i32 {
    sets.into_iter().map(|set| replicas(set)).sum()
}

/// Whether the Deployment wants another number of Pods than when its sets were scaled last.
pub(crate) fn is_due(observed: &Observed, amounts: Amounts) -> bool {
    observed
        .all()
        .filter(|set| replicas(set) > 0)
        .any(|set| number(set, DESIRED).is_some_and(|desired| desired != amounts.wanted))
}

/// The size of the new set, to begin with or to go on with.
pub(crate) fn new_size(observed: &Observed, amounts: Amounts, is_rolling: bool) -> i32 {
    let own = observed.new.as_ref().map_or(0, |set| replicas(set));
    if !is_rolling {
        return amounts.wanted;
    }
    if own >= amounts.wanted {
        return amounts.wanted;
    }
    let room = amounts.most() - total(observed.all());
    own + room.clamp(0, amounts.wanted - own)
}

/// The sizes of the old sets while a Deployment rolls. First go Pods that are not available, then as many others as the
/// Deployment can do without.
pub(crate) fn old_sizes(observed: &Observed, new: &ReplicaSet, amounts: Amounts) -> Sizes {
    let mut sizes: Sizes = observed
        .old
        .iter()
        .map(|set| (set.name_any(), replicas(set)))
        .collect();
    let missing = replicas(new) - available(new);
    let dispensable = total(observed.all()) - amounts.fewest_available() - missing;
    if dispensable <= 0 {
        return sizes;
    }
    let mut left = dispensable;
    let mut removed_unhealthy = 0;
    for set in &observed.old {
        let unhealthy = (replicas(set) - available(set)).clamp(0, left);
        if let Some(size) = sizes.get_mut(&set.name_any()) {
            *size -= unhealthy;
            left -= unhealthy;
            removed_unhealthy += unhealthy;
        }
    }
    let all_available: i32 = observed.all().map(|set| available(set)).sum();
    let mut left = (all_available - amounts.fewest_available()).min(dispensable - removed_unhealthy);
    for set in &observed.old {
        if let Some(size) = sizes.get_mut(&set.name_any()) {
            let fewer = left.clamp(0, *size);
            *size -= fewer;
            left -= fewer;
        }
    }
    sizes
}

/// The sizes after the Deployment was scaled: the one set that has Pods takes all, several share in proportion. None
/// where several may not be.
pub(crate) fn sizes(observed: &Observed, amounts: Amounts, is_rolling: bool) -> Option<Sizes> {
    let active: Vec<&Arc<ReplicaSet>> = observed.all().filter(|set| replicas(set) > 0).collect();
    let only = match active.as_slice() {
        [] => observed.new.as_ref().or_else(|| observed.old.last()),
        [only] => Some(*only),
        _ => None,
    };
    if let Some(only) = only {
        return Some(Sizes::from([(only.name_any(), amounts.wanted)]));
    }
    if let Some(new) = &observed.new
        && replicas(new) == amounts.wanted
        && number(new, DESIRED) == Some(amounts.wanted)
        && available(new) == amounts.wanted
    {
        let old = active.iter().filter(|set| set.name_any() != new.name_any());
        return Some(old.map(|set| (set.name_any(), 0)).collect());
    }
    if !is_rolling {
        return None;
    }
    let allowed = if amounts.wanted > 0 { amounts.most() } else { 0 };
    Some(shares(active, allowed - total(observed.all()), amounts))
}

/// Distributes `more` Pods (or fewer, below zero) over the sets in proportion to their sizes.
fn shares(mut active: Vec<&Arc<ReplicaSet>>, more: i32, amounts: Amounts) -> Sizes {
    let age = |set: &ReplicaSet| set.metadata.creation_timestamp.clone().map(|time| time.0);
    if more > 0 {
        active.sort_by_key(|set| (Reverse(replicas(set)), Reverse(age(set)), set.name_any()));
    } else {
        active.sort_by_key(|set| (Reverse(replicas(set)), age(set), set.name_any()));
    }
    let mut given = 0;
    let mut sizes: Vec<(String, i32)> = Vec::new();
    for set in &active {
        let left = more - given;
        let share = share(set, amounts);
        let share = if more > 0 {
            share.clamp(0, left)
        } else {
            share.clamp(left, 0)
        };
        given += share;
        sizes.push((set.name_any(), replicas(set) + share));
    }
    // What rounding left over goes to the largest.
    if let Some((_, size)) = sizes.first_mut() {
        *size = (*size + more - given).max(0);
    }
    sizes.into_iter().collect()
}

/// By how many Pods the set would grow if it kept its part of the whole.
fn share(set: &ReplicaSet, amounts: Amounts) -> i32 {
    let own = replicas(set);
    if amounts.wanted == 0 {
        return -own;
    }
    let before = number(set, MAX)
        .filter(|most| *most > 0)
        .unwrap_or_else(|| amounts.most());
    let exact = i64::from(own) * i64::from(amounts.most());
    // Rounded half up.
    let size = (2 * exact + i64::from(before)) / (2 * i64::from(before));
    i32::try_from(size).unwrap_or(i32::MAX) - own
}
