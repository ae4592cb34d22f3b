//! Versions of pipelines.

use coracle_api::id::{PipelineId, PipelineVersionId};
use sqlx::SqliteConnection;

use super::{
    Error, Page, PipelineUpdate, PipelineVersion, Records, Result, documents,
    entity::{Entity, Kind, field},
    pipelines,
    query::List,
    row::{Bind, Fields, json},
};
use crate::database::to_the_end;

const KIND: &str = "pipeline version";

const ENTITY: Entity<PipelineVersion> = Entity {
    name: KIND,
    table: "pipeline_versions",
    columns: "pipeline_versions.*, pipeline_documents.document",
    join: "JOIN pipeline_documents ON pipeline_documents.digest = pipeline_versions.document_digest",
    fields: &[
        field("pipeline_version_id", "id", Kind::Text),
        field("id", "id", Kind::Text),
        field("pipeline_id", "pipeline_id", Kind::Text),
        field("name", "name", Kind::Text),
        field("display_name", "display_name", Kind::Text),
        field("description", "description", Kind::Text),
        field("code_source_url", "code_source_url", Kind::Text),
        field("created_at", "created_at", Kind::Time),
    ],
    has_tags: true,
    beside: None,
    read,
};

impl Records {
    /// Makes a version.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such pipeline, [`Error::AlreadyExists`] when it has a
    /// version of that name.
    pub async fn create_pipeline_version(&self, version: PipelineVersion) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            insert(&mut writer, &version).await?;
            writer.commit().await?;
            Ok(())
        })
        .await
    }

    /// The version.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], also when it belongs to another pipeline.
    pub async fn pipeline_version(
        &self,
        pipeline_id: PipelineId,
        id: PipelineVersionId,
    ) -> Result<PipelineVersion> {
        let mut reader = self.database.reader().await?;
        find(&mut reader, pipeline_id, id).await
    }

    /// The pipeline's newest version, or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn latest_pipeline_version(&self, pipeline_id: PipelineId) -> Result<Option<PipelineVersion>> {
        let mut reader = self.database.reader().await?;
        let newest = "pipeline_versions.pipeline_id = $1
             ORDER BY pipeline_versions.created_at DESC, pipeline_versions.id DESC";
        ENTITY
            .first(&mut reader, newest, vec![Bind::word(pipeline_id)])
            .await
    }

    /// Lists the versions of a pipeline.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::InvalidValue`] or [`Error::InvalidCursor`].
    pub async fn list_pipeline_versions(
        &self,
        pipeline_id: PipelineId,
        list: &List,
    ) -> Result<Page<PipelineVersion>> {
        let mut reader = self.database.reader().await?;
        ENTITY
            .page(
                &mut reader,
                vec![("pipeline_id = ?", Bind::word(pipeline_id))],
                list,
            )
            .await
    }

    /// Deletes a version. Runs made from it stay.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], also when it belongs to another pipeline.
    pub async fn delete_pipeline_version(
        &self,
        pipeline_id: PipelineId,
        id: PipelineVersionId,
    ) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            let version = id.to_string();
            let digest: String = sqlx::query_scalar(
                "SELECT document_digest FROM pipeline_versions WHERE id = $1 AND pipeline_id = $2",
            )
            .bind(&version)
            .bind(pipeline_id.to_string())
            .fetch_optional(&mut *writer)
            .await?
            .ok_or_else(|| Error::not_found(KIND, id))?;
            remove(&mut writer, &version, &digest).await?;
            writer.commit().await?;
            Ok(())
        })
        .await
    }

    /// Changes what is given of a version, and returns it as it is then.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], also when it belongs to another pipeline.
    pub async fn update_pipeline_version(
        &self,
        pipeline_id: PipelineId,
        id: PipelineVersionId,
        update: PipelineUpdate,
    ) -> Result<PipelineVersion> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            find(&mut writer, pipeline_id, id).await?;
            pipelines::apply(&mut writer, &ENTITY, id, &update).await?;
            let version = find(&mut writer, pipeline_id, id).await?;
            writer.commit().await?;
            Ok(version)
        })
        .await
    }
}

async fn find(
    connection: &mut SqliteConnection,
    pipeline_id: PipelineId,
    id: PipelineVersionId,
) -> Result<PipelineVersion> {
    let both = "pipeline_versions.id = $1 AND pipeline_versions.pipeline_id = $2";
    ENTITY
        .first(connection, both, vec![Bind::word(id), Bind::word(pipeline_id)])
        .await?
        .ok_or_else(|| Error::not_found(KIND, id))
}

pub(super) async fn insert(connection: &mut SqliteConnection, version: &PipelineVersion) -> Result<()> {
    let pipeline: Option<i64> = sqlx::query_scalar("SELECT 1 FROM pipelines WHERE id = $1")
        .bind(version.pipeline_id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    if pipeline.is_none() {
        return Err(Error::not_found(pipelines::KIND, version.pipeline_id));
    }
    let digest = documents::keep(connection, &version.document).await?;
    sqlx::query(
        "INSERT INTO pipeline_versions
             (id, pipeline_id, name, display_name, created_at, document_digest, description,
              code_source_url, package_url, tags, warnings)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(version.id.to_string())
    .bind(version.pipeline_id.to_string())
    .bind(&version.name)
    .bind(&version.display_name)
    .bind(version.created_at.as_microsecond())
    .bind(&digest)
    .bind(&version.description)
    .bind(&version.code_source_url)
    .bind(&version.package_url)
    .bind(json(&version.tags))
    .bind(json(&version.warnings))
    .execute(&mut *connection)
    .await
    .map_err(|error| Error::inserting(error, KIND, &version.name))?;
    pipelines::insert_tags(connection, &version.id.to_string(), &version.tags).await
}

pub(super) async fn remove(connection: &mut SqliteConnection, version: &str, digest: &str) -> Result<()> {
    sqlx::query("DELETE FROM tags WHERE owner_id = $1")
        .bind(version)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM pipeline_versions WHERE id = $1")
        .bind(version)
        .execute(&mut *connection)
        .await?;
    documents::drop_unused(connection, digest).await
}

fn read(fields: &Fields<'_>) -> Result<PipelineVersion> {
    Ok(PipelineVersion {
        id: fields.word("id")?,
        pipeline_id: fields.word("pipeline_id")?,
        name: fields.string("name")?,
        display_name: fields.string("display_name")?,
        description: fields.string("description")?,
        code_source_url: fields.string("code_source_url")?,
        package_url: fields.string("package_url")?,
        tags: fields.json("tags")?,
        document: fields.json("document")?,
        warnings: fields.json("warnings")?,
        created_at: fields.time("created_at")?,
    })
}
