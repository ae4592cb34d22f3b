//! PersistentVolumes: one for each claim that the node has given a folder, and gone with it. Where the folder is, is the
//! node's business. Volumes that people make are available, and never bound: there is one kind of storage.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{
        CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
        PersistentVolumeStatus,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch},
};
use serde_json::json;

use crate::{
    cache::Key,
    context::{self, Context, Error},
};

/// Who made a volume.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The storage that there is: folders of this machine.
const DRIVER: &str = "local.coracle.dev";
/// Who provides it, as its StorageClass says.
const PROVISIONER: &str = "coracle.dev/local";

/// What to do about a claim's volume, in this order.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    remove: Vec<Arc<PersistentVolume>>,
    create: Option<PersistentVolume>,
    /// A volume, and the phase that it gets.
    phase: Option<(Arc<PersistentVolume>, &'static str)>,
    /// The claim gets the name of its volume.
    bind: Option<String>,
}

fn is_own(volume: &PersistentVolume) -> bool {
    volume
        .annotations()
        .get(PROVISIONED_BY)
        .is_some_and(|by| by == PROVISIONER)
}

fn phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn plan(claim: Option<&PersistentVolumeClaim>, volumes: &[Arc<PersistentVolume>]) -> Plan {
    let mut plan = Plan::default();
    let uid = claim.and_then(|claim| claim.metadata.uid.as_deref());
    let is_of = |volume: &PersistentVolume| {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        uid.is_some() && claim.and_then(|claim| claim.uid.as_deref()) == uid
    };
    let is_left = |volume: &&Arc<PersistentVolume>| {
        is_own(volume) && !is_of(volume) && volume.metadata.deletion_timestamp.is_none()
    };
    plan.remove = volumes.iter().filter(is_left).cloned().collect();
    let Some(claim) = claim else {
        let waits = volumes
            .iter()
            .find(|volume| !is_own(volume) && matches!(phase(volume), "" | "Pending"));
        plan.phase = waits.map(|volume| (Arc::clone(volume), "Available"));
        return plan;
    };
    let status = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    if status != Some("Bound") || claim.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let wanted = volume(claim);
    let name = wanted.name_any();
    let named = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default();
    if !named.is_empty() && named != name {
        return plan;
    }
    match volumes.iter().find(|volume| is_own(volume) && is_of(volume)) {
        None => plan.create = Some(wanted),
        Some(volume) if phase(volume) != "Bound" => plan.phase = Some((Arc::clone(volume), "Bound")),
        Some(_) => plan.bind = named.is_empty().then_some(name),
    }
    plan
}

/// The volume of a claim.
fn volume(claim: &PersistentVolumeClaim) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(format!("pvc-{}", claim.uid().unwrap_or_default())),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: spec.resources.and_then(|resources| resources.requests),
            claim_ref: Some(claim.object_ref(&())),
            csi: Some(CSIPersistentVolumeSource {
                driver: DRIVER.to_owned(),
                volume_handle: Key::of(claim).to_string(),
                ..CSIPersistentVolumeSource::default()
            }),
            persistent_volume_reclaim_policy: Some("Delete".to_owned()),
            storage_class_name: spec.storage_class_name,
            volume_mode: spec.volume_mode,
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

pub(crate) async fn look(context: &Context, key: &Key) -> Result<(), Error> {
    let world = &context.world;
    if !world.volumes.is_served() {
        return Ok(());
    }
    let claim = world.claims.get(key);
    let concerns = |volume: &Arc<PersistentVolume>| {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        claim.map_or_else(
            || Key::of(&**volume) == *key,
            |claim| {
                claim.namespace.as_ref() == Some(&key.namespace) && claim.name.as_ref() == Some(&key.name)
            },
        )
    };
    let mut volumes = world.volumes.all();
    volumes.retain(concerns);
    let plan = plan(claim.as_deref(), &volumes);
    let api: Api<PersistentVolume> = Api::all(context.client.clone());
    let now = context.now();
    for old in &plan.remove {
        context::delete(&api, &world.volumes, &**old, DeleteParams::background(), now).await?;
    }
    if let Some(volume) = &plan.create {
        context::create(&api, &world.volumes, volume, is_own).await?;
    }
    if let Some((volume, phase)) = &plan.phase {
        let mut volume = PersistentVolume::clone(volume);
        volume.status = Some(PersistentVolumeStatus {
            phase: Some((*phase).to_owned()),
            ..PersistentVolumeStatus::default()
        });
        context::write_status(&api, &world.volumes, &volume).await?;
    }
    if let (Some(name), Some(claim)) = (&plan.bind, &claim) {
        let change = Patch::Merge(json!({
            "metadata": {"uid": claim.uid()},
            "spec": {"volumeName": name},
        }));
        let claims = context.api::<PersistentVolumeClaim>(&key.namespace);
        context::patch(&claims, &world.claims, key, &change).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(phase: &str) -> PersistentVolumeClaim {
        let claim = json!({
            "metadata": {"name": "data", "namespace": "ns", "uid": "1"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": phase},
        });
        serde_json::from_value(claim).expect("a claim")
    }

    #[test]
    fn a_bound_claim_gets_a_volume_step_by_step_and_takes_it_along() {
        assert_eq!(plan(Some(&claim("Pending")), &[]), Plan::default());
        let made = plan(Some(&claim("Bound")), &[]).create.expect("made");
        assert_eq!(made.name_any(), "pvc-1");
        let mut there = made.clone();
        let steps = plan(Some(&claim("Bound")), &[Arc::new(made)]);
        assert_eq!(steps.phase.map(|(_, phase)| phase), Some("Bound"));
        there.status = Some(PersistentVolumeStatus {
            phase: Some("Bound".to_owned()),
            ..PersistentVolumeStatus::default()
        });
        let there = [Arc::new(there)];
        assert_eq!(plan(Some(&claim("Bound")), &there).bind.as_deref(), Some("pvc-1"));
        let mut bound = claim("Bound");
        bound.spec.as_mut().expect("spec").volume_name = Some("pvc-1".to_owned());
        assert_eq!(plan(Some(&bound), &there), Plan::default());
        assert_eq!(plan(None, &there).remove.len(), 1);
        let mut another = bound;
        another.metadata.uid = Some("2".to_owned());
        assert_eq!(plan(Some(&another), &there).remove.len(), 1);
    }
}
