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

enum Change {
    Service(Box<watcher::Event<Service>>),
    Endpoints(watcher::Event<Endpoints>),
    Slice(watcher::Event<EndpointSlice>),
}

/// All objects of one kind, as a watch tells them.
struct Objects<K> {
    known: BTreeMap<Key, K>,
    /// While the watch starts over: what it listed so far.
    listed: Option<BTreeMap<Key, K>>,
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            listed: None,
        }
    }
}

impl<K: kube::Resource> Objects<K> {
    fn take(&mut self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Init => self.listed = Some(BTreeMap::new()),
            watcher::Event::InitApply(object) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key(object.meta()), object);
                }
            }
            watcher::Event::InitDone => self.known = self.listed.take().unwrap_or_default(),
            watcher::Event::Apply(object) => drop(self.known.insert(key(object.meta()), object)),
            watcher::Event::Delete(object) => drop(self.known.remove(&key(object.meta()))),
        }
    }
}

/// Watches until the API is gone.
pub(crate) async fn run(client: Client, table: Arc<watch::Sender<Arc<Table>>>) {
    let (mut services, mut endpoints, mut slices) = (
        Objects::<Service>::default(),
        Objects::<Endpoints>::default(),
        Objects::<EndpointSlice>::default(),
    );
    let changes = stream::select(
        stream::select(
            watcher(Api::all(client.clone()), watcher::Config::default())
                .default_backoff()
                .map(|event| event.map(|event| Change::Service(Box::new(event)))),
            watcher(Api::all(client.clone()), watcher::Config::default())
                .default_backoff()
                .map(|event| event.map(Change::Endpoints)),
        ),
        watcher(Api::all(client), watcher::Config::default())
            .default_backoff()
            .map(|event| event.map(Change::Slice)),
    );
    let mut changes = pin!(changes.ready_chunks(BATCH));
    while let Some(batch) = changes.next().await {
        for change in batch {
            match change {
                Ok(Change::Service(event)) => services.take(*event),
                Ok(Change::Endpoints(event)) => endpoints.take(event),
                Ok(Change::Slice(event)) => slices.take(event),
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the watch of Services was interrupted: starting over"
                ),
            }
        }
        let new = Table::new(services.known.values(), &endpoints.known, slices.known.values());
        table.send_if_modified(|table| {
            let is_news = **table != new;
            if is_news {
                *table = Arc::new(new);
            }
            is_news
        });
    }
}
