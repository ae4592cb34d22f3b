//! The parts of a Job's status: its conditions, and what has been counted. Pure.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};

use crate::pods;

/// The condition of this type, if it is true.
pub(crate) fn holds<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition that says that the Job is over.
pub(crate) fn over(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    holds(status, "Complete").or_else(|| holds(status, "Failed"))
}

/// Sets a condition. Whether that changed it.
pub(crate) fn set(
    status: &mut JobStatus,
    kind: &str,
    is_true: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let truth = if is_true { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_with(Vec::new);
    let there = conditions.iter().position(|condition| condition.type_ == kind);
    let condition = JobCondition {
        type_: kind.to_owned(),
        status: truth.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(pods::time(now)),
        last_transition_time: Some(pods::time(now)),
    };
    match there {
        Some(place) if conditions[place].status == truth => false,
        Some(place) => {
            conditions[place] = condition;
            true
        }
        // What has never been so need not be denied.
        None if !is_true => {
            if conditions.is_empty() {
                status.conditions = None;
            }
            false
        }
        None => {
            conditions.push(condition);
            true
        }
    }
}
