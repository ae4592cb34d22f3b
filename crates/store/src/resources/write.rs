//! Create, update and delete, as the writer's callers see them. A command that has been handed over
//! is done, also when its caller goes away.

use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    Error, Key, Object, Resources, Result,
    draft::{Draft, TooDeep},
    writer::{Command, Message, Order},
};
use crate::database;

impl Resources {
    /// Makes an object.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] when one has that name.
    pub async fn create(&self, key: Key, body: Value) -> Result<Object> {
        let draft = draft(&key, body)?;
        self.order(key, Order::Create(draft)).await
    }

    /// Replaces an object that is still at the revision `expected`. When the body says what the
    /// object says already, nothing is written and the object is returned as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or [`Error::Conflict`] when it has another revision.
    pub async fn update(&self, key: Key, body: Value, expected: u64) -> Result<Object> {
        let draft = draft(&key, body)?;
        self.order(key, Order::Update(draft, expected)).await
    }

    /// Deletes an object, if it is still at the revision `expected` when one is given. Returns it
    /// as it last was, with the revision of the deletion.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or [`Error::Conflict`] when it has another revision.
    pub async fn delete(&self, key: &Key, expected: Option<u64>) -> Result<Object> {
        self.order(key.clone(), Order::Delete(expected)).await
    }

    async fn order(&self, key: Key, order: Order) -> Result<Object> {
        let (reply, answer) = oneshot::channel();
        let command = Message::Do(Box::new(Command { key, order, reply }));
        let closed = || Error::Database(database::Error::Closed);
        self.writer.send(command).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

fn draft(key: &Key, body: Value) -> Result<Draft> {
    Draft::new(body).map_err(|TooDeep| Error::TooDeep { key: key.clone() })
}
