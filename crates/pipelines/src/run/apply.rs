//! Does what was planned. No decisions here, and everything may be done twice: rows are written
//! by key, a Pod that exists already is the one that was meant, a Pod that is gone need not go.

use coracle_api::id::TaskId;
use coracle_artifacts::ArtifactUri;
use coracle_reconcile::retry::until_done;
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
        let write = || self.records.commit(run, commit.clone());
        until_done("write the run's rows", &self.cancel, write).await
    }

    async fn import(&self, import: Import) -> Option<Event> {
        let Import {
            task,
            artifact,
            reimport,
        } = import;
        if let Err(message) = is_there(&artifact.uri).await {
            return Some(Event::ImportRefused { task, message });
        }
        let known = if reimport {
            None
        } else {
            let find = || self.records.artifact_by_uri(&artifact.namespace, &artifact.uri);
            until_done("look an artifact up", &self.cancel, find).await?
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
        let create = async || match pods.create(&PostParams::default(), &pod).await {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
                Ok(None)
            }
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                Ok(Some(refused(status.message)))
            }
            Err(error) => Err(error),
        };
        until_done("create a Pod", &self.cancel, create).await?
    }

    async fn delete(&self, state: &State, task: TaskId, number: u32) -> Option<Event> {
        let attempt = attempt(state, task, number)?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &attempt.namespace);
        let delete = async || match pods.delete(&attempt.pod_name, &DeleteParams::default()).await {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let view = PodView::Ended(PodEnd::gone());
                Ok(Some(Event::Pod { task, number, view }))
            }
            Err(error) => Err(error),
        };
        until_done("delete a Pod", &self.cancel, delete).await?
    }
}

/// Whether something is at a local URI. What is elsewhere shows when it is read.
async fn is_there(uri: &str) -> Result<(), String> {
    let uri: ArtifactUri = uri.parse().map_err(|error| format!("{error}"))?;
    match uri.local() {
        Ok(path) => match tokio::fs::metadata(path).await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("cannot import `{}`: {error}", uri.as_str())),
        },
        Err(_) => Ok(()),
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
