//! CronJobs.

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::harness::{Cluster, Fate};

fn cron_job(spec: Value) -> Value {
    let mut cron_job = json!({
        "metadata": {"name": "tick"},
        "spec": {
            "schedule": "0 0 1 1 *",
            "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}],
            }}}},
        },
    });
    for (name, value) in spec.as_object().unwrap() {
        cron_job["spec"][name] = value.clone();
    }
    cron_job
}

fn status(cron_job: &CronJob) -> CronJobStatus {
    cron_job.status.clone().unwrap_or_default()
}

/// The minute in which the clock is, since 1970.
fn minute(cluster: &Cluster) -> i64 {
    cluster.now().as_second() / 60
}

/// To the middle of the next minute, so that the minute does not change while the test looks.
fn next_minute(cluster: &Cluster) {
    let second = cluster.now().as_second() % 60;
    cluster.advance(60 - second + 20);
}

async fn jobs(cluster: &Cluster) -> Vec<String> {
    cluster
        .list::<Job>()
        .await
        .iter()
        .map(|job| job.name_any())
        .collect()
}

#[tokio::test]
async fn a_time_makes_one_job_named_after_it() {
    let cluster = Cluster::start(|_| Fate::Succeeds).await;
    cluster
        .create::<CronJob>(cron_job(
            json!({"schedule": "* * * * *", "successfulJobsHistoryLimit": 1}),
        ))
        .await;
    next_minute(&cluster);
    let first = format!("tick-{}", minute(&cluster));
    cluster.until::<Job>(&first, "there", |_| true).await;
    let succeeded = |cron_job: &CronJob| {
        let status = status(cron_job);
        status.last_successful_time.is_some() && status.active.is_none()
    };
    let told = cluster
        .until::<CronJob>("tick", "told of success", succeeded)
        .await;
    assert_eq!(
        status(&told).last_schedule_time.unwrap().0.as_second() / 60,
        minute(&cluster)
    );
    let job = cluster.api::<Job>().get(&first).await.unwrap();
    assert!(
        job.annotations()
            .contains_key("batch.kubernetes.io/cronjob-scheduled-timestamp")
    );
    // Three minutes at once make one Job, and the history holds one.
    next_minute(&cluster);
    cluster.advance(120);
    let second = format!("tick-{}", minute(&cluster));
    cluster.until::<Job>(&second, "there", |_| true).await;
    cluster.until_gone::<Job>(&first).await;
    assert_eq!(jobs(&cluster).await, [second]);
}

#[tokio::test]
async fn a_job_that_runs_keeps_the_next_one_from_starting() {
    let cluster = Cluster::start(|_| Fate::Runs).await;
    cluster
        .create::<CronJob>(cron_job(
            json!({"schedule": "* * * * *", "concurrencyPolicy": "Forbid"}),
        ))
        .await;
    next_minute(&cluster);
    let first = format!("tick-{}", minute(&cluster));
    let active = |cron_job: &CronJob| status(cron_job).active.is_some_and(|active| active.len() == 1);
    cluster.until::<CronJob>("tick", "active", active).await;
    next_minute(&cluster);
    let pods = cluster
        .until_pods("one", |pods| {
            pods.len() == 1
                && pods[0]
                    .status
                    .as_ref()
                    .is_some_and(|status| status.pod_ip.is_some())
        })
        .await;
    assert_eq!(jobs(&cluster).await, [first]);
    // When it has ended, the time that was missed is made up for.
    let second = format!("tick-{}", minute(&cluster));
    cluster.meet(&pods[0].name_any(), Fate::Succeeds).await;
    cluster.until::<Job>(&second, "there", |_| true).await;
    let events = cluster.events().await;
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("CronJob/JobAlreadyActive")),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_job_that_runs_is_replaced_by_the_next_one() {
    let cluster = Cluster::start(|_| Fate::Runs).await;
    cluster
        .create::<CronJob>(cron_job(
            json!({"schedule": "* * * * *", "concurrencyPolicy": "Replace"}),
        ))
        .await;
    next_minute(&cluster);
    let first = format!("tick-{}", minute(&cluster));
    cluster.until::<Job>(&first, "there", |_| true).await;
    next_minute(&cluster);
    let second = format!("tick-{}", minute(&cluster));
    cluster.until::<Job>(&second, "there", |_| true).await;
    cluster.until_gone::<Job>(&first).await;
    cluster
        .until_pods("one", |pods| {
            pods.len() == 1 && pods[0].labels()["job-name"] == second
        })
        .await;
}

#[tokio::test]
async fn a_suspended_one_makes_nothing_and_what_cannot_be_read_is_told() {
    let cluster = Cluster::start(|_| Fate::Succeeds).await;
    let spec = json!({"schedule": "* * * * *", "suspend": true});
    cluster.create::<CronJob>(cron_job(spec)).await;
    let mut manual = cron_job(json!({}))["spec"]["jobTemplate"].clone();
    let owner = cluster.api::<CronJob>().get("tick").await.unwrap();
    manual["metadata"] = json!({"name": "by-hand", "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": owner.uid().unwrap(), "controller": true}]});
    next_minute(&cluster);
    // As `kubectl create job --from=cronjob/tick` does.
    cluster.create::<Job>(manual).await;
    let done = |job: &Job| {
        job.status
            .as_ref()
            .is_some_and(|status| status.completion_time.is_some())
    };
    cluster.until::<Job>("by-hand", "complete", done).await;
    assert_eq!(jobs(&cluster).await, ["by-hand"]);
}
