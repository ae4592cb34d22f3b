//! How many Pods a Deployment may have more or fewer than it wants, and what its annotations say of that. Pure.

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt as _;

/// The revision of a template, on its ReplicaSet and on the Deployment.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of the same template.
pub(crate) const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many Pods the Deployment wanted when the set was scaled last.
pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many it allowed then.
pub(crate) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// How many Pods a Deployment wants, and by how many there may be more or fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) wanted: i32,
    pub(crate) surge: i32,
    pub(crate) unavailable: i32,
}

impl Amounts {
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1).max(0);
        if !is_rolling(deployment) {
            return Self {
                wanted,
                surge: 0,
                unavailable: 0,
            };
        }
        let rolling = spec.and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
        let given = |value: Option<&IntOrString>, round_up| resolve(value, wanted, round_up);
        let surge = given(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
        let unavailable = given(
            rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
            false,
        );
        // With neither, nothing could ever move.
        let unavailable = if surge == 0 && unavailable == 0 {
            1
        } else {
            unavailable
        };
        Self {
            wanted,
            surge,
            unavailable: unavailable.min(wanted),
        }
    }

    /// The most Pods there may be.
    pub(crate) fn most(self) -> i32 {
        self.wanted.saturating_add(self.surge)
    }

    /// The fewest Pods that must be available.
    pub(crate) fn fewest_available(self) -> i32 {
        self.wanted - self.unavailable
    }
}

pub(crate) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
}

/// A number, or a share of `whole`; a quarter when nothing is said.
fn resolve(value: Option<&IntOrString>, whole: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(25),
        None => 25,
    };
    let hundredths = i64::from(whole) * i64::from(percent.max(0));
    let share = if round_up {
        (hundredths + 99) / 100
    } else {
        hundredths / 100
    };
    i32::try_from(share).unwrap_or(i32::MAX)
}

pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// The number in an annotation.
pub(crate) fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    set.annotations().get(annotation)?.parse().ok()
}

pub(crate) fn revision(set: &ReplicaSet) -> i64 {
    set.annotations()
        .get(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_towards_more_pods() {
        let text = |text: &str| Some(IntOrString::String(text.to_owned()));
        for (value, whole, up, down) in [
            (text("25%"), 10, 3, 2),
            (text("0%"), 10, 0, 0),
            (text("100%"), 3, 3, 3),
            (text("150%"), 2, 3, 3),
            (Some(IntOrString::Int(2)), 10, 2, 2),
            (None, 4, 1, 1),
            (None, 1, 1, 0),
        ] {
            assert_eq!(resolve(value.as_ref(), whole, true), up, "{value:?} of {whole}");
            assert_eq!(
                resolve(value.as_ref(), whole, false),
                down,
                "{value:?} of {whole}"
            );
        }
    }
}
