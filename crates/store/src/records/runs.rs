//! Runs, as the façade makes and lists them. What the engine writes is in `tasks`.

use coracle_api::{
    id::{ExperimentId, RunId},
    state::{RuntimeState, StorageState},
};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{
    Change, Error, NewRun, Page, Records, Result, Run, StateChange, experiments, pipelines,
    query::{Entity, Kind, List, field},
    row::{Bind, Fields, json},
};
use crate::database::to_the_end;

const KIND: &str = "run";

const ENTITY: Entity<Run> = Entity {
    name: KIND,
    table: "runs",
    select: "SELECT runs.*, {key} AS sort_key FROM runs",
    fields: &[
        field("run_id", "id", Kind::Text),
        field("id", "id", Kind::Text),
        field("display_name", "display_name", Kind::Text),
        field("name", "display_name", Kind::Text),
        field("namespace", "namespace", Kind::Text),
        field("experiment_id", "experiment_id", Kind::Text),
        field("pipeline_id", "pipeline_id", Kind::OptionalText),
        field("pipeline_version_id", "pipeline_version_id", Kind::OptionalText),
        field("description", "description", Kind::Text),
        field("service_account", "service_account", Kind::Text),
        field("storage_state", "storage_state", Kind::StorageState),
        field("state", "state", Kind::Text),
        field("status", "state", Kind::Text),
        field("created_at", "created_at", Kind::Time),
        field("scheduled_at", "scheduled_at", Kind::Time),
        field("finished_at", "finished_at", Kind::OptionalTime),
    ],
    has_tags: false,
    read,
};

/// Which runs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunScope {
    /// Those of a namespace.
    Namespace(String),
    /// Those of an experiment.
    Experiment(ExperimentId),
    /// All.
    All,
}

impl Records {
    /// Makes a run in state PENDING, in the namespace of its experiment.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such experiment, [`Error::AlreadyExists`] when the id
    /// is taken.
    pub async fn create_run(&self, new: NewRun) -> Result<Run> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            let experiment = experiments::experiment(&mut writer, new.experiment_id).await?;
            let document_digest = pipelines::keep_document(&mut writer, &new.document).await?;
            let created_at = to_micros(new.created_at);
            let run = Run {
                id: new.id,
                experiment_id: new.experiment_id,
                namespace: experiment.namespace,
                display_name: new.display_name,
                description: new.description,
                storage_state: StorageState::Available,
                pipeline_id: new.pipeline_id,
                pipeline_version_id: new.pipeline_version_id,
                document_digest,
                parameters: new.parameters,
                pipeline_root: new.pipeline_root,
                service_account: new.service_account,
                state: RuntimeState::Pending,
                error: None,
                state_history: vec![StateChange {
                    time: created_at,
                    state: RuntimeState::Pending,
                    error: None,
                }],
                termination_requested: false,
                created_at,
                scheduled_at: created_at,
                finished_at: None,
            };
            insert(&mut writer, &run).await?;
            sqlx::query(
                "UPDATE experiments SET last_run_created_at = $2
                 WHERE id = $1 AND (last_run_created_at IS NULL OR last_run_created_at < $2)",
            )
            .bind(run.experiment_id.to_string())
            .bind(created_at.as_microsecond())
            .execute(&mut *writer)
            .await?;
            writer.commit().await?;
            records.announce(Change::RunCreated(run.id));
            Ok(run)
        })
        .await
    }

    /// The run.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn run(&self, id: RunId) -> Result<Run> {
        let mut reader = self.database.reader().await?;
        let row = sqlx::query("SELECT * FROM runs WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *reader)
            .await?
            .ok_or_else(|| Error::not_found(KIND, id))?;
        read(&Fields {
            table: ENTITY.table,
            row: &row,
        })
    }

    /// Lists runs.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::InvalidValue`] or [`Error::InvalidCursor`].
    pub async fn list_runs(&self, scope: RunScope, list: &List) -> Result<Page<Run>> {
        let scope = match scope {
            RunScope::Namespace(namespace) => vec![("namespace", Bind::Text(Some(namespace)))],
            RunScope::Experiment(id) => vec![("experiment_id", Bind::word(id))],
            RunScope::All => Vec::new(),
        };
        let mut reader = self.database.reader().await?;
        ENTITY.page(&mut reader, scope, list).await
    }

    /// Runs that have not ended, oldest first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn unfinished_runs(&self) -> Result<Vec<RunId>> {
        let mut reader = self.database.reader().await?;
        // The condition is that of the index, word for word.
        let rows = sqlx::query(
            "SELECT id FROM runs WHERE state IN ('PENDING', 'RUNNING', 'CANCELING', 'PAUSED')
             ORDER BY created_at, id",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter()
            .map(|row| {
                Fields {
                    table: ENTITY.table,
                    row,
                }
                .word("id")
            })
            .collect()
    }

    /// Shows or archives a run.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn set_run_storage_state(&self, id: RunId, state: StorageState) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            let done = sqlx::query("UPDATE runs SET storage_state = $2 WHERE id = $1")
                .bind(id.to_string())
                .bind(state.to_string())
                .execute(&mut *writer)
                .await?;
            if done.rows_affected() == 0 {
                Err(Error::not_found(KIND, id))
            } else {
                Ok(())
            }
        })
        .await
    }

    /// Asks a run to stop. The engine decides what that means for a run in its state. Asking
    /// again tells the engine again.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn request_termination(&self, id: RunId) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            let done = sqlx::query("UPDATE runs SET termination_requested = 1 WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut *writer)
                .await?;
            if done.rows_affected() == 0 {
                return Err(Error::not_found(KIND, id));
            }
            records.announce(Change::TerminationRequested(id));
            Ok(())
        })
        .await
    }

    /// Deletes a run with its tasks, attempts, events, reports and links to artifacts. The
    /// artifacts stay.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn delete_run(&self, id: RunId) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            // What belongs to the run is deleted by its foreign keys.
            let digest: String =
                sqlx::query_scalar("DELETE FROM runs WHERE id = $1 RETURNING document_digest")
                    .bind(id.to_string())
                    .fetch_optional(&mut *writer)
                    .await?
                    .ok_or_else(|| Error::not_found(KIND, id))?;
            pipelines::drop_unused_document(&mut writer, &digest).await?;
            writer.commit().await?;
            records.announce(Change::RunDeleted(id));
            Ok(())
        })
        .await
    }
}

async fn insert(connection: &mut SqliteConnection, run: &Run) -> Result<()> {
    sqlx::query(
        "INSERT INTO runs
             (id, experiment_id, namespace, display_name, storage_state, state,
              termination_requested, created_at, scheduled_at, finished_at, pipeline_id,
              pipeline_version_id, document_digest, pipeline_root, service_account, description,
              parameters, error, state_history)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
    )
    .bind(run.id.to_string())
    .bind(run.experiment_id.to_string())
    .bind(&run.namespace)
    .bind(&run.display_name)
    .bind(run.storage_state.to_string())
    .bind(run.state.to_string())
    .bind(i64::from(run.termination_requested))
    .bind(run.created_at.as_microsecond())
    .bind(run.scheduled_at.as_microsecond())
    .bind(run.finished_at.map(Timestamp::as_microsecond))
    .bind(run.pipeline_id.map(|id| id.to_string()))
    .bind(run.pipeline_version_id.map(|id| id.to_string()))
    .bind(&run.document_digest)
    .bind(&run.pipeline_root)
    .bind(&run.service_account)
    .bind(&run.description)
    .bind(json(&run.parameters))
    .bind(run.error.as_ref().map(json))
    .bind(json(&run.state_history))
    .execute(connection)
    .await
    .map_err(|error| Error::inserting(error, KIND, &run.id.to_string()))?;
    Ok(())
}

/// What a time is once it was written and read.
fn to_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

fn read(fields: &Fields<'_>) -> Result<Run> {
    Ok(Run {
        id: fields.word("id")?,
        experiment_id: fields.word("experiment_id")?,
        namespace: fields.string("namespace")?,
        display_name: fields.string("display_name")?,
        description: fields.string("description")?,
        storage_state: fields.word("storage_state")?,
        pipeline_id: fields.optional_word("pipeline_id")?,
        pipeline_version_id: fields.optional_word("pipeline_version_id")?,
        document_digest: fields.string("document_digest")?,
        parameters: fields.json("parameters")?,
        pipeline_root: fields.string("pipeline_root")?,
        service_account: fields.string("service_account")?,
        state: fields.word("state")?,
        error: fields.optional_json("error")?,
        state_history: fields.json("state_history")?,
        termination_requested: fields.int("termination_requested")? != 0,
        created_at: fields.time("created_at")?,
        scheduled_at: fields.time("scheduled_at")?,
        finished_at: fields.optional_time("finished_at")?,
    })
}
