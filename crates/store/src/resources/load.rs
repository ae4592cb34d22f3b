//! Reading all objects into memory, when the store is opened.

use futures::TryStreamExt as _;
use serde::de::IgnoredAny;
use sqlx::Row as _;

use super::{
    Error, GroupResource, Key, Result, row,
    state::{State, Stored},
};
use crate::database::Database;

/// Every object, and where the revisions stand. Nobody writes meanwhile.
pub(super) async fn load(database: &Database) -> Result<State> {
    let mut reader = database.reader().await?;
    reader.begin().await?;
    let counter = row::counter(&mut reader).await?;
    let mut state = State::new(counter.latest, counter.oldest);
    let mut rows = sqlx::query(ALL).fetch(&mut *reader);
    while let Some(row) = rows.try_next().await? {
        let key = Key {
            resource: GroupResource {
                group: row.try_get(0)?,
                resource: row.try_get(1)?,
            },
            namespace: row.try_get(2)?,
            name: row.try_get(3)?,
        };
        let revision: i64 = row.try_get(4)?;
        let text: String = row.try_get(5)?;
        // What is not JSON would show only much later, to somebody who can do nothing about it.
        if let Err(error) = serde_json::from_str::<IgnoredAny>(&text) {
            return Err(Error::Unreadable {
                key,
                revision,
                source: error.into(),
            });
        }
        let stored = Stored {
            revision: revision.unsigned_abs(),
            text: text.into(),
        };
        state.load(key, stored);
    }
    drop(rows);
    reader.commit().await?;
    Ok(state)
}

const ALL: &str = "
    SELECT api_group, resource, namespace, name, revision, body FROM resource_objects
    ORDER BY api_group, resource, namespace, name";
