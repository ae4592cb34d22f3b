//! The garbage collector: removes objects whose owners are gone, settles foreground and orphaning
//! deletions, and empties namespaces that are going. It watches every kind that is served, as kinds
//! come, and polls nothing.
//!
//! The graph in memory only says where to look. Before anything is removed, the store is asked
//! whether the owner is really gone, so that a late or early event does no harm; and everything
//! here may be done twice.

mod graph;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use coracle_store::resources::{self, At, Event, EventKind, GroupResource, Key, Object, Resources};
use futures::{
    StreamExt as _,
    stream::{BoxStream, SelectAll},
};
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::graph::{Graph, Owner};
use crate::{
    crd::{self, CLEANUP},
    deletion::{self, FOREGROUND, ORPHAN},
    handlers::write,
    kinds::{CUSTOM_RESOURCE_DEFINITIONS, Catalogue, Handling, KindRef, NAMESPACES},
    object,
    rules::namespace::FINALIZER,
    status::Error,
};

/// How long to wait before starting over after a failure of the store.
const BACKOFF: Duration = Duration::from_secs(1);

/// Collects garbage until told to stop. Whatever was left undone when the process ended is found
/// and done at the next start.
pub async fn collect_garbage(resources: Resources, catalogue: Catalogue, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = Collector::run(&resources, &catalogue) => ended,
        };
        if let Err(error) = ended {
            tracing::warn!(
                error = coracle_api::reason::chain(&error),
                "garbage collection starts over"
            );
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(BACKOFF) => {}
            }
        }
    }
}

struct Collector<'a> {
    resources: &'a Resources,
    catalogue: &'a Catalogue,
    graph: Graph,
    /// The kinds whose objects are followed, as the store names them.
    followed: HashSet<GroupResource>,
}

/// What happens to the objects of every kind.
type Events = SelectAll<BoxStream<'static, (KindRef, Result<Arc<Event>, resources::Error>)>>;

impl<'a> Collector<'a> {
    /// Looks at everything, then at what changes. Returns when the store is gone or fails.
    async fn run(resources: &'a Resources, catalogue: &'a Catalogue) -> Result<(), Error> {
        let mut collector = Self {
            resources,
            catalogue,
            graph: Graph::default(),
            followed: HashSet::new(),
        };
        let mut changes = catalogue.changes();
        let mut events = Events::new();
        collector.follow(&mut events).await?;
        loop {
            tokio::select! {
                // The catalogue outlives this function.
                _ = changes.changed() => collector.follow(&mut events).await?,
                event = events.next() => match event {
                    Some((kind, event)) => collector.see(&kind, &event?).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Looks at the objects of every kind that is not followed yet, and at what happens to them
    /// from then on.
    async fn follow(&mut self, events: &mut Events) -> Result<(), Error> {
        let mut found = Vec::new();
        for kind in self.catalogue.stored() {
            let resource = kind.resource();
            if self.followed.contains(&resource) {
                continue;
            }
            let list = self
                .resources
                .list(&resource, None, At::Latest, None, None)
                .await?;
            for object in list.objects {
                self.graph.put(&kind, &object.body);
                found.push((Arc::clone(&kind), object.key));
            }
            let watch = self.resources.watch(&resource, None, list.revision).await?;
            let stream = watch.into_stream().map(move |event| (Arc::clone(&kind), event));
            events.push(stream.boxed());
            self.followed.insert(resource);
        }
        for (kind, key) in found {
            self.examine(&kind, &key).await?;
        }
        Ok(())
    }

    async fn see(&mut self, kind: &KindRef, event: &Arc<Event>) -> Result<(), Error> {
        // The kind may have changed since it is followed.
        let current = self.catalogue.of_resource(&event.object.key.resource);
        let kind = current.as_ref().unwrap_or(kind);
        let object = &event.object;
        if *kind == *CUSTOM_RESOURCE_DEFINITIONS {
            crd::refresh(self.resources, self.catalogue).await?;
        }
        if event.kind != EventKind::Deleted {
            let is_news = self.graph.put(kind, &object.body);
            return if self.concerns(is_news, object) {
                self.examine(kind, &object.key).await
            } else {
                Ok(())
            };
        }
        let uid = object.body.find("/metadata/uid");
        let uid = uid.as_deref().and_then(Value::as_str).unwrap_or_default();
        let removed = self.graph.remove(uid);
        for dependent in removed.dependents {
            self.examine_one(&dependent).await?;
        }
        for owner in removed.owners {
            // The last one to go is the one that its owner waits for.
            if self.graph.is_leaving(&owner) && self.graph.dependents(&owner).is_empty() {
                self.examine_one(&owner).await?;
            }
        }
        if matches!(kind.handling, Handling::Leaving) {
            // The last one to go is the one that its definition waits for.
            let definition = format!("{}.{}", kind.plural, kind.group);
            let definition = CUSTOM_RESOURCE_DEFINITIONS.key("", &definition);
            self.examine(&CUSTOM_RESOURCE_DEFINITIONS, &definition).await?;
        }
        let namespace = &object.key.namespace;
        if let Some(uid) = self.graph.leaving_namespace(namespace)
            && self.graph.is_empty(namespace)
        {
            self.examine_one(&uid).await?;
        }
        Ok(())
    }

    /// Whether anything may be to be done about an object that was written. About most there is not,
    /// and they are not read for it.
    fn concerns(&self, is_news: bool, object: &Object) -> bool {
        let (body, namespace) = (&object.body, &object.key.namespace);
        let has_owners = || !object::list(body, "/metadata/ownerReferences").is_empty();
        let may_be_late = || !namespace.is_empty() && self.graph.leaving_or_unknown(namespace);
        object::is_terminating(body) || is_news && (has_owners() || may_be_late())
    }

    async fn examine_one(&mut self, uid: &str) -> Result<(), Error> {
        match self.graph.get(uid) {
            Some((kind, key)) => self.examine(&kind, &key).await,
            None => Ok(()),
        }
    }

    /// Does what is to be done about the object as it is now.
    async fn examine(&mut self, kind: &KindRef, key: &Key) -> Result<(), Error> {
        let Some(current) = self.resources.get(key).await? else {
            return Ok(());
        };
        let current = current.body;
        if object::is_terminating(&current) {
            return self.let_go(kind, key, &current).await;
        }
        if !key.namespace.is_empty() && self.graph.leaving_or_unknown(&key.namespace) {
            let namespace = NAMESPACES.key("", &key.namespace);
            let namespace = self.resources.get(&namespace).await?;
            if namespace.is_none_or(|namespace| object::is_terminating(&namespace.body)) {
                return self.delete(kind, key, &current).await;
            }
        }
        self.check_owners(kind, key, &current).await
    }

    /// Removes the object when none of its owners is left, and otherwise the names of those that
    /// are gone.
    async fn check_owners(&self, kind: &KindRef, key: &Key, current: &Value) -> Result<(), Error> {
        let owners = graph::owners(current);
        if owners.is_empty() {
            return Ok(());
        }
        let mut gone = BTreeSet::new();
        let mut is_awaited = false;
        let mut is_held = false;
        for owner in &owners {
            match self.standing(owner, &key.namespace).await? {
                Standing::Gone => {
                    gone.insert(owner.uid.clone());
                }
                Standing::AwaitsDependents => is_awaited = true,
                Standing::Stands => is_held = true,
            }
        }
        if !is_held && (is_awaited || !gone.is_empty()) {
            return self.delete(kind, key, current).await;
        }
        if is_held && !gone.is_empty() {
            return self.disown(kind, key, &gone).await;
        }
        Ok(())
    }

    async fn standing(&self, owner: &Owner, namespace: &str) -> Result<Standing, Error> {
        // Of a kind that is not served here nothing is known, so nothing is concluded.
        let Some(kind) = self.catalogue.named(&owner.api_version, &owner.kind) else {
            return Ok(Standing::Stands);
        };
        let key = kind.key(if kind.is_namespaced() { namespace } else { "" }, &owner.name);
        let found = self.resources.get(&key).await?;
        Ok(match found {
            Some(found) if object::uid(&found.body) == owner.uid => {
                let is_awaiting = object::is_terminating(&found.body)
                    && object::finalizers(&found.body).any(|finalizer| finalizer == FOREGROUND);
                if is_awaiting {
                    Standing::AwaitsDependents
                } else {
                    Standing::Stands
                }
            }
            _ => Standing::Gone,
        })
    }

    /// Does for an object that is leaving what it waits for.
    async fn let_go(&mut self, kind: &KindRef, key: &Key, current: &Value) -> Result<(), Error> {
        let uid = object::uid(current);
        let has = |name: &str| object::finalizers(current).any(|finalizer| finalizer == name);
        if has(ORPHAN) {
            let gone = BTreeSet::from([uid.to_owned()]);
            for (kind, dependent) in self.dependents(key, uid).await? {
                self.disown(&kind, &dependent.key, &gone).await?;
            }
            return self.remove_finalizer(kind, key, ORPHAN).await;
        }
        if has(FOREGROUND) {
            for dependent in self.graph.dependents(uid) {
                self.examine_dependent(&dependent).await?;
            }
            // The end of the last one brings the collector back here.
            if !self.graph.dependents(uid).is_empty() {
                return Ok(());
            }
            let dependents = self.dependents(key, uid).await?;
            for (kind, dependent) in &dependents {
                self.check_owners(kind, &dependent.key, &dependent.body).await?;
            }
            if dependents.is_empty() {
                self.remove_finalizer(kind, key, FOREGROUND).await?;
            }
            return Ok(());
        }
        if has(CLEANUP) && *kind == *CUSTOM_RESOURCE_DEFINITIONS {
            return self.empty_kind(key, current).await;
        }
        if *kind == *NAMESPACES && (kind.rules.is_held)(current) {
            self.empty(key).await
        } else {
            Ok(())
        }
    }

    async fn examine_dependent(&self, uid: &str) -> Result<(), Error> {
        if let Some((kind, key)) = self.graph.get(uid)
            && let Some(found) = self.resources.get(&key).await?
            && object::uid(&found.body) == uid
        {
            self.check_owners(&kind, &key, &found.body).await?;
        }
        Ok(())
    }

    /// The objects that name this one as an owner, from the store: the graph may not have heard of
    /// all of them yet, since the events of one kind may come later than those of another.
    async fn dependents(&self, owner: &Key, uid: &str) -> Result<Vec<(KindRef, Object)>, Error> {
        let scope = (!owner.namespace.is_empty()).then_some(owner.namespace.as_str());
        let mut dependents = Vec::new();
        let stored = self.catalogue.stored().into_iter();
        for kind in stored.filter(|kind| scope.is_none() || kind.is_namespaced()) {
            let list = self
                .resources
                .list(&kind.resource(), scope, At::Latest, None, None)
                .await?;
            let names = |object: &Object| graph::owners(&object.body).iter().any(|owner| owner.uid == uid);
            dependents.extend(
                list.objects
                    .into_iter()
                    .filter(names)
                    .map(|object| (Arc::clone(&kind), object)),
            );
        }
        Ok(dependents)
    }

    /// Deletes what is in the namespace, and lets it go once that is nothing.
    async fn empty(&self, namespace: &Key) -> Result<(), Error> {
        let mut is_empty = true;
        let stored = self.catalogue.stored().into_iter();
        for kind in stored.filter(|kind| kind.is_namespaced()) {
            let scope = Some(namespace.name.as_str());
            let list = self
                .resources
                .list(&kind.resource(), scope, At::Latest, None, None)
                .await;
            for object in list?.objects {
                self.delete(&kind, &object.key, &object.body).await?;
                is_empty &= self.resources.get(&object.key).await?.is_none();
            }
        }
        if !is_empty {
            return Ok(());
        }
        self.change(&NAMESPACES, namespace, |current| {
            let mut freed = current.clone();
            if let Some(Value::Array(finalizers)) = freed.pointer_mut("/spec/finalizers") {
                finalizers.retain(|finalizer| finalizer != FINALIZER);
            }
            freed
        })
        .await
    }

    /// Deletes the objects of the definition, and lets it go once there are none.
    async fn empty_kind(&self, key: &Key, definition: &Value) -> Result<(), Error> {
        // From now on no object of the kind is made.
        crd::refresh(self.resources, self.catalogue).await?;
        let resource = GroupResource::new(
            object::text(definition, "/spec/group"),
            object::text(definition, "/spec/names/plural"),
        );
        if let Some(kind) = self.catalogue.of_resource(&resource) {
            let mut is_empty = true;
            let list = self
                .resources
                .list(&resource, None, At::Latest, None, None)
                .await?;
            for object in list.objects {
                self.delete(&kind, &object.key, &object.body).await?;
                is_empty &= self.resources.get(&object.key).await?.is_none();
            }
            if !is_empty {
                return Ok(());
            }
        }
        self.remove_finalizer(&CUSTOM_RESOURCE_DEFINITIONS, key, CLEANUP)
            .await?;
        Ok(crd::refresh(self.resources, self.catalogue).await?)
    }

    async fn delete(&self, kind: &KindRef, key: &Key, current: &Value) -> Result<(), Error> {
        if object::is_terminating(current) {
            return Ok(());
        }
        let options = deletion::Options::of(object::uid(current));
        tracing::debug!(object = %key, "garbage collected");
        match deletion::execute(self.resources, kind, key, &options, Timestamp::now()).await {
            // Gone already, another one of the same name, or one that stays.
            Ok(_) | Err(Error::NotFound(_) | Error::Conflict { .. } | Error::Forbidden { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn disown(&self, kind: &KindRef, key: &Key, gone: &BTreeSet<String>) -> Result<(), Error> {
        self.change(kind, key, |current| {
            let mut freed = current.clone();
            if let Some(Value::Array(owners)) = freed.pointer_mut("/metadata/ownerReferences") {
                owners.retain(|owner| !gone.contains(object::text(owner, "/uid")));
            }
            drop_if_empty(&mut freed, "ownerReferences");
            freed
        })
        .await
    }

    async fn remove_finalizer(&self, kind: &KindRef, key: &Key, name: &str) -> Result<(), Error> {
        self.change(kind, key, |current| {
            let mut freed = current.clone();
            if let Some(Value::Array(finalizers)) = freed.pointer_mut("/metadata/finalizers") {
                finalizers.retain(|finalizer| finalizer != name);
            }
            drop_if_empty(&mut freed, "finalizers");
            freed
        })
        .await
    }

    async fn change(&self, kind: &KindRef, key: &Key, change: impl Fn(&Value) -> Value) -> Result<(), Error> {
        match write::mutate(self.resources, kind, key, false, |current| Ok(change(current))).await {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// How an owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Stands,
    /// It is leaving, and its dependents are to go first.
    AwaitsDependents,
    Gone,
}

fn drop_if_empty(object: &mut Value, field: &str) {
    let metadata = object::metadata(object);
    if metadata
        .get(field)
        .and_then(Value::as_array)
        .is_some_and(Vec::is_empty)
    {
        object::put(metadata, field, None);
    }
}
