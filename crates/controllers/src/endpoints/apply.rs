//! Writes the endpoints of a Service. Every step may be repeated. It decides nothing.

use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{ResourceExt as _, api::DeleteParams};

use super::plan::Plan;
use crate::context::{self, Context, Error};

pub(crate) async fn apply(context: &Context, plan: Plan) -> Result<(), Error> {
    let world = &context.world;
    let now = context.now();
    let endpoints = |of: &Endpoints| context.api::<Endpoints>(&of.namespace().unwrap_or_default());
    let slices = |of: &EndpointSlice| context.api::<EndpointSlice>(&of.namespace().unwrap_or_default());
    if let Some(wanted) = &plan.create {
        context::create(&endpoints(wanted), &world.endpoints, wanted, |_| false).await?;
    }
    if let Some(wanted) = &plan.replace {
        context::replace(&endpoints(wanted), &world.endpoints, wanted).await?;
    }
    if let Some(old) = &plan.remove {
        context::delete(
            &endpoints(old),
            &world.endpoints,
            &**old,
            DeleteParams::background(),
            now,
        )
        .await?;
    }
    for wanted in &plan.create_slices {
        context::create(&slices(wanted), &world.slices, wanted, |_| true).await?;
    }
    for wanted in &plan.replace_slices {
        context::replace(&slices(wanted), &world.slices, wanted).await?;
    }
    for old in &plan.remove_slices {
        context::delete(
            &slices(old),
            &world.slices,
            &**old,
            DeleteParams::background(),
            now,
        )
        .await?;
    }
    Ok(())
}
