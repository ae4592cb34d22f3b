//! Lineage across runs: which artifacts there are, what made them, and what was made from them.

use coracle_api::id::{ArtifactId, RunId, TaskId};
use sqlx::Row as _;

use super::{
    Artifact, ArtifactTask, Cursor, Error, IoType, Page, Records, Result,
    artifacts::{ARTIFACT, LINK},
    query::List,
    row::{Bind, LOOKED_UP, bound, places},
};

/// Which artifacts to list. All that is given must hold; nothing given means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArtifactScope {
    /// Those of this namespace.
    pub namespace: Option<String>,
    /// Those that a task of this run made or consumed.
    pub run_id: Option<RunId>,
    /// Those that this task made or consumed.
    pub task_id: Option<TaskId>,
}

/// Which links between artifacts and tasks to list. All that is given must hold; an empty list
/// means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkFilter {
    /// Those of artifacts of this namespace.
    pub namespace: Option<String>,
    /// Those of one of these runs.
    pub run_ids: Vec<RunId>,
    /// Those of one of these tasks.
    pub task_ids: Vec<TaskId>,
    /// Those of one of these artifacts.
    pub artifact_ids: Vec<ArtifactId>,
    /// Those of one of these ways to meet an artifact.
    pub io: Vec<IoType>,
}

/// What makes a link unique, and the order of lists.
const LINK_KEY: &str = "task_id, io, io_key, position, artifact_id";

impl Records {
    /// Lists artifacts. They can be filtered and sorted by `artifact_id`, `namespace`, `name`,
    /// `type`, `uri`, `digest` and `created_at`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::InvalidValue`] or [`Error::InvalidCursor`].
    pub async fn list_artifacts(&self, scope: ArtifactScope, list: &List) -> Result<Page<Artifact>> {
        let mut conditions = Vec::new();
        if let Some(namespace) = scope.namespace {
            conditions.push(("namespace = ?", Bind::Text(Some(namespace))));
        }
        if let Some(run) = scope.run_id {
            let of_run = "id IN (SELECT artifact_id FROM artifact_tasks WHERE run_id = ?)";
            conditions.push((of_run, Bind::word(run)));
        }
        if let Some(task) = scope.task_id {
            let of_task = "id IN (SELECT artifact_id FROM artifact_tasks WHERE task_id = ?)";
            conditions.push((of_task, Bind::word(task)));
        }
        let mut reader = self.database.reader().await?;
        ARTIFACT.page(&mut reader, conditions, list).await
    }

    /// Lists links between artifacts and tasks, in order of task, way, name and place.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] when more than 1000 things are asked for, or
    /// [`Error::InvalidCursor`].
    pub async fn list_artifact_tasks(
        &self,
        filter: &LinkFilter,
        page_size: u32,
        after: Option<&Cursor>,
    ) -> Result<Page<ArtifactTask>> {
        let (conditions, mut binds) = link_conditions(filter)?;
        let mut reader = self.database.reader().await?;
        let count = format!("SELECT COUNT(*) FROM artifact_tasks WHERE {conditions}");
        let total = bound(count, binds.clone())
            .fetch_one(&mut *reader)
            .await?
            .try_get(0)?;
        let mut following = conditions;
        if let Some(cursor) = after {
            let first = binds.len() + 1;
            binds.extend(link_key(cursor)?);
            let key: Vec<_> = (first..first + 5).map(|place| format!("${place}")).collect();
            following.push_str(&format!(" AND ({LINK_KEY}) > ({})", key.join(", ")));
        }
        // One more, to know whether there is more.
        let rows = i64::from(page_size.max(1)) + 1;
        binds.push(Bind::from(rows));
        let condition = format!("{following} ORDER BY {LINK_KEY} LIMIT ${}", binds.len());
        let mut items = LINK.all(&mut reader, &condition, binds).await?;
        let page_size = usize::try_from(page_size.max(1)).unwrap_or(usize::MAX);
        let has_more = items.len() > page_size;
        items.truncate(page_size);
        let next = items.last().filter(|_| has_more).map(|last| Cursor {
            value: serde_json::json!([last.task_id, last.io, last.key, last.position]),
            id: last.artifact_id.to_string(),
        });
        Ok(Page { items, total, next })
    }

    /// Who made or consumed these artifacts, in any run, in order of task, way, name and place
    /// for each some hundred artifacts.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn links_of_artifacts(&self, ids: &[ArtifactId]) -> Result<Vec<ArtifactTask>> {
        self.links_with("artifact_id", ids).await
    }

    /// What these tasks made or consumed, ordered in the same way.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn links_of_tasks(&self, ids: &[TaskId]) -> Result<Vec<ArtifactTask>> {
        self.links_with("task_id", ids).await
    }

    async fn links_with(&self, column: &'static str, ids: &[impl ToString]) -> Result<Vec<ArtifactTask>> {
        let mut links = Vec::new();
        let mut reader = self.database.reader().await?;
        for ids in ids.chunks(LOOKED_UP) {
            let condition = format!("{column} IN ({}) ORDER BY {LINK_KEY}", places(ids.len()));
            let binds = ids.iter().map(|id| Bind::word(id.to_string())).collect();
            links.extend(LINK.all(&mut reader, &condition, binds).await?);
        }
        Ok(links)
    }
}

fn link_conditions(filter: &LinkFilter) -> Result<(String, Vec<Bind>)> {
    let lists: [(&'static str, Vec<Bind>); 4] = [
        ("run_id", filter.run_ids.iter().map(Bind::word).collect()),
        ("task_id", filter.task_ids.iter().map(Bind::word).collect()),
        (
            "artifact_id",
            filter.artifact_ids.iter().map(Bind::word).collect(),
        ),
        ("io", filter.io.iter().map(Bind::word).collect()),
    ];
    let mut binds = Vec::new();
    let mut conditions = vec!["1 = 1".to_owned()];
    for (column, values) in lists {
        if values.len() > 1000 {
            return Err(Error::InvalidValue {
                entity: LINK.name,
                field: column.to_owned(),
                expected: "at most 1000 values",
            });
        }
        if !values.is_empty() {
            let places: Vec<_> = (1..=values.len())
                .map(|place| format!("${}", binds.len() + place))
                .collect();
            conditions.push(format!("{column} IN ({})", places.join(", ")));
            binds.extend(values);
        }
    }
    if let Some(namespace) = &filter.namespace {
        binds.push(Bind::from(namespace));
        conditions.push(format!(
            "EXISTS (SELECT 1 FROM artifacts WHERE id = artifact_tasks.artifact_id AND namespace = ${})",
            binds.len()
        ));
    }
    Ok((conditions.join(" AND "), binds))
}

fn link_key(cursor: &Cursor) -> Result<Vec<Bind>> {
    let read = || {
        let [task, io, key, position] = cursor.value.as_array()?.as_slice() else {
            return None;
        };
        Some(vec![
            Bind::from(task.as_str()?),
            Bind::from(io.as_str()?),
            Bind::from(key.as_str()?),
            Bind::from(position.as_i64()?),
            Bind::from(&cursor.id),
        ])
    };
    read().ok_or(Error::InvalidCursor { entity: LINK.name })
}
