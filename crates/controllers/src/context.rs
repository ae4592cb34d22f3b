//! What every controller works with: the API, what is known of it, the time, and how to write. It decides nothing.

use std::{fmt, future::Future, sync::Arc};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::PartialObjectMeta,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cache::{Cache, Key, Object},
    clock::Clock,
    event::{Note, Recorder},
    world::World,
};

/// A write that the API did not take.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {kind} `{key}`")]
pub(crate) struct Error {
    action: &'static str,
    kind: String,
    key: Key,
    #[source]
    source: Box<kube::Error>,
}

impl Error {
    fn has_reason(&self, reason: &str) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.reason == reason)
    }

    /// Somebody else wrote the object meanwhile: what was decided is out of date.
    pub(crate) fn is_conflict(&self) -> bool {
        self.has_reason("Conflict")
    }

    pub(crate) fn is_forbidden(&self) -> bool {
        self.has_reason("Forbidden")
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.has_reason("NotFound")
    }

    /// Somebody else's object has the name.
    pub(crate) fn is_taken(&self) -> bool {
        self.has_reason("AlreadyExists")
    }

    /// What the API said.
    pub(crate) fn message(&self) -> String {
        match &*self.source {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        }
    }
}

fn failed<K: Resource<DynamicType = ()>>(
    action: &'static str,
    key: &Key,
) -> impl FnOnce(kube::Error) -> Error {
    let (kind, key) = (K::kind(&()).into_owned(), key.clone());
    move |source| Error {
        action,
        kind,
        key,
        source: Box::new(source),
    }
}

/// What controllers work with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) world: Arc<World>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: Recorder,
    pub(crate) root_ca: Option<String>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Tells something about the object.
    pub(crate) fn tell<K: Resource<DynamicType = ()>>(&self, by: &'static str, about: &K, note: Note) {
        let mut reference = about.object_ref(&());
        reference.resource_version = about.resource_version();
        self.events.tell(by, reference, note, self.now());
    }
}

/// Creates the object. One of its name that `is_ours` is as good.
pub(crate) async fn create<K>(
    api: &Api<K>,
    cache: &Cache<K>,
    object: &K,
    is_ours: impl FnOnce(&K) -> bool,
) -> Result<K, Error>
where
    K: Object + Serialize,
{
    let key = Key::of(object);
    let created = match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
            match api.get_opt(&key.name).await.map_err(failed::<K>("read", &key))? {
                Some(there) if is_ours(&there) => there,
                _ => return Err(failed::<K>("create", &key)(kube::Error::Api(status))),
            }
        }
        other => other.map_err(failed::<K>("create", &key))?,
    };
    cache.wrote(created.clone());
    Ok(created)
}

/// How many writes of one plan are under way at once.
const WRITES: usize = 16;

/// Does something about each of them, several at once. The first failure is told when all have been tried.
pub(crate) async fn each<'a, T, F>(items: &'a [T], act: impl Fn(&'a T) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let acts: Vec<F> = items.iter().map(act).collect();
    let results: Vec<_> = stream::iter(acts).buffer_unordered(WRITES).collect().await;
    results.into_iter().collect()
}

/// Reads the object from the API itself.
pub(crate) async fn read<K: Object>(api: &Api<K>, name: &str) -> Result<Option<K>, Error> {
    let read = api.get_opt(name).await;
    read.map_err(failed::<K>("read", &Key::new("", name)))
}

/// Lists objects from the API itself, without what they hold.
pub(crate) async fn list_metadata<K: Object>(
    api: &Api<K>,
    chosen: &ListParams,
) -> Result<Vec<PartialObjectMeta<K>>, Error> {
    let listed = api.list_metadata(chosen).await;
    let listed = listed.map_err(failed::<K>("list", &Key::new("", "")))?;
    Ok(listed.items)
}

/// Changes the object. None when it is gone.
pub(crate) async fn patch<K: Object>(
    api: &Api<K>,
    cache: &Cache<K>,
    key: &Key,
    change: &Patch<Value>,
) -> Result<Option<K>, Error> {
    match api.patch(&key.name, &PatchParams::default(), change).await {
        Ok(object) => {
            cache.wrote(object.clone());
            Ok(Some(object))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(failed::<K>("change", key)(error)),
    }
}

/// Writes the status of the object, unless somebody else wrote the object since it was read.
pub(crate) async fn write_status<K>(api: &Api<K>, cache: &Cache<K>, object: &K) -> Result<K, Error>
where
    K: Object + Serialize,
{
    let key = Key::of(object);
    let written = api
        .replace_status(&key.name, &PostParams::default(), object)
        .await;
    let written = written.map_err(failed::<K>("write the status of", &key))?;
    cache.wrote(written.clone());
    Ok(written)
}

/// Replaces the object, unless somebody else wrote it since it was read.
pub(crate) async fn replace<K>(api: &Api<K>, cache: &Cache<K>, object: &K) -> Result<K, Error>
where
    K: Object + Serialize,
{
    let key = Key::of(object);
    let written = api.replace(&key.name, &PostParams::default(), object).await;
    let written = written.map_err(failed::<K>("change", &key))?;
    cache.wrote(written.clone());
    Ok(written)
}

/// Deletes exactly this object. It is as good when it is gone already.
pub(crate) async fn delete<K: Object>(
    api: &Api<K>,
    cache: &Cache<K>,
    object: &K,
    parameters: DeleteParams,
    now: Timestamp,
) -> Result<(), Error> {
    let key = Key::of(object);
    let uid = object.uid();
    let exactly = parameters.preconditions(Preconditions {
        uid: uid.clone(),
        resource_version: None,
    });
    match api.delete(&key.name, &exactly).await {
        Ok(_) => {}
        // Gone, or another one of its name.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => return Err(failed::<K>("delete", &key)(error)),
    }
    cache.leaves(&key, uid.as_deref().unwrap_or_default(), now);
    Ok(())
}
