//! Watches Services and who is behind them, and tells everybody of each change.

use std::{collections::BTreeMap, pin::pin, sync::Arc};

use futures::{StreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;

use super::table::{Key, Table, key};

/// Changes that are looked at together when many are there at once.
const BATCH: usize = 512;

/// What one of the watches says.
enum Change {
    Service(Box<Told<Service>>),
    Endpoints(Told<Endpoints>),
    Slice(Told<EndpointSlice>),
}

type Told<K> = Result<watcher::Event<K>, watcher::Error>;

/// All objects of one kind, as a watch tells them.
struct Objects<K> {
    known: BTreeMap<Key, K>,
    /// While the watch starts over: what it listed so far.
    listed: Option<BTreeMap<Key, K>>,
    /// The first list is here, or cannot be had.
    is_ready: bool,
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            listed: None,
            is_ready: false,
        }
    }
}

impl<K: kube::Resource> Objects<K> {
    fn take(&mut self, told: Told<K>) {
        let event = match told {
            Ok(event) => event,
            Err(error) => {
                self.is_ready = true;
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the watch of Services was interrupted: starting over"
                );
                return;
            }
        };
        match event {
            watcher::Event::Init => self.listed = Some(BTreeMap::new()),
            watcher::Event::InitApply(object) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key(object.meta()), object);
                }
            }
            watcher::Event::InitDone => {
                self.known = self.listed.take().unwrap_or_default();
                self.is_ready = true;
            }
            watcher::Event::Apply(object) => drop(self.known.insert(key(object.meta()), object)),
            watcher::Event::Delete(object) => drop(self.known.remove(&key(object.meta()))),
        }
    }
}

/// Watches until the API is gone. The first table is told when all of it is known.
pub(crate) async fn run(client: Client, table: watch::Sender<Option<Arc<Table>>>) {
    let mut services = Objects::<Service>::default();
    let mut endpoints = Objects::<Endpoints>::default();
    let mut slices = Objects::<EndpointSlice>::default();
    let changes = stream::select(
        stream::select(
            watcher(Api::all(client.clone()), watcher::Config::default())
                .default_backoff()
                .map(|told| Change::Service(Box::new(told))),
            watcher(Api::all(client.clone()), watcher::Config::default())
                .default_backoff()
                .map(Change::Endpoints),
        ),
        watcher(Api::all(client), watcher::Config::default())
            .default_backoff()
            .map(Change::Slice),
    );
    let mut changes = pin!(changes.ready_chunks(BATCH));
    while let Some(batch) = changes.next().await {
        for change in batch {
            match change {
                Change::Service(told) => services.take(*told),
                Change::Endpoints(told) => endpoints.take(told),
                Change::Slice(told) => slices.take(told),
            }
        }
        if !(services.is_ready && endpoints.is_ready && slices.is_ready) {
            continue;
        }
        let new = Table::new(services.known.values(), &endpoints.known, slices.known.values());
        table.send_if_modified(|table| {
            let is_news = table.as_deref() != Some(&new);
            if is_news {
                *table = Some(Arc::new(new));
            }
            is_news
        });
    }
}
