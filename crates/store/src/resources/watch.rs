//! Watches: what happened from a revision on, then what happens, with no gap and no duplicate.
//!
//! | a watch has seen | where it looks next |
//! |---|---|
//! | all there is | nowhere: it waits for a change to its kind |
//! | as much as the events in memory reach back to | there |
//! | less than that | in the log, in pieces |

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};
use tokio::sync::watch;

use super::{
    Error, Event, GroupResource, Resources, Result, row,
    state::{Look, Shared},
};
use crate::database::Database;

/// Events taken at once.
const PIECE: usize = 256;

impl Resources {
    /// Watches objects of one kind, in one namespace or in all. Events come in order of revision
    /// and begin strictly after `from`, which need not be there yet.
    ///
    /// # Errors
    ///
    /// [`super::Error::Compacted`] when the log no longer reaches back to `from`.
    pub async fn watch(
        &self,
        resource: &GroupResource,
        namespace: Option<String>,
        from: u64,
    ) -> Result<Watch> {
        let mut state = self.shared.state.write();
        state.check_open()?;
        state.reaches_back(from)?;
        Ok(Watch {
            shared: Arc::clone(&self.shared),
            database: Arc::clone(&self.database),
            changed: state.subscribe(resource),
            resource: resource.clone(),
            namespace,
            seen: from,
            ready: VecDeque::new(),
        })
    }
}

/// A watch at work.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    database: Arc<Database>,
    changed: watch::Receiver<()>,
    resource: GroupResource,
    namespace: Option<String>,
    /// All up to this revision is handed on or in `ready`.
    seen: u64,
    ready: VecDeque<Arc<Event>>,
}

impl Watch {
    /// The next event; none when the store is gone. May be abandoned and called again: nothing is
    /// lost. After an error there is no use in going on.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            // Before the look: what changes after it wakes this watch again.
            self.changed.borrow_and_update();
            match self.look() {
                Look::Closed => return None,
                Look::Behind(upto) => {
                    if let Err(error) = self.read_log(upto).await {
                        return Some(Err(error));
                    }
                }
                Look::Events(events, upto) => {
                    self.seen = upto;
                    self.ready.extend(events);
                    if self.ready.is_empty() {
                        self.changed.changed().await.ok()?;
                    }
                }
            }
        }
    }

    /// The revision up to which every event has been handed on: a client that comes back with it
    /// misses nothing. It moves on also over changes that do not concern the watch.
    #[must_use]
    pub fn revision(&self) -> u64 {
        if let Some(next) = self.ready.front() {
            return next.object.revision - 1;
        }
        match self.look() {
            Look::Events(events, upto) if events.is_empty() => upto,
            _ => self.seen,
        }
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

    fn look(&self) -> Look {
        let state = self.shared.state.read();
        state.look(&self.resource, self.namespace.as_deref(), self.seen, PIECE)
    }

    /// Reads on in the log, which may be ahead of what has been made visible: up to `upto` it is
    /// not.
    async fn read_log(&mut self, upto: u64) -> Result<()> {
        let mut reader = self.database.reader().await?;
        // One transaction: counter and rows are of the same moment.
        reader.begin().await?;
        let oldest = row::counter(&mut reader).await?.oldest;
        if self.seen < oldest {
            return Err(Error::Compacted {
                requested: self.seen,
                oldest,
            });
        }
        let sql = if self.namespace.is_some() {
            LOG_IN_NAMESPACE
        } else {
            LOG
        };
        let piece = i64::try_from(PIECE).unwrap_or(i64::MAX);
        let query = sqlx::query(sql)
            .bind(&self.resource.group)
            .bind(&self.resource.resource)
            .bind(self.seen.cast_signed())
            .bind(upto.cast_signed())
            .bind(piece);
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
        self.seen = match events.last() {
            Some(last) if events.len() == PIECE => last.object.revision,
            _ => upto,
        };
        self.ready.extend(events);
        Ok(())
    }
}

const LOG: &str = "
    SELECT namespace, name, revision, body, kind, previous_body FROM resource_log
    WHERE api_group = $1 AND resource = $2 AND revision > $3 AND revision <= $4
    ORDER BY revision LIMIT $5";

const LOG_IN_NAMESPACE: &str = "
    SELECT namespace, name, revision, body, kind, previous_body FROM resource_log
    WHERE api_group = $1 AND resource = $2 AND revision > $3 AND revision <= $4 AND namespace = $6
    ORDER BY revision LIMIT $5";
