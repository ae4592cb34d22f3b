//! The one writer. It takes what has queued up, checks each command against what is in memory and
//! what those before it will have changed, writes all of it in one transaction, and only then
//! shows it: to readers, to the callers, to watches.
//!
//! When the transaction fails, each command of it fails, and nothing has changed.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Body, Error, Event, EventKind, Key, Object, Result,
    compact::Growth,
    draft::{self, Draft},
    state::{Change, Shared, State, Stored},
    statements::{MOST, statements},
};
use crate::database::{self, Database, Lease};

/// Commands that may wait. Who comes later waits to be let in.
pub(super) const QUEUE: usize = 256;
/// How much text goes into one transaction, about, unless one object alone is larger.
const BATCH_BYTES: usize = 4 << 20;

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    Do(Box<Command>),
    /// Take nothing more, and say when all before it is done.
    Close(oneshot::Sender<()>),
}

/// One write and who waits for it. Nobody may: it is done all the same.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) key: Key,
    pub(super) order: Order,
    pub(super) reply: oneshot::Sender<Result<Object>>,
}

#[derive(Debug)]
pub(super) enum Order {
    Create(Draft),
    /// If it still has this revision.
    Update(Draft, u64),
    /// If it still has this revision, when one is given.
    Delete(Option<u64>),
}

impl Command {
    const fn size(&self) -> usize {
        match &self.order {
            Order::Create(draft) | Order::Update(draft, _) => draft.size(),
            Order::Delete(_) => 0,
        }
    }
}

/// Writes until told to close, or nobody is left who could write.
pub(super) async fn run(
    shared: Arc<Shared>,
    database: Arc<Database>,
    mut growth: Growth,
    mut messages: mpsc::Receiver<Message>,
) {
    let mut received = Vec::with_capacity(QUEUE);
    let mut queue = VecDeque::new();
    while !queue.is_empty() || messages.recv_many(&mut received, QUEUE).await > 0 {
        // Whoever else writes gets a turn between two batches. What comes in while this one waits
        // for its turn is part of it.
        let writer = database.writer().await;
        queue.extend(received.drain(..));
        while queue.len() < QUEUE
            && let Ok(message) = messages.try_recv()
        {
            queue.push_back(message);
        }
        let (batch, closing) = take(&shared, &mut queue);
        match write(writer, &shared, &batch).await {
            Ok(()) => {
                for (reply, answer) in batch.answers {
                    // An error only says that nobody waits.
                    let _ = reply.send(answer);
                }
                shared.state.read().announce(&batch.changes);
                growth.note(&shared, &database, &batch.changes);
            }
            Err(error) => {
                for (reply, _) in batch.answers {
                    let _ = reply.send(Err(error.clone().into()));
                }
            }
        }
        if let Some(done) = closing {
            shared.state.write().close();
            messages.close();
            let _ = done.send(());
            return;
        }
    }
    shared.state.write().close();
}

/// The next batch, and who wants this to be the last.
fn take(shared: &Shared, queue: &mut VecDeque<Message>) -> (Batch, Option<oneshot::Sender<()>>) {
    let state = shared.state.read();
    let mut batch = Batch::new(state.latest());
    let mut bytes = 0;
    while bytes < BATCH_BYTES
        && batch.changes.len() < MOST
        && let Some(message) = queue.pop_front()
    {
        match message {
            Message::Do(command) => {
                bytes += command.size();
                batch.add(&state, *command);
            }
            Message::Close(done) => return (batch, Some(done)),
        }
    }
    (batch, None)
}

/// What will change, and what the callers will be told when it has.
#[derive(Debug)]
struct Batch {
    latest: u64,
    changes: Vec<Change>,
    /// The objects that change, as they will be.
    overlay: HashMap<Key, Option<Stored>>,
    answers: Vec<(oneshot::Sender<Result<Object>>, Result<Object>)>,
}

impl Batch {
    fn new(latest: u64) -> Self {
        Self {
            latest,
            changes: Vec::new(),
            overlay: HashMap::new(),
            answers: Vec::new(),
        }
    }

    fn add(&mut self, state: &State, command: Command) {
        let Command { key, order, reply } = command;
        let answer = self.decide(state, key, order);
        self.answers.push((reply, answer));
    }

    fn decide(&mut self, state: &State, key: Key, order: Order) -> Result<Object> {
        let current = match self.overlay.get(&key) {
            Some(changed) => changed.clone(),
            None => state.object(&key).cloned(),
        };
        let revision = self.latest + 1;
        let (kind, current, body) = match (order, current) {
            (Order::Create(_), Some(_)) => return Err(Error::AlreadyExists { key }),
            (Order::Create(draft), None) => (EventKind::Added, None, draft.into_body(revision)),
            (Order::Update(..) | Order::Delete(_), None) => return Err(Error::NotFound { key }),
            (Order::Update(_, expected) | Order::Delete(Some(expected)), Some(current))
                if expected != current.revision =>
            {
                return Err(Error::Conflict {
                    key,
                    expected,
                    current: current.revision,
                });
            }
            (Order::Update(draft, _), Some(current)) => {
                if draft.says(&current.text, current.revision) {
                    return Ok(current.object(key));
                }
                (EventKind::Modified, Some(current), draft.into_body(revision))
            }
            (Order::Delete(_), Some(current)) => {
                let last = Body::from_text(draft::restamp(&current.text, revision));
                (EventKind::Deleted, Some(current), last)
            }
        };
        let stored = (kind != EventKind::Deleted).then(|| Stored {
            revision,
            text: body.text().clone(),
        });
        self.overlay.insert(key.clone(), stored);
        self.latest = revision;
        let object = Object { key, revision, body };
        let previous_revision = current.as_ref().map(|current| current.revision);
        let previous = current.map(|current| Body::from_text(current.text));
        self.changes.push(Change {
            event: Arc::new(Event::new(kind, object.clone(), previous)),
            previous_revision,
        });
        Ok(object)
    }
}

/// Makes the batch durable, then visible.
async fn write(
    writer: Result<Lease, database::Error>,
    shared: &Shared,
    batch: &Batch,
) -> Result<(), database::Error> {
    let mut writer = writer?;
    if batch.changes.is_empty() {
        return Ok(());
    }
    let statements = statements(&batch.changes, &batch.overlay, batch.latest)?;
    writer.transact(statements).await?;
    // While the connection is held: who writes next finds in memory what is in the database.
    let dropped = shared.state.write().apply(&batch.changes);
    drop(dropped);
    Ok(())
}
