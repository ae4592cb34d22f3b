//! Cached outputs: what tasks hand over to tasks that would do the same again. Whether an entry
//! may still be used, by age or because its files are gone, is the engine's to say.

use coracle_api::id::ArtifactId;
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{
    CacheEntry, CachedFrom, Page, Records, Result,
    entity::{Entity, Kind, field},
    query::List,
    row::{Bind, Fields, Script, Upsert, bound, places},
};
use crate::database::to_the_end;

static ENTRIES: Upsert = Upsert::new(
    "cache_entries",
    &["id"],
    &[
        "namespace",
        "pipeline_name",
        "cache_key",
        "task_name",
        "created_at",
        "run_id",
        "task_id",
        "outputs",
    ],
);

static ARTIFACTS: Upsert = Upsert::new("cache_artifacts", &["entry_id", "artifact_id"], &[]);

const ENTITY: Entity<CacheEntry> = Entity {
    name: "cache entry",
    table: "cache_entries",
    columns: "cache_entries.*",
    join: "",
    fields: &[
        field("key", "cache_key", Kind::Text),
        field("namespace", "namespace", Kind::Text),
        field("pipeline_name", "pipeline_name", Kind::Text),
        field("task_name", "task_name", Kind::Text),
        field("run_id", "run_id", Kind::Text),
        field("task_id", "task_id", Kind::Text),
        field("created_at", "created_at", Kind::Time),
    ],
    has_tags: false,
    beside: None,
    read,
};

/// Which cache entries of a namespace. All that is given must hold; nothing given means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheFilter {
    /// Those with this key.
    pub key: Option<String>,
    /// Those of the pipeline of this name.
    pub pipeline_name: Option<String>,
    /// Those of tasks of this name.
    pub task_name: Option<String>,
    /// Those made before.
    pub older_than: Option<Timestamp>,
}

impl Records {
    /// The entry of that key, or none. Keeping another under the same key replaced it.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn cache_entry(
        &self,
        namespace: &str,
        pipeline_name: &str,
        key: &str,
    ) -> Result<Option<CacheEntry>> {
        let mut reader = self.database.reader().await?;
        let id = Bind::Text(Some(id(namespace, pipeline_name, key)));
        ENTITY.first(&mut reader, "id = $1", vec![id]).await
    }

    /// Lists the entries of a namespace, or of all. They can be filtered by `key`,
    /// `pipeline_name`, `task_name`, `run_id`, `task_id` and `created_at`.
    ///
    /// # Errors
    ///
    /// [`super::Error::UnknownField`], [`super::Error::InvalidValue`] or
    /// [`super::Error::InvalidCursor`].
    pub async fn list_cache_entries(&self, namespace: Option<&str>, list: &List) -> Result<Page<CacheEntry>> {
        let scope = namespace.map(|namespace| ("namespace = ?", Bind::from(namespace)));
        let mut reader = self.database.reader().await?;
        ENTITY.page(&mut reader, scope.into_iter().collect(), list).await
    }

    /// Deletes entries, and returns how many there were.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn delete_cache_entries(&self, namespace: &str, filter: CacheFilter) -> Result<u64> {
        let records = self.clone();
        let namespace = namespace.to_owned();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            // The links to artifacts are deleted by their foreign key.
            let done = sqlx::query(
                "DELETE FROM cache_entries
                 WHERE namespace = $1 AND ($2 IS NULL OR cache_key = $2)
                     AND ($3 IS NULL OR pipeline_name = $3) AND ($4 IS NULL OR task_name = $4)
                     AND ($5 IS NULL OR created_at < $5)",
            )
            .bind(namespace)
            .bind(filter.key)
            .bind(filter.pipeline_name)
            .bind(filter.task_name)
            .bind(filter.older_than.map(Timestamp::as_microsecond))
            .execute(&mut *writer)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

/// Keeps entries, each in place of one with the same key.
pub(super) fn keep(script: &mut Script, entries: &[CacheEntry]) {
    if entries.is_empty() {
        return;
    }
    let ids: Vec<_> = entries.iter().map(id_of).collect();
    script.add(
        "DELETE FROM cache_artifacts WHERE entry_id IN (SELECT value FROM json_each(?))",
        [Bind::json(&ids)],
    );
    ENTRIES.rows(script, entries.iter().map(row));
    let artifacts = entries.iter().flat_map(|entry| {
        let artifacts = entry.outputs.artifacts.values().flatten();
        artifacts.map(|artifact| vec![Bind::Text(Some(id_of(entry))), Bind::word(artifact)])
    });
    ARTIFACTS.rows(script, artifacts);
}

/// Deletes the entries that hand out one of these artifacts: at most so many as one statement
/// has places for.
pub(super) async fn forget_artifacts(
    connection: &mut SqliteConnection,
    artifacts: &[ArtifactId],
) -> sqlx::Result<()> {
    let sql = format!(
        "DELETE FROM cache_entries
         WHERE id IN (SELECT entry_id FROM cache_artifacts WHERE artifact_id IN ({}))",
        places(artifacts.len())
    );
    bound(sql, artifacts.iter().map(Bind::word).collect())
        .execute(connection)
        .await?;
    Ok(())
}

/// A namespace holds no slash and a key neither, so that no two are the same.
fn id(namespace: &str, pipeline_name: &str, key: &str) -> String {
    format!("{namespace}/{pipeline_name}/{key}")
}

fn id_of(entry: &CacheEntry) -> String {
    id(&entry.namespace, &entry.pipeline_name, &entry.key)
}

fn row(entry: &CacheEntry) -> Vec<Bind> {
    vec![
        Bind::Text(Some(id_of(entry))),
        Bind::from(&entry.namespace),
        Bind::from(&entry.pipeline_name),
        Bind::from(&entry.key),
        Bind::from(&entry.task_name),
        Bind::time(entry.created_at),
        Bind::word(entry.made_by.run_id),
        Bind::word(entry.made_by.task_id),
        Bind::json(&entry.outputs),
    ]
}

fn read(fields: &Fields<'_>) -> Result<CacheEntry> {
    Ok(CacheEntry {
        key: fields.string("cache_key")?,
        namespace: fields.string("namespace")?,
        pipeline_name: fields.string("pipeline_name")?,
        task_name: fields.string("task_name")?,
        made_by: CachedFrom {
            run_id: fields.word("run_id")?,
            task_id: fields.word("task_id")?,
        },
        outputs: fields.json("outputs")?,
        created_at: fields.time("created_at")?,
    })
}
