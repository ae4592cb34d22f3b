//! Which objects belong to a controller: those that it controls and selects, those that it may take over, and those
//! that it lets go. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    Resource,
    core::{Selector, SelectorExt as _},
};

/// The selector, if it can be read and selects something.
pub(crate) fn selector(selector: &LabelSelector) -> Option<Selector> {
    let selector = Selector::try_from(selector.clone()).ok()?;
    (!selector.selects_all()).then_some(selector)
}

pub(crate) fn matches<K: Resource>(selector: &Selector, object: &K) -> bool {
    match &object.meta().labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&BTreeMap::new()),
    }
}

/// What belongs to a controller.
#[derive(Debug)]
pub(crate) struct Belongings<K> {
    /// What it controls and selects.
    pub(crate) own: Vec<Arc<K>>,
    /// What it selects and nobody controls.
    pub(crate) adopt: Vec<Arc<K>>,
    /// What it controls and does not select any more.
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts what a controller controls, and what nobody does. One that is leaving takes over nothing.
pub(crate) fn sort<K: Resource>(
    selector: &Selector,
    is_leaving: bool,
    owned: Vec<Arc<K>>,
    orphans: Vec<Arc<K>>,
) -> Belongings<K> {
    let (own, release): (Vec<_>, Vec<_>) = owned.into_iter().partition(|object| matches(selector, &**object));
    let may_adopt = |object: &Arc<K>| {
        !is_leaving && object.meta().deletion_timestamp.is_none() && matches(selector, &**object)
    };
    Belongings {
        own,
        adopt: orphans.into_iter().filter(may_adopt).collect(),
        release: if is_leaving { Vec::new() } else { release },
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt as _;

    use super::*;

    fn map(name: &str, app: &str) -> Arc<ConfigMap> {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.labels = Some(BTreeMap::from([("app".to_owned(), app.to_owned())]));
        Arc::new(map)
    }

    #[test]
    fn what_is_selected_is_adopted_and_what_is_not_any_more_is_let_go() {
        let chosen: Selector = [("app", "x")].into_iter().collect();
        let names = |maps: &[Arc<ConfigMap>]| maps.iter().map(|map| map.name_any()).collect::<Vec<_>>();
        let owned = vec![map("own", "x"), map("stray", "y")];
        let orphans = vec![map("found", "x"), map("other", "z")];
        let sorted = sort(&chosen, false, owned.clone(), orphans.clone());
        assert_eq!(names(&sorted.own), ["own"]);
        assert_eq!(names(&sorted.adopt), ["found"]);
        assert_eq!(names(&sorted.release), ["stray"]);
        let leaving = sort(&chosen, true, owned, orphans);
        assert!(leaving.adopt.is_empty() && leaving.release.is_empty());
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        assert!(selector(&LabelSelector::default()).is_none());
    }
}
