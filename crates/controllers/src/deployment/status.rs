//! What a Deployment says of itself: its numbers, and whether it is available and gets on. Pure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use kube::ResourceExt as _;

use super::{
    amounts::{Amounts, replicas},
    observe::Observed,
};
use crate::pods;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";
/// Reasons of `Progressing`.
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// How doing what was planned ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome<'a> {
    /// The set that was made.
    pub(crate) created: Option<&'a ReplicaSet>,
    /// What did not work.
    pub(crate) failure: Option<String>,
    /// Another set has the name of the one that was to be made.
    pub(crate) collided: bool,
}

/// The status, and when it changes by time alone.
pub(crate) fn status(
    observed: &Observed,
    outcome: &Outcome<'_>,
    now: Timestamp,
) -> (DeploymentStatus, Option<Timestamp>) {
    let deployment = &*observed.deployment;
    let old = deployment.status.clone().unwrap_or_default();
    let amounts = Amounts::of(deployment);
    let mut status = numbers(observed, &old);
    if outcome.collided {
        status.collision_count = Some(old.collision_count.unwrap_or(0) + 1);
    }
    let mut conditions = Conditions {
        all: old.conditions.clone().unwrap_or_default(),
        now,
    };
    let available = status.available_replicas.unwrap_or(0);
    if available >= amounts.fewest_available() {
        let message = "Deployment has minimum availability.";
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", message.to_owned());
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            message.to_owned(),
        );
    }
    let deadline = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.progress_deadline_seconds);
    let deadline = Some(deadline.unwrap_or(600)).filter(|seconds| *seconds != i32::MAX);
    let mut wake = None;
    match deadline {
        None => conditions.remove(PROGRESSING),
        Some(seconds) => wake = progress(observed, outcome, &old, &status, seconds, &mut conditions),
    }
    let failing = observed
        .new
        .iter()
        .chain(observed.old.iter().rev())
        .find_map(|set| {
            let conditions = set.status.as_ref()?.conditions.as_deref()?;
            conditions
                .iter()
                .find(|condition| condition.type_ == FAILURE && condition.status == "True")
        });
    match failing {
        Some(failing) => {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            conditions.set(FAILURE, "True", &text(&failing.reason), text(&failing.message));
        }
        None => conditions.remove(FAILURE),
    }
    status.conditions = Some(conditions.all).filter(|all| !all.is_empty());
    (status, wake)
}

fn numbers(observed: &Observed, old: &DeploymentStatus) -> DeploymentStatus {
    let sum = |number: &dyn Fn(&ReplicaSet) -> i32| observed.all().map(|set| number(set)).sum::<i32>();
    let some = |number: i32| (number != 0).then_some(number);
    let of_status = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
    let available = sum(&|set| of_status(set).available_replicas.unwrap_or(0));
    let updated = observed.new.as_ref().map_or(0, |set| of_status(set).replicas);
    DeploymentStatus {
        observed_generation: observed.deployment.metadata.generation,
        replicas: some(sum(&|set| of_status(set).replicas)),
        updated_replicas: some(updated),
        ready_replicas: some(sum(&|set| of_status(set).ready_replicas.unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some((sum(&replicas) - available).max(0)),
        terminating_replicas: None,
        collision_count: old.collision_count,
        conditions: None,
    }
}

/// Sets whether the Deployment gets on, and returns when it will have taken too long.
fn progress(
    observed: &Observed,
    outcome: &Outcome<'_>,
    old: &DeploymentStatus,
    new: &DeploymentStatus,
    deadline: i32,
    conditions: &mut Conditions,
) -> Option<Timestamp> {
    let deployment = &*observed.deployment;
    let is_paused = deployment
        .spec
        .as_ref()
        .is_some_and(|spec| spec.paused == Some(true));
    let reason = |conditions: &Conditions| conditions.reason(PROGRESSING);
    if let Some(set) = outcome.created {
        let message = format!("Created new replica set \"{}\"", set.name_any());
        conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", message);
    } else if let (Some(set), None) = (&observed.new, conditions.get(PROGRESSING)) {
        let message = format!("Found new replica set \"{}\"", set.name_any());
        conditions.set(PROGRESSING, "True", "FoundNewReplicaSet", message);
    }
    if let Some(failure) = outcome
        .failure
        .as_ref()
        .filter(|_| observed.new.is_none() && !outcome.collided)
    {
        conditions.set(PROGRESSING, "False", "ReplicaSetCreateError", failure.clone());
        return None;
    }
    if reason(conditions).as_deref() != Some(TIMED_OUT) {
        let is_shown = reason(conditions).as_deref() == Some(PAUSED);
        if is_paused && !is_shown {
            conditions.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".to_owned());
        } else if !is_paused && is_shown {
            let message = "Deployment is resumed".to_owned();
            conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", message);
        }
    }
    if is_paused {
        return None;
    }
    let is_settled =
        new.replicas == new.updated_replicas && reason(conditions).as_deref() == Some(NEW_AVAILABLE);
    let what = observed.new.as_ref().map_or_else(
        || format!("Deployment \"{}\"", deployment.name_any()),
        |set| format!("ReplicaSet \"{}\"", set.name_any()),
    );
    let is_done = is_done(deployment, new);
    if !is_settled {
        let since = conditions
            .get(PROGRESSING)
            .and_then(|condition| condition.last_update_time.clone());
        let ends = since.map(|since| pods::later(since.0, i64::from(deadline)));
        let is_late = match reason(conditions).as_deref() {
            Some(NEW_AVAILABLE) | None => false,
            Some(TIMED_OUT) => true,
            Some(_) => ends.is_some_and(|ends| ends < conditions.now),
        };
        if is_done {
            let message = format!("{what} has successfully progressed.");
            conditions.set(PROGRESSING, "True", NEW_AVAILABLE, message);
        } else if has_progressed(old, new) {
            conditions.renew(
                PROGRESSING,
                "True",
                "ReplicaSetUpdated",
                format!("{what} is progressing."),
            );
        } else if is_late {
            let message = format!("{what} has timed out progressing.");
            conditions.set(PROGRESSING, "False", TIMED_OUT, message);
        }
    }
    if is_done || matches!(reason(conditions).as_deref(), Some(TIMED_OUT | NEW_AVAILABLE)) {
        return None;
    }
    let since = conditions.get(PROGRESSING)?.last_update_time.as_ref()?.0;
    // A second more: the deadline is to have passed.
    Some(pods::later(since, i64::from(deadline) + 1))
}

fn is_done(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(Amounts::of(deployment).wanted).filter(|wanted| *wanted != 0);
    status.updated_replicas == wanted && status.replicas == wanted && status.available_replicas == wanted
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let number = |number: Option<i32>| number.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || outdated(new) < outdated(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

/// Conditions that are being changed.
struct Conditions {
    all: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.all.iter().find(|condition| condition.type_ == kind)
    }

    fn reason(&self, kind: &str) -> Option<String> {
        self.get(kind)?.reason.clone()
    }

    fn remove(&mut self, kind: &str) {
        self.all.retain(|condition| condition.type_ != kind);
    }

    /// Sets the condition, unless it says the same already.
    fn set(&mut self, kind: &str, truth: &str, reason: &str, message: String) {
        let is_same =
            |there: &DeploymentCondition| there.status == truth && there.reason.as_deref() == Some(reason);
        if !self.get(kind).is_some_and(is_same) {
            self.renew(kind, truth, reason, message);
        }
    }

    /// Sets the condition, and that it was seen now.
    fn renew(&mut self, kind: &str, truth: &str, reason: &str, message: String) {
        let now = pods::time(self.now);
        let since = self.get(kind).filter(|there| there.status == truth);
        let since = since.and_then(|there| there.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: kind.to_owned(),
            status: truth.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or_else(|| Some(now.clone())),
            last_update_time: Some(now),
        };
        match self.all.iter_mut().find(|there| there.type_ == kind) {
            Some(there) => *there = condition,
            None => self.all.push(condition),
        }
    }
}
