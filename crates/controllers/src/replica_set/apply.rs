//! Does what was planned for a ReplicaSet. Every step may be repeated. It decides nothing.

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::{Resource, ResourceExt as _, api::DeleteParams};

use super::{COMPONENT, plan::Plan};
use crate::{
    cache,
    context::{self, Context, Error},
    event::Note,
    ownership,
};

/// Pods that could not be made or deleted, as the set's condition says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Something did not work.
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) failure: Option<Failure>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, failure: None }
    }
}

pub(crate) async fn apply(context: &Context, set: &ReplicaSet, plan: Plan) -> Result<(), Failed> {
    let pods = context.api::<Pod>(&set.namespace().unwrap_or_default());
    let cache = &context.world.pods;
    context::each(&plan.release, |pod| ownership::release(&pods, cache, &**pod, set)).await?;
    context::each(&plan.adopt, |pod| ownership::adopt(&pods, cache, &**pod, set)).await?;
    let deleted = context::each(&plan.delete, |pod| remove(context, set, pod)).await;
    deleted.map_err(|error| failed("FailedDelete", error))?;
    let created = context::each(&plan.create, |pod| create(context, set, pod)).await;
    created.map_err(|error| failed("FailedCreate", error))
}

fn failed(reason: &'static str, error: Error) -> Failed {
    let message = error.message();
    Failed {
        error,
        failure: Some(Failure { reason, message }),
    }
}

async fn create(context: &Context, set: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
    let pods = context.api::<Pod>(&set.namespace().unwrap_or_default());
    let uid = set.meta().uid.as_deref();
    let is_ours = |there: &Pod| cache::controller(there) == uid;
    match context::create(&pods, &context.world.pods, pod, is_ours).await {
        Ok(made) => {
            let message = format!("Created pod: {}", made.name_any());
            context.tell(COMPONENT, set, Note::normal("SuccessfulCreate", message));
            Ok(())
        }
        Err(error) => {
            let message = format!("Error creating: {}", error.message());
            context.tell(COMPONENT, set, Note::warning("FailedCreate", message));
            Err(error)
        }
    }
}

async fn remove(context: &Context, set: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
    let pods = context.api::<Pod>(&set.namespace().unwrap_or_default());
    let now = context.now();
    context::delete(&pods, &context.world.pods, pod, DeleteParams::background(), now).await?;
    let message = format!("Deleted pod: {}", pod.name_any());
    context.tell(COMPONENT, set, Note::normal("SuccessfulDelete", message));
    Ok(())
}
