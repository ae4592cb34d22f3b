//! Does what was planned for a StatefulSet. Every step may be repeated. It decides nothing.

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Resource, ResourceExt as _,
    api::{DeleteParams, Patch},
};
use serde_json::json;

use super::{COMPONENT, identity, plan::Plan};
use crate::{
    cache::{self, Key},
    context::{self, Context, Error},
    event::Note,
    ownership,
};

pub(crate) async fn apply(context: &Context, set: &StatefulSet, plan: Plan) -> Result<(), Error> {
    let namespace = set.namespace().unwrap_or_default();
    let pods = context.api::<Pod>(&namespace);
    let revisions = context.api::<ControllerRevision>(&namespace);
    let claims = context.api::<PersistentVolumeClaim>(&namespace);
    let world = &context.world;
    let uid = set.meta().uid.as_deref();
    context::each(&plan.release, |pod| {
        ownership::release(&pods, &world.pods, &**pod, set)
    })
    .await?;
    context::each(&plan.adopt, |pod| {
        ownership::adopt(&pods, &world.pods, &**pod, set)
    })
    .await?;
    if let Some(revision) = &plan.create_revision {
        let is_ours = |there: &ControllerRevision| cache::controller(there) == uid;
        context::create(&revisions, &world.revisions, revision, is_ours).await?;
    }
    if let Some((revision, number)) = &plan.renew_revision {
        let change = Patch::Merge(json!({"revision": number}));
        context::patch(&revisions, &world.revisions, &Key::of(&**revision), &change).await?;
    }
    context::each(&plan.own_claims, |claim| {
        ownership::add(&claims, &world.claims, &**claim, identity::owner(set))
    })
    .await?;
    context::each(&plan.disown_claims, |claim| {
        ownership::release(&claims, &world.claims, &**claim, set)
    })
    .await?;
    for (needed, pod) in &plan.create {
        create(context, set, needed, pod).await?;
    }
    context::each(&plan.delete, |pod| remove(context, set, pod)).await?;
    let now = context.now();
    let background = DeleteParams::background;
    context::each(&plan.remove_claims, |claim| {
        context::delete(&claims, &world.claims, &**claim, background(), now)
    })
    .await?;
    context::each(&plan.remove_revisions, |revision| {
        context::delete(&revisions, &world.revisions, &**revision, background(), now)
    })
    .await
}

async fn create(
    context: &Context,
    set: &StatefulSet,
    needed: &[PersistentVolumeClaim],
    pod: &Pod,
) -> Result<(), Error> {
    let namespace = set.namespace().unwrap_or_default();
    let (own, name) = (set.name_any(), pod.name_any());
    let claims = context.api::<PersistentVolumeClaim>(&namespace);
    for claim in needed {
        // One that is there already is used, whoever made it.
        let made = context::create(&claims, &context.world.claims, claim, |_| true).await;
        let claim = claim.name_any();
        note(
            context,
            set,
            made.as_ref().err(),
            "create",
            &format!("Claim {claim} Pod {name} in StatefulSet {own}"),
        );
        made?;
    }
    let pods = context.api::<Pod>(&namespace);
    let uid = set.meta().uid.as_deref();
    let is_ours = |there: &Pod| cache::controller(there) == uid;
    let made = context::create(&pods, &context.world.pods, pod, is_ours).await;
    note(
        context,
        set,
        made.as_ref().err(),
        "create",
        &format!("Pod {name} in StatefulSet {own}"),
    );
    made.map(drop)
}

async fn remove(context: &Context, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
    let pods = context.api::<Pod>(&set.namespace().unwrap_or_default());
    let now = context.now();
    let removed = context::delete(&pods, &context.world.pods, pod, DeleteParams::background(), now).await;
    let what = format!("Pod {} in StatefulSet {}", pod.name_any(), set.name_any());
    note(context, set, removed.as_ref().err(), "delete", &what);
    removed
}

fn note(context: &Context, set: &StatefulSet, error: Option<&Error>, verb: &str, what: &str) {
    let done = if verb == "create" { "Create" } else { "Delete" };
    let note = match error {
        None => Note::normal(&format!("Successful{done}"), format!("{verb} {what} successful")),
        Some(error) => {
            let message = format!("{verb} {what} failed error: {}", error.message());
            Note::warning(&format!("Failed{done}"), message)
        }
    };
    context.tell(COMPONENT, set, note);
}
