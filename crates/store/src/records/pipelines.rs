//! Pipelines.

use std::collections::BTreeMap;

use coracle_api::id::PipelineId;
use sqlx::SqliteConnection;

use super::{
    Error, Page, Pipeline, PipelineUpdate, PipelineVersion, Records, Result,
    entity::{Entity, Kind, field},
    query::List,
    row::{Bind, Fields, json},
    versions,
};
use crate::database::to_the_end;

pub(super) const KIND: &str = "pipeline";

const ENTITY: Entity<Pipeline> = Entity {
    name: KIND,
    table: "pipelines",
    columns: "pipelines.*",
    join: "",
    fields: &[
        field("pipeline_id", "id", Kind::Text),
        field("id", "id", Kind::Text),
        field("name", "name", Kind::Text),
        field("display_name", "display_name", Kind::Text),
        field("namespace", "namespace", Kind::Text),
        field("description", "description", Kind::Text),
        field("created_at", "created_at", Kind::Time),
    ],
    has_tags: true,
    beside: None,
    read,
};

impl Records {
    /// Makes a pipeline, with its first version or without.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] when the namespace has one of that name; then neither is made.
    pub async fn create_pipeline(&self, pipeline: Pipeline, first: Option<PipelineVersion>) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            sqlx::query(
                "INSERT INTO pipelines (id, namespace, name, display_name, created_at, description, tags)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(pipeline.id.to_string())
            .bind(&pipeline.namespace)
            .bind(&pipeline.name)
            .bind(&pipeline.display_name)
            .bind(pipeline.created_at.as_microsecond())
            .bind(&pipeline.description)
            .bind(json(&pipeline.tags))
            .execute(&mut *writer)
            .await
            .map_err(|error| Error::inserting(error, KIND, &pipeline.name))?;
            insert_tags(&mut writer, &pipeline.id.to_string(), &pipeline.tags).await?;
            if let Some(version) = &first {
                versions::insert(&mut writer, version).await?;
            }
            writer.commit().await?;
            Ok(())
        })
        .await
    }

    /// The pipeline.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn pipeline(&self, id: PipelineId) -> Result<Pipeline> {
        let mut reader = self.database.reader().await?;
        ENTITY.find(&mut reader, id).await
    }

    /// The pipeline of that name, or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn pipeline_named(&self, namespace: &str, name: &str) -> Result<Option<Pipeline>> {
        let mut reader = self.database.reader().await?;
        let name = vec![Bind::from(namespace), Bind::from(name)];
        ENTITY
            .first(&mut reader, "namespace = $1 AND name = $2", name)
            .await
    }

    /// Lists the pipelines of a namespace, or of all.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::InvalidValue`] or [`Error::InvalidCursor`].
    pub async fn list_pipelines(&self, namespace: Option<&str>, list: &List) -> Result<Page<Pipeline>> {
        let scope = namespace.map(|namespace| ("namespace = ?", Bind::from(namespace)));
        let mut reader = self.database.reader().await?;
        ENTITY.page(&mut reader, scope.into_iter().collect(), list).await
    }

    /// Changes what is given of a pipeline, and returns it as it is then.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn update_pipeline(&self, id: PipelineId, update: PipelineUpdate) -> Result<Pipeline> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            apply(&mut writer, &ENTITY, id, &update).await?;
            let pipeline = ENTITY.find(&mut writer, id).await?;
            writer.commit().await?;
            Ok(pipeline)
        })
        .await
    }

    /// Deletes a pipeline, with its versions when `cascade`. Runs made from it stay.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or [`Error::InUse`] when it has versions and these are to be kept.
    pub async fn delete_pipeline(&self, id: PipelineId, cascade: bool) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            let pipeline = id.to_string();
            let versions: Vec<(String, String)> =
                sqlx::query_as("SELECT id, document_digest FROM pipeline_versions WHERE pipeline_id = $1")
                    .bind(&pipeline)
                    .fetch_all(&mut *writer)
                    .await?;
            if !versions.is_empty() && !cascade {
                return Err(Error::InUse {
                    kind: KIND,
                    id: pipeline,
                    dependents: "versions",
                });
            }
            for (version, digest) in &versions {
                versions::remove(&mut writer, version, digest).await?;
            }
            sqlx::query("DELETE FROM tags WHERE owner_id = $1")
                .bind(&pipeline)
                .execute(&mut *writer)
                .await?;
            ENTITY.delete(&mut writer, id).await?;
            writer.commit().await?;
            Ok(())
        })
        .await
    }
}

/// Writes an update of a pipeline or of a version, tags and all.
pub(super) async fn apply<T>(
    connection: &mut SqliteConnection,
    entity: &Entity<T>,
    id: impl ToString,
    update: &PipelineUpdate,
) -> Result<()> {
    let id = id.to_string();
    let mut columns = vec![("id", Bind::from(&id))];
    if let Some(name) = &update.display_name {
        columns.push(("display_name", Bind::from(name)));
    }
    if let Some(description) = &update.description {
        columns.push(("description", Bind::from(description)));
    }
    if let Some(tags) = &update.tags {
        columns.push(("tags", Bind::json(tags)));
    }
    entity.set(&mut *connection, &id, columns).await?;
    if let Some(tags) = &update.tags {
        sqlx::query("DELETE FROM tags WHERE owner_id = $1")
            .bind(&id)
            .execute(&mut *connection)
            .await?;
        insert_tags(connection, &id, tags).await?;
    }
    Ok(())
}

pub(super) async fn insert_tags(
    connection: &mut SqliteConnection,
    owner: &str,
    tags: &BTreeMap<String, String>,
) -> Result<()> {
    for (tag, value) in tags {
        sqlx::query("INSERT INTO tags (owner_id, tag, value) VALUES ($1, $2, $3)")
            .bind(owner)
            .bind(tag)
            .bind(value)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn read(fields: &Fields<'_>) -> Result<Pipeline> {
    Ok(Pipeline {
        id: fields.word("id")?,
        namespace: fields.string("namespace")?,
        name: fields.string("name")?,
        display_name: fields.string("display_name")?,
        description: fields.string("description")?,
        tags: fields.json("tags")?,
        created_at: fields.time("created_at")?,
    })
}
