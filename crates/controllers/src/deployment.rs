//! Deployments: a ReplicaSet for each template there was, and the way from one to the next.
//!
//! - [`observe`]: what is so
//! - [`plan`]: which ReplicaSets to make, scale and delete
//! - [`apply`]: doing it
//! - [`status`]: what the Deployment says of itself

mod amounts;
mod apply;
mod observe;
mod plan;
mod scale;
mod status;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;

use crate::{
    cache::Key,
    context::{self, Context, Error},
};

/// Who tells events about Deployments.
const COMPONENT: &str = "deployment-controller";
/// What tells Pods of different templates apart.
pub(crate) const HASH: &str = "pod-template-hash";

pub(crate) async fn look(context: &Context, key: &Key) -> Result<Option<Timestamp>, Error> {
    let Some(observed) = observe::observe(&context.world, key) else {
        return Ok(None);
    };
    let plan = plan::plan(&observed);
    let done = apply::apply(context, &observed.deployment, &plan).await;
    // What was written is known by now.
    let Some(after) = observe::observe(&context.world, key) else {
        return Ok(None);
    };
    let outcome = status::Outcome {
        created: plan.create.as_ref().filter(|_| done.is_ok()),
        failure: done.as_ref().err().map(Error::message),
        collided: done
            .as_ref()
            .is_err_and(|error| plan.create.is_some() && error.is_taken()),
    };
    let (status, wake) = status::status(&after, &outcome, context.now());
    if after.deployment.status.as_ref() != Some(&status) {
        let mut deployment = Deployment::clone(&after.deployment);
        deployment.status = Some(status);
        let api = context.api::<Deployment>(&key.namespace);
        context::write_status(&api, &context.world.deployments, &deployment).await?;
    }
    done?;
    Ok(wake)
}
