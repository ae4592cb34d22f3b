//! Does what was planned for a CronJob. Every step may be repeated. It decides nothing.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::{Resource, ResourceExt as _, api::DeleteParams};

use super::{COMPONENT, plan::Plan};
use crate::{
    cache,
    context::{self, Context, Error},
    event::Note,
};

pub(crate) async fn apply(context: &Context, cron_job: &CronJob, plan: Plan) -> Result<(), Error> {
    let jobs = context.api::<Job>(&cron_job.namespace().unwrap_or_default());
    let cache = &context.world.jobs;
    for note in plan.notes {
        context.tell(COMPONENT, cron_job, note);
    }
    for job in &plan.delete {
        let now = context.now();
        context::delete(&jobs, cache, &**job, DeleteParams::background(), now).await?;
        let message = format!("Deleted job {}", job.name_any());
        context.tell(COMPONENT, cron_job, Note::normal("SuccessfulDelete", message));
    }
    let Some(job) = plan.create else {
        return Ok(());
    };
    let uid = cron_job.meta().uid.as_deref();
    match context::create(&jobs, cache, &job, |there| cache::controller(there) == uid).await {
        Ok(made) => {
            let message = format!("Created job {}", made.name_any());
            context.tell(COMPONENT, cron_job, Note::normal("SuccessfulCreate", message));
            Ok(())
        }
        Err(error) => {
            let message = format!("Error creating job: {}", error.message());
            context.tell(COMPONENT, cron_job, Note::warning("FailedCreate", message));
            Err(error)
        }
    }
}
