//! The objects of one kind as a watch shows them, and as this process has just written them.
//!
//! What is written here is seen by the next decision, although the watch has yet to tell it: an answer to a write
//! enters the cache unless the watch has already passed its revision. So no decision is made twice for want of news.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use coracle_reconcile::retry;
use futures::{StreamExt as _, pin_mut};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long one request of a watch lasts.
const WATCH_SECONDS: u32 = 290;
/// The pause before a watch that broke off begins again.
const PAUSE: Duration = Duration::from_millis(200);

/// A kind whose objects can be watched.
pub(crate) trait Object:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static
{
}

/// An object's namespace, empty for what is in none, and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        Self::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The objects of one kind.
pub(crate) struct Cache<K> {
    state: Mutex<State<K>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    owned: HashMap<String, BTreeSet<Key>>,
    /// Uids of objects whose deletion this process asked for, and the watch has yet to tell.
    leaving: HashMap<String, Timestamp>,
    /// The watch has told everything up to here.
    revision: u64,
    is_served: bool,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                objects: BTreeMap::new(),
                owned: HashMap::new(),
                leaving: HashMap::new(),
                revision: 0,
                is_served: true,
            }),
            synced: watch::Sender::new(false),
        }
    }
}

/// The uid of the object's controller.
pub(crate) fn controller<K: Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true));
    owner.map(|owner| owner.uid.as_str())
}

/// Where an object is found by who owns it: its controller's uid, or its namespace when it has none.
fn owner_key<K: Resource>(object: &K) -> String {
    controller(object).map_or_else(
        || orphans_of(&object.namespace().unwrap_or_default()),
        ToOwned::to_owned,
    )
}

fn orphans_of(namespace: &str) -> String {
    format!("/{namespace}")
}

/// The revision of the object, as a number.
pub(crate) fn revision<K: Resource>(object: &K) -> u64 {
    let text = object.meta().resource_version.as_deref();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl<K: Object> State<K> {
    fn put(&mut self, mut object: K) -> Option<Arc<K>> {
        let key = Key::of(&object);
        let metadata = object.meta_mut();
        if metadata.deletion_timestamp.is_none()
            && let Some(since) = self.leaving.get(metadata.uid.as_deref().unwrap_or_default())
        {
            metadata.deletion_timestamp = Some(Time(*since));
        }
        let old = self.take(&key);
        self.owned
            .entry(owner_key(&object))
            .or_default()
            .insert(key.clone());
        self.objects.insert(key, Arc::new(object));
        old
    }

    fn forget(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.take(key)?;
        self.leaving.remove(old.meta().uid.as_deref().unwrap_or_default());
        Some(old)
    }

    fn take(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        let owner = owner_key(&*old);
        if let Some(owned) = self.owned.get_mut(&owner) {
            owned.remove(key);
            if owned.is_empty() {
                self.owned.remove(&owner);
            }
        }
        Some(old)
    }

    fn indexed(&self, owner: &str) -> Vec<Arc<K>> {
        let keys = self.owned.get(owner).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key).cloned()).collect()
    }
}

impl<K: Object> Cache<K> {
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.lock().objects.get(key).cloned()
    }

    /// The objects of one namespace, by name.
    pub(crate) fn within(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.lock();
        let from = state.objects.range(Key::new(namespace, "")..);
        from.take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// The objects that the one with this uid controls, by name.
    pub(crate) fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.state.lock().indexed(uid)
    }

    /// The objects of the namespace that nothing controls, by name.
    pub(crate) fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.state.lock().indexed(&orphans_of(namespace))
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.state.lock().objects.values().cloned().collect()
    }

    /// Whether the API has this kind at all.
    pub(crate) fn is_served(&self) -> bool {
        self.state.lock().is_served
    }

    /// Takes in the answer to a write.
    pub(crate) fn wrote(&self, object: K) {
        let mut state = self.state.lock();
        let written = revision(&object);
        let known = state
            .objects
            .get(&Key::of(&object))
            .map(|known| revision(&**known));
        if written > state.revision && known.is_none_or(|known| known < written) {
            state.put(object);
        }
    }

    fn applied(&self, object: K) -> Option<Arc<K>> {
        let mut state = self.state.lock();
        state.revision = state.revision.max(revision(&object));
        let known = state.objects.get(&Key::of(&object));
        match known {
            // This process wrote it since.
            Some(known) if revision(&**known) > revision(&object) => Some(Arc::clone(known)),
            _ => state.put(object),
        }
    }

    fn removed(&self, object: &K) {
        let mut state = self.state.lock();
        state.revision = state.revision.max(revision(object));
        let key = Key::of(object);
        let known = state.objects.get(&key);
        if known.is_some_and(|known| revision(&**known) <= revision(object)) {
            state.forget(&key);
        }
        state
            .leaving
            .remove(object.meta().uid.as_deref().unwrap_or_default());
    }

    /// Takes in that the API deletes, or has deleted, the object that this process knows by this key and uid.
    pub(crate) fn leaves(&self, key: &Key, uid: &str, now: Timestamp) {
        let mut state = self.state.lock();
        let known = state.objects.get(key).cloned();
        if let Some(known) = known.filter(|known| known.meta().uid.as_deref() == Some(uid)) {
            state.leaving.insert(uid.to_owned(), now);
            state.put(K::clone(&known));
        }
    }

    /// Takes in a list at a revision, and returns what is gone.
    fn listed(&self, objects: Vec<K>, at: u64) -> Vec<Arc<K>> {
        let mut state = self.state.lock();
        let named: BTreeSet<Key> = objects.iter().map(Key::of).collect();
        let is_gone = |(key, known): (&Key, &Arc<K>)| {
            (revision(&**known) <= at && !named.contains(key)).then(|| key.clone())
        };
        let gone: Vec<Key> = state.objects.iter().filter_map(is_gone).collect();
        let gone = gone.iter().filter_map(|key| state.forget(key)).collect();
        for object in objects {
            let known = state
                .objects
                .get(&Key::of(&object))
                .map(|known| revision(&**known));
            if known.is_none_or(|known| known < revision(&object)) {
                state.put(object);
            }
        }
        state.revision = at;
        gone
    }

    /// Ends when everything has been listed once.
    pub(crate) async fn synced(&self) {
        // The sender is a part of this cache.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Keeps up with the API until `cancel`. Every change is told with what was known before, and what is now.
    pub(crate) async fn follow(
        &self,
        api: Api<K>,
        fields: Option<&str>,
        cancel: &CancellationToken,
        told: impl Fn(Option<&K>, Option<&K>),
    ) {
        let kind = K::plural(&()).into_owned();
        let chosen = ListParams {
            field_selector: fields.map(ToOwned::to_owned),
            ..ListParams::default()
        };
        let what = format!("list {kind}");
        while !cancel.is_cancelled() {
            let listed = retry::until_done(&what, cancel, || async {
                match api.list(&chosen).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                    other => other.map(Some),
                }
            });
            let list = match listed.await {
                Some(Some(list)) => list,
                Some(None) => {
                    tracing::debug!("the API has no {kind}");
                    self.state.lock().is_served = false;
                    self.synced.send_replace(true);
                    return;
                }
                None => return,
            };
            let at = list.metadata.resource_version.unwrap_or_default();
            let mut version = at.clone();
            for gone in self.listed(list.items, at.parse().unwrap_or(0)) {
                told(Some(&gone), None);
            }
            for object in self.all() {
                told(None, Some(&object));
            }
            self.synced.send_replace(true);
            loop {
                let ended = tokio::select! {
                    () = cancel.cancelled() => return,
                    ended = self.watch(&api, fields, &mut version, &told) => ended,
                };
                match ended {
                    Ok(()) => continue,
                    Err(Broken::Expired) => break,
                    Err(Broken::Failed(error)) => tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the watch of {kind} broke off; it starts again"
                    ),
                }
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }

    async fn watch(
        &self,
        api: &Api<K>,
        fields: Option<&str>,
        version: &mut String,
        told: &impl Fn(Option<&K>, Option<&K>),
    ) -> Result<(), Broken> {
        let parameters = WatchParams {
            field_selector: fields.map(ToOwned::to_owned),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let events = api.watch(&parameters, version).await.map_err(Broken::of)?;
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event.map_err(Broken::of)? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *version = object.resource_version().unwrap_or_default();
                    let old = self.applied(object.clone());
                    told(old.as_deref(), Some(&object));
                }
                WatchEvent::Deleted(object) => {
                    *version = object.resource_version().unwrap_or_default();
                    self.removed(&object);
                    told(Some(&object), None);
                }
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    let mut state = self.state.lock();
                    state.revision = state.revision.max(version.parse().unwrap_or(0));
                }
                WatchEvent::Error(status) => return Err(Broken::of(kube::Error::Api(status))),
            }
        }
        Ok(())
    }
}

/// Why a watch ended before its time.
enum Broken {
    /// What came next is not kept any more.
    Expired,
    /// Something else.
    Failed(kube::Error),
}

impl Broken {
    fn of(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 410 => Self::Expired,
            other => Self::Failed(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(name: &str, revision: u64) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.namespace = Some("ns".to_owned());
        map.metadata.resource_version = Some(revision.to_string());
        map
    }

    fn names(cache: &Cache<ConfigMap>) -> Vec<String> {
        let known = cache.all();
        known
            .iter()
            .map(|map| format!("{}@{}", map.name_any(), revision(&**map)))
            .collect()
    }

    #[test]
    fn what_was_written_is_seen_before_the_watch_tells_it() {
        let cache = Cache::default();
        cache.listed(vec![map("a", 3)], 5);
        cache.wrote(map("b", 6));
        cache.wrote(map("a", 7));
        assert_eq!(names(&cache), ["a@7", "b@6"]);
        // The watch is late, and changes nothing back.
        cache.applied(map("b", 6));
        assert_eq!(names(&cache), ["a@7", "b@6"]);
        cache.applied(map("a", 8));
        assert_eq!(names(&cache), ["a@8", "b@6"]);
    }

    #[test]
    fn what_is_gone_does_not_come_back_with_a_late_answer() {
        let cache = Cache::default();
        cache.listed(Vec::new(), 5);
        cache.applied(map("a", 6));
        cache.removed(&map("a", 7));
        cache.wrote(map("a", 6));
        assert_eq!(names(&cache), <[&str; 0]>::default());
    }

    #[test]
    fn what_was_deleted_is_seen_as_leaving_whatever_the_watch_still_tells() {
        let cache = Cache::default();
        let with_uid = |revision| {
            let mut map = map("a", revision);
            map.metadata.uid = Some("1".to_owned());
            map
        };
        let is_leaving = |cache: &Cache<ConfigMap>| cache.all()[0].metadata.deletion_timestamp.is_some();
        cache.listed(vec![with_uid(1)], 5);
        cache.leaves(&Key::new("ns", "a"), "other", Timestamp::UNIX_EPOCH);
        assert!(!is_leaving(&cache));
        cache.leaves(&Key::new("ns", "a"), "1", Timestamp::UNIX_EPOCH);
        assert!(is_leaving(&cache));
        cache.applied(with_uid(6));
        assert!(is_leaving(&cache));
        cache.removed(&with_uid(7));
        cache.applied(map("a", 8));
        assert!(!is_leaving(&cache));
    }

    #[test]
    fn a_list_removes_what_it_lacks_but_not_what_was_written_after_it() {
        let cache = Cache::default();
        cache.listed(vec![map("a", 1), map("b", 2)], 5);
        cache.wrote(map("c", 9));
        let gone = cache.listed(vec![map("b", 2)], 8);
        assert_eq!(gone.len(), 1);
        assert_eq!(names(&cache), ["b@2", "c@9"]);
    }
}
