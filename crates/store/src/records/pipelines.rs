//! Pipelines, their versions, and the documents that versions and runs share.

use std::collections::BTreeMap;

use coracle_api::id::{PipelineId, PipelineVersionId};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::SqliteConnection;

use super::{
    Error, Page, Pipeline, PipelineVersion, Records, Result,
    entity::{Entity, Kind, field},
    query::List,
    row::{Bind, Fields, json},
};
use crate::database::to_the_end;

const PIPELINE: &str = "pipeline";
const VERSION: &str = "pipeline version";

const PIPELINES: Entity<Pipeline> = Entity {
    name: PIPELINE,
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
    read: read_pipeline,
};

const VERSIONS: Entity<PipelineVersion> = Entity {
    name: VERSION,
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
    read: read_version,
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
            .map_err(|error| Error::inserting(error, PIPELINE, &pipeline.name))?;
            insert_tags(&mut writer, &pipeline.id.to_string(), &pipeline.tags).await?;
            if let Some(version) = &first {
                insert_version(&mut writer, version).await?;
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
        PIPELINES.find(&mut reader, id).await
    }

    /// The pipeline of that name, or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn pipeline_named(&self, namespace: &str, name: &str) -> Result<Option<Pipeline>> {
        let mut reader = self.database.reader().await?;
        let name = vec![Bind::from(namespace), Bind::from(name)];
        PIPELINES
            .first(&mut reader, "namespace = $1 AND name = $2", name)
            .await
    }

    /// Lists the pipelines of a namespace, or of all.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::InvalidValue`] or [`Error::InvalidCursor`].
    pub async fn list_pipelines(&self, namespace: Option<&str>, list: &List) -> Result<Page<Pipeline>> {
        let scope = namespace.map(|namespace| ("namespace", Bind::from(namespace)));
        let mut reader = self.database.reader().await?;
        PIPELINES
            .page(&mut reader, scope.into_iter().collect(), list)
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
                    kind: PIPELINE,
                    id: pipeline,
                    dependents: "versions",
                });
            }
            for (version, digest) in &versions {
                remove_version(&mut writer, version, digest).await?;
            }
            sqlx::query("DELETE FROM tags WHERE owner_id = $1")
                .bind(&pipeline)
                .execute(&mut *writer)
                .await?;
            PIPELINES.delete(&mut writer, id).await?;
            writer.commit().await?;
            Ok(())
        })
        .await
    }

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
            insert_version(&mut writer, &version).await?;
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
        version_of(&mut reader, pipeline_id, id).await
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
        VERSIONS
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
        VERSIONS
            .page(&mut reader, vec![("pipeline_id", Bind::word(pipeline_id))], list)
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
            .ok_or_else(|| Error::not_found(VERSION, id))?;
            remove_version(&mut writer, &version, &digest).await?;
            writer.commit().await?;
            Ok(())
        })
        .await
    }

    /// The document with that digest.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn document(&self, digest: &str) -> Result<Value> {
        let mut reader = self.database.reader().await?;
        let row = sqlx::query("SELECT document FROM pipeline_documents WHERE digest = $1")
            .bind(digest)
            .fetch_optional(&mut *reader)
            .await?
            .ok_or_else(|| Error::not_found("pipeline document", digest))?;
        Fields {
            table: "pipeline_documents",
            row: &row,
        }
        .json("document")
    }
}

async fn version_of(
    connection: &mut SqliteConnection,
    pipeline_id: PipelineId,
    id: PipelineVersionId,
) -> Result<PipelineVersion> {
    let both = "pipeline_versions.id = $1 AND pipeline_versions.pipeline_id = $2";
    VERSIONS
        .first(connection, both, vec![Bind::word(id), Bind::word(pipeline_id)])
        .await?
        .ok_or_else(|| Error::not_found(VERSION, id))
}

/// Keeps a document, unless it is kept already, and returns its digest.
pub(super) async fn keep_document(connection: &mut SqliteConnection, document: &Value) -> Result<String> {
    let digest = digest(document);
    sqlx::query(
        "INSERT INTO pipeline_documents (digest, document) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING",
    )
    .bind(&digest)
    .bind(document.to_string())
    .execute(connection)
    .await?;
    Ok(digest)
}

/// Drops a document that no version, run or recurring run has any more.
pub(super) async fn drop_unused_document(connection: &mut SqliteConnection, digest: &str) -> Result<()> {
    sqlx::query(
        "DELETE FROM pipeline_documents WHERE digest = $1
             AND NOT EXISTS (SELECT 1 FROM runs WHERE document_digest = $1)
             AND NOT EXISTS (SELECT 1 FROM pipeline_versions WHERE document_digest = $1)
             AND NOT EXISTS (SELECT 1 FROM recurring_runs WHERE document_digest = $1)",
    )
    .bind(digest)
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_version(connection: &mut SqliteConnection, version: &PipelineVersion) -> Result<()> {
    let pipeline: Option<i64> = sqlx::query_scalar("SELECT 1 FROM pipelines WHERE id = $1")
        .bind(version.pipeline_id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    if pipeline.is_none() {
        return Err(Error::not_found(PIPELINE, version.pipeline_id));
    }
    let digest = keep_document(connection, &version.document).await?;
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
    .map_err(|error| Error::inserting(error, VERSION, &version.name))?;
    insert_tags(connection, &version.id.to_string(), &version.tags).await
}

async fn remove_version(connection: &mut SqliteConnection, version: &str, digest: &str) -> Result<()> {
    sqlx::query("DELETE FROM tags WHERE owner_id = $1")
        .bind(version)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM pipeline_versions WHERE id = $1")
        .bind(version)
        .execute(&mut *connection)
        .await?;
    drop_unused_document(connection, digest).await
}

async fn insert_tags(
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

/// The same for documents that differ only in the order of their fields.
fn digest(document: &Value) -> String {
    let mut hash = Sha256::new();
    hash_canonical(&mut hash, document);
    format!("sha256:{:x}", hash.finalize())
}

fn hash_canonical(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Object(fields) => {
            hash.update(b"{");
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            for (position, (name, value)) in sorted.into_iter().enumerate() {
                if position > 0 {
                    hash.update(b",");
                }
                hash.update(json(name));
                hash.update(b":");
                hash_canonical(hash, value);
            }
            hash.update(b"}");
        }
        Value::Array(items) => {
            hash.update(b"[");
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    hash.update(b",");
                }
                hash_canonical(hash, item);
            }
            hash.update(b"]");
        }
        scalar => hash.update(scalar.to_string()),
    }
}

fn read_pipeline(fields: &Fields<'_>) -> Result<Pipeline> {
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

fn read_version(fields: &Fields<'_>) -> Result<PipelineVersion> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_digest_depends_on_what_a_document_says_and_not_on_its_order() {
        let one: Value = serde_json::from_str(r#"{"a": [1, {"x": "y", "b": null}], "c": true}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"c": true, "a": [1, {"b": null, "x": "y"}]}"#).unwrap();
        assert_eq!(digest(&one), digest(&other));
        assert_ne!(digest(&json!([1, 2])), digest(&json!([2, 1])));
        // sha256sum of `{"a":"é"}`
        assert_eq!(
            digest(&json!({"a": "é"})),
            format!("sha256:{:x}", Sha256::digest("{\"a\":\"é\"}"))
        );
    }
}
