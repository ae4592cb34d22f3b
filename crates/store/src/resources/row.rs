//! Rows of the resource tables.

use serde::de::IgnoredAny;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Body, Error, Event, GroupResource, Key, Object, Result};

/// Where the revisions stand.
pub(super) struct Counter {
    /// The latest revision.
    pub(super) latest: u64,
    /// The oldest revision that the log still reaches back to.
    pub(super) oldest: u64,
}

pub(super) async fn counter(connection: &mut SqliteConnection) -> Result<Counter> {
    let (latest, compacted): (i64, i64) =
        sqlx::query_as("SELECT latest, compacted FROM resource_revision WHERE id = 1")
            .fetch_one(connection)
            .await?;
    Ok(Counter {
        latest: latest.unsigned_abs(),
        oldest: compacted.unsigned_abs(),
    })
}

/// From the columns `namespace`, `name`, `revision`, `body`.
pub(super) fn listed(resource: &GroupResource, row: &SqliteRow) -> Result<Object> {
    let key = Key {
        resource: resource.clone(),
        namespace: row.try_get(0)?,
        name: row.try_get(1)?,
    };
    read_object(key, row.try_get(2)?, row.try_get(3)?)
}

/// From the columns `namespace`, `name`, `revision`, `body`, `kind`, `previous_body`.
pub(super) fn logged(resource: &GroupResource, row: &SqliteRow) -> Result<Event> {
    let object = listed(resource, row)?;
    let kind: &str = row.try_get(4)?;
    let previous: Option<&str> = row.try_get(5)?;
    let unreadable = |source| Error::Unreadable {
        key: object.key.clone(),
        revision: object.revision.cast_signed(),
        source,
    };
    let kind = kind
        .parse()
        .map_err(|error: strum::ParseError| unreadable(error.into()))?;
    let previous = previous
        .map(read_body)
        .transpose()
        .map_err(|error| unreadable(error.into()))?;
    Ok(Event::new(kind, object, previous))
}

fn read_object(key: Key, revision: i64, body: &str) -> Result<Object> {
    match read_body(body) {
        Ok(body) => Ok(Object {
            key,
            revision: revision.unsigned_abs(),
            body,
        }),
        Err(error) => Err(Error::Unreadable {
            key,
            revision,
            source: error.into(),
        }),
    }
}

fn read_body(text: &str) -> serde_json::Result<Body> {
    serde_json::from_str::<IgnoredAny>(text)?;
    Ok(Body::from_text(text.to_owned().into()))
}
