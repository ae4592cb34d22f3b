//! Which Pod is which: names, places, claims. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Resource as _, ResourceExt as _};

use crate::template;

/// The revision that a Pod was made of.
pub(crate) const REVISION: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The place that a name of the set says.
pub(crate) fn ordinal(prefix: &str, name: &str) -> Option<i32> {
    let place = name.strip_prefix(prefix)?.strip_prefix('-')?;
    let number: i32 = place.parse().ok()?;
    // Neither `+1` nor `01`.
    (number.to_string() == place).then_some(number)
}

pub(crate) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    let templates = set
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_claim_templates.as_deref());
    templates.unwrap_or_default()
}

/// The set's claim for a volume at a place begins like this.
fn claim_prefix(set: &StatefulSet, template: &PersistentVolumeClaim) -> String {
    format!("{}-{}", template.name_any(), set.name_any())
}

/// The place that a claim's name says, if it is the set's.
pub(crate) fn claim_ordinal(set: &StatefulSet, claim: &str) -> Option<i32> {
    templates(set)
        .iter()
        .find_map(|template| ordinal(&claim_prefix(set, template), claim))
}

/// What makes a claim go with its set.
pub(crate) fn owner(set: &StatefulSet) -> OwnerReference {
    set.owner_ref(&()).unwrap_or_default()
}

/// Whether claims go with their set.
pub(crate) fn owns_claims(set: &StatefulSet) -> bool {
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    policy.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete")
}

/// Whether claims go with the places that they are for.
pub(crate) fn scales_claims(set: &StatefulSet) -> bool {
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    policy.and_then(|policy| policy.when_scaled.as_deref()) == Some("Delete")
}

/// The claims of a place.
pub(crate) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let selected = set
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.clone());
    let make = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(format!("{}-{ordinal}", claim_prefix(set, template)));
        claim.metadata.namespace = set.namespace();
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(selected.clone().unwrap_or_default());
        claim.metadata.owner_references = owns_claims(set).then(|| vec![owner(set)]);
        claim.status = None;
        claim
    };
    templates(set).iter().map(make).collect()
}

/// The Pod of a place, made of a template.
pub(crate) fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let name = pod_name(set, ordinal);
    let mut pod = template::pod(template, set, name.clone());
    let labels = pod.metadata.labels.get_or_insert_with(BTreeMap::new);
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(REVISION.to_owned(), revision.to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(name);
        spec.subdomain = set
            .spec
            .as_ref()
            .and_then(|set| set.service_name.clone())
            .filter(|name| !name.is_empty());
        let own = templates(set).iter().map(|template| Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: format!("{}-{ordinal}", claim_prefix(set, template)),
                read_only: Some(false),
            }),
            ..Volume::default()
        });
        let own: Vec<Volume> = own.collect();
        let mut volumes = spec.volumes.take().unwrap_or_default();
        volumes.retain(|volume| own.iter().all(|other| other.name != volume.name));
        volumes.extend(own);
        spec.volumes = (!volumes.is_empty()).then_some(volumes);
    }
    pod
}
