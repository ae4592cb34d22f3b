//! Which template of a StatefulSet is current and which is next. Pure.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{identity::REVISION, observe::Observed};
use crate::template;

/// What tells revisions of a set apart.
const HASH: &str = "controller.kubernetes.io/hash";
/// How many old templates are kept, if nothing is said.
const KEPT: i32 = 10;

/// The templates of a set.
#[derive(Debug)]
pub(crate) struct Revisions {
    /// The name of the one that Pods are to have in the end.
    pub(crate) update: String,
    /// The name of the one that Pods below the partition keep.
    pub(crate) current: String,
    /// The current one's template. None when it is the set's own, or is not known any more.
    pub(crate) current_template: Option<PodTemplateSpec>,
    /// The revision of the set's own template, when it is yet to be kept.
    pub(crate) create: Option<ControllerRevision>,
    /// A revision that is the newest again, and its number.
    pub(crate) renew: Option<(Arc<ControllerRevision>, i64)>,
    /// Revisions that nothing needs.
    pub(crate) remove: Vec<Arc<ControllerRevision>>,
}

pub(crate) fn revisions(observed: &Observed) -> Revisions {
    let set = &*observed.set;
    let spec = set.spec.clone().unwrap_or_default();
    let data = data(&spec.template);
    let newest = observed
        .revisions
        .iter()
        .map(|revision| revision.revision)
        .max()
        .unwrap_or(0);
    let same = observed
        .revisions
        .iter()
        .find(|revision| revision.data.as_ref().is_some_and(|known| known.0 == data));
    let own_name = || {
        let hash = template::hash(&spec.template, 0);
        format!("{}-{hash}", template::cut(&set.name_any(), 242))
    };
    let update = same.map_or_else(own_name, |same| same.name_any());
    let status = set.status.clone().unwrap_or_default();
    let current = status
        .current_revision
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| update.clone());
    let known = observed
        .revisions
        .iter()
        .find(|revision| revision.name_any() == current);
    let current_template = known
        .filter(|_| current != update)
        .and_then(|revision| template_of(revision));
    let is_lost = current != update && current_template.is_none();
    Revisions {
        create: (same.is_none() && observed.keeps_revisions)
            .then(|| revision(set, &update, newest + 1, data)),
        renew: same
            .filter(|same| same.revision != newest)
            .map(|same| (Arc::clone(same), newest + 1)),
        remove: forgotten(
            observed,
            &[&update, &current],
            spec.revision_history_limit.unwrap_or(KEPT),
        ),
        current: if is_lost { update.clone() } else { current },
        update,
        current_template,
    }
}

/// What a revision holds, as `kubectl rollout undo` applies it.
fn data(template: &PodTemplateSpec) -> Value {
    // What the API sent can be written again.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn revision(set: &StatefulSet, name: &str, number: i64, data: Value) -> ControllerRevision {
    let labels = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref()?.labels.clone());
    let mut labels = labels.unwrap_or_default();
    labels.insert(
        HASH.to_owned(),
        name.rsplit('-').next().unwrap_or_default().to_owned(),
    );
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: set.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![template::controlled_by(set)]),
            ..ObjectMeta::default()
        },
        revision: number,
        data: Some(RawExtension(data)),
    }
}

fn forgotten(observed: &Observed, needed: &[&str], kept: i32) -> Vec<Arc<ControllerRevision>> {
    let is_used = |name: &str| {
        let of = |pod: &Arc<_>| crate::pods::label(pod, REVISION) == Some(name);
        needed.contains(&name) || observed.pods.own.iter().any(of)
    };
    let mut unused: Vec<_> = observed
        .revisions
        .iter()
        .filter(|revision| !is_used(&revision.name_any()))
        .collect();
    unused.sort_by_key(|revision| revision.revision);
    let excess = unused.len().saturating_sub(usize::try_from(kept).unwrap_or(0));
    unused.into_iter().take(excess).cloned().collect()
}
