//! What a CronJob says of itself. Pure.

use k8s_openapi::{
    api::{
        batch::v1::{CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource as _, ResourceExt as _};

use super::observe::{Observed, ending};
use crate::event::Note;

/// The status, and what is new in it.
pub(crate) fn status(observed: &Observed) -> (CronJobStatus, Vec<Note>) {
    let old = observed.cron_job.status.clone().unwrap_or_default();
    let active: Vec<ObjectReference> = observed.active().map(|job| reference(job)).collect();
    let notes = old
        .active
        .iter()
        .flatten()
        .filter_map(|before| told(observed, before))
        .collect();
    let successes = observed.scheduled().filter_map(|(_, job)| {
        let status = job.status.as_ref().filter(|_| ending(job) == Some("Complete"))?;
        Some(status.completion_time.as_ref()?.0)
    });
    let last_success = old.last_successful_time.map(|time| time.0).max(successes.max());
    let status = CronJobStatus {
        active: (!active.is_empty()).then_some(active),
        last_schedule_time: observed.last().map(Time),
        last_successful_time: last_success.map(Time),
    };
    (status, notes)
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        resource_version: None,
        ..job.object_ref(&())
    }
}

/// What became of a Job that was active.
fn told(observed: &Observed, before: &ObjectReference) -> Option<Note> {
    let name = before.name.clone().unwrap_or_default();
    let job = observed.jobs.iter().find(|job| job.meta().uid == before.uid);
    match job {
        None => {
            let message = format!("Active job went missing: {name}");
            Some(Note::normal("MissingJob", message))
        }
        Some(job) => {
            let condition = ending(job)?;
            let message = format!("Saw completed job: {}, condition: {condition}", job.name_any());
            Some(Note::normal("SawCompletedJob", message))
        }
    }
}
