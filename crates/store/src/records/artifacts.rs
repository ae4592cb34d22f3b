//! Artifacts, and which task made or consumed them. Written by commits.

use coracle_api::id::{ArtifactId, RunId};

use super::{
    Artifact, ArtifactTask, Error, Records, Result,
    row::{Bind, Fields, Upsert, bound},
};

/// Ids looked up by one statement.
const LOOKED_UP: usize = 500;

pub(super) const ARTIFACTS: Upsert = Upsert {
    table: "artifacts",
    key: &["id"],
    rest: &[
        "namespace",
        "name",
        "artifact_type",
        "type_version",
        "uri",
        "digest",
        "size",
        "created_at",
        "metadata",
    ],
};

pub(super) const LINKS: Upsert = Upsert {
    table: "artifact_tasks",
    key: &["task_id", "io", "io_key", "position", "artifact_id"],
    rest: &["run_id", "producer_task"],
};

impl Records {
    /// The artifact.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn artifact(&self, id: ArtifactId) -> Result<Artifact> {
        let mut reader = self.database.reader().await?;
        let row = sqlx::query("SELECT * FROM artifacts WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *reader)
            .await?
            .ok_or_else(|| Error::not_found("artifact", id))?;
        read(&Fields {
            table: ARTIFACTS.table,
            row: &row,
        })
    }

    /// The artifacts with these ids that exist, in no order.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifacts(&self, ids: &[ArtifactId]) -> Result<Vec<Artifact>> {
        let mut artifacts = Vec::with_capacity(ids.len());
        let mut reader = self.database.reader().await?;
        for ids in ids.chunks(LOOKED_UP) {
            let places: Vec<_> = (1..=ids.len()).map(|place| format!("${place}")).collect();
            let sql = format!("SELECT * FROM artifacts WHERE id IN ({})", places.join(", "));
            let rows = bound(sql, ids.iter().map(Bind::word).collect())
                .fetch_all(&mut *reader)
                .await?;
            for row in &rows {
                artifacts.push(read(&Fields {
                    table: ARTIFACTS.table,
                    row,
                })?);
            }
        }
        Ok(artifacts)
    }

    /// The newest artifact of a namespace with that URI, or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifact_by_uri(&self, namespace: &str, uri: &str) -> Result<Option<Artifact>> {
        let mut reader = self.database.reader().await?;
        sqlx::query(
            "SELECT * FROM artifacts WHERE namespace = $1 AND uri = $2
             ORDER BY created_at DESC, id DESC LIMIT 1",
        )
        .bind(namespace)
        .bind(uri)
        .fetch_optional(&mut *reader)
        .await?
        .map(|row| {
            read(&Fields {
                table: ARTIFACTS.table,
                row: &row,
            })
        })
        .transpose()
    }

    /// What the tasks of a run made and consumed, in order of task, side, name and place.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifact_tasks(&self, run_id: RunId) -> Result<Vec<ArtifactTask>> {
        let mut reader = self.database.reader().await?;
        let rows = sqlx::query(
            "SELECT * FROM artifact_tasks WHERE run_id = $1
             ORDER BY task_id, io, io_key, position, artifact_id",
        )
        .bind(run_id.to_string())
        .fetch_all(&mut *reader)
        .await?;
        rows.iter()
            .map(|row| {
                read_link(&Fields {
                    table: LINKS.table,
                    row,
                })
            })
            .collect()
    }

    /// The artifacts that the tasks of a run made or consumed, each once, oldest first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifacts_of_run(&self, run_id: RunId) -> Result<Vec<Artifact>> {
        let mut reader = self.database.reader().await?;
        let rows = sqlx::query(
            "SELECT * FROM artifacts
             WHERE id IN (SELECT artifact_id FROM artifact_tasks WHERE run_id = $1)
             ORDER BY created_at, id",
        )
        .bind(run_id.to_string())
        .fetch_all(&mut *reader)
        .await?;
        rows.iter()
            .map(|row| {
                read(&Fields {
                    table: ARTIFACTS.table,
                    row,
                })
            })
            .collect()
    }
}

pub(super) fn artifact_row(artifact: &Artifact) -> Vec<Bind> {
    vec![
        Bind::word(artifact.id),
        Bind::from(&artifact.namespace),
        Bind::from(&artifact.name),
        Bind::from(&artifact.artifact_type),
        Bind::from(&artifact.type_version),
        Bind::from(&artifact.uri),
        Bind::optional_word(artifact.digest.as_ref()),
        Bind::Int(artifact.size.map(|size| i64::try_from(size).unwrap_or(i64::MAX))),
        Bind::time(artifact.created_at),
        Bind::json(&artifact.metadata),
    ]
}

pub(super) fn link_row(link: &ArtifactTask) -> Vec<Bind> {
    vec![
        Bind::word(link.task_id),
        Bind::word(link.io),
        Bind::from(&link.key),
        Bind::from(link.position),
        Bind::word(link.artifact_id),
        Bind::word(link.run_id),
        Bind::from(&link.producer_task),
    ]
}

fn read(fields: &Fields<'_>) -> Result<Artifact> {
    Ok(Artifact {
        id: fields.word("id")?,
        namespace: fields.string("namespace")?,
        name: fields.string("name")?,
        artifact_type: fields.string("artifact_type")?,
        type_version: fields.string("type_version")?,
        uri: fields.string("uri")?,
        metadata: fields.json("metadata")?,
        digest: fields.optional_text("digest")?.map(str::to_owned),
        size: fields.optional_number("size")?,
        created_at: fields.time("created_at")?,
    })
}

fn read_link(fields: &Fields<'_>) -> Result<ArtifactTask> {
    Ok(ArtifactTask {
        artifact_id: fields.word("artifact_id")?,
        run_id: fields.word("run_id")?,
        task_id: fields.word("task_id")?,
        io: fields.word("io")?,
        key: fields.string("io_key")?,
        position: fields.int("position")?,
        producer_task: fields.string("producer_task")?,
    })
}
