//! Decisions about Jobs in made-up states.

use std::sync::Arc;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{
    FINALIZER, INDEX,
    observe::Observed,
    plan::{Plan, plan},
};
use crate::samples::{Sample, at, object, pod};

fn worker(name: &str) -> Sample {
    pod(name).finalizer(FINALIZER)
}

fn indexed(name: &str, index: i32) -> Sample {
    worker(name).annotation(INDEX, &index.to_string())
}

fn observed(spec: Value, status: Value, pods: Vec<Sample>) -> Observed {
    let mut job = json!({
        "metadata": {"name": "work", "namespace": "ns", "uid": "job"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main"}]}}},
        "status": status,
    });
    for (name, value) in spec.as_object().expect("an object") {
        job["spec"][name] = value.clone();
    }
    Observed {
        job: Arc::new(object::<Job>(job)),
        pods: pods.into_iter().map(|pod| Arc::new(pod.0)).collect(),
    }
}

fn names<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> Vec<String> {
    pods.into_iter().map(|pod| pod.name_any()).collect()
}

/// What the plan does: made, counted and let go, deleted to be counted, and discarded.
fn summary(plan: &Plan) -> (usize, Vec<String>, Vec<String>, Vec<String>) {
    (
        plan.create.len(),
        names(&plan.release),
        names(&plan.delete),
        names(&plan.discard),
    )
}

fn conditions(plan: &Plan) -> Vec<String> {
    let status = plan.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    conditions
        .iter()
        .map(|one| {
            format!(
                "{}={} {}",
                one.type_,
                one.status,
                one.reason.clone().unwrap_or_default()
            )
        })
        .collect()
}

#[test]
fn as_many_pods_are_made_as_are_missing() {
    for (spec, status, pods, made) in [
        (json!({}), json!({}), vec![], 1),
        (
            json!({"parallelism": 3, "completions": null}),
            json!({}),
            vec![worker("a").ready()],
            2,
        ),
        (json!({"parallelism": 3, "completions": 2}), json!({}), vec![], 2),
        (
            json!({"parallelism": 3, "completions": 5}),
            json!({"succeeded": 4}),
            vec![],
            1,
        ),
        (
            json!({"parallelism": 3, "completions": 5}),
            json!({"succeeded": 3}),
            vec![worker("a").exited(0, 0)],
            1,
        ),
        // One that is being deleted counts as failed and is replaced after the pause, unless the policy waits for its end.
        (
            json!({"parallelism": 2, "completions": 2}),
            json!({}),
            vec![worker("a").ready().leaving()],
            2,
        ),
        (
            json!({"parallelism": 2, "completions": 2, "podReplacementPolicy": "Failed"}),
            json!({}),
            vec![worker("a").ready().leaving()],
            1,
        ),
        // In a queue of work, one success is the last word.
        (
            json!({"parallelism": 3, "completions": null}),
            json!({"succeeded": 1}),
            vec![worker("a").ready()],
            0,
        ),
        (json!({"parallelism": 0, "completions": 2}), json!({}), vec![], 0),
        (json!({"suspend": true}), json!({}), vec![], 0),
        (json!({"managedBy": "other"}), json!({}), vec![], 0),
    ] {
        let mut full = json!({"completions": 1, "parallelism": 1});
        for (name, value) in spec.as_object().expect("an object") {
            full[name] = value.clone();
        }
        let plan = plan(&observed(full, status, pods), at(60));
        assert_eq!(plan.create.len(), made, "{spec}");
    }
}

#[test]
fn what_is_planned_twice_is_the_same() {
    let spec = json!({"completions": 4, "parallelism": 4});
    let first = plan(&observed(spec.clone(), json!({}), vec![]), at(0));
    let made: Vec<Sample> = first.create[..2].iter().cloned().map(Sample).collect();
    let status = serde_json::to_value(first.status.expect("a status")).expect("JSON");
    // The other two were made as well, and nobody heard of it.
    let again = plan(&observed(spec, status, made), at(5));
    let missing: Vec<String> = first.create[2..].iter().map(|pod| pod.name_any()).collect();
    let planned: Vec<String> = again.create.iter().map(|pod| pod.name_any()).collect();
    assert_eq!(planned, missing);
}

#[test]
fn what_has_ended_is_counted_before_it_is_let_go_and_only_once() {
    let spec = json!({"completions": 3, "parallelism": 1});
    let counted = plan(
        &observed(spec.clone(), json!({}), vec![worker("a").exited(0, 0)]),
        at(1),
    );
    let status = counted.status.clone().expect("a status");
    let uncounted = status.uncounted_terminated_pods.clone().expect("uncounted");
    assert_eq!(
        (status.succeeded, uncounted.succeeded),
        (None, Some(vec!["a".to_owned()]))
    );
    assert_eq!(names(&counted.release), ["a"]);
    // The finalizer is still there: it is taken off again, and nothing is counted anew.
    let status = serde_json::to_value(status).expect("JSON");
    let again = plan(
        &observed(spec.clone(), status.clone(), vec![worker("a").exited(0, 0)]),
        at(2),
    );
    let kept = again.status.clone().unwrap_or_default();
    assert_eq!(
        (kept.succeeded, names(&again.release)),
        (None, vec!["a".to_owned()])
    );
    // It is off, or the Pod is gone.
    for pods in [vec![pod("a").exited(0, 0)], vec![]] {
        let settled = plan(&observed(spec.clone(), status.clone(), pods), at(2))
            .status
            .expect("a status");
        assert_eq!(settled.succeeded, Some(1));
        assert_eq!(
            settled.uncounted_terminated_pods.expect("uncounted").succeeded,
            None
        );
    }
}

#[test]
fn a_verdict_is_written_first_and_holds_when_all_is_counted() {
    let spec = json!({"completions": 2, "parallelism": 2, "backoffLimit": 0});
    let first = plan(
        &observed(
            spec.clone(),
            json!({}),
            vec![worker("a").exited(1, 0), worker("b").ready()],
        ),
        at(1),
    );
    assert_eq!(conditions(&first), ["FailureTarget=True BackoffLimitExceeded"]);
    assert_eq!(
        summary(&first),
        (0, vec!["a".to_owned()], vec!["b".to_owned()], vec![])
    );
    let status = serde_json::to_value(first.status.expect("a status")).expect("JSON");
    let second = plan(
        &observed(
            spec.clone(),
            status,
            vec![pod("a").exited(1, 0), worker("b").ready().leaving()],
        ),
        at(2),
    );
    assert_eq!(summary(&second), (0, vec!["b".to_owned()], vec![], vec![]));
    let status = serde_json::to_value(second.status.expect("a status")).expect("JSON");
    let third = plan(&observed(spec, status, vec![pod("a").exited(1, 0)]), at(3));
    assert_eq!(
        conditions(&third),
        [
            "FailureTarget=True BackoffLimitExceeded",
            "Failed=True BackoffLimitExceeded"
        ]
    );
    assert_eq!(third.status.expect("a status").failed, Some(2));
    assert_eq!(third.notes[0].reason, "BackoffLimitExceeded");
}

#[test]
fn a_job_fails_for_the_reasons_that_kubernetes_gives() {
    let on_condition = json!({"rules": [{
        "action": "FailJob", "onPodConditions": [{"type": "Ready", "status": "True"}],
    }]});
    for (spec, status, pods, expected) in [
        (
            json!({"activeDeadlineSeconds": 60}),
            json!({"startTime": "2026-01-01T00:00:00Z"}),
            vec![worker("a").ready()],
            Some("FailureTarget=True DeadlineExceeded"),
        ),
        (
            json!({"activeDeadlineSeconds": 61}),
            json!({"startTime": "2026-01-01T00:00:00Z"}),
            vec![worker("a").ready()],
            None,
        ),
        (
            json!({"backoffLimit": 1}),
            json!({"failed": 1}),
            vec![worker("a").exited(1, 0)],
            Some("FailureTarget=True BackoffLimitExceeded"),
        ),
        (
            json!({"backoffLimit": 2}),
            json!({"failed": 1}),
            vec![worker("a").exited(1, 0)],
            None,
        ),
        (
            json!({"podFailurePolicy": on_condition}),
            json!({}),
            vec![worker("a").ready().phase("Failed")],
            Some("FailureTarget=True PodFailurePolicy"),
        ),
        (
            json!({"completions": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 1}),
            json!({}),
            vec![indexed("a", 0).exited(1, 0), indexed("b", 2).exited(1, 0)],
            Some("FailureTarget=True MaxFailedIndexesExceeded"),
        ),
        (
            json!({"completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0}),
            json!({"completedIndexes": "1"}),
            vec![indexed("a", 0).exited(1, 0)],
            Some("FailureTarget=True FailedIndexes"),
        ),
        (
            json!({
                "completions": 4, "completionMode": "Indexed",
                "successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]},
            }),
            json!({}),
            vec![indexed("a", 1).exited(0, 0), indexed("b", 2).ready()],
            Some("SuccessCriteriaMet=True SuccessPolicy"),
        ),
    ] {
        let plan = plan(&observed(spec.clone(), status, pods), at(60));
        assert_eq!(conditions(&plan).first().map(String::as_str), expected, "{spec}");
    }
}

#[test]
fn indexes_are_taken_in_order_and_none_twice() {
    let spec = json!({"completions": 6, "parallelism": 3, "completionMode": "Indexed"});
    let pods = vec![
        indexed("done", 1).exited(0, 0),
        indexed("works", 2).ready_since(5),
        indexed("too", 2).phase("Pending"),
        indexed("beyond", 6).ready(),
    ];
    let first = plan(
        &observed(spec.clone(), json!({"completedIndexes": "0"}), pods.clone()),
        at(60),
    );
    let mut discarded = names(&first.discard);
    discarded.sort();
    assert_eq!(
        (first.create.len(), discarded),
        (0, vec!["beyond".to_owned(), "too".to_owned()])
    );
    assert_eq!(
        first.status.expect("a status").completed_indexes.as_deref(),
        Some("0,1")
    );
    let second = plan(
        &observed(spec, json!({"completedIndexes": "0,1"}), pods[1..2].to_vec()),
        at(60),
    );
    let made: Vec<&String> = second
        .create
        .iter()
        .map(|pod| &pod.annotations()[INDEX])
        .collect();
    assert_eq!(made, ["3", "4"]);
}

#[test]
fn the_failed_pod_of_an_index_is_kept_until_its_successor_knows_its_failures() {
    let spec = json!({
        "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 3,
    });
    let failed = || {
        indexed("old", 0)
            .annotation("batch.kubernetes.io/job-index-failure-count", "1")
            .exited(1, 0)
    };
    let other = || indexed("other", 1).ready();
    let early = plan(
        &observed(spec.clone(), json!({}), vec![failed(), other()]),
        at(19),
    );
    assert_eq!(
        (early.create.len(), early.release.len(), early.wake),
        (0, 0, Some(at(20)))
    );
    let late = plan(
        &observed(spec.clone(), json!({}), vec![failed(), other()]),
        at(20),
    );
    assert_eq!((late.create.len(), late.release.len()), (1, 0));
    let successor = Sample(late.create[0].clone());
    assert_eq!(
        successor.0.annotations()["batch.kubernetes.io/job-index-failure-count"],
        "2"
    );
    let then = plan(
        &observed(spec, json!({}), vec![failed(), successor, other()]),
        at(21),
    );
    assert_eq!(
        (then.create.len(), names(&then.release)),
        (0, vec!["old".to_owned()])
    );
}

#[test]
fn failures_that_the_policy_ignores_do_not_count() {
    let policy = json!({"podFailurePolicy": {"rules": [{
        "action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [1, 2]},
    }]}, "backoffLimit": 0});
    let plan = plan(
        &observed(policy, json!({}), vec![worker("a").exited(3, 0)]),
        at(60),
    );
    assert_eq!(
        (plan.create.len(), names(&plan.release)),
        (1, vec!["a".to_owned()])
    );
    let uncounted = plan
        .status
        .expect("a status")
        .uncounted_terminated_pods
        .expect("uncounted");
    assert_eq!(uncounted.failed, None);
}

#[test]
fn suspending_discards_pods_and_resuming_begins_the_time_anew() {
    let status = json!({"startTime": "2026-01-01T00:00:00Z", "active": 1});
    let suspended = plan(
        &observed(json!({"suspend": true}), status, vec![worker("a").ready()]),
        at(60),
    );
    assert_eq!(summary(&suspended), (0, vec![], vec![], vec!["a".to_owned()]));
    assert_eq!(conditions(&suspended), ["Suspended=True JobSuspended"]);
    let status = serde_json::to_value(suspended.status.expect("a status")).expect("JSON");
    let resumed = plan(
        &observed(json!({"suspend": false, "completions": 1}), status, vec![]),
        at(90),
    );
    assert_eq!(conditions(&resumed), ["Suspended=False JobResumed"]);
    assert_eq!(
        resumed.status.expect("a status").start_time.expect("a start").0,
        at(90)
    );
    assert_eq!(resumed.create.len(), 1);
}

#[test]
fn what_is_over_goes_when_its_time_has_come_and_holds_no_pod() {
    let over = json!({"conditions": [{
        "type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    let spec = json!({"ttlSecondsAfterFinished": 10});
    let early = plan(
        &observed(spec.clone(), over.clone(), vec![worker("a").exited(0, 0)]),
        at(9),
    );
    assert_eq!(
        (early.is_expired, early.wake, names(&early.release)),
        (false, Some(at(10)), vec!["a".to_owned()])
    );
    assert!(plan(&observed(spec, over, vec![]), at(10)).is_expired);
}
