//! Does what was planned. No decisions here, and everything may be done twice: rows are written
//! by key, a Pod that exists already is the one that was meant, a Pod that is gone need not go.

use std::time::Duration;

use coracle_api::id::TaskId;
use coracle_store::records::{Attempt, Commit, Records};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use tokio_util::sync::CancellationToken;

use super::{
    observe::{PodEnd, PodView},
    plan::{Event, Import, Plan},
    state::State,
};

/// Requests to the Kubernetes API under way at once, per run.
const CONCURRENCY: usize = 16;
/// How long to wait before the first repetition, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What effects need.
#[derive(Clone)]
pub struct Tools {
    /// Where Pods are.
    pub client: Client,
    /// Where rows are.
    pub records: Records,
    /// When to stop trying.
    pub cancel: CancellationToken,
}

impl Tools {
    /// Does what was planned, and returns what came of it. Rows come first: a Pod never exists
    /// without the row that explains it. What fails for a reason that may pass is tried until it
    /// works or the server stops; the rows say what to repeat after the next start.
    pub async fn apply(&self, state: &State, plan: Plan) -> Vec<Event> {
        let Plan {
            commit,
            create,
            imports,
            delete,
        } = plan;
        if commit != Commit::default() && self.commit(state, &commit).await.is_none() {
            return Vec::new();
        }
        let mut events: Vec<Event> = stream::iter(create)
            .map(|(task, number)| self.create(state, task, number))
            .buffer_unordered(CONCURRENCY)
            .filter_map(async |event| event)
            .collect()
            .await;
        for import in imports {
            events.extend(self.import(import).await);
        }
        let deleted = stream::iter(delete)
            .map(|(task, number)| self.delete(state, task, number))
            .buffer_unordered(CONCURRENCY)
            .filter_map(async |event| event);
        events.extend(deleted.collect::<Vec<_>>().await);
        events
    }

    async fn commit(&self, state: &State, commit: &Commit) -> Option<()> {
        let run = state.run.id;
        self.persist("write the run's rows", || {
            self.records.commit(run, commit.clone())
        })
        .await
    }

    async fn import(&self, import: Import) -> Option<Event> {
        let Import {
            task,
            artifact,
            reimport,
        } = import;
        let known = if reimport {
            None
        } else {
            let find = || self.records.artifact_by_uri(&artifact.namespace, &artifact.uri);
            self.persist("look an artifact up", find).await?
        };
        // An artifact of another type is another thing, wherever its bytes are.
        let known = known.filter(|known| {
            known.artifact_type == artifact.artifact_type && known.metadata == artifact.metadata
        });
        Some(Event::Imported {
            task,
            artifact: Box::new(known.unwrap_or(artifact)),
        })
    }

    async fn create(&self, state: &State, task: TaskId, number: u32) -> Option<Event> {
        let attempt = attempt(state, task, number)?;
        let refused = |message: String| Event::PodRefused {
            task,
            number,
            message,
        };
        let pod: Pod = match serde_json::from_value(attempt.pod.clone()) {
            Ok(pod) => pod,
            Err(error) => return Some(refused(format!("the Pod cannot be written: {error}"))),
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &attempt.namespace);
        let mut wait = BACKOFF.0;
        loop {
            match pods.create(&PostParams::default(), &pod).await {
                Ok(_) => return None,
                Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
                    return None;
                }
                Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                    return Some(refused(status.message));
                }
                Err(error) => self.wait("create a Pod", &error, &mut wait).await?,
            }
        }
    }

    async fn delete(&self, state: &State, task: TaskId, number: u32) -> Option<Event> {
        let attempt = attempt(state, task, number)?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &attempt.namespace);
        let mut wait = BACKOFF.0;
        loop {
            match pods.delete(&attempt.pod_name, &DeleteParams::default()).await {
                Ok(_) => return None,
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    let view = PodView::Ended(PodEnd::gone());
                    return Some(Event::Pod { task, number, view });
                }
                Err(error) => self.wait("delete a Pod", &error, &mut wait).await?,
            }
        }
    }

    /// Repeats until it works. None when the server stops first.
    async fn persist<T, E, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> Option<T>
    where
        E: std::error::Error + Sync + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut wait = BACKOFF.0;
        loop {
            match attempt().await {
                Ok(done) => return Some(done),
                Err(error) => self.wait(what, &error, &mut wait).await?,
            }
        }
    }

    async fn wait(
        &self,
        what: &str,
        error: &(dyn std::error::Error + Sync + 'static),
        wait: &mut Duration,
    ) -> Option<()> {
        tracing::warn!(
            retry_in_ms = wait.as_millis(),
            error,
            "cannot {what}; trying again"
        );
        tokio::select! {
            () = self.cancel.cancelled() => None,
            () = tokio::time::sleep(*wait) => {
                *wait = (*wait * 2).min(BACKOFF.1);
                Some(())
            }
        }
    }
}

fn attempt(state: &State, task: TaskId, number: u32) -> Option<&Attempt> {
    state
        .nodes
        .get(&task)?
        .attempts
        .iter()
        .find(|attempt| attempt.number == number)
}
