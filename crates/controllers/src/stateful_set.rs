//! StatefulSets: Pods with names, places in an order, and claims of their own.
//!
//! - [`observe`]: what is so
//! - [`revisions`]: which template is current and which is next
//! - [`plan`]: which Pods and claims to make and delete
//! - [`apply`]: doing it
//! - [`status`]: what the set says of itself

mod apply;
mod identity;
mod observe;
mod plan;
mod revisions;
mod status;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;

use crate::{
    cache::Key,
    context::{self, Context, Error},
};

/// Who tells events about StatefulSets.
const COMPONENT: &str = "statefulset-controller";

pub(crate) async fn look(context: &Context, key: &Key) -> Result<Option<Timestamp>, Error> {
    let Some(observed) = observe::observe(&context.world, key) else {
        return Ok(None);
    };
    let now = context.now();
    let plan = plan::plan(&observed, now);
    let done = apply::apply(context, &observed.set, plan).await;
    // What was written is known by now.
    let Some(after) = observe::observe(&context.world, key) else {
        return Ok(None);
    };
    let (status, wake) = status::status(&after, now);
    if after.set.status.as_ref() != Some(&status) {
        let mut set = StatefulSet::clone(&after.set);
        set.status = Some(status);
        let api = context.api::<StatefulSet>(&key.namespace);
        context::write_status(&api, &context.world.stateful_sets, &set).await?;
    }
    done?;
    Ok(wake)
}
