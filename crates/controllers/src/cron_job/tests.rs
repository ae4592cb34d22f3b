//! Decisions about CronJobs in made-up states.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{
    observe::{Observed, SCHEDULED, name},
    plan::plan,
    status::status,
};
use crate::samples::{at, object};

/// A CronJob of every minute.
fn observed(spec: Value, status: Value, jobs: Vec<Job>) -> Observed {
    let mut cron_job = json!({
        "metadata": {"name": "tick", "namespace": "ns", "uid": "tick", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {}}}},
        "status": status,
    });
    for (name, value) in spec.as_object().expect("an object") {
        cron_job["spec"][name] = value.clone();
    }
    Observed {
        cron_job: Arc::new(object::<CronJob>(cron_job)),
        jobs: jobs.into_iter().map(Arc::new).collect(),
    }
}

/// The Job of a time, and how it ended.
fn job(time: Timestamp, ending: Option<&str>) -> Job {
    let made = observed(json!({}), json!({}), vec![]);
    let name = name(&made.cron_job, time);
    let conditions = ending.map(|ending| json!([{"type": ending, "status": "True"}]));
    object(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "annotations": {SCHEDULED: time.to_string()}},
        "status": {"conditions": conditions, "startTime": time, "completionTime": ending.map(|_| time)},
    }))
}

#[test]
fn each_state_has_its_next_step() {
    let used = |time: Timestamp| json!({"lastScheduleTime": time});
    let tick = |second: i64| format!("tick-{}", at(second).as_second() / 60);
    for (what, spec, status, jobs, now, made, deleted, notes) in [
        (
            "nothing is due",
            json!({}),
            json!({}),
            vec![],
            59,
            None,
            0,
            vec![],
        ),
        (
            "the first time",
            json!({}),
            json!({}),
            vec![],
            60,
            Some(tick(60)),
            0,
            vec![],
        ),
        (
            "a time that is used",
            json!({}),
            used(at(60)),
            vec![],
            90,
            None,
            0,
            vec![],
        ),
        // It was made, and nobody heard of it.
        (
            "a time whose Job is there",
            json!({}),
            json!({}),
            vec![job(at(60), None)],
            90,
            None,
            0,
            vec![],
        ),
        (
            "the last of several",
            json!({}),
            json!({}),
            vec![],
            200,
            Some(tick(180)),
            0,
            vec![],
        ),
        (
            "one of very many",
            json!({}),
            json!({}),
            vec![],
            60_000,
            Some(tick(60_000)),
            0,
            vec!["TooManyMissedTimes"],
        ),
        (
            "beside another",
            json!({}),
            used(at(60)),
            vec![job(at(60), None)],
            120,
            Some(tick(120)),
            0,
            vec![],
        ),
        (
            "not beside another",
            json!({"concurrencyPolicy": "Forbid"}),
            used(at(60)),
            vec![job(at(60), None)],
            120,
            None,
            0,
            vec!["JobAlreadyActive"],
        ),
        (
            "after another",
            json!({"concurrencyPolicy": "Forbid"}),
            used(at(60)),
            vec![job(at(60), Some("Complete"))],
            120,
            Some(tick(120)),
            0,
            vec![],
        ),
        (
            "instead of another",
            json!({"concurrencyPolicy": "Replace"}),
            used(at(60)),
            vec![job(at(60), None)],
            120,
            Some(tick(120)),
            1,
            vec![],
        ),
        (
            "too late",
            json!({"startingDeadlineSeconds": 10}),
            json!({}),
            vec![],
            80,
            None,
            0,
            vec![],
        ),
        (
            "just in time",
            json!({"startingDeadlineSeconds": 30}),
            json!({}),
            vec![],
            80,
            Some(tick(60)),
            0,
            vec![],
        ),
        (
            "suspended",
            json!({"suspend": true}),
            json!({}),
            vec![],
            80,
            None,
            0,
            vec![],
        ),
        (
            "not readable",
            json!({"schedule": "soon"}),
            json!({}),
            vec![],
            80,
            None,
            0,
            vec!["UnparseableSchedule"],
        ),
        (
            "nowhere",
            json!({"timeZone": "Atlantis/Centre"}),
            json!({}),
            vec![],
            80,
            None,
            0,
            vec!["UnknownTimeZone"],
        ),
        (
            "history",
            json!({"suspend": true, "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0}),
            json!({}),
            vec![
                job(at(60), Some("Complete")),
                job(at(120), Some("Complete")),
                job(at(180), Some("Failed")),
            ],
            200,
            None,
            2,
            vec![],
        ),
    ] {
        let plan = plan(&observed(spec, status, jobs), at(now));
        assert_eq!(plan.create.as_ref().map(|job| job.name_any()), made, "{what}");
        assert_eq!(plan.delete.len(), deleted, "{what}");
        let told: Vec<&str> = plan.notes.iter().map(|note| note.reason.as_str()).collect();
        assert_eq!(told, notes, "{what}");
    }
}

#[test]
fn it_looks_again_at_the_next_time_in_its_zone() {
    let spec = json!({"schedule": "0 9 * * *", "timeZone": "America/New_York"});
    let plan = plan(
        &observed(spec, json!({"lastScheduleTime": "2026-01-01T00:00:00Z"}), vec![]),
        at(0),
    );
    assert_eq!(plan.wake, Some("2026-01-01T14:00:00Z".parse().expect("a moment")));
}

#[test]
fn the_status_tells_what_is_active_and_what_became_of_it() {
    let active = json!([{"uid": job(at(60), None).uid(), "name": "tick"}, {"uid": "gone", "name": "gone"}]);
    let jobs = vec![job(at(60), Some("Complete")), job(at(120), None)];
    let (status, notes) = status(&observed(json!({}), json!({"active": active}), jobs));
    assert_eq!(status.active.expect("active").len(), 1);
    assert_eq!(status.last_schedule_time.expect("a time").0, at(120));
    assert_eq!(status.last_successful_time.expect("a time").0, at(60));
    let reasons: Vec<&str> = notes.iter().map(|note| note.reason.as_str()).collect();
    assert_eq!(reasons, ["SawCompletedJob", "MissingJob"]);
}
