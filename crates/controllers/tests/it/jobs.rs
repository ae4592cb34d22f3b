//! Jobs.

use k8s_openapi::api::{
    batch::v1::{Job, JobStatus},
    core::v1::Pod,
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::harness::{Cluster, Fate, phase};

fn job(spec: Value) -> Value {
    let mut job = json!({
        "metadata": {"name": "work"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}}},
    });
    for (name, value) in spec.as_object().unwrap() {
        job["spec"][name] = value.clone();
    }
    job
}

fn status(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

fn has(job: &Job, condition: &str) -> bool {
    let conditions = status(job).conditions.unwrap_or_default();
    conditions
        .iter()
        .any(|one| one.type_ == condition && one.status == "True")
}

fn reason(job: &Job, condition: &str) -> String {
    let conditions = status(job).conditions.unwrap_or_default();
    let found = conditions.into_iter().find(|one| one.type_ == condition);
    found.and_then(|one| one.reason).unwrap_or_default()
}

#[tokio::test]
async fn an_indexed_job_runs_each_index_once() {
    let cluster = Cluster::start(|_| Fate::Succeeds).await;
    let spec = json!({"completions": 5, "parallelism": 2, "completionMode": "Indexed"});
    cluster.create::<Job>(job(spec)).await;
    let done = cluster
        .until::<Job>("work", "complete", |job| has(job, "Complete"))
        .await;
    let done = status(&done);
    assert_eq!(done.completed_indexes.as_deref(), Some("0-4"));
    assert_eq!((done.succeeded, done.failed, done.active), (Some(5), None, None));
    assert!(done.start_time.is_some() && done.completion_time.is_some());
    let conditions = done.conditions.unwrap();
    let names: Vec<_> = conditions
        .iter()
        .map(|one| (one.type_.as_str(), one.reason.as_deref().unwrap()))
        .collect();
    assert_eq!(
        names,
        [
            ("SuccessCriteriaMet", "CompletionsReached"),
            ("Complete", "CompletionsReached")
        ]
    );
    let pods = cluster
        .until_pods("free", |pods| pods.iter().all(|pod| pod.finalizers().is_empty()))
        .await;
    assert_eq!(cluster.pods_ever(), 5);
    let mut hosts: Vec<String> = pods
        .iter()
        .map(|pod| pod.spec.clone().unwrap().hostname.unwrap())
        .collect();
    hosts.sort();
    assert_eq!(hosts, ["work-0", "work-1", "work-2", "work-3", "work-4"]);
    for pod in &pods {
        let index = &pod.annotations()["batch.kubernetes.io/job-completion-index"];
        assert_eq!(&pod.labels()["batch.kubernetes.io/job-completion-index"], index);
        assert!(
            pod.name_any().starts_with(&format!("work-{index}-")),
            "{}",
            pod.name_any()
        );
        let variables = pod.spec.as_ref().unwrap().containers[0].env.clone().unwrap();
        assert_eq!(variables[0].name, "JOB_COMPLETION_INDEX");
        assert_eq!(pod.owner_references()[0].kind, "Job");
        assert_eq!(pod.labels()["job-name"], "work");
    }
    let events = cluster.events().await;
    assert!(
        events.iter().any(|event| event == "Job/Completed: Job completed"),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_job_gives_up_after_its_limit_of_failures_with_growing_pauses() {
    let cluster = Cluster::start(|_| Fate::Fails(1)).await;
    cluster.create::<Job>(job(json!({"backoffLimit": 2}))).await;
    for failed in 1..3 {
        let counted = |job: &Job| status(job).failed == Some(failed) && status(job).active.is_none();
        cluster.until::<Job>("work", "failed once more", counted).await;
        assert_eq!(cluster.pods_ever(), usize::try_from(failed).unwrap());
        cluster.advance(10 * i64::from(failed) + 1);
    }
    let failed = cluster
        .until::<Job>("work", "failed", |job| has(job, "Failed"))
        .await;
    assert_eq!(reason(&failed, "Failed"), "BackoffLimitExceeded");
    assert_eq!(reason(&failed, "FailureTarget"), "BackoffLimitExceeded");
    assert_eq!((status(&failed).failed, cluster.pods_ever()), (Some(3), 3));
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_ended() {
    let cluster = Cluster::start(|_| Fate::Runs).await;
    cluster
        .create::<Job>(job(
            json!({"activeDeadlineSeconds": 60, "parallelism": 2, "completions": 2}),
        ))
        .await;
    cluster
        .until::<Job>("work", "at work", |job| status(job).active == Some(2))
        .await;
    cluster.advance(61);
    let failed = cluster
        .until::<Job>("work", "failed", |job| has(job, "Failed"))
        .await;
    assert_eq!(reason(&failed, "Failed"), "DeadlineExceeded");
    assert_eq!(status(&failed).active, None);
    cluster.until_pods("gone", <[Pod]>::is_empty).await;
}

#[tokio::test]
async fn a_finished_job_goes_after_its_time_with_its_pods() {
    let cluster = Cluster::start(|_| Fate::Succeeds).await;
    cluster
        .create::<Job>(job(json!({"ttlSecondsAfterFinished": 100})))
        .await;
    cluster
        .until::<Job>("work", "complete", |job| has(job, "Complete"))
        .await;
    assert_eq!(cluster.list::<Pod>().await.len(), 1);
    cluster.advance(101);
    cluster.until_gone::<Job>("work").await;
    cluster.until_pods("gone", <[Pod]>::is_empty).await;
}

#[tokio::test]
async fn a_suspended_job_has_no_pods_and_goes_on_where_it_was() {
    let cluster = Cluster::start(|_| Fate::Runs).await;
    let spec = json!({"completions": 2, "parallelism": 2, "suspend": true});
    cluster.create::<Job>(job(spec)).await;
    let waiting = cluster
        .until::<Job>("work", "suspended", |job| has(job, "Suspended"))
        .await;
    assert_eq!((status(&waiting).start_time, cluster.pods_ever()), (None, 0));
    cluster
        .patch::<Job>("work", json!({"spec": {"suspend": false}}))
        .await;
    let resumed = cluster
        .until::<Job>("work", "resumed", |job| status(job).active == Some(2))
        .await;
    assert!(status(&resumed).start_time.is_some() && !has(&resumed, "Suspended"));
    let pods = cluster.list::<Pod>().await;
    cluster.meet(&pods[0].name_any(), Fate::Succeeds).await;
    cluster
        .until::<Job>("work", "half done", |job| status(job).succeeded == Some(1))
        .await;
    cluster
        .patch::<Job>("work", json!({"spec": {"suspend": true}}))
        .await;
    cluster
        .until_pods("ended", |pods| pods.iter().all(|pod| phase(pod) == "Succeeded"))
        .await;
    cluster.script(|_| Fate::Succeeds);
    cluster
        .patch::<Job>("work", json!({"spec": {"suspend": false}}))
        .await;
    let done = cluster
        .until::<Job>("work", "complete", |job| has(job, "Complete"))
        .await;
    assert_eq!((status(&done).succeeded, status(&done).failed), (Some(2), None));
    let events = cluster.events().await;
    for reason in ["Suspended", "Resumed"] {
        assert!(
            events
                .iter()
                .any(|event| event.starts_with(&format!("Job/{reason}"))),
            "{events:?}"
        );
    }
}

#[tokio::test]
async fn a_failure_policy_ends_the_job_at_once_or_looks_away() {
    let cluster = Cluster::start(|_| Fate::Fails(42)).await;
    let rule = |action: &str, code: i32| json!({"action": action, "onExitCodes": {"operator": "In", "values": [code]}});
    let policy = json!({"podFailurePolicy": {"rules": [rule("Ignore", 7), rule("FailJob", 42)]}});
    cluster.create::<Job>(job(policy)).await;
    let failed = cluster
        .until::<Job>("work", "failed", |job| has(job, "Failed"))
        .await;
    assert_eq!(reason(&failed, "Failed"), "PodFailurePolicy");
    assert_eq!(status(&failed).failed, Some(1));
    let conditions = status(&failed).conditions.unwrap();
    let message = conditions[0].message.clone().unwrap();
    assert!(
        message.starts_with("Container main for pod default/work-"),
        "{message}"
    );
    assert!(
        message.ends_with(" failed with exit code 42 matching FailJob rule at index 1"),
        "{message}"
    );
}

#[tokio::test]
async fn indexes_fail_on_their_own_when_each_has_a_limit() {
    let cluster = Cluster::start(|pod| {
        let index = &pod.annotations()["batch.kubernetes.io/job-completion-index"];
        if index == "1" {
            Fate::Fails(1)
        } else {
            Fate::Succeeds
        }
    })
    .await;
    let spec = json!({
        "completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
    });
    cluster.create::<Job>(job(spec)).await;
    cluster
        .until::<Job>("work", "mostly done", |job| status(job).succeeded == Some(2))
        .await;
    cluster.advance(11);
    let failed = cluster
        .until::<Job>("work", "failed", |job| has(job, "Failed"))
        .await;
    assert_eq!(reason(&failed, "Failed"), "FailedIndexes");
    let failed = status(&failed);
    // Kubernetes writes two neighbours with a comma.
    assert_eq!(failed.completed_indexes.as_deref(), Some("0,2"));
    assert_eq!(failed.failed_indexes.as_deref(), Some("1"));
    assert_eq!(
        (failed.succeeded, failed.failed, cluster.pods_ever()),
        (Some(2), Some(2), 4)
    );
}

#[tokio::test]
async fn a_work_queue_is_done_when_one_says_so_and_the_others_have_ended() {
    let cluster = Cluster::start(|_| Fate::Runs).await;
    cluster.create::<Job>(job(json!({"parallelism": 3}))).await;
    let pods = cluster.until_pods("three", |pods| pods.len() == 3).await;
    cluster.meet(&pods[0].name_any(), Fate::Succeeds).await;
    cluster
        .until::<Job>("work", "nearly done", |job| status(job).succeeded == Some(1))
        .await;
    for pod in &pods[1..] {
        cluster.meet(&pod.name_any(), Fate::Succeeds).await;
    }
    let done = cluster
        .until::<Job>("work", "complete", |job| has(job, "Complete"))
        .await;
    assert_eq!((status(&done).succeeded, cluster.pods_ever()), (Some(3), 3));
}

#[tokio::test]
async fn pods_of_a_deleted_job_go_with_it() {
    let cluster = Cluster::start(|_| Fate::Runs).await;
    cluster
        .create::<Job>(job(json!({"parallelism": 2, "completions": 2})))
        .await;
    cluster
        .until::<Job>("work", "at work", |job| status(job).active == Some(2))
        .await;
    cluster.delete::<Job>("work").await;
    cluster.until_gone::<Job>("work").await;
    cluster.until_pods("gone", <[Pod]>::is_empty).await;
}

#[tokio::test]
async fn a_job_that_somebody_else_manages_is_left_alone() {
    let cluster = Cluster::start(|_| Fate::Succeeds).await;
    cluster
        .create::<Job>(job(json!({"managedBy": "example.com/other"})))
        .await;
    let mut other = job(json!({}));
    other["metadata"]["name"] = json!("own");
    cluster.create::<Job>(other).await;
    cluster
        .until::<Job>("own", "complete", |job| has(job, "Complete"))
        .await;
    let left = cluster.api::<Job>().get("work").await.unwrap();
    assert_eq!(status(&left), JobStatus::default());
    assert_eq!(cluster.pods_ever(), 1);
}
