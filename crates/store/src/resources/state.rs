//! What is in memory: the objects of now as text, and the latest events of each kind.
//!
//! One lock over all of it, so that whoever looks sees one moment. The writer changes it after what
//! it changes is durable; everybody else reads, and holds the lock for no longer than it takes to
//! copy references.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Body, Error, Event, GroupResource, Key, Object, Result};
use crate::database;

/// Events of one kind that are kept for watches.
const RING_EVENTS: usize = 1024;
/// The text of events of one kind that is kept for watches, in bytes.
const RING_BYTES: usize = 2 << 20;
/// Of the latest events so many keep what has been made of their text. Watches that keep up share
/// it; for others it is not worth its space.
const WARM: usize = 32;

/// The state and who may look at it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: RwLock<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The latest revision.
    latest: u64,
    /// The oldest revision that the log still reaches back to.
    oldest: u64,
    /// The same, for those who wait for a revision.
    reached: watch::Sender<u64>,
    /// The latest revision when the store was opened. What is before it, only the log knows.
    opened_at: u64,
    is_open: bool,
    kinds: HashMap<GroupResource, Kind>,
}

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Kind {
    objects: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Stored>>,
    /// The revision of the latest change to any of them, or a later one.
    changed_at: u64,
    ring: Ring,
    changed: watch::Sender<()>,
}

/// An object as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) revision: u64,
    pub(super) text: Bytes,
}

impl Stored {
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.text).unwrap_or_default()
    }

    pub(super) fn object(self, key: Key) -> Object {
        Object {
            key,
            revision: self.revision,
            body: Body::from_text(self.text),
        }
    }
}

/// Namespace, name and what is there.
pub(super) type Place = (Arc<str>, Arc<str>, Stored);

/// A change that is durable, to be shown.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) event: Arc<Event>,
    pub(super) previous_revision: Option<u64>,
}

/// Which objects of a kind are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range<'a> {
    pub(super) namespace: Option<&'a str>,
    /// Those after this namespace and name.
    pub(super) after: Option<(&'a str, &'a str)>,
    pub(super) limit: usize,
}

/// What a watch finds.
#[derive(Debug)]
pub(super) enum Look {
    /// These events; all up to the revision have been seen then.
    Events(Vec<Arc<Event>>, u64),
    /// The log has to be read up to this revision.
    Behind(u64),
    /// Nothing more will come.
    Closed,
}

impl State {
    pub(super) fn new(latest: u64, oldest: u64) -> Self {
        Self {
            latest,
            oldest,
            reached: watch::Sender::new(latest),
            opened_at: latest,
            is_open: true,
            kinds: HashMap::new(),
        }
    }

    /// Where the latest revision is told.
    pub(super) fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    /// Puts in what was found when the store was opened.
    pub(super) fn load(&mut self, key: Key, stored: Stored) {
        let Key {
            resource,
            namespace,
            name,
        } = key;
        self.kind_mut(&resource).put(&namespace, &name, stored);
    }

    pub(super) const fn latest(&self) -> u64 {
        self.latest
    }

    pub(super) const fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(super) fn forget_before(&mut self, oldest: u64) {
        self.oldest = oldest;
    }

    pub(super) fn close(&mut self) {
        self.is_open = false;
        for kind in self.kinds.values() {
            kind.changed.send_replace(());
        }
        // Who waits for more looks, and finds that there is no more.
        self.reached.send_replace(u64::MAX);
    }

    /// Refuses once the store is closed.
    pub(super) const fn check_open(&self) -> Result<()> {
        if self.is_open {
            Ok(())
        } else {
            Err(Error::Database(database::Error::Closed))
        }
    }

    /// Refuses a revision before those that the log still has.
    pub(super) const fn reaches_back(&self, requested: u64) -> Result<()> {
        if requested < self.oldest {
            return Err(Error::Compacted {
                requested,
                oldest: self.oldest,
            });
        }
        Ok(())
    }

    /// Refuses a revision that the log does not cover.
    pub(super) fn covers(&self, requested: u64) -> Result<()> {
        self.reaches_back(requested)?;
        if requested > self.latest {
            return Err(Error::FutureRevision {
                requested,
                latest: self.latest,
            });
        }
        Ok(())
    }

    pub(super) fn object(&self, key: &Key) -> Option<&Stored> {
        let kind = self.kinds.get(&key.resource)?;
        kind.objects.get(key.namespace.as_str())?.get(key.name.as_str())
    }

    /// Whether objects of the kind are now as they were at the revision.
    pub(super) fn is_unchanged_since(&self, resource: &GroupResource, revision: u64) -> bool {
        let kind = self.kinds.get(resource);
        kind.map_or(self.opened_at, |kind| kind.changed_at) <= revision
    }

    /// Namespaces, names and objects in order, and how many follow them.
    pub(super) fn objects(&self, resource: &GroupResource, range: Range<'_>) -> (Vec<Place>, u64) {
        let mut found = Vec::new();
        let mut behind = 0;
        let Some(kind) = self.kinds.get(resource) else {
            return (found, behind);
        };
        let first = match (range.namespace, range.after) {
            (Some(namespace), _) | (None, Some((namespace, _))) => Bound::Included(namespace),
            (None, None) => Bound::Unbounded,
        };
        let namespaces = kind.objects.range::<str, _>((first, Bound::Unbounded));
        let within = |namespace: &str| range.namespace.is_none_or(|only| only == namespace);
        for (namespace, objects) in namespaces.take_while(|(namespace, _)| within(namespace)) {
            if found.len() == range.limit {
                behind += objects.len() as u64;
                continue;
            }
            let after = match range.after {
                Some((last, name)) if range.namespace.is_some() || last == &**namespace => {
                    Bound::Excluded(name)
                }
                _ => Bound::Unbounded,
            };
            let mut objects = objects.range::<str, _>((after, Bound::Unbounded));
            let wanted = range.limit - found.len();
            found.extend(
                objects
                    .by_ref()
                    .take(wanted)
                    .map(|(name, stored)| (Arc::clone(namespace), Arc::clone(name), stored.clone())),
            );
            behind += objects.count() as u64;
        }
        (found, behind)
    }

    /// Tells of changes to objects of the kind.
    pub(super) fn subscribe(&mut self, resource: &GroupResource) -> watch::Receiver<()> {
        self.kind_mut(resource).changed.subscribe()
    }

    /// What happened after the revision `seen`, `limit` events at most.
    pub(super) fn look(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
        seen: u64,
        limit: usize,
    ) -> Look {
        if !self.is_open {
            return Look::Closed;
        }
        let Some(kind) = self.kinds.get(resource) else {
            return Look::Behind(self.latest);
        };
        if kind.changed_at <= seen {
            // A watch may begin after a revision that there is not yet.
            return Look::Events(Vec::new(), self.latest.max(seen));
        }
        if seen < kind.ring.floor {
            return Look::Behind(self.latest);
        }
        let first = kind
            .ring
            .events
            .partition_point(|event| event.object.revision <= seen);
        let mut upto = self.latest;
        let mut events = Vec::new();
        for event in kind.ring.events.range(first..) {
            if events.len() == limit {
                upto = event.object.revision - 1;
                break;
            }
            if namespace.is_none_or(|namespace| namespace == event.object.key.namespace) {
                events.push(Arc::clone(event));
            }
        }
        Look::Events(events, upto)
    }

    /// Makes changes visible, in their order, and returns what is not kept any more: to be dropped
    /// when the lock is not held.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Vec<Arc<Event>> {
        let mut dropped = Vec::new();
        for Change { event, .. } in changes {
            let Object { key, revision, body } = &event.object;
            let kind = self.kind_mut(&key.resource);
            if event.is_deletion() {
                kind.remove(&key.namespace, &key.name);
            } else {
                let stored = Stored {
                    revision: *revision,
                    text: body.text().clone(),
                };
                kind.put(&key.namespace, &key.name, stored);
            }
            kind.changed_at = *revision;
            kind.ring.push(Arc::clone(event), &mut dropped);
            self.latest = *revision;
        }
        dropped
    }

    /// Wakes who watches the kinds of the changes.
    pub(super) fn announce(&self, changes: &[Change]) {
        self.reached.send_replace(self.latest);
        let mut told: Vec<&GroupResource> = Vec::new();
        for Change { event, .. } in changes {
            let resource = &event.object.key.resource;
            if !told.contains(&resource)
                && let Some(kind) = self.kinds.get(resource)
            {
                kind.changed.send_replace(());
                told.push(resource);
            }
        }
    }

    fn kind_mut(&mut self, resource: &GroupResource) -> &mut Kind {
        let Self { kinds, opened_at, .. } = self;
        // Not `entry`, which would need a copy of the name each time.
        if !kinds.contains_key(resource) {
            kinds.insert(resource.clone(), Kind::new(*opened_at));
        }
        kinds.get_mut(resource).expect("it was put there just above")
    }
}

impl Kind {
    fn new(opened_at: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            changed_at: opened_at,
            ring: Ring {
                events: VecDeque::new(),
                bytes: 0,
                floor: opened_at,
            },
            changed: watch::Sender::new(()),
        }
    }

    fn put(&mut self, namespace: &str, name: &str, stored: Stored) {
        if !self.objects.contains_key(namespace) {
            self.objects.insert(namespace.into(), BTreeMap::new());
        }
        if let Some(objects) = self.objects.get_mut(namespace) {
            match objects.get_mut(name) {
                Some(object) => *object = stored,
                None => {
                    objects.insert(name.into(), stored);
                }
            }
        }
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(objects) = self.objects.get_mut(namespace) {
            objects.remove(name);
            if objects.is_empty() {
                self.objects.remove(namespace);
            }
        }
    }
}

/// The latest events of one kind.
#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// All events above this revision are here.
    floor: u64,
}

impl Ring {
    fn push(&mut self, event: Arc<Event>, dropped: &mut Vec<Arc<Event>>) {
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > RING_EVENTS || self.bytes > RING_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.size();
            self.floor = oldest.object.revision;
            dropped.push(oldest);
        }
        let colder = self.events.len().checked_sub(WARM + 1);
        if let Some(event) = colder.and_then(|at| self.events.get_mut(at)) {
            let cold = Arc::new(event.cold());
            dropped.push(std::mem::replace(event, cold));
        }
    }
}
