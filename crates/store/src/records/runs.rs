//! Runs, as the façade makes and lists them. What the engine writes is in `tasks`.

use coracle_api::{
    id::{ExperimentId, RunId},
    launch::Failure,
    state::{RuntimeState, StorageState},
};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{
    Change, Error, NewRun, Page, Records, Result, Run, StateChange, documents,
    entity::{Beside, Entity, Kind, field},
    experiments,
    query::List,
    row::{Bind, Fields, json},
    write::Write,
};
use crate::database::to_the_end;

const KIND: &str = "run";

const ENTITY: Entity<Run> = Entity {
    name: KIND,
    table: "runs",
    columns: "runs.*",
    join: "",
    fields: &[
        field("run_id", "id", Kind::Text),
        field("id", "id", Kind::Text),
        field("display_name", "display_name", Kind::Text).then("created_at"),
        field("name", "display_name", Kind::Text).then("created_at"),
        field("namespace", "namespace", Kind::Text).unsorted(),
        field("experiment_id", "experiment_id", Kind::Text).unsorted(),
        field("pipeline_id", "pipeline_id", Kind::OptionalText).unsorted(),
        field("pipeline_version_id", "pipeline_version_id", Kind::OptionalText).unsorted(),
        field("description", "description", Kind::Text).unsorted(),
        field("service_account", "service_account", Kind::Text).unsorted(),
        field("storage_state", "storage_state", Kind::Text).then("created_at"),
        field("state", "state", Kind::Text).then("created_at"),
        field("status", "state", Kind::Text).then("created_at"),
        field("created_at", "created_at", Kind::Time),
        field("recurring_run_id", "recurring_run_id", Kind::OptionalText).unsorted(),
        field("scheduled_at", "scheduled_at", Kind::Time),
        field("finished_at", "finished_at", Kind::OptionalTime).sorted_as("ended_at"),
    ],
    has_tags: false,
    beside: Some(Beside {
        counts: "run_counts",
        counted: &["namespace", "experiment_id", "storage_state", "state"],
        name_fields: &["display_name", "name"],
        names: "run_names",
        name_parts: "run_name_parts",
    }),
    read,
};

// The condition is that of the index, word for word.
const UNFINISHED: &str = "
    SELECT id, state FROM runs
    WHERE state IN ('PENDING', 'RUNNING', 'CANCELING', 'PAUSED') OR retry_requested = 1
    ORDER BY created_at, id";

// What is said last already is not said again.
const NOTE_WAIT: &str = "
    UPDATE runs SET state_history = json_insert(state_history, '$[#]', json($2))
    WHERE id = $1 AND (state = 'PENDING' OR retry_requested = 1)
        AND (state_history ->> '$[#-1].state' IS NOT 'PENDING' OR state_history -> '$[#-1].error' IS NULL)";

/// Which runs, or recurring runs, to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunScope {
    /// Those of a namespace.
    Namespace(String),
    /// Those of an experiment.
    Experiment(ExperimentId),
    /// All.
    All,
}

impl RunScope {
    /// What must hold of the rows.
    pub(super) fn conditions(self) -> Vec<(&'static str, Bind)> {
        match self {
            Self::Namespace(namespace) => vec![("namespace = ?", Bind::Text(Some(namespace)))],
            Self::Experiment(id) => vec![("experiment_id = ?", Bind::word(id))],
            Self::All => Vec::new(),
        }
    }
}

impl Records {
    /// Makes a run in state PENDING, in the namespace of its experiment.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such experiment, [`Error::AlreadyExists`] when the id
    /// is taken.
    pub async fn create_run(&self, new: NewRun) -> Result<Run> {
        self.write(new).await
    }

    /// The run.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn run(&self, id: RunId) -> Result<Run> {
        let mut reader = self.database.reader().await?;
        ENTITY.find(&mut reader, id).await
    }

    /// The runs with these ids that exist, in no order.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn runs_by_ids(&self, ids: &[RunId]) -> Result<Vec<Run>> {
        let mut reader = self.database.reader().await?;
        ENTITY.with_ids(&mut reader, ids).await
    }

    /// Lists runs.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::InvalidValue`] or [`Error::InvalidCursor`].
    pub async fn list_runs(&self, scope: RunScope, list: &List) -> Result<Page<Run>> {
        let mut reader = self.database.reader().await?;
        ENTITY.page(&mut reader, scope.conditions(), list).await
    }

    /// Runs that have not ended, and runs that ended and are asked to go on, oldest first, with where they stand.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn unfinished_runs(&self) -> Result<Vec<(RunId, RuntimeState)>> {
        let mut reader = self.database.reader().await?;
        let rows = sqlx::query(UNFINISHED).fetch_all(&mut *reader).await?;
        let read = |row| {
            let fields = Fields {
                table: ENTITY.table,
                row,
            };
            Ok((fields.word("id")?, fields.word("state")?))
        };
        rows.iter().map(read).collect()
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
            let storage_state = vec![("storage_state", Bind::word(state))];
            ENTITY.set(&mut writer, id, storage_state).await
        })
        .await
    }

    /// Says why a run that is to begin has to wait. Saying it again, or of a run that has begun or is gone, changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn note_wait(&self, id: RunId, since: Timestamp, why: Failure) -> Result<()> {
        self.write(Wait { id, since, why }).await
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
            let requested = vec![("termination_requested", Bind::from(1))];
            ENTITY.set(&mut writer, id, requested).await?;
            records.announce(Change::TerminationRequested(id));
            Ok(())
        })
        .await
    }

    /// Asks a run that ended to go on from what succeeded. Asking again tells the engine again.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or [`Error::NotEnded`] when the run has not ended.
    pub async fn request_retry(&self, id: RunId) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            let run = ENTITY.find(&mut writer, id).await?;
            if !run.state.is_terminal() {
                return Err(Error::NotEnded { id: id.to_string() });
            }
            let requested = vec![("retry_requested", Bind::from(1))];
            ENTITY.set(&mut writer, id, requested).await?;
            writer.commit().await?;
            records.announce(Change::RetryRequested(id));
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
            documents::drop_unused(&mut writer, &digest).await?;
            writer.commit().await?;
            records.announce(Change::RunDeleted(id));
            Ok(())
        })
        .await
    }
}

impl Write for NewRun {
    type Answer = Run;

    async fn write(&self, connection: &mut SqliteConnection) -> Result<(Run, Option<Change>)> {
        let run = make(connection, self.clone()).await?;
        let created = Change::RunCreated(run.id);
        Ok((run, Some(created)))
    }
}

/// Archives the runs of an experiment.
pub(super) async fn archive_of(connection: &mut SqliteConnection, experiment: ExperimentId) -> Result<()> {
    sqlx::query("UPDATE runs SET storage_state = $2 WHERE experiment_id = $1 AND storage_state <> $2")
        .bind(experiment.to_string())
        .bind(StorageState::Archived.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes a run in a transaction of the caller's.
pub(super) async fn make(connection: &mut SqliteConnection, new: NewRun) -> Result<Run> {
    let experiment = experiments::experiment(&mut *connection, new.experiment_id).await?;
    let document_digest = documents::keep(&mut *connection, &new.document).await?;
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
        retry_requested: false,
        recurring_run_id: new.recurring_run_id,
        created_at,
        scheduled_at: to_micros(new.scheduled_at),
        finished_at: None,
    };
    insert(&mut *connection, &run).await?;
    sqlx::query(
        "UPDATE experiments SET last_run_created_at = $2
         WHERE id = $1 AND (last_run_created_at IS NULL OR last_run_created_at < $2)",
    )
    .bind(run.experiment_id.to_string())
    .bind(created_at.as_microsecond())
    .execute(connection)
    .await?;
    Ok(run)
}

/// Why a run has to wait.
struct Wait {
    id: RunId,
    since: Timestamp,
    why: Failure,
}

impl Write for Wait {
    type Answer = ();

    async fn write(&self, connection: &mut SqliteConnection) -> Result<((), Option<Change>)> {
        let waits = StateChange {
            time: to_micros(self.since),
            state: RuntimeState::Pending,
            error: Some(self.why.clone()),
        };
        let noted = sqlx::query(NOTE_WAIT)
            .bind(self.id.to_string())
            .bind(json(&waits))
            .execute(connection)
            .await?;
        let change = (noted.rows_affected() > 0).then_some(Change::RunChanged(self.id));
        Ok(((), change))
    }
}

async fn insert(connection: &mut SqliteConnection, run: &Run) -> Result<()> {
    sqlx::query(
        "INSERT INTO runs
             (id, experiment_id, namespace, display_name, storage_state, state,
              termination_requested, created_at, scheduled_at, finished_at, pipeline_id,
              pipeline_version_id, document_digest, pipeline_root, service_account, description,
              parameters, error, state_history, retry_requested, recurring_run_id, ended_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                 $20, $21, COALESCE($10, 0))",
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
    .bind(i64::from(run.retry_requested))
    .bind(run.recurring_run_id.map(|id| id.to_string()))
    .execute(connection)
    .await
    .map_err(|error| Error::inserting(error, KIND, &run.id.to_string()))?;
    Ok(())
}

/// What a time is once it was written and read.
pub(super) fn to_micros(time: Timestamp) -> Timestamp {
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
        termination_requested: fields.flag("termination_requested")?,
        retry_requested: fields.flag("retry_requested")?,
        recurring_run_id: fields.optional_word("recurring_run_id")?,
        created_at: fields.time("created_at")?,
        scheduled_at: fields.time("scheduled_at")?,
        finished_at: fields.optional_time("finished_at")?,
    })
}

#[cfg(test)]
mod tests;
