//! What is so about a CronJob: itself and its Jobs.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt as _;

use crate::{cache::Key, world::World};

/// The time that a Job was made for.
pub(crate) const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// A CronJob and its Jobs.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) cron_job: Arc<CronJob>,
    pub(crate) jobs: Vec<Arc<Job>>,
}

impl Observed {
    /// The Jobs that were made for a time, with it. Not those that somebody made by hand.
    pub(crate) fn scheduled(&self) -> impl Iterator<Item = (Timestamp, &Arc<Job>)> {
        self.jobs.iter().filter_map(|job| {
            let time: Timestamp = job.annotations().get(SCHEDULED)?.parse().ok()?;
            (job.name_any() == name(&self.cron_job, time)).then_some((time, job))
        })
    }

    /// Its Jobs that are not over.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.scheduled()
            .map(|(_, job)| job)
            .filter(|job| ending(job).is_none())
    }

    /// The last time that was used.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        let status = self.cron_job.status.as_ref();
        let written = status
            .and_then(|status| status.last_schedule_time.as_ref())
            .map(|time| time.0);
        let made = self.scheduled().map(|(time, _)| time).max();
        written.max(made)
    }
}

/// The name of the Job of a time.
pub(crate) fn name(cron_job: &CronJob, time: Timestamp) -> String {
    format!("{}-{}", cron_job.name_any(), time.as_second() / 60)
}

/// How the Job ended, if it did: `Complete` or `Failed`.
pub(crate) fn ending(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let over = conditions.iter().find(|condition| {
        condition.status == "True" && matches!(condition.type_.as_str(), "Complete" | "Failed")
    })?;
    Some(&over.type_)
}

pub(crate) fn observe(world: &World, key: &Key) -> Option<Observed> {
    let cron_job = world.cron_jobs.get(key)?;
    let jobs = world.jobs.owned_by(&cron_job.uid()?);
    Some(Observed { cron_job, jobs })
}
