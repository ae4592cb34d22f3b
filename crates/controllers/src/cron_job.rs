//! CronJobs: a Job at each time that is due.
//!
//! The name of a Job is a function of its time, so that a time is used once, whatever happens in between.
//!
//! - [`observe`]: what is so
//! - [`times`]: which time is due, and when the next one is
//! - [`plan`]: which Jobs to make and delete
//! - [`apply`]: doing it
//! - [`status`]: what the CronJob says of itself

mod apply;
mod observe;
mod plan;
mod status;
mod times;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;

use crate::{
    cache::Key,
    context::{self, Context, Error},
};

/// Who tells events about CronJobs.
const COMPONENT: &str = "cronjob-controller";

pub(crate) async fn look(context: &Context, key: &Key) -> Result<Option<Timestamp>, Error> {
    let Some(observed) = observe::observe(&context.world, key) else {
        return Ok(None);
    };
    let plan = plan::plan(&observed, context.now());
    let wake = plan.wake;
    let done = apply::apply(context, &observed.cron_job, plan).await;
    // What was written is known by now.
    let Some(after) = observe::observe(&context.world, key) else {
        return Ok(None);
    };
    let (status, notes) = status::status(&after);
    if after.cron_job.status.clone().unwrap_or_default() != status {
        let mut cron_job = CronJob::clone(&after.cron_job);
        cron_job.status = Some(status);
        let api = context.api::<CronJob>(&key.namespace);
        context::write_status(&api, &context.world.cron_jobs, &cron_job).await?;
        for note in notes {
            context.tell(COMPONENT, &*after.cron_job, note);
        }
    }
    done?;
    Ok(wake)
}
