//! Rows of the resource tables, and the one place in a body that the store writes.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Body, Error, Event, GroupResource, Key, Object, Result};

/// Where the revisions stand.
pub(super) struct Counter {
    /// The latest revision.
    pub(super) latest: u64,
    /// The oldest revision that the log still reaches back to.
    pub(super) oldest: u64,
}

impl Counter {
    /// Refuses a revision that the log does not cover.
    pub(super) const fn covers(&self, requested: u64) -> Result<()> {
        if requested < self.oldest {
            return Err(Error::Compacted {
                requested,
                oldest: self.oldest,
            });
        }
        if requested > self.latest {
            return Err(Error::FutureRevision {
                requested,
                latest: self.latest,
            });
        }
        Ok(())
    }
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

pub(super) async fn object(connection: &mut SqliteConnection, key: &Key) -> Result<Option<Object>> {
    let row: Option<(i64, String)> = sqlx::query_as(
        "SELECT revision, body FROM resource_objects
         WHERE api_group = $1 AND resource = $2 AND namespace = $3 AND name = $4",
    )
    .bind(&key.resource.group)
    .bind(&key.resource.resource)
    .bind(&key.namespace)
    .bind(&key.name)
    .fetch_optional(connection)
    .await?;
    row.map(|(revision, body)| read_object(key.clone(), revision, &body))
        .transpose()
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
    Ok(Event {
        kind,
        object,
        previous,
    })
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

/// Makes the body say which revision it is.
pub(super) fn stamp(body: &mut Value, revision: u64) {
    if let Value::Object(fields) = body {
        let metadata = fields
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_says_which_revision_it_is() {
        for (body, stamped) in [
            (json!({}), json!({"metadata": {"resourceVersion": "7"}})),
            (
                json!({"metadata": {"name": "a", "resourceVersion": "3"}}),
                json!({"metadata": {"name": "a", "resourceVersion": "7"}}),
            ),
            (json!("text"), json!("text")),
        ] {
            let mut body = body;
            stamp(&mut body, 7);
            assert_eq!(body, stamped);
        }
    }
}
