//! ReplicaSets: so many Pods of one template, neither more nor fewer.
//!
//! - [`observe`]: what is so
//! - [`plan`]: which Pods to make, delete, take over and let go
//! - [`apply`]: doing it
//! - [`status`]: what the set says of itself

mod apply;
mod observe;
mod plan;
mod status;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::{
    cache::Key,
    context::{self, Context, Error},
};

/// Who tells events about ReplicaSets.
const COMPONENT: &str = "replicaset-controller";

pub(crate) async fn look(context: &Context, key: &Key) -> Result<Option<Timestamp>, Error> {
    let Some(observed) = observe::observe(&context.world, key) else {
        return Ok(None);
    };
    let plan = plan::plan(&observed);
    let done = apply::apply(context, &observed.set, plan).await;
    // What was written is known by now.
    let Some(after) = observe::observe(&context.world, key) else {
        return Ok(None);
    };
    let failure = done.as_ref().err().map(|failure| &failure.failure);
    let (status, wake) = status::status(&after, failure.and_then(Option::as_ref), context.now());
    if after.set.status.as_ref() != Some(&status) {
        let mut set = ReplicaSet::clone(&after.set);
        set.status = Some(status);
        let api = context.api::<ReplicaSet>(&key.namespace);
        context::write_status(&api, &context.world.replica_sets, &set).await?;
    }
    done.map_err(|failed| failed.error)?;
    Ok(wake)
}
