//! Lists, now or at an old revision, in pages that all show the same moment.

use super::{Error, GroupResource, Key, Object, Resources, Result, row, state::Range};

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
    /// How many more follow, where that is known without looking at them.
    pub remaining: Option<u64>,
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
        let range = Range {
            namespace,
            after: after
                .as_ref()
                .map(|(namespace, name)| (namespace.as_str(), name.as_str())),
            // One more, to know whether there is more.
            limit: limit.map_or(usize::MAX, |limit| limit as usize + 1),
        };
        let (revision, found) = {
            let state = self.shared.state.read();
            state.check_open()?;
            let (revision, is_now) = match at {
                At::Latest => (state.latest(), true),
                At::Revision(revision) => {
                    state.covers(revision)?;
                    (revision, state.is_unchanged_since(resource, revision))
                }
            };
            (revision, is_now.then(|| state.objects(resource, range)))
        };
        let (found, behind) = match found {
            Some((found, behind)) => (Some(found), Some(behind)),
            None => (None, None),
        };
        let mut objects: Vec<Object> = match found {
            Some(found) => found
                .into_iter()
                .map(|(namespace, name, stored)| {
                    stored.object(Key {
                        resource: resource.clone(),
                        namespace: namespace.as_ref().to_owned(),
                        name: name.as_ref().to_owned(),
                    })
                })
                .collect(),
            None => self.past(resource, range, revision).await?,
        };
        let (mut next, mut remaining) = (None, None);
        if let Some(limit) = limit.map(|limit| limit as usize)
            && objects.len() > limit
        {
            objects.truncate(limit);
            next = objects
                .last()
                .map(|last| (last.key.namespace.clone(), last.key.name.clone()));
            // The one too many is one of them.
            remaining = behind.map(|behind| behind + 1);
        }
        Ok(List {
            revision,
            objects,
            next,
            remaining,
        })
    }

    /// Objects as they were, from the log.
    async fn past(&self, resource: &GroupResource, range: Range<'_>, revision: u64) -> Result<Vec<Object>> {
        let mut reader = self.database.reader().await?;
        // One transaction: counter and rows are of the same moment.
        reader.begin().await?;
        let oldest = row::counter(&mut reader).await?.oldest;
        if revision < oldest {
            return Err(Error::Compacted {
                requested: revision,
                oldest,
            });
        }
        let (namespace, name) = range.after.unwrap_or_default();
        let (sql, namespace) = match range.namespace {
            Some(namespace) => (OLD_IN_NAMESPACE, namespace),
            None => (OLD, namespace),
        };
        let rows = sqlx::query(sql)
            .bind(&resource.group)
            .bind(&resource.resource)
            .bind(namespace)
            .bind(name)
            .bind(i64::try_from(range.limit).unwrap_or(i64::MAX))
            .bind(revision.cast_signed())
            .fetch_all(&mut *reader)
            .await?;
        reader.commit().await?;
        rows.iter().map(|row| row::listed(resource, row)).collect()
    }
}

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
