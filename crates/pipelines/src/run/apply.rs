//! Does what was planned. No decisions here, and everything may be done twice: rows are written
//! by key, a Pod that exists already is the one that was meant, a Pod that is gone need not go.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use coracle_api::id::{ArtifactId, TaskId};
use coracle_api::launch::SpilledValue;
use coracle_api::reason::chain;
use coracle_artifacts::{ArtifactUri, Artifacts, content};
use coracle_reconcile::retry::until_done;
use coracle_store::records::{self, Attempt, CacheEntry, Commit, Records};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use tokio_util::sync::CancellationToken;

use super::{
    observe::{PodEnd, PodView},
    plan::{Claim, Event, Import, Known, Lookup, Plan},
    state::State,
};
use crate::task::claim::ClaimOrder;

/// Requests to the Kubernetes API under way at once, per run.
const CONCURRENCY: usize = 16;

/// Why nothing of a plan was done.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// The run was deleted.
    #[error("the run was deleted")]
    Gone,
    /// Something that the plan builds on was deleted meanwhile, such as a cached artifact.
    #[error("the rows have changed")]
    Stale(#[source] records::Error),
}

/// What effects need.
#[derive(Clone)]
pub struct Tools {
    /// Where Pods are.
    pub client: Client,
    /// Where rows are.
    pub records: Records,
    /// Where artifacts are.
    pub artifacts: Artifacts,
    /// When to stop trying.
    pub cancel: CancellationToken,
}

impl Tools {
    /// Does what was planned, and returns what came of it. Rows come first: a Pod never exists
    /// without the row that explains it. What fails for a reason that may pass is tried until it
    /// works or the server stops; the rows say what to repeat after the next start.
    ///
    /// # Errors
    /// [`NotWritten`], when the rows are not what the plan was made for; nothing was done then.
    pub async fn apply(&self, state: &State, plan: Plan) -> Result<Vec<Event>, NotWritten> {
        let Plan {
            commit,
            claims,
            create,
            imports,
            lookups,
            reads,
            delete,
            look,
        } = plan;
        let commit = Arc::new(commit);
        if *commit != Commit::default() && self.commit(state, &commit).await?.is_none() {
            return Ok(Vec::new());
        }
        let pods: HashMap<(TaskId, u32), &str> = commit
            .specs
            .iter()
            .map(|spec| ((spec.task_id, spec.number), spec.pod.as_str()))
            .collect();
        // Before the Pods, which may mount them.
        let mut events = Vec::new();
        for claim in claims {
            events.extend(self.claim(claim).await);
        }
        let created = stream::iter(create)
            .map(|attempt| self.create(state, attempt, pods.get(&attempt).copied()))
            .buffer_unordered(CONCURRENCY)
            .filter_map(std::future::ready);
        events.extend(created.collect::<Vec<_>>().await);
        let found = stream::iter(lookups)
            .map(|lookup| self.look_up(state, lookup))
            .buffer_unordered(CONCURRENCY)
            .filter_map(std::future::ready);
        events.extend(found.collect::<Vec<_>>().await);
        for (task, values) in reads {
            events.push(self.read(task, values).await);
        }
        for import in imports {
            events.extend(self.import(import).await);
        }
        let deleted = stream::iter(delete)
            .map(|(task, number)| self.delete(state, task, number))
            .buffer_unordered(CONCURRENCY)
            .filter_map(std::future::ready);
        events.extend(deleted.collect::<Vec<_>>().await);
        // After those were created that may not have been before a restart.
        let looked = stream::iter(look)
            .map(|(task, number)| self.look(state, task, number))
            .buffer_unordered(CONCURRENCY)
            .filter_map(std::future::ready);
        events.extend(looked.collect::<Vec<_>>().await);
        Ok(events)
    }

    /// Writes the rows; none when the server stops first.
    async fn commit(&self, state: &State, commit: &Arc<Commit>) -> Result<Option<()>, NotWritten> {
        let run = state.run.id;
        let write = async || match self.records.commit(run, Arc::clone(commit)).await {
            Ok(()) => Ok(Ok(())),
            Err(records::Error::NotFound { .. }) => Ok(Err(NotWritten::Gone)),
            Err(error @ records::Error::InvalidCommit { .. }) => Ok(Err(NotWritten::Stale(error))),
            Err(error) => Err(error),
        };
        let is_end = state.run.state.is_terminal();
        coracle_breakpoint::at(if is_end {
            "engine.end-planned"
        } else {
            "engine.planned"
        });
        let written = until_done("write the run's rows", &self.cancel, write).await;
        coracle_breakpoint::at(if is_end {
            "engine.end-written"
        } else {
            "engine.rows-written"
        });
        written.transpose()
    }

    async fn import(&self, import: Import) -> Option<Event> {
        let Import {
            task,
            mut artifact,
            reimport,
        } = import;
        match measured(&artifact.uri).await {
            Ok(measure) => (artifact.digest, artifact.size) = measure.unzip(),
            Err(message) => return Some(Event::ImportRefused { task, message }),
        }
        let known = if reimport {
            None
        } else {
            let find = || self.records.artifact_by_uri(&artifact.namespace, &artifact.uri);
            until_done("look an artifact up", &self.cancel, find).await?
        };
        // Of another type or content it is another thing, whatever its URI is.
        let known = known.filter(|known| {
            known.artifact_type == artifact.artifact_type
                && known.metadata == artifact.metadata
                && known.digest == artifact.digest
        });
        Some(Event::Imported {
            task,
            artifact: Box::new(known.unwrap_or(artifact)),
        })
    }

    /// What is known of a task's work, if all of it is still there.
    async fn look_up(&self, state: &State, lookup: Lookup) -> Option<Event> {
        let Lookup { task, pipeline, key } = lookup;
        let namespace = &state.run.namespace;
        let find = || self.records.cache_entry(namespace, &pipeline, &key);
        let entry = until_done("search the cache", &self.cancel, find).await?;
        let found = match entry {
            Some(entry) => self.still_there(entry).await?.map(Box::new),
            None => None,
        };
        coracle_breakpoint::at("engine.cache-searched");
        Some(Event::LookedUp { task, found })
    }

    /// The entry with its artifacts; inside, none when one of them is gone.
    async fn still_there(&self, entry: CacheEntry) -> Option<Option<Known>> {
        let ids: Vec<ArtifactId> = entry.outputs.artifacts.values().flatten().copied().collect();
        let find = || self.records.artifacts(&ids);
        let artifacts = until_done("look artifacts up", &self.cancel, find).await?;
        if ids
            .iter()
            .any(|id| !artifacts.iter().any(|artifact| artifact.id == *id))
        {
            return Some(None);
        }
        let stored = artifacts.iter().filter(|artifact| artifact.digest.is_some());
        let spilled: Vec<_> = entry
            .outputs
            .parameters
            .values()
            .filter_map(SpilledValue::of)
            .collect();
        let uris = stored
            .map(|artifact| &artifact.uri)
            .chain(spilled.iter().map(|spilled| &spilled.uri));
        for uri in uris {
            // A store that cannot be asked has nothing to offer.
            let place: Result<ArtifactUri, _> = uri.parse();
            let exists = match &place {
                Ok(place) => self.artifacts.exists(place).await.unwrap_or(false),
                Err(_) => false,
            };
            if !exists {
                return Some(None);
            }
        }
        Some(Some(Known { entry, artifacts }))
    }

    /// Reads large values that a decision needs.
    async fn read(&self, task: TaskId, values: Vec<SpilledValue>) -> Event {
        let mut read = Vec::with_capacity(values.len());
        for spilled in values {
            let value = self.read_value(&spilled).await;
            read.push((spilled, value));
        }
        Event::ValuesRead { task, values: read }
    }

    async fn read_value(&self, spilled: &SpilledValue) -> Result<serde_json::Value, String> {
        let uri = &spilled.uri;
        let failed = |why: &dyn std::fmt::Display| format!("cannot read the large value at `{uri}`: {why}");
        let place: ArtifactUri = uri.parse().map_err(|error| failed(&error))?;
        let bytes = self
            .artifacts
            .read(&place, spilled.size)
            .await
            .map_err(|error| failed(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| failed(&error))
    }

    async fn claim(&self, claim: Claim) -> Option<Event> {
        let Claim {
            task,
            namespace,
            order,
        } = claim;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let refused = |message: String| Event::ClaimRefused { task, message };
        let done = |name: &str| Event::ClaimDone {
            task,
            name: name.to_owned(),
        };
        match order {
            ClaimOrder::Create(claim) => {
                let claim: PersistentVolumeClaim = match serde_json::from_value(claim) {
                    Ok(claim) => claim,
                    Err(error) => return Some(refused(format!("the claim cannot be written: {error}"))),
                };
                let name = claim.metadata.name.clone().unwrap_or_default();
                let create = async || settled(claims.create(&PostParams::default(), &claim).await, 409);
                let outcome = until_done("make a claim", &self.cancel, create).await?;
                Some(outcome.map_or_else(|| done(&name), refused))
            }
            ClaimOrder::Delete { name } => {
                let delete = async || settled(claims.delete(&name, &DeleteParams::default()).await, 404);
                let outcome = until_done("delete a claim", &self.cancel, delete).await?;
                Some(outcome.map_or_else(|| done(&name), refused))
            }
        }
    }

    /// Creates the Pod of an attempt: this one, or the one that was written before a restart.
    async fn create(&self, state: &State, (task, number): (TaskId, u32), pod: Option<&str>) -> Option<Event> {
        let attempt = attempt(state, task, number)?;
        let refused = |message: String| Event::PodRefused {
            task,
            number,
            message,
        };
        let pod = match pod {
            Some(pod) => Cow::Borrowed(pod),
            None => Cow::Owned(self.written_pod(task, number).await?),
        };
        let pod: Pod = match serde_json::from_str(&pod) {
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
        let refused = until_done("create a Pod", &self.cancel, create).await?;
        coracle_breakpoint::at("engine.pod-created");
        refused
    }

    /// None when its run was deleted, or the server stops.
    async fn written_pod(&self, task: TaskId, number: u32) -> Option<String> {
        let read = async || match self.records.attempt_spec(task, number).await {
            Ok(spec) => Ok(Some(spec.pod)),
            Err(records::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        until_done("read what an attempt is given", &self.cancel, read).await?
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
        let gone = until_done("delete a Pod", &self.cancel, delete).await?;
        coracle_breakpoint::at("engine.pod-deleted");
        gone
    }

    /// Whether a Pod that was created is still there.
    async fn look(&self, state: &State, task: TaskId, number: u32) -> Option<Event> {
        let attempt = attempt(state, task, number)?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &attempt.namespace);
        let look = || pods.get_metadata_opt(&attempt.pod_name);
        let found = until_done("look for a Pod", &self.cancel, look).await?;
        let view = PodView::Ended(PodEnd::gone());
        found.is_none().then_some(Event::Pod { task, number, view })
    }
}

/// What the API said that will not pass: inside, its words; none when it is done, or `already`.
fn settled<T>(answer: Result<T, kube::Error>, already: u16) -> Result<Option<String>, kube::Error> {
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == already => Ok(None),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
            Ok(Some(status.message))
        }
        Err(error) => Err(error),
    }
}

/// Digest and size of what is at a local URI, so that those who consume it notice when it changes.
/// What is elsewhere shows when it is read.
async fn measured(uri: &str) -> Result<Option<(String, u64)>, String> {
    let uri: ArtifactUri = uri.parse().map_err(|error| format!("{error}"))?;
    let Ok(path) = uri.local().map(std::path::Path::to_owned) else {
        return Ok(None);
    };
    let refused = |why: &dyn std::fmt::Display| format!("cannot import `{}`: {why}", uri.as_str());
    match tokio::task::spawn_blocking(move || content::measure(&path)).await {
        Ok(Ok(Some(measure))) => Ok(Some((measure.digest, measure.size))),
        Ok(Ok(None)) => Err(refused(&"nothing is there")),
        Ok(Err(error)) => Err(refused(&chain(&error))),
        Err(error) => Err(refused(&error)),
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
