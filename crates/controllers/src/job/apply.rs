//! Does what was planned for a Job. Every step may be repeated. It decides nothing.

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Resource, ResourceExt as _,
    api::{DeleteParams, Patch},
};
use serde_json::json;

use super::{COMPONENT, FINALIZER, plan::Plan};
use crate::{
    cache::{self, Key},
    context::{self, Context, Error},
    event::Note,
};

pub(crate) async fn apply(context: &Context, job: &Job, plan: Plan) -> Result<Option<Timestamp>, Error> {
    let namespace = job.namespace().unwrap_or_default();
    let jobs = context.api::<Job>(&namespace);
    if let Some(status) = plan.status {
        let mut counted = job.clone();
        counted.status = Some(status);
        context::write_status(&jobs, &context.world.jobs, &counted).await?;
    }
    for note in plan.notes {
        context.tell(COMPONENT, job, note);
    }
    context::each(&plan.release, |pod| release(context, pod)).await?;
    context::each(&plan.discard, |pod| async move {
        release(context, pod).await?;
        remove(context, job, pod).await
    })
    .await?;
    context::each(&plan.delete, |pod| remove(context, job, pod)).await?;
    context::each(&plan.create, |pod| create(context, job, pod)).await?;
    if plan.is_expired {
        // The finalizers of its Pods are off: what is left of them goes first.
        let now = context.now();
        context::delete(&jobs, &context.world.jobs, job, DeleteParams::foreground(), now).await?;
    }
    Ok(plan.wake)
}

async fn create(context: &Context, job: &Job, pod: &Pod) -> Result<(), Error> {
    let pods = context.api::<Pod>(&job.namespace().unwrap_or_default());
    let uid = job.meta().uid.as_deref();
    let is_ours = |there: &Pod| cache::controller(there) == uid;
    match context::create(&pods, &context.world.pods, pod, is_ours).await {
        Ok(made) => {
            let message = format!("Created pod: {}", made.name_any());
            context.tell(COMPONENT, job, Note::normal("SuccessfulCreate", message));
            Ok(())
        }
        Err(error) => {
            let message = format!("Error creating: {}", error.message());
            context.tell(COMPONENT, job, Note::warning("FailedCreate", message));
            Err(error)
        }
    }
}

async fn remove(context: &Context, job: &Job, pod: &Pod) -> Result<(), Error> {
    let pods = context.api::<Pod>(&job.namespace().unwrap_or_default());
    let now = context.now();
    context::delete(&pods, &context.world.pods, pod, DeleteParams::background(), now).await?;
    let message = format!("Deleted pod: {}", pod.name_any());
    context.tell(COMPONENT, job, Note::normal("SuccessfulDelete", message));
    Ok(())
}

/// Takes the finalizer off a Pod: it has been counted, or need not be.
pub(crate) async fn release(context: &Context, pod: &Pod) -> Result<(), Error> {
    if !super::is_tracked(pod) {
        return Ok(());
    }
    let pods = context.api::<Pod>(&pod.namespace().unwrap_or_default());
    let change = json!({"metadata": {
        "uid": pod.uid(),
        "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    }});
    let key = Key::of(pod);
    let released = context::patch(&pods, &context.world.pods, &key, &Patch::Strategic(change)).await;
    match released {
        // Another one of its name.
        Err(error) if error.is_conflict() => Ok(()),
        other => other.map(drop),
    }
}
