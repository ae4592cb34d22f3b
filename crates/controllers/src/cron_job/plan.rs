//! Which Jobs a CronJob makes and deletes. Pure.

use std::{cmp::Reverse, sync::Arc};

use coracle_api::schedule::Cron;
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::batch::v1::{CronJob, CronJobSpec, Job},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;

use super::{
    observe::{Observed, SCHEDULED, ending, name},
    times::{self, MANY, Schedule},
};
use crate::{event::Note, template};

/// What to do about a CronJob, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) notes: Vec<Note>,
    /// Jobs that make room for the next one, and Jobs beyond the history that is kept.
    pub(crate) delete: Vec<Arc<Job>>,
    pub(crate) create: Option<Job>,
    /// When to look again if nothing changes.
    pub(crate) wake: Option<Timestamp>,
}

pub(crate) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let cron_job = &*observed.cron_job;
    let Some(spec) = cron_job
        .spec
        .as_ref()
        .filter(|_| cron_job.metadata.deletion_timestamp.is_none())
    else {
        return Plan::default();
    };
    let mut plan = Plan {
        delete: forgotten(observed, spec),
        ..Plan::default()
    };
    if spec.suspend == Some(true) {
        return plan;
    }
    let schedule = match schedule(spec) {
        Ok(schedule) => schedule,
        Err(note) => {
            plan.notes.push(note);
            return plan;
        }
    };
    plan.wake = schedule.next(now);
    let created = cron_job
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(now, |time| time.0);
    let since = times::since(observed.last(), created, spec.starting_deadline_seconds, now);
    let Some(missed) = schedule.missed(since, now) else {
        return plan;
    };
    if missed.count > MANY {
        plan.notes.push(Note::warning(
            "TooManyMissedTimes",
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew",
        ));
    }
    let active: Vec<&Arc<Job>> = observed.active().collect();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            plan.notes.push(Note::normal(
                "JobAlreadyActive",
                "Not starting job because prior execution is running and concurrency policy is Forbid",
            ));
            return plan;
        }
        Some("Replace") => plan.delete.extend(active.into_iter().cloned()),
        _ => {}
    }
    plan.create = Some(job(cron_job, spec, missed.latest, &schedule.zone));
    plan
}

/// Reads the schedule, or says what is wrong with it.
fn schedule(spec: &CronJobSpec) -> Result<Schedule, Note> {
    let cron = Cron::parse_standard(&spec.schedule).map_err(|error| {
        let text = &spec.schedule;
        Note::warning(
            "UnparseableSchedule",
            format!("unparseable schedule: \"{text}\" : {error}"),
        )
    })?;
    let zone = match spec.time_zone.as_deref() {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name).map_err(|_| {
            Note::warning(
                "UnknownTimeZone",
                format!("invalid timeZone: \"{name}\": unknown time zone {name}"),
            )
        })?,
    };
    Ok(Schedule { cron, zone })
}

/// The Job of a time.
fn job(cron_job: &CronJob, spec: &CronJobSpec, time: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.clone();
    let given = template.metadata.unwrap_or_default();
    let mut annotations = given.annotations.unwrap_or_default();
    let shown = time.to_zoned(zone.clone());
    annotations.insert(
        SCHEDULED.to_owned(),
        shown.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    );
    Job {
        metadata: ObjectMeta {
            name: Some(name(cron_job, time)),
            namespace: cron_job.namespace(),
            labels: given.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![template::controlled_by(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Jobs that are over, beyond as many of each ending as are kept.
fn forgotten(observed: &Observed, spec: &CronJobSpec) -> Vec<Arc<Job>> {
    let mut forgotten = Vec::new();
    for (kind, kept) in [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ] {
        let is_such =
            |job: &&Arc<Job>| ending(job) == Some(kind) && job.metadata.deletion_timestamp.is_none();
        let mut over: Vec<&Arc<Job>> = observed.jobs.iter().filter(is_such).collect();
        let start = |job: &Job| {
            job.status
                .as_ref()
                .and_then(|status| status.start_time.clone())
                .map(|time| time.0)
        };
        over.sort_by_key(|job| Reverse((start(job), job.name_any())));
        forgotten.extend(over.into_iter().skip(usize::try_from(kept).unwrap_or(0)).cloned());
    }
    forgotten
}
