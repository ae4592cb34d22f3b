//! A node that runs nothing: for every Pod it asks the test what the launcher would have said,
//! reports it, and sets the Pod's status as a kubelet would.

use coracle_api::{
    labels,
    launch::{Report, Spec},
};
use coracle_store::records::Records;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio::task::JoinHandle;

/// What a launcher would have said.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It reports this, and its Pod ends accordingly.
    Reports(Report),
    /// It goes on for ever.
    Hangs,
    /// Its Pod ends like this, without a report.
    Dies {
        /// The container's exit code.
        exit_code: i32,
        /// The container's reason.
        reason: &'static str,
    },
}

impl Outcome {
    /// A launcher whose command ended well and made these parameters.
    #[must_use]
    pub fn success(parameters: serde_json::Value) -> Self {
        let parameters = parameters.as_object().cloned().unwrap_or_default();
        Self::Reports(Report {
            parameters: parameters.into_iter().collect(),
            artifacts: Default::default(),
            failure: None,
            exit_code: Some(0),
        })
    }
}

/// Plays node and launchers until it is dropped.
pub struct FakeNode(JoinHandle<()>);

impl FakeNode {
    /// Plays every Pod by `script`.
    pub fn start(
        client: Client,
        records: Records,
        script: impl Fn(&Spec) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self(tokio::spawn(async move {
            let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
            let mut pods = std::pin::pin!(pods.default_backoff().applied_objects());
            while let Some(pod) = pods.next().await {
                let pod = pod.unwrap();
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                if matches!(phase, None | Some("Pending")) {
                    play(&client, &records, &pod, &script).await;
                }
            }
        }))
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn play(client: &Client, records: &Records, pod: &Pod, script: impl Fn(&Spec) -> Outcome) {
    let env = pod.spec.as_ref().unwrap().containers[0].env.as_ref().unwrap();
    let token = env
        .iter()
        .find(|variable| variable.name == labels::TOKEN_ENV)
        .unwrap()
        .value
        .clone()
        .unwrap();
    let Some(attempt) = records.attempt_by_token(&token).await.unwrap() else {
        return;
    };
    let given = records
        .attempt_spec(attempt.task_id, attempt.number)
        .await
        .unwrap();
    let spec: Spec = serde_json::from_str(&given.launch).unwrap();
    set_status(client, pod, json!({"phase": "Running"})).await;
    let (phase, exit_code, reason) = match script(&spec) {
        Outcome::Hangs => return,
        Outcome::Dies { exit_code, reason } => ("Failed", exit_code, reason),
        Outcome::Reports(report) => {
            let code = report.exit_code.unwrap_or(0);
            records
                .put_report(attempt.task_id, attempt.number, &report)
                .await
                .unwrap();
            (
                if code == 0 { "Succeeded" } else { "Failed" },
                code,
                if code == 0 { "Completed" } else { "Error" },
            )
        }
    };
    let container = json!({
        "name": "main", "image": "fake", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": exit_code, "reason": reason}}
    });
    set_status(
        client,
        pod,
        json!({"phase": phase, "containerStatuses": [container]}),
    )
    .await;
}

async fn set_status(client: &Client, pod: &Pod, status: serde_json::Value) {
    let namespace = pod.metadata.namespace.as_deref().unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({"status": status}));
    match pods
        .patch_status(
            pod.metadata.name.as_deref().unwrap(),
            &PatchParams::default(),
            &patch,
        )
        .await
    {
        Ok(_) => {}
        // Deleted meanwhile: as well.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => unreachable!("a status is always accepted: {error}"),
    }
}
