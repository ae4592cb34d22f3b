//! Group commit: what is asked for while another transaction is under way is written in one
//! transaction, which costs little more than that of one. Everybody is told once it is durable.
//!
//! When one of a transaction fails, nothing of it is kept and each is done again in one of its own:
//! it fails alone, for its own reason.

use std::{collections::VecDeque, future::Future};

use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use sqlx::SqliteConnection;
use tokio::sync::{broadcast, oneshot};

use super::{Change, Records, Result};
use crate::database::{self, Lease};

/// The most that one transaction is made of: others wait for the connection, too.
const MOST: usize = 64;

/// What is to be written in a transaction, perhaps with others. It may be done twice: the first time
/// has then left nothing behind.
pub(super) trait Write: Send + Sync + 'static {
    /// What the caller is told.
    type Answer: Send;

    /// Writes; the answer, and what is announced once it is durable.
    fn write(
        &self,
        connection: &mut SqliteConnection,
    ) -> impl Future<Output = Result<(Self::Answer, Option<Change>)>> + Send;
}

/// Those who wait for the next transaction, in order.
#[derive(Default)]
pub(super) struct Waiting(Mutex<VecDeque<Box<dyn Job>>>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Waiting").field(&self.0.lock().len()).finish()
    }
}

impl Records {
    /// Writes, together with what others ask for meanwhile. It is done to its end and announced
    /// whether or not the caller waits for it.
    pub(super) async fn write<W: Write>(&self, write: W) -> Result<W::Answer> {
        let (reply, answer) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.0.lock();
            waiting.push_back(Box::new(Asked {
                write,
                outcome: None,
                reply,
            }));
            waiting.len() == 1
        };
        if is_first {
            self.clone().begin_writing();
        }
        answer.await.unwrap_or(Err(database::Error::Closed.into()))
    }

    /// Whoever waits first gets the connection for all who wait by then.
    fn begin_writing(self) {
        tokio::spawn(self.write_waiting().boxed());
    }

    async fn write_waiting(self) {
        let lease = self.database.writer().await;
        let mut jobs: Vec<_> = {
            let mut waiting = self.waiting.0.lock();
            let count = waiting.len().min(MOST);
            let jobs = waiting.drain(..count).collect();
            if !waiting.is_empty() {
                self.clone().begin_writing();
            }
            jobs
        };
        let mut writer = match lease {
            Ok(writer) => writer,
            Err(error) => return jobs.into_iter().for_each(|job| job.fail(&error)),
        };
        match transact(&mut writer, &mut jobs).await {
            Ok(()) => jobs.into_iter().for_each(|job| job.tell(&self.changes)),
            Err(Fault::Begin(error)) => jobs.into_iter().for_each(|job| job.fail(&error)),
            Err(fault) if jobs.len() == 1 => jobs.into_iter().for_each(|job| fault.tell(job, &self.changes)),
            Err(_) => {
                for job in jobs {
                    let mut alone = [job];
                    let fault = transact(&mut writer, &mut alone).await.err();
                    let [job] = alone;
                    match fault {
                        None => job.tell(&self.changes),
                        Some(fault) => fault.tell(job, &self.changes),
                    }
                }
            }
        }
    }
}

/// Where a transaction came to nothing.
enum Fault {
    /// Where it begins: none of it was tried.
    Begin(database::Error),
    /// One of those it was made of failed, and keeps why.
    Job,
    /// Where it ends.
    Commit(database::Error),
}

impl Fault {
    /// Tells the only one that the transaction was made of.
    fn tell(&self, job: Box<dyn Job>, changes: &broadcast::Sender<Change>) {
        match self {
            Self::Begin(error) | Self::Commit(error) => job.fail(error),
            Self::Job => job.tell(changes),
        }
    }
}

/// Does all of it or, but for what each job keeps of its outcome, nothing.
async fn transact(writer: &mut Lease, jobs: &mut [Box<dyn Job>]) -> Result<(), Fault> {
    writer.begin().await.map_err(Fault::Begin)?;
    let mut fault = None;
    for job in jobs {
        if !job.work(writer).await {
            fault = Some(Fault::Job);
            break;
        }
    }
    let fault = match fault {
        None => writer.commit().await.err().map(Fault::Commit),
        fault => fault,
    };
    match fault {
        None => Ok(()),
        Some(fault) => {
            writer.roll_back().await;
            Err(fault)
        }
    }
}

/// A [`Write`] and who waits for it.
trait Job: Send {
    /// Writes, and keeps what came of it. Whether it worked.
    fn work<'a>(&'a mut self, connection: &'a mut SqliteConnection) -> BoxFuture<'a, bool>;

    /// Tells what came of it. To be called while the connection is still held: that is what keeps
    /// changes in order.
    fn tell(self: Box<Self>, changes: &broadcast::Sender<Change>);

    /// Tells that it was not done.
    fn fail(self: Box<Self>, error: &database::Error);
}

struct Asked<W: Write> {
    write: W,
    outcome: Option<Result<(W::Answer, Option<Change>)>>,
    reply: oneshot::Sender<Result<W::Answer>>,
}

impl<W: Write> Job for Asked<W> {
    fn work<'a>(&'a mut self, connection: &'a mut SqliteConnection) -> BoxFuture<'a, bool> {
        async {
            let outcome = self.write.write(connection).await;
            let is_done = outcome.is_ok();
            self.outcome = Some(outcome);
            is_done
        }
        .boxed()
    }

    fn tell(self: Box<Self>, changes: &broadcast::Sender<Change>) {
        let Self { outcome, reply, .. } = *self;
        let answer = outcome.unwrap_or(Err(database::Error::Closed.into()));
        let answer = answer.map(|(answer, change)| {
            // An error only says that nobody listens.
            let _ = change.map(|change| changes.send(change));
            answer
        });
        // An error only says that nobody waits.
        let _ = reply.send(answer);
    }

    fn fail(self: Box<Self>, error: &database::Error) {
        let _ = self.reply.send(Err(error.clone().into()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use coracle_api::id::RunId;

    use super::*;
    use crate::{Location, Store, records::Error};

    /// Writes the digest of a document, which must not be there, and looks who has been told what.
    struct Keep {
        digest: &'static str,
        changes: broadcast::Receiver<Change>,
        told: Arc<AtomicUsize>,
    }

    impl Write for Keep {
        type Answer = &'static str;

        async fn write(&self, connection: &mut SqliteConnection) -> Result<(&'static str, Option<Change>)> {
            self.told.fetch_max(self.changes.len(), Ordering::Relaxed);
            sqlx::query("INSERT INTO pipeline_documents (digest, document) VALUES ($1, '{}')")
                .bind(self.digest)
                .execute(connection)
                .await?;
            Ok((self.digest, Some(Change::RunChanged(RunId::new()))))
        }
    }

    async fn written(store: &Store, digests: &[&'static str]) -> (Vec<Result<&'static str>>, usize) {
        let records = store.records();
        let told = Arc::new(AtomicUsize::new(0));
        let writer = records.database.writer().await.unwrap();
        let writes = digests.iter().map(|digest| {
            records.write(Keep {
                digest,
                changes: records.changes(),
                told: Arc::clone(&told),
            })
        });
        let mut writes = std::pin::pin!(futures::future::join_all(writes));
        // All of them wait for the connection.
        assert!(futures::poll!(&mut writes).is_pending());
        drop(writer);
        let written = writes.await;
        (written, told.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn those_who_wait_are_written_together_and_told_afterwards() {
        let store = Store::open(Location::Memory).await.unwrap();
        let mut changes = store.records().changes();
        let (written, told) = written(&store, &["a", "b", "c"]).await;
        assert!(
            matches!(written.as_slice(), [Ok("a"), Ok("b"), Ok("c")]),
            "{written:?}"
        );
        assert_eq!(told, 0, "somebody was told before all were written");
        for _ in 0..3 {
            assert!(changes.try_recv().is_ok());
        }
    }

    #[tokio::test]
    async fn of_those_who_wait_one_that_fails_fails_alone() {
        let directory = tempfile::tempdir().unwrap();
        for location in [
            Location::Memory,
            Location::File(directory.path().join("store.db")),
        ] {
            let store = Store::open(location).await.unwrap();
            let mut changes = store.records().changes();
            let (written, _) = written(&store, &["a", "b", "a", "c"]).await;
            assert!(
                matches!(
                    written.as_slice(),
                    [Ok("a"), Ok("b"), Err(Error::Database(_)), Ok("c")]
                ),
                "{written:?}"
            );
            for digest in ["a", "b", "c"] {
                assert!(store.records().document(digest).await.is_ok());
                assert!(changes.try_recv().is_ok());
            }
            assert!(changes.try_recv().is_err(), "what failed was announced");
        }
    }

    #[tokio::test]
    async fn more_than_one_transaction_takes_are_all_written() {
        let store = Store::open(Location::Memory).await.unwrap();
        let digests: Vec<&'static str> = (0..3 * MOST + 1)
            .map(|number| &*number.to_string().leak())
            .collect();
        let (written, _) = written(&store, &digests).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    }
}
