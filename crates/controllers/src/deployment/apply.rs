//! Does what was planned for a Deployment. Every step may be repeated. It decides nothing.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{
    Resource, ResourceExt as _,
    api::{DeleteParams, Patch},
};
use serde_json::json;

use super::{
    COMPONENT,
    amounts::{REVISION, replicas},
    plan::{Change, Plan},
};
use crate::{
    cache::{self, Key},
    context::{self, Context, Error},
    event::Note,
    ownership,
};

pub(crate) async fn apply(context: &Context, deployment: &Deployment, plan: &Plan) -> Result<(), Error> {
    let namespace = deployment.namespace().unwrap_or_default();
    let sets = context.api::<ReplicaSet>(&namespace);
    let cache = &context.world.replica_sets;
    context::each(&plan.release, |set| {
        ownership::release(&sets, cache, &**set, deployment)
    })
    .await?;
    context::each(&plan.adopt, |set| {
        ownership::adopt(&sets, cache, &**set, deployment)
    })
    .await?;
    if let Some(set) = &plan.create {
        create(context, deployment, set).await?;
    }
    for change in &plan.changes {
        resize(context, deployment, change).await?;
    }
    if let Some(revision) = &plan.revision {
        let deployments = context.api::<Deployment>(&namespace);
        let change = json!({"metadata": {"annotations": {REVISION: revision}}});
        let key = Key::of(deployment);
        context::patch(
            &deployments,
            &context.world.deployments,
            &key,
            &Patch::Merge(change),
        )
        .await?;
    }
    let now = context.now();
    context::each(&plan.remove, |set| {
        context::delete(&sets, cache, &**set, DeleteParams::background(), now)
    })
    .await
}

async fn create(context: &Context, deployment: &Deployment, set: &ReplicaSet) -> Result<(), Error> {
    let sets = context.api::<ReplicaSet>(&deployment.namespace().unwrap_or_default());
    let uid = deployment.meta().uid.as_deref();
    let is_ours = |there: &ReplicaSet| cache::controller(there) == uid;
    let made = context::create(&sets, &context.world.replica_sets, set, is_ours).await?;
    let size = replicas(&made);
    if size > 0 {
        scaled(context, deployment, &made.name_any(), 0, size);
    }
    Ok(())
}

async fn resize(context: &Context, deployment: &Deployment, change: &Change) -> Result<(), Error> {
    let sets = context.api::<ReplicaSet>(&deployment.namespace().unwrap_or_default());
    let set = &change.set;
    let mut patch = json!({"metadata": {
        "uid": set.uid(),
        "resourceVersion": set.resource_version(),
        "annotations": change.annotations,
    }});
    let mut spec = serde_json::Map::new();
    spec.extend(change.replicas.map(|size| ("replicas".to_owned(), json!(size))));
    let min_ready = change.min_ready_seconds;
    spec.extend(min_ready.map(|seconds| ("minReadySeconds".to_owned(), json!(seconds))));
    patch["spec"] = spec.into();
    let key = Key::of(&**set);
    context::patch(&sets, &context.world.replica_sets, &key, &Patch::Merge(patch)).await?;
    if let Some(size) = change.replicas {
        scaled(context, deployment, &set.name_any(), replicas(set), size);
    }
    Ok(())
}

fn scaled(context: &Context, deployment: &Deployment, set: &str, from: i32, to: i32) {
    let direction = if to > from { "up" } else { "down" };
    let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
    context.tell(COMPONENT, deployment, Note::normal("ScalingReplicaSet", message));
}
