//! Artifacts, and which task made or consumed them. Written by commits.

use coracle_api::id::{ArtifactId, RunId};

use super::{
    Artifact, ArtifactTask, Records, Result,
    entity::{Entity, Kind, field},
    row::{Bind, Fields, Script, Upsert},
};
use crate::database::to_the_end;

pub(super) static ARTIFACTS: Upsert = Upsert::new(
    "artifacts",
    &["id"],
    &[
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
);

pub(super) static LINKS: Upsert = Upsert::new(
    "artifact_tasks",
    &["task_id", "io", "io_key", "position", "artifact_id"],
    &["run_id", "producer_task"],
);

pub(super) const ARTIFACT: Entity<Artifact> = Entity {
    name: "artifact",
    table: "artifacts",
    columns: "artifacts.*",
    join: "",
    fields: &[
        field("artifact_id", "id", Kind::Text),
        field("id", "id", Kind::Text),
        field("namespace", "namespace", Kind::Text),
        field("name", "name", Kind::Text),
        field("type", "artifact_type", Kind::Text),
        field("uri", "uri", Kind::Text),
        field("digest", "digest", Kind::OptionalText),
        field("created_at", "created_at", Kind::Time),
    ],
    has_tags: false,
    beside: None,
    read,
};

pub(super) const LINK: Entity<ArtifactTask> =
    Entity::unlisted("artifact task", "artifact_tasks", "artifact_tasks.*", read_link);

impl Records {
    /// The artifact.
    ///
    /// # Errors
    ///
    /// [`super::Error::NotFound`].
    pub async fn artifact(&self, id: ArtifactId) -> Result<Artifact> {
        let mut reader = self.database.reader().await?;
        ARTIFACT.find(&mut reader, id).await
    }

    /// Records artifacts that no task made, all or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn create_artifacts(&self, artifacts: &[Artifact]) -> Result<()> {
        let records = self.clone();
        let mut script = Script::default();
        ARTIFACTS.rows(&mut script, artifacts.iter().map(artifact_row));
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            script.run(&mut writer).await?;
            writer.commit().await?;
            Ok(())
        })
        .await
    }

    /// The artifacts with these ids that exist, in no order.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifacts(&self, ids: &[ArtifactId]) -> Result<Vec<Artifact>> {
        let mut reader = self.database.reader().await?;
        ARTIFACT.with_ids(&mut reader, ids).await
    }

    /// The newest artifact of a namespace with that URI, or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifact_by_uri(&self, namespace: &str, uri: &str) -> Result<Option<Artifact>> {
        let mut reader = self.database.reader().await?;
        let newest = "namespace = $1 AND uri = $2 ORDER BY created_at DESC, id DESC";
        ARTIFACT
            .first(&mut reader, newest, vec![Bind::from(namespace), Bind::from(uri)])
            .await
    }

    /// What the tasks of a run made and consumed, in order of task, side, name and place.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifact_tasks(&self, run_id: RunId) -> Result<Vec<ArtifactTask>> {
        let mut reader = self.database.reader().await?;
        let of_run = "run_id = $1 ORDER BY task_id, io, io_key, position, artifact_id";
        LINK.all(&mut reader, of_run, vec![Bind::word(run_id)]).await
    }

    /// The artifacts that the tasks of a run made or consumed, each once, oldest first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifacts_of_run(&self, run_id: RunId) -> Result<Vec<Artifact>> {
        let mut reader = self.database.reader().await?;
        let of_run = "id IN (SELECT artifact_id FROM artifact_tasks WHERE run_id = $1)
             ORDER BY created_at, id";
        ARTIFACT.all(&mut reader, of_run, vec![Bind::word(run_id)]).await
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

pub(super) fn read(fields: &Fields<'_>) -> Result<Artifact> {
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
