//! Watches: the log from a revision on, then what happens, with no gap and no duplicate.
//!
//! | state | what it does next |
//! |---|---|
//! | behind | reads the log in pieces up to the latest revision, then follows |
//! | following | hands on live events above its revision; when it lags too far, it is behind |

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Event, GroupResource, Resources, Result, row};
use crate::database::Database;

/// Rows of the log read at once.
const PIECE: i64 = 256;

impl Resources {
    /// Watches objects of one kind, in one namespace or in all. Events come in order of revision
    /// and begin strictly after `from`.
    ///
    /// # Errors
    ///
    /// [`super::Error::Compacted`] when the log no longer reaches back to `from`,
    /// [`super::Error::FutureRevision`] when nothing has that revision yet.
    pub async fn watch(
        &self,
        resource: &GroupResource,
        namespace: Option<String>,
        from: u64,
    ) -> Result<Watch> {
        let mut watch = Watch {
            database: Arc::clone(&self.database),
            // Before the first look at the log: what is written in between is in both.
            live: self.live.subscribe(),
            resource: resource.clone(),
            namespace,
            seen: from,
            ready: VecDeque::new(),
            is_behind: true,
        };
        watch.read_log().await?;
        Ok(watch)
    }
}

/// A watch at work.
#[derive(Debug)]
pub struct Watch {
    database: Arc<Database>,
    live: broadcast::Receiver<Arc<Event>>,
    resource: GroupResource,
    namespace: Option<String>,
    /// All up to this revision is handed on or in `ready`.
    seen: u64,
    ready: VecDeque<Arc<Event>>,
    is_behind: bool,
}

impl Watch {
    /// The next event; none when the store is gone. May be abandoned and called again: nothing is
    /// lost. After an error there is no use in going on.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.is_behind {
                if let Err(error) = self.read_log().await {
                    return Some(Err(error));
                }
                continue;
            }
            match self.live.recv().await {
                Ok(event) if event.object.revision > self.seen => {
                    self.seen = event.object.revision;
                    if self.concerns(&event) {
                        return Some(Ok(event));
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.is_behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The revision up to which every event has been handed on: a client that comes back with it
    /// misses nothing. It moves on while [`Watch::next`] waits, also over changes to other kinds.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.ready
            .front()
            .map_or(self.seen, |next| next.object.revision - 1)
    }

    /// The watch as a stream. It ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Arc<Event>>> + Send + use<> {
        stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            let next = watch.next().await?;
            let rest = next.is_ok().then_some(watch);
            Some((next, rest))
        })
    }

    fn concerns(&self, event: &Event) -> bool {
        let key = &event.object.key;
        key.resource == self.resource
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == key.namespace)
    }

    async fn read_log(&mut self) -> Result<()> {
        let mut reader = self.database.reader().await?;
        // One transaction: counter and rows are of the same moment.
        reader.begin().await?;
        let counter = row::counter(&mut reader).await?;
        counter.covers(self.seen)?;
        let sql = if self.namespace.is_some() {
            LOG_IN_NAMESPACE
        } else {
            LOG
        };
        let query = sqlx::query(sql)
            .bind(&self.resource.group)
            .bind(&self.resource.resource)
            .bind(self.seen.cast_signed())
            .bind(PIECE);
        let query = match &self.namespace {
            Some(namespace) => query.bind(namespace),
            None => query,
        };
        let rows = query.fetch_all(&mut *reader).await?;
        reader.commit().await?;
        let events = rows
            .iter()
            .map(|row| row::logged(&self.resource, row).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        // From here on nothing waits: a watch that is abandoned above is as it was.
        self.is_behind = i64::try_from(events.len()).is_ok_and(|read| read >= PIECE);
        self.seen = match events.last() {
            Some(last) if self.is_behind => last.object.revision,
            _ => counter.latest,
        };
        self.ready.extend(events);
        Ok(())
    }
}

const LOG: &str = "
    SELECT namespace, name, revision, body, kind, previous_body FROM resource_log
    WHERE api_group = $1 AND resource = $2 AND revision > $3
    ORDER BY revision LIMIT $4";

const LOG_IN_NAMESPACE: &str = "
    SELECT namespace, name, revision, body, kind, previous_body FROM resource_log
    WHERE api_group = $1 AND resource = $2 AND revision > $3 AND namespace = $5
    ORDER BY revision LIMIT $4";
