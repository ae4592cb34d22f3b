//! What is so: rows from the store, and what a Pod's status says about an attempt.
//!
//! Reading a Pod is pure: [`PodView::of`] is a table from Kubernetes statuses to the four things
//! the planner tells apart.

use coracle_api::{
    id::{RunId, TaskId},
    ir::{document, validate},
    labels,
    launch::Failure,
    reason::Reason,
};
use coracle_store::records::{self, Records};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::{
    pipeline::Pipeline,
    state::{State, Stray},
};

/// A run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not answer.
    #[error("the rows of the run cannot be read")]
    Records(#[from] records::Error),
    /// The stored pipeline is no longer valid.
    #[error("the run's stored pipeline cannot be read")]
    Document(#[from] validate::Problem),
    /// The rows do not fit the pipeline.
    #[error("the rows of the run do not fit its pipeline")]
    Stray(#[from] Stray),
}

/// Reads everything about a run.
///
/// # Errors
/// [`Error`] when the rows cannot be read or contradict each other.
pub async fn load(records: &Records, id: RunId) -> Result<(Pipeline, State), Error> {
    let run = records.run(id).await?;
    let document = document::from_value(&records.document(&run.document_digest).await?)?;
    let pipeline = Pipeline::new(document);
    let tasks = records.tasks(id).await?;
    let attempts = records.attempts(id).await?;
    let artifacts = records.artifacts_of_run(id).await?;
    let mut state = State::load(&pipeline, run, tasks, attempts, artifacts)?;
    for (task, number, report) in records.reports(id).await? {
        if let Some(node) = state.nodes.get_mut(&task)
            && node
                .current_attempt()
                .is_some_and(|attempt| attempt.number == number)
        {
            node.report = Some(Box::new(report));
        }
    }
    Ok((pipeline, state))
}

/// Which attempt a Pod belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptRef {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The attempt, from 1.
    pub number: u32,
}

impl AttemptRef {
    /// Reads a Pod's labels. None when the Pod is not one of ours.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let label = |name: &str| pod.metadata.labels.as_ref()?.get(name);
        Some(Self {
            run: label(labels::RUN_ID)?.parse().ok()?,
            task: label(labels::TASK_ID)?.parse().ok()?,
            number: label(labels::ATTEMPT)?.parse().ok()?,
        })
    }
}

/// What a Pod's status says about its attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum PodView {
    /// Not started, and nothing to say yet.
    Pending,
    /// Not started, for a reason that may pass.
    Waiting(Failure),
    /// Not started, for a reason that will not pass.
    Stuck(Failure),
    /// At work since.
    Running(Option<Timestamp>),
    /// Ended.
    Ended(PodEnd),
}

/// How a Pod ended.
#[derive(Debug, Clone, PartialEq)]
pub struct PodEnd {
    /// Why, unless it ended well.
    pub failure: Option<Failure>,
    /// The container's exit code.
    pub exit_code: Option<i32>,
}

impl PodEnd {
    /// The Pod is no more, and nobody here deleted it.
    #[must_use]
    pub fn gone() -> Self {
        let message = "the Pod was deleted while the task was at work".to_owned();
        Self {
            failure: Some(Failure {
                reason: Reason::PodDeleted,
                message,
            }),
            exit_code: None,
        }
    }
}

impl PodView {
    /// Reads a Pod's status.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let Some(status) = &pod.status else {
            return Self::Pending;
        };
        let containers = status.container_statuses.as_deref().unwrap_or_default();
        let states = || containers.iter().filter_map(|container| container.state.as_ref());
        match status.phase.as_deref() {
            Some("Succeeded") => Self::Ended(PodEnd {
                failure: None,
                exit_code: Some(0),
            }),
            Some("Failed") => {
                let init = status.init_container_statuses.as_deref().unwrap_or_default();
                let failed =
                    states().find(|state| state.terminated.as_ref().is_some_and(|end| end.exit_code != 0));
                let exit_code = failed.and_then(|state| Some(state.terminated.as_ref()?.exit_code));
                let from_pod = || Failure {
                    reason: reason(status.reason.as_deref()).unwrap_or(Reason::ResultMissing),
                    message: status
                        .message
                        .clone()
                        .unwrap_or_else(|| "the Pod failed and gave no reason".to_owned()),
                };
                // What the Pod itself was ended for explains how its containers ended.
                let of_pod = match reason(status.reason.as_deref()) {
                    Some(Reason::DeadlineExceeded | Reason::Evicted) => Some(from_pod()),
                    _ => None,
                };
                // A sidecar is ended once the others have failed: its end explains nothing.
                let failure = of_pod
                    .or_else(|| failed.and_then(terminated))
                    .or_else(|| failed_before(init))
                    .unwrap_or_else(from_pod);
                Self::Ended(PodEnd {
                    failure: Some(failure),
                    exit_code,
                })
            }
            Some("Running") => {
                let started = states().find_map(|state| state.running.as_ref()?.started_at.as_ref());
                Self::Running(started.map(|time| time.0))
            }
            _ => pending(pod),
        }
    }
}

/// What a Pod that has not started waits for.
fn pending(pod: &Pod) -> PodView {
    let status = pod.status.as_ref();
    let waiting = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default()
        .iter()
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .find_map(|waiting| {
            let message = waiting.message.clone().unwrap_or_default();
            // kubelet's word for a Secret, ConfigMap or claim that is not there; ours begins the message.
            let (known, message) = match message.split_once(": ") {
                Some((known, rest)) if waiting.reason.as_deref() == Some("CreateContainerConfigError") => {
                    (reason(Some(known)), rest.to_owned())
                }
                _ => (reason(waiting.reason.as_deref()), message),
            };
            Some(Failure {
                reason: known?,
                message,
            })
        });
    let unscheduled = || {
        let conditions = status?.conditions.as_deref()?;
        let condition = conditions
            .iter()
            .find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        Some(Failure {
            reason: reason(condition.reason.as_deref())?,
            message: condition.message.clone().unwrap_or_default(),
        })
    };
    match waiting.or_else(unscheduled) {
        None => PodView::Pending,
        Some(failure) if failure.reason.is_of_one_who_waits() => PodView::Waiting(failure),
        Some(failure) => PodView::Stuck(failure),
    }
}

/// How an init container failed, when one did: the others never began.
fn failed_before(init: &[ContainerStatus]) -> Option<Failure> {
    init.iter().find_map(|container| {
        let end = container.state.as_ref()?.terminated.as_ref()?;
        let text = end.message.as_deref().unwrap_or_default().trim();
        (end.exit_code != 0).then(|| Failure {
            reason: reason(end.reason.as_deref()).unwrap_or(Reason::CommandFailed),
            message: format!(
                "init container `{}`: exit code {} {text}",
                container.name, end.exit_code
            ),
        })
    })
}

fn terminated(state: &ContainerState) -> Option<Failure> {
    let end = state.terminated.as_ref()?;
    let text = end.message.as_deref().unwrap_or_default().trim();
    let failure = match reason(end.reason.as_deref()) {
        Some(reason) => Failure {
            reason,
            message: text.to_owned(),
        },
        None => {
            let tail = if text.is_empty() {
                String::new()
            } else {
                format!(": {text}")
            };
            let message = format!(
                "the launcher ended with exit code {} and sent no result{tail}",
                end.exit_code
            );
            Failure {
                reason: Reason::ResultMissing,
                message,
            }
        }
    };
    Some(failure)
}

/// A Kubernetes reason as one of ours, when it is one. `Error` and `Completed` say nothing.
fn reason(name: Option<&str>) -> Option<Reason> {
    name?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn view(status: Value) -> PodView {
        PodView::of(&serde_json::from_value(json!({"status": status})).expect("a Pod"))
    }

    fn failure(reason: Reason, message: &str) -> Failure {
        Failure {
            reason,
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_pod_that_cannot_ever_run_is_told_from_one_that_waits() {
        let condition = |reason: &str| {
            json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": reason, "message": "needs 1 nvidia.com/gpu"}
            ]})
        };
        assert_eq!(
            view(condition("InsufficientResources")),
            PodView::Waiting(failure(Reason::InsufficientResources, "needs 1 nvidia.com/gpu"))
        );
        assert_eq!(
            view(condition("RequestExceedsNode")),
            PodView::Stuck(failure(Reason::RequestExceedsNode, "needs 1 nvidia.com/gpu"))
        );
        assert_eq!(view(condition("SomethingElse")), PodView::Pending);
        assert_eq!(view(json!({"phase": "Pending"})), PodView::Pending);
    }

    #[test]
    fn a_container_that_cannot_start_says_why() {
        let status = json!({"phase": "Pending", "containerStatuses": [{
            "name": "main", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImageNeedsContainerRuntime", "message": "image `x`"}}
        }]});
        assert_eq!(
            view(status),
            PodView::Stuck(failure(Reason::ImageNeedsContainerRuntime, "image `x`"))
        );
    }

    #[test]
    fn what_a_container_refers_to_is_waited_for_by_name() {
        let status = json!({"phase": "Pending", "containerStatuses": [{
            "name": "main", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {
                "reason": "CreateContainerConfigError",
                "message": "VolumeNotReady: Secret `s` does not exist",
            }}
        }]});
        assert_eq!(
            view(status),
            PodView::Waiting(failure(Reason::VolumeNotReady, "Secret `s` does not exist"))
        );
    }

    #[test]
    fn a_pod_that_was_ended_says_why_and_a_sidecars_end_explains_nothing() {
        let container = |name: &str, code: i32, reason: &str| {
            json!({
                "name": name, "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "reason": reason, "message": name}}
            })
        };
        let failed = |status: Value| match view(status) {
            PodView::Ended(end) => end.failure.map(|failure| failure.message),
            other => panic!("{other:?}"),
        };
        let mut status = json!({
            "phase": "Failed",
            "containerStatuses": [container("main", 137, "OOMKilled")],
            "initContainerStatuses": [container("side", 143, "Error")],
        });
        assert_eq!(failed(status.clone()).as_deref(), Some("main"));
        status["reason"] = json!("Evicted");
        status["message"] = json!("the volume is full");
        assert_eq!(failed(status).as_deref(), Some("the volume is full"));
        let status = json!({"phase": "Failed", "initContainerStatuses": [container("bad", 3, "Error")]});
        assert_eq!(
            failed(status).as_deref(),
            Some("init container `bad`: exit code 3 bad")
        );
    }

    #[test]
    fn a_pod_that_failed_says_how() {
        let end = |terminated: Value| {
            view(json!({"phase": "Failed", "containerStatuses": [{
                "name": "main", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": terminated}
            }]}))
        };
        assert_eq!(
            end(json!({"exitCode": 137, "reason": "OOMKilled", "message": "used more than 64Mi"})),
            PodView::Ended(PodEnd {
                failure: Some(failure(Reason::OOMKilled, "used more than 64Mi")),
                exit_code: Some(137)
            })
        );
        assert_eq!(
            end(json!({"exitCode": 2, "reason": "Error"})),
            PodView::Ended(PodEnd {
                failure: Some(failure(
                    Reason::ResultMissing,
                    "the launcher ended with exit code 2 and sent no result"
                )),
                exit_code: Some(2)
            })
        );
    }
}
