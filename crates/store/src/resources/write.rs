//! Create, update, delete and compact: one transaction each, announced in revision order.

use std::sync::Arc;

use serde_json::Value;
use sqlx::SqliteConnection;

use super::{Body, Error, Event, EventKind, Key, Object, Resources, Result, row};
use crate::database::to_the_end;

impl Resources {
    /// Makes an object.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] when one has that name.
    pub async fn create(&self, key: Key, mut body: Value) -> Result<Object> {
        let resources = self.clone();
        to_the_end(async move {
            let mut writer = resources.database.writer().await?;
            writer.begin().await?;
            if row::object(&mut writer, &key).await?.is_some() {
                return Err(Error::AlreadyExists { key });
            }
            let revision = next_revision(&mut writer).await?;
            row::stamp(&mut body, revision);
            let text = body.to_string();
            sqlx::query(
                "INSERT INTO resource_objects (api_group, resource, namespace, name, revision, body)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(&key.resource.group)
            .bind(&key.resource.resource)
            .bind(&key.namespace)
            .bind(&key.name)
            .bind(revision.cast_signed())
            .bind(&text)
            .execute(&mut *writer)
            .await?;
            let body = Body::from_parts(text.clone().into(), body);
            let object = Object { key, revision, body };
            let event = Event {
                kind: EventKind::Added,
                object: object.clone(),
                previous: None,
            };
            append(&mut writer, &event, &text, None).await?;
            writer.commit().await?;
            resources.announce(event);
            Ok(object)
        })
        .await
    }

    /// Replaces an object that is still at the revision `expected`. When the body says what the
    /// object says already, nothing is written and the object is returned as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or [`Error::Conflict`] when it has another revision.
    pub async fn update(&self, key: Key, mut body: Value, expected: u64) -> Result<Object> {
        let resources = self.clone();
        to_the_end(async move {
            let mut writer = resources.database.writer().await?;
            writer.begin().await?;
            let current = existing(&mut writer, &key, Some(expected)).await?;
            row::stamp(&mut body, current.revision);
            if current.body == body {
                return Ok(current);
            }
            let revision = next_revision(&mut writer).await?;
            row::stamp(&mut body, revision);
            let text = body.to_string();
            sqlx::query(
                "UPDATE resource_objects SET revision = $5, body = $6
                 WHERE api_group = $1 AND resource = $2 AND namespace = $3 AND name = $4",
            )
            .bind(&key.resource.group)
            .bind(&key.resource.resource)
            .bind(&key.namespace)
            .bind(&key.name)
            .bind(revision.cast_signed())
            .bind(&text)
            .execute(&mut *writer)
            .await?;
            let body = Body::from_parts(text.clone().into(), body);
            let object = Object { key, revision, body };
            let event = Event {
                kind: EventKind::Modified,
                object: object.clone(),
                previous: Some(current.body),
            };
            append(&mut writer, &event, &text, Some(current.revision)).await?;
            writer.commit().await?;
            resources.announce(event);
            Ok(object)
        })
        .await
    }

    /// Deletes an object, if it is still at the revision `expected` when one is given. Returns it
    /// as it last was, with the revision of the deletion.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or [`Error::Conflict`] when it has another revision.
    pub async fn delete(&self, key: &Key, expected: Option<u64>) -> Result<Object> {
        let resources = self.clone();
        let key = key.clone();
        to_the_end(async move {
            let mut writer = resources.database.writer().await?;
            writer.begin().await?;
            let current = existing(&mut writer, &key, expected).await?;
            let revision = next_revision(&mut writer).await?;
            sqlx::query(
                "DELETE FROM resource_objects
                 WHERE api_group = $1 AND resource = $2 AND namespace = $3 AND name = $4",
            )
            .bind(&key.resource.group)
            .bind(&key.resource.resource)
            .bind(&key.namespace)
            .bind(&key.name)
            .execute(&mut *writer)
            .await?;
            let mut body = current.body.clone().into_value();
            row::stamp(&mut body, revision);
            let text = body.to_string();
            let object = Object {
                key,
                revision,
                body: body.into(),
            };
            let event = Event {
                kind: EventKind::Deleted,
                object: object.clone(),
                previous: Some(current.body),
            };
            append(&mut writer, &event, &text, Some(current.revision)).await?;
            writer.commit().await?;
            resources.announce(event);
            Ok(object)
        })
        .await
    }

    /// Drops what the log holds below a revision, and returns how many changes that were. Lists
    /// and watches from before `below - 1` then fail with [`Error::Compacted`]. A revision beyond
    /// the latest stands for all that the log holds.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn compact(&self, below: u64) -> Result<u64> {
        let resources = self.clone();
        to_the_end(async move {
            let mut writer = resources.database.writer().await?;
            writer.begin().await?;
            let counter = row::counter(&mut writer).await?;
            let compacted = below.saturating_sub(1).min(counter.latest);
            if compacted <= counter.oldest {
                return Ok(0);
            }
            let dropped = sqlx::query("DELETE FROM resource_log WHERE revision <= $1")
                .bind(compacted.cast_signed())
                .execute(&mut *writer)
                .await?
                .rows_affected();
            sqlx::query("UPDATE resource_revision SET compacted = $1 WHERE id = 1")
                .bind(compacted.cast_signed())
                .execute(&mut *writer)
                .await?;
            writer.commit().await?;
            Ok(dropped)
        })
        .await
    }

    /// To be called while the writer is still held: that is what keeps events in order.
    fn announce(&self, event: Event) {
        // An error only says that nobody watches.
        let _ = self.live.send(Arc::new(event));
    }
}

async fn existing(connection: &mut SqliteConnection, key: &Key, expected: Option<u64>) -> Result<Object> {
    let Some(current) = row::object(connection, key).await? else {
        return Err(Error::NotFound { key: key.clone() });
    };
    match expected {
        Some(expected) if expected != current.revision => Err(Error::Conflict {
            key: key.clone(),
            expected,
            current: current.revision,
        }),
        _ => Ok(current),
    }
}

async fn next_revision(connection: &mut SqliteConnection) -> Result<u64> {
    let revision: i64 =
        sqlx::query_scalar("UPDATE resource_revision SET latest = latest + 1 WHERE id = 1 RETURNING latest")
            .fetch_one(connection)
            .await?;
    Ok(revision.unsigned_abs())
}

async fn append(
    connection: &mut SqliteConnection,
    event: &Event,
    body: &str,
    previous_revision: Option<u64>,
) -> Result<()> {
    let Object { key, revision, .. } = &event.object;
    sqlx::query(
        "INSERT INTO resource_log
             (revision, api_group, resource, namespace, name, kind, previous_revision, body, previous_body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(revision.cast_signed())
    .bind(&key.resource.group)
    .bind(&key.resource.resource)
    .bind(&key.namespace)
    .bind(&key.name)
    .bind(event.kind.to_string())
    .bind(previous_revision.map(u64::cast_signed))
    .bind(body)
    .bind(event.previous.as_ref().map(|previous| previous.to_string()))
    .execute(connection)
    .await?;
    Ok(())
}
