//! The documents that versions, runs and recurring runs share, each kept once.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::SqliteConnection;

use super::{
    Error, Records, Result,
    row::{Fields, json},
};

impl Records {
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

/// Keeps a document, unless it is kept already, and returns its digest.
pub(super) async fn keep(connection: &mut SqliteConnection, document: &Value) -> Result<String> {
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
pub(super) async fn drop_unused(connection: &mut SqliteConnection, digest: &str) -> Result<()> {
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
