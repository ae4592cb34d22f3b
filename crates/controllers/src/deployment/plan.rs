//! Which ReplicaSets a Deployment makes, scales and deletes. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;

use super::{
    HASH,
    amounts::{Amounts, DESIRED, HISTORY, MAX, REVISION, is_rolling, replicas, revision},
    observe::Observed,
    scale::{self, Sizes},
};
use crate::template;

/// How many old templates are kept, if nothing is said.
const KEPT: i32 = 10;
/// The longest list of earlier revisions, in characters.
const LONGEST_HISTORY: usize = 2000;
/// Annotations that belong to the Deployment alone.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
];

/// What to do about a Deployment, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) release: Vec<Arc<ReplicaSet>>,
    pub(crate) adopt: Vec<Arc<ReplicaSet>>,
    pub(crate) create: Option<ReplicaSet>,
    pub(crate) changes: Vec<Change>,
    pub(crate) remove: Vec<Arc<ReplicaSet>>,
    /// The revision that the Deployment gets.
    pub(crate) revision: Option<String>,
}

/// What becomes of a ReplicaSet.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) set: Arc<ReplicaSet>,
    pub(crate) replicas: Option<i32>,
    pub(crate) min_ready_seconds: Option<i32>,
    pub(crate) annotations: BTreeMap<String, String>,
}

pub(crate) fn plan(observed: &Observed) -> Plan {
    let deployment = &*observed.deployment;
    let Some(spec) = &deployment.spec else {
        return Plan::default();
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let mut plan = Plan {
        release: observed.release.clone(),
        adopt: observed.adopt.clone(),
        ..Plan::default()
    };
    let amounts = Amounts::of(deployment);
    let is_rolling = is_rolling(deployment);
    let is_paused = spec.paused == Some(true);
    let newest = next_revision(observed);
    let is_scaled = is_paused || scale::is_due(observed, amounts);
    let sizes = is_scaled
        .then(|| scale::sizes(observed, amounts, is_rolling))
        .flatten();
    if let Some(sizes) = sizes {
        resize(&mut plan, observed, &sizes, amounts, &newest);
    } else if is_paused {
        // What there is stays.
    } else if is_rolling {
        roll(&mut plan, observed, amounts, &newest);
    } else {
        recreate(&mut plan, observed, amounts, &newest);
    }
    let shown = deployment.annotations().get(REVISION);
    let has_new = observed.new.is_some() || plan.create.is_some();
    plan.revision = Some(newest).filter(|newest| has_new && !is_paused && shown != Some(newest));
    if is_complete(observed, amounts) {
        plan.remove = forgotten(observed, spec.revision_history_limit.unwrap_or(KEPT));
    }
    plan
}

/// The revision of the new set: that of none before it. It keeps one that is larger.
fn next_revision(observed: &Observed) -> String {
    let last = observed.old.iter().map(|set| revision(set)).max().unwrap_or(0);
    let own = observed.new.as_ref().map_or(0, |set| revision(set));
    own.max(last + 1).to_string()
}

/// The annotations of the new set.
fn annotations(observed: &Observed, amounts: Amounts, newest: &str) -> BTreeMap<String, String> {
    let mut annotations: BTreeMap<String, String> = observed
        .deployment
        .annotations()
        .iter()
        .filter(|(name, _)| !OWN_ANNOTATIONS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    annotations.insert(REVISION.to_owned(), newest.to_owned());
    annotations.extend(sizes(amounts));
    let before = observed.new.as_ref().map(|set| set.annotations());
    if let Some(earlier) = before
        .and_then(|before| before.get(REVISION))
        .filter(|earlier| *earlier != newest)
    {
        let mut all: Vec<&str> = before
            .and_then(|before| before.get(HISTORY))
            .map(|history| history.split(',').collect())
            .unwrap_or_default();
        all.push(earlier);
        while all.len() > 1 && all.join(",").len() > LONGEST_HISTORY {
            all.remove(0);
        }
        annotations.insert(HISTORY.to_owned(), all.join(","));
    }
    annotations
}

fn sizes(amounts: Amounts) -> [(String, String); 2] {
    [
        (DESIRED.to_owned(), amounts.wanted.to_string()),
        (MAX.to_owned(), amounts.most().to_string()),
    ]
}

fn roll(plan: &mut Plan, observed: &Observed, amounts: Amounts, newest: &str) {
    let size = scale::new_size(observed, amounts, true);
    let Some(new) = &observed.new else {
        plan.create = Some(new_set(observed, size, amounts, newest));
        return;
    };
    if size != replicas(new) {
        let sizes = Sizes::from([(new.name_any(), size)]);
        return resize(plan, observed, &sizes, amounts, newest);
    }
    let sizes = scale::old_sizes(observed, new, amounts);
    resize(plan, observed, &sizes, amounts, newest);
}

fn recreate(plan: &mut Plan, observed: &Observed, amounts: Amounts, newest: &str) {
    if observed.old.iter().any(|set| replicas(set) > 0) {
        let sizes = observed.old.iter().map(|set| (set.name_any(), 0)).collect();
        return resize(plan, observed, &sizes, amounts, newest);
    }
    let is_shown = |set: &Arc<ReplicaSet>| set.status.as_ref().is_some_and(|status| status.replicas > 0);
    if observed.has_old_pods || observed.old.iter().any(is_shown) {
        return;
    }
    match &observed.new {
        None => plan.create = Some(new_set(observed, amounts.wanted, amounts, newest)),
        Some(new) => {
            let sizes = Sizes::from([(new.name_any(), amounts.wanted)]);
            resize(plan, observed, &sizes, amounts, newest);
        }
    }
}

/// Changes what is not as it should be: sizes, and what the new set says.
fn resize(plan: &mut Plan, observed: &Observed, wanted: &Sizes, amounts: Amounts, newest: &str) {
    let spec = observed.deployment.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    for set in observed.all() {
        let is_new = observed
            .new
            .as_ref()
            .is_some_and(|new| new.name_any() == set.name_any());
        let size = wanted.get(&set.name_any()).copied();
        let mut says = if is_new {
            annotations(observed, amounts, newest)
        } else {
            BTreeMap::new()
        };
        if size.is_some() && (replicas(set) > 0 || size != Some(0)) {
            says.extend(sizes(amounts));
        }
        says.retain(|name, value| set.annotations().get(name) != Some(value));
        let own_min_ready = set
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or(0);
        let change = Change {
            replicas: size.filter(|size| *size != replicas(set)),
            min_ready_seconds: (is_new && own_min_ready != min_ready).then_some(min_ready),
            annotations: says,
            set: Arc::clone(set),
        };
        if change.replicas.is_some() || change.min_ready_seconds.is_some() || !change.annotations.is_empty() {
            plan.changes.push(change);
        }
    }
}

/// The set of the Deployment's template.
fn new_set(observed: &Observed, size: i32, amounts: Amounts, newest: &str) -> ReplicaSet {
    let deployment: &Deployment = &observed.deployment;
    let spec = deployment.spec.clone().unwrap_or_default();
    let mut template = spec.template;
    let hash = &observed.hash;
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    let wanted = selector.match_labels.get_or_insert_default();
    wanted.insert(HASH.to_owned(), hash.clone());
    let prefix = deployment.name_any();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", template::cut(&prefix, 242))),
            namespace: deployment.namespace(),
            labels: Some(labels),
            annotations: Some(annotations(observed, amounts, newest)),
            owner_references: Some(vec![template::controlled_by(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Whether the new set has all the Pods, and they are available.
pub(crate) fn is_complete(observed: &Observed, amounts: Amounts) -> bool {
    let Some(new) = observed.new.as_ref().and_then(|new| new.status.as_ref()) else {
        return false;
    };
    let old: i32 = observed
        .old
        .iter()
        .filter_map(|set| set.status.as_ref())
        .map(|status| status.replicas)
        .sum();
    new.replicas == amounts.wanted && new.available_replicas.unwrap_or(0) == amounts.wanted && old == 0
}

/// Old sets beyond the number that is kept.
fn forgotten(observed: &Observed, kept: i32) -> Vec<Arc<ReplicaSet>> {
    let mut there: Vec<&Arc<ReplicaSet>> = observed
        .old
        .iter()
        .filter(|set| set.metadata.deletion_timestamp.is_none())
        .collect();
    let excess = there.len().saturating_sub(usize::try_from(kept).unwrap_or(0));
    there.sort_by_key(|set| revision(set));
    let is_idle = |set: &&Arc<ReplicaSet>| {
        let status = set.status.clone().unwrap_or_default();
        replicas(set) == 0 && status.replicas == 0 && status.observed_generation >= set.metadata.generation
    };
    there.into_iter().take(excess).filter(is_idle).cloned().collect()
}
