//! Lists, now or at an old revision, in pages that all show the same moment.

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{GroupResource, Object, Resources, Result, row};

/// The moment that a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Now.
    Latest,
    /// When this revision was the latest.
    Revision(u64),
}

/// A page of objects in order of namespace and name.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// The revision of the moment that the list shows. Later pages are read at it; a watch from
    /// it misses nothing.
    pub revision: u64,
    /// The objects.
    pub objects: Vec<Object>,
    /// Namespace and name of the last object, when more follow.
    pub next: Option<(String, String)>,
}

impl Resources {
    /// Lists objects of one kind, in one namespace or in all, `limit` at most, after the given
    /// namespace and name.
    ///
    /// # Errors
    ///
    /// [`super::Error::Compacted`] when the revision is too old.
    pub async fn list(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
        at: At,
        limit: Option<u32>,
        after: Option<(String, String)>,
    ) -> Result<List> {
        let page = Page {
            resource,
            namespace,
            after: after.unwrap_or_default(),
            // One more, to know whether there is more.
            rows: limit.map_or(i64::MAX, |limit| i64::from(limit) + 1),
        };
        let mut reader = self.database.reader().await?;
        // One transaction: counter and rows are of the same moment.
        reader.begin().await?;
        let counter = row::counter(&mut reader).await?;
        let (revision, rows) = match at {
            At::Latest => (counter.latest, page.latest(&mut reader).await?),
            At::Revision(revision) => {
                counter.covers(revision)?;
                (revision, page.at(&mut reader, revision).await?)
            }
        };
        reader.commit().await?;
        drop(reader);
        let mut objects = rows
            .iter()
            .map(|row| row::listed(resource, row))
            .collect::<Result<Vec<_>>>()?;
        let mut next = None;
        if let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok())
            && objects.len() > limit
        {
            objects.truncate(limit);
            next = objects
                .last()
                .map(|last| (last.key.namespace.clone(), last.key.name.clone()));
        }
        Ok(List {
            revision,
            objects,
            next,
        })
    }
}

struct Page<'a> {
    resource: &'a GroupResource,
    namespace: Option<&'a str>,
    after: (String, String),
    rows: i64,
}

impl Page<'_> {
    async fn latest(&self, connection: &mut SqliteConnection) -> Result<Vec<SqliteRow>> {
        let sql = if self.namespace.is_some() {
            LATEST_IN_NAMESPACE
        } else {
            LATEST
        };
        let query = sqlx::query(sql)
            .bind(&self.resource.group)
            .bind(&self.resource.resource)
            .bind(&self.after.0)
            .bind(&self.after.1)
            .bind(self.rows);
        let query = match self.namespace {
            Some(namespace) => query.bind(namespace),
            None => query,
        };
        Ok(query.fetch_all(connection).await?)
    }

    async fn at(&self, connection: &mut SqliteConnection, revision: u64) -> Result<Vec<SqliteRow>> {
        let sql = if self.namespace.is_some() {
            OLD_IN_NAMESPACE
        } else {
            OLD
        };
        let query = sqlx::query(sql)
            .bind(&self.resource.group)
            .bind(&self.resource.resource)
            .bind(&self.after.0)
            .bind(&self.after.1)
            .bind(self.rows)
            .bind(revision.cast_signed());
        let query = match self.namespace {
            Some(namespace) => query.bind(namespace),
            None => query,
        };
        Ok(query.fetch_all(connection).await?)
    }
}

const LATEST: &str = "
    SELECT namespace, name, revision, body FROM resource_objects
    WHERE api_group = $1 AND resource = $2 AND (namespace, name) > ($3, $4)
    ORDER BY namespace, name LIMIT $5";

const LATEST_IN_NAMESPACE: &str = "
    SELECT namespace, name, revision, body FROM resource_objects
    WHERE api_group = $1 AND resource = $2 AND namespace = $6 AND (namespace, name) > ($3, $4)
    ORDER BY namespace, name LIMIT $5";

// What has not changed since, and of what has, the state before its first change since.
const OLD: &str = "
    SELECT namespace, name, revision, body FROM resource_objects
    WHERE api_group = $1 AND resource = $2 AND (namespace, name) > ($3, $4) AND revision <= $6
    UNION ALL
    SELECT namespace, name, previous_revision, previous_body FROM resource_log
    WHERE api_group = $1 AND resource = $2 AND (namespace, name) > ($3, $4)
        AND revision > $6 AND previous_revision <= $6
    ORDER BY namespace, name LIMIT $5";

const OLD_IN_NAMESPACE: &str = "
    SELECT namespace, name, revision, body FROM resource_objects
    WHERE api_group = $1 AND resource = $2 AND namespace = $7 AND (namespace, name) > ($3, $4)
        AND revision <= $6
    UNION ALL
    SELECT namespace, name, previous_revision, previous_body FROM resource_log
    WHERE api_group = $1 AND resource = $2 AND namespace = $7 AND (namespace, name) > ($3, $4)
        AND revision > $6 AND previous_revision <= $6
    ORDER BY namespace, name LIMIT $5";
