//! Lists, now or at an old revision, in pages that all show the same moment.

use sqlx::{
    Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

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
        Ok(self.bind(sqlx::query(sql)).fetch_all(connection).await?)
    }

    async fn at(&self, connection: &mut SqliteConnection, revision: u64) -> Result<Vec<SqliteRow>> {
        let sql = if self.namespace.is_some() {
            OLD_IN_NAMESPACE
        } else {
            OLD
        };
        let query = self.bind(sqlx::query(sql)).bind(revision.cast_signed());
        Ok(query.fetch_all(connection).await?)
    }

    fn bind<'q>(&self, query: Query<'q, Sqlite, SqliteArguments>) -> Query<'q, Sqlite, SqliteArguments> {
        query
            .bind(self.resource.group.clone())
            .bind(self.resource.resource.clone())
            // In one namespace it is that one, in all it is where the page before ended.
            .bind(self.namespace.unwrap_or(&self.after.0).to_owned())
            .bind(self.after.1.clone())
            .bind(self.rows)
    }
}

const LATEST: &str = "
    SELECT namespace, name, revision, body FROM resource_objects
    WHERE api_group = $1 AND resource = $2 AND (namespace, name) > ($3, $4)
    ORDER BY namespace, name LIMIT $5";

const LATEST_IN_NAMESPACE: &str = "
    SELECT namespace, name, revision, body FROM resource_objects
    WHERE api_group = $1 AND resource = $2 AND namespace = $3 AND name > $4
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
    WHERE api_group = $1 AND resource = $2 AND namespace = $3 AND name > $4 AND revision <= $6
    UNION ALL
    SELECT namespace, name, previous_revision, previous_body FROM resource_log
    WHERE api_group = $1 AND resource = $2 AND namespace = $3 AND name > $4
        AND revision > $6 AND previous_revision <= $6
    ORDER BY namespace, name LIMIT $5";

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::*;
    use crate::{Location, Store};

    #[tokio::test]
    async fn lists_are_read_in_the_order_of_an_index() {
        let store = Store::open(Location::Memory).await.unwrap();
        let index = "sqlite_autoindex_resource_objects_1";
        for (sql, terms) in [
            (LATEST, "api_group=? AND resource=? AND (namespace,name)>(?,?)"),
            (
                LATEST_IN_NAMESPACE,
                "api_group=? AND resource=? AND namespace=? AND name>?",
            ),
        ] {
            let mut reader = store.database.reader().await.unwrap();
            let steps = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
                .fetch_all(&mut *reader)
                .await
                .unwrap();
            let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
            assert_eq!(
                steps,
                [format!("SEARCH resource_objects USING INDEX {index} ({terms})")]
            );
        }
    }
}
