//! What a retention policy decides over, and the deletion of what it lets go. The files themselves
//! are deleted by the caller.
//!
//! The order that leaves no reference to a file that is gone: take the artifacts out of the cache
//! ([`Records::forget_cached`]), ask once more which ones nothing else uses
//! ([`Records::artifacts_only_of`]), delete the files, then the rows
//! ([`Records::delete_artifacts`], [`Records::delete_run`]). Whatever fails between two steps, all
//! of it can be done again.

use coracle_api::{
    id::{ArtifactId, ExperimentId, RunId},
    state::{RuntimeState, StorageState},
};
use jiff::Timestamp;

use super::{
    Artifact, Records, Result,
    artifacts::{ARTIFACT, read},
    cache,
    entity::Entity,
    row::{Bind, Fields, LOOKED_UP, bound, json, places},
};
use crate::database::to_the_end;

/// A run that ended, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Its id.
    pub id: RunId,
    /// The experiment it belongs to.
    pub experiment_id: ExperimentId,
    /// The namespace that owns it.
    pub namespace: String,
    /// How it ended.
    pub state: RuntimeState,
    /// Whether it is shown.
    pub storage_state: StorageState,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Artifacts that its tasks made or took over from the cache.
    pub artifacts: u64,
    /// The bytes of these, as far as they are known. One that several runs share counts in each.
    pub bytes: u64,
}

/// An artifact that may go.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredArtifact {
    /// The artifact.
    pub artifact: Artifact,
    /// Whether an entry of the cache hands it out: a later run may take it over.
    pub is_cached: bool,
}

const RUN: Entity<StoredRun> = Entity::unlisted(
    "run",
    "runs",
    "runs.id, runs.experiment_id, runs.namespace, runs.state, runs.storage_state,
     COALESCE(runs.finished_at, runs.created_at) AS stopped_at,
     (SELECT COUNT(DISTINCT artifact_id) FROM artifact_tasks
      WHERE run_id = runs.id AND io IN ('OUTPUT', 'EXECUTOR_LOG')) AS artifacts,
     (SELECT COALESCE(SUM(size), 0) FROM artifacts WHERE artifacts.id IN (
          SELECT artifact_id FROM artifact_tasks
          WHERE run_id = runs.id AND io IN ('OUTPUT', 'EXECUTOR_LOG'))) AS bytes",
    read_run,
);

const ARTIFACTS: Entity<StoredArtifact> = Entity::unlisted(
    ARTIFACT.name,
    "artifacts",
    "artifacts.*,
     EXISTS (SELECT 1 FROM cache_artifacts WHERE artifact_id = artifacts.id) AS is_cached",
    read_artifact,
);

impl Records {
    /// The runs of a namespace, or of all, that ended and are not asked to go on, those that ended
    /// first first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn stored_runs(&self, namespace: Option<&str>) -> Result<Vec<StoredRun>> {
        let mut reader = self.database.reader().await?;
        let ended = "state IN ('SUCCEEDED', 'SKIPPED', 'FAILED', 'CANCELED')
             AND retry_requested = 0 AND ($1 IS NULL OR namespace = $1)
             ORDER BY stopped_at, runs.id";
        let namespace = Bind::Text(namespace.map(str::to_owned));
        RUN.all(&mut reader, ended, vec![namespace]).await
    }

    /// The artifacts that these runs met and no other run did, oldest first. Those that only one
    /// of the runs consumed and that were imported are among them; whose files Coracle may delete
    /// is for the caller to say.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifacts_only_of(&self, runs: &[RunId]) -> Result<Vec<StoredArtifact>> {
        let mut reader = self.database.reader().await?;
        // As one value, for there may be more runs than a statement has places.
        let runs: Vec<_> = runs.iter().map(ToString::to_string).collect();
        let only = "artifacts.id IN (
                 SELECT artifact_id FROM artifact_tasks WHERE run_id IN (SELECT value FROM json_each($1)))
             AND NOT EXISTS (
                 SELECT 1 FROM artifact_tasks WHERE artifact_id = artifacts.id
                     AND run_id NOT IN (SELECT value FROM json_each($1)))
             ORDER BY created_at, artifacts.id";
        ARTIFACTS
            .all(&mut reader, only, vec![Bind::Text(Some(json(&runs)))])
            .await
    }

    /// The artifacts recorded before `older_than` that no run has met, or none that exists still,
    /// oldest first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn artifacts_without_runs(
        &self,
        namespace: Option<&str>,
        older_than: Timestamp,
    ) -> Result<Vec<StoredArtifact>> {
        let mut reader = self.database.reader().await?;
        let without = "NOT EXISTS (SELECT 1 FROM artifact_tasks WHERE artifact_id = artifacts.id)
             AND created_at < $1 AND ($2 IS NULL OR namespace = $2)
             ORDER BY created_at, artifacts.id";
        let binds = vec![Bind::time(older_than), Bind::Text(namespace.map(str::to_owned))];
        ARTIFACTS.all(&mut reader, without, binds).await
    }

    /// Deletes the cache entries that hand out any of these artifacts, so that no run takes them
    /// over from now on.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn forget_cached(&self, artifacts: &[ArtifactId]) -> Result<()> {
        let records = self.clone();
        let artifacts = artifacts.to_vec();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            for ids in artifacts.chunks(LOOKED_UP) {
                cache::forget_artifacts(&mut writer, ids).await?;
            }
            writer.commit().await?;
            Ok(())
        })
        .await
    }

    /// Deletes artifacts with their links to tasks and the cache entries that hand them out, and
    /// returns how many artifacts there were.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn delete_artifacts(&self, artifacts: &[ArtifactId]) -> Result<u64> {
        let records = self.clone();
        let artifacts = artifacts.to_vec();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            let mut deleted = 0;
            for ids in artifacts.chunks(LOOKED_UP) {
                cache::forget_artifacts(&mut writer, ids).await?;
                let places = places(ids.len());
                let binds: Vec<_> = ids.iter().map(Bind::word).collect();
                let links = format!("DELETE FROM artifact_tasks WHERE artifact_id IN ({places})");
                bound(links, binds.clone()).execute(&mut *writer).await?;
                let rows = format!("DELETE FROM artifacts WHERE id IN ({places})");
                deleted += bound(rows, binds).execute(&mut *writer).await?.rows_affected();
            }
            writer.commit().await?;
            Ok(deleted)
        })
        .await
    }
}

fn read_run(fields: &Fields<'_>) -> Result<StoredRun> {
    Ok(StoredRun {
        id: fields.word("id")?,
        experiment_id: fields.word("experiment_id")?,
        namespace: fields.string("namespace")?,
        state: fields.word("state")?,
        storage_state: fields.word("storage_state")?,
        finished_at: fields.time("stopped_at")?,
        artifacts: fields.number("artifacts")?,
        bytes: fields.number("bytes")?,
    })
}

fn read_artifact(fields: &Fields<'_>) -> Result<StoredArtifact> {
    Ok(StoredArtifact {
        artifact: read(fields)?,
        is_cached: fields.flag("is_cached")?,
    })
}
