//! Columns of what makes Pods: Deployments, ReplicaSets, StatefulSets, Jobs and CronJobs.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, age, column, integer, or_none, selector, wide};
use crate::object;

pub(crate) const DEPLOYMENTS: &[Column] = &[
    NAME,
    column("Ready", |object, _| {
        share(object, "/status/readyReplicas", "/spec/replicas")
    }),
    integer("Up-to-date", |object, _| {
        object::number(object, "/status/updatedReplicas").into()
    }),
    integer("Available", |object, _| {
        object::number(object, "/status/availableReplicas").into()
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) const REPLICA_SETS: &[Column] = &[
    NAME,
    integer("Desired", |object, _| {
        object::number(object, "/spec/replicas").into()
    }),
    integer("Current", |object, _| {
        object::number(object, "/status/replicas").into()
    }),
    integer("Ready", |object, _| {
        object::number(object, "/status/readyReplicas").into()
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) const STATEFUL_SETS: &[Column] = &[
    NAME,
    column("Ready", |object, _| {
        share(object, "/status/readyReplicas", "/spec/replicas")
    }),
    AGE,
    CONTAINERS,
    IMAGES,
];

pub(crate) const JOBS: &[Column] = &[
    NAME,
    column("Status", |job, _| job_status(job).into()),
    column("Completions", |job, _| completions(job).into()),
    column("Duration", |job, now| duration(job, now).into()),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) const CRON_JOBS: &[Column] = &[
    NAME,
    column("Schedule", |object, _| {
        object::text(object, "/spec/schedule").into()
    }),
    column("Timezone", |object, _| {
        or_none(object::text(object, "/spec/timeZone")).into()
    }),
    column("Suspend", |object, _| {
        match object.pointer("/spec/suspend").and_then(Value::as_bool) {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        }
        .into()
    }),
    integer("Active", |object, _| {
        object::list(object, "/status/active").len().into()
    }),
    column("Last Schedule", |object, now| {
        object::time_at(object, "/status/lastScheduleTime")
            .map_or_else(|| "<none>".to_owned(), |then| age(then, now))
            .into()
    }),
    AGE,
    wide("Containers", |object, _| {
        containers(object, "/spec/jobTemplate/spec/template", "/name").into()
    }),
    wide("Images", |object, _| {
        containers(object, "/spec/jobTemplate/spec/template", "/image").into()
    }),
    wide("Selector", |object, _| {
        selector(object.pointer("/spec/jobTemplate/spec/selector")).into()
    }),
];

const CONTAINERS: Column = wide("Containers", |object, _| {
    containers(object, "/spec/template", "/name").into()
});
const IMAGES: Column = wide("Images", |object, _| {
    containers(object, "/spec/template", "/image").into()
});
const SELECTOR: Column = wide("Selector", |object, _| {
    selector(object.pointer("/spec/selector")).into()
});

/// `1/3`.
fn share(object: &Value, part: &str, whole: &str) -> Value {
    format!(
        "{}/{}",
        object::number(object, part),
        object::number(object, whole)
    )
    .into()
}

/// One thing of each container of a template.
fn containers(object: &Value, template: &str, pointer: &str) -> String {
    let containers = object::list(object, &format!("{template}/spec/containers"));
    let things = containers
        .iter()
        .map(|container| object::text(container, pointer));
    things.collect::<Vec<_>>().join(",")
}

fn job_status(job: &Value) -> &'static str {
    let has = |kind: &str| {
        object::list(job, "/status/conditions").iter().any(|condition| {
            object::text(condition, "/type") == kind && object::text(condition, "/status") == "True"
        })
    };
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if object::is_terminating(job) => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let done = object::number(job, "/status/succeeded");
    let wanted = job.pointer("/spec/completions").and_then(Value::as_i64);
    let parallelism = object::number(job, "/spec/parallelism");
    match wanted {
        Some(wanted) => format!("{done}/{wanted}"),
        None if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        None => format!("{done}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let Some(start) = object::time_at(job, "/status/startTime") else {
        return String::new();
    };
    age(
        start,
        object::time_at(job, "/status/completionTime").unwrap_or(now),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_says_how_far_it_is() {
        let now = "2026-11-22T10:10:00Z".parse().unwrap();
        let job = json!({
            "spec": {"completions": 3, "parallelism": 2},
            "status": {
                "succeeded": 3,
                "startTime": "2026-11-22T10:00:00Z",
                "completionTime": "2026-11-22T10:00:07Z",
                "conditions": [
                    {"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"},
                ],
            },
        });
        let cells = JOBS[1..4].iter().map(|column| (column.cell)(&job, now));
        assert_eq!(cells.collect::<Value>(), json!(["Complete", "3/3", "7s"]));
        let open = json!({"spec": {"parallelism": 4}, "status": {"succeeded": 1}});
        let cells = JOBS[1..4].iter().map(|column| (column.cell)(&open, now));
        assert_eq!(cells.collect::<Value>(), json!(["Running", "1/1 of 4", ""]));
    }
}
