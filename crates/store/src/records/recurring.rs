//! Recurring runs: kept and listed here, made into runs by the scheduler.

use coracle_api::id::{ExperimentId, RecurringRunId};
use sqlx::SqliteConnection;

use super::{
    Change, Error, NewRun, Page, Records, RecurringRun, Result, Run, RunScope, ScheduleProgress, documents,
    entity::{Entity, Kind, field},
    experiments,
    query::List,
    row::{Bind, Fields, Upsert},
    runs,
};
use crate::database::to_the_end;

const KIND: &str = "recurring run";

const ENTITY: Entity<RecurringRun> = Entity {
    name: KIND,
    table: "recurring_runs",
    columns: "recurring_runs.*, pipeline_documents.document",
    join: "LEFT JOIN pipeline_documents ON pipeline_documents.digest = recurring_runs.document_digest",
    fields: &[
        field("recurring_run_id", "id", Kind::Text),
        field("id", "id", Kind::Text),
        field("display_name", "display_name", Kind::Text),
        field("name", "display_name", Kind::Text),
        field("namespace", "namespace", Kind::Text),
        field("experiment_id", "experiment_id", Kind::Text),
        field("pipeline_id", "pipeline_id", Kind::OptionalText),
        field("pipeline_version_id", "pipeline_version_id", Kind::OptionalText),
        field("description", "description", Kind::Text),
        field("service_account", "service_account", Kind::Text),
        field("status", "status", Kind::Text),
        field("created_at", "created_at", Kind::Time),
        field("updated_at", "updated_at", Kind::Time),
    ],
    has_tags: false,
    beside: None,
    read,
};

static ROWS: Upsert = Upsert::new(
    "recurring_runs",
    &["id"],
    &[
        "experiment_id",
        "namespace",
        "display_name",
        "enabled",
        "created_at",
        "updated_at",
        "pipeline_id",
        "pipeline_version_id",
        "document_digest",
        "pipeline_root",
        "service_account",
        "schedule",
        "max_concurrency",
        "no_catchup",
        "last_due",
        "runs_made",
        "error",
        "description",
        "parameters",
    ],
);

impl Records {
    /// Makes a recurring run, in the namespace of its experiment whatever the row says.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such experiment, [`Error::AlreadyExists`] when the id
    /// is taken.
    pub async fn create_recurring_run(&self, mut recurring: RecurringRun) -> Result<RecurringRun> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            let experiment = experiments::experiment(&mut writer, recurring.experiment_id).await?;
            recurring.namespace = experiment.namespace;
            let digest = match &recurring.document {
                Some(document) => Some(documents::keep(&mut writer, document).await?),
                None => None,
            };
            ROWS.insert(&mut writer, row(&recurring, digest))
                .await
                .map_err(|error| Error::inserting(error, KIND, &recurring.id.to_string()))?;
            let kept = ENTITY.find(&mut writer, recurring.id).await?;
            writer.commit().await?;
            records.announce(Change::RecurringRunChanged(kept.id));
            Ok(kept)
        })
        .await
    }

    /// The recurring run.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn recurring_run(&self, id: RecurringRunId) -> Result<RecurringRun> {
        let mut reader = self.database.reader().await?;
        ENTITY.find(&mut reader, id).await
    }

    /// Lists recurring runs. `status` is `ENABLED` or `DISABLED`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::InvalidValue`] or [`Error::InvalidCursor`].
    pub async fn list_recurring_runs(&self, scope: RunScope, list: &List) -> Result<Page<RecurringRun>> {
        let mut reader = self.database.reader().await?;
        ENTITY.page(&mut reader, scope.conditions(), list).await
    }

    /// All that are enabled, oldest first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn recurring_runs(&self) -> Result<Vec<RecurringRun>> {
        let mut reader = self.database.reader().await?;
        ENTITY
            .all(&mut reader, "enabled = 1 ORDER BY created_at, id", Vec::new())
            .await
    }

    /// Enables or disables a recurring run. Its runs go on in either case.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn set_recurring_run_enabled(
        &self,
        id: RecurringRunId,
        enabled: bool,
        now: jiff::Timestamp,
    ) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            let columns = vec![
                ("enabled", Bind::from(i64::from(enabled))),
                ("updated_at", Bind::time(now)),
            ];
            ENTITY.set(&mut writer, id, columns).await?;
            records.announce(Change::RecurringRunChanged(id));
            Ok(())
        })
        .await
    }

    /// Deletes a recurring run. Its runs stay.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn delete_recurring_run(&self, id: RecurringRunId) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            let digest: Option<String> =
                sqlx::query_scalar("DELETE FROM recurring_runs WHERE id = $1 RETURNING document_digest")
                    .bind(id.to_string())
                    .fetch_optional(&mut *writer)
                    .await?
                    .ok_or_else(|| Error::not_found(KIND, id))?;
            if let Some(digest) = digest {
                documents::drop_unused(&mut writer, &digest).await?;
            }
            writer.commit().await?;
            records.announce(Change::RecurringRunChanged(id));
            Ok(())
        })
        .await
    }

    /// Makes a run of a recurring run, and keeps how far that has come, in one transaction. When
    /// a run of that id exists already, the answer is none: only the progress is kept then, so
    /// that a scheduler that draws the id from the due time makes each run once.
    ///
    /// The run carries the recurring run's id, whatever `new` says.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such recurring run, or its experiment is gone; then
    /// nothing is written.
    pub async fn create_scheduled_run(
        &self,
        id: RecurringRunId,
        new: NewRun,
        progress: ScheduleProgress,
    ) -> Result<Option<Run>> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            put_progress(&mut writer, id, &progress).await?;
            let taken: Option<i64> = sqlx::query_scalar("SELECT 1 FROM runs WHERE id = $1")
                .bind(new.id.to_string())
                .fetch_optional(&mut *writer)
                .await?;
            let run = match taken {
                Some(_) => None,
                None => {
                    let recurring_run_id = Some(id);
                    let new = NewRun {
                        recurring_run_id,
                        ..new
                    };
                    Some(runs::make(&mut writer, new).await?)
                }
            };
            writer.commit().await?;
            if let Some(run) = &run {
                records.announce(Change::RunCreated(run.id));
            }
            Ok(run)
        })
        .await
    }

    /// Keeps how far a recurring run has come when no run is made: a due time was given up, or
    /// its run could not be made. The scheduler itself is not told of it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn put_schedule_progress(&self, id: RecurringRunId, progress: ScheduleProgress) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            put_progress(&mut writer, id, &progress).await
        })
        .await
    }

    /// How many runs of a recurring run have not ended. One that was asked to go on counts once
    /// it does.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn unfinished_runs_of(&self, id: RecurringRunId) -> Result<u32> {
        let mut reader = self.database.reader().await?;
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM runs WHERE recurring_run_id = $1
                 AND state IN ('PENDING', 'RUNNING', 'CANCELING', 'PAUSED')",
        )
        .bind(id.to_string())
        .fetch_one(&mut *reader)
        .await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

async fn put_progress(
    connection: &mut SqliteConnection,
    id: RecurringRunId,
    progress: &ScheduleProgress,
) -> Result<()> {
    let columns = vec![
        ("last_due", Bind::optional_time(progress.last_due)),
        ("runs_made", Bind::from(i64::from(progress.runs_made))),
        ("error", Bind::optional_json(progress.error.as_ref())),
    ];
    ENTITY.set(connection, id, columns).await
}

/// Disables the recurring runs of an experiment, and says which were enabled.
pub(super) async fn disable_of(
    connection: &mut SqliteConnection,
    experiment: ExperimentId,
) -> Result<Vec<RecurringRunId>> {
    let rows = sqlx::query(
        "UPDATE recurring_runs SET enabled = 0 WHERE experiment_id = $1 AND enabled = 1 RETURNING id",
    )
    .bind(experiment.to_string())
    .fetch_all(connection)
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

fn row(recurring: &RecurringRun, document_digest: Option<String>) -> Vec<Bind> {
    vec![
        Bind::word(recurring.id),
        Bind::word(recurring.experiment_id),
        Bind::from(&recurring.namespace),
        Bind::from(&recurring.display_name),
        Bind::from(i64::from(recurring.enabled)),
        Bind::time(recurring.created_at),
        Bind::time(recurring.updated_at),
        Bind::optional_word(recurring.pipeline_id),
        Bind::optional_word(recurring.pipeline_version_id),
        Bind::Text(document_digest),
        Bind::from(&recurring.pipeline_root),
        Bind::from(&recurring.service_account),
        Bind::json(&recurring.trigger),
        Bind::from(i64::from(recurring.max_concurrency)),
        Bind::from(i64::from(recurring.no_catchup)),
        Bind::optional_time(recurring.progress.last_due),
        Bind::from(i64::from(recurring.progress.runs_made)),
        Bind::optional_json(recurring.progress.error.as_ref()),
        Bind::from(&recurring.description),
        Bind::json(&recurring.parameters),
    ]
}

fn read(fields: &Fields<'_>) -> Result<RecurringRun> {
    Ok(RecurringRun {
        id: fields.word("id")?,
        experiment_id: fields.word("experiment_id")?,
        namespace: fields.string("namespace")?,
        display_name: fields.string("display_name")?,
        description: fields.string("description")?,
        pipeline_id: fields.optional_word("pipeline_id")?,
        pipeline_version_id: fields.optional_word("pipeline_version_id")?,
        document: fields.optional_json("document")?,
        parameters: fields.json("parameters")?,
        pipeline_root: fields.string("pipeline_root")?,
        service_account: fields.string("service_account")?,
        trigger: fields.json("schedule")?,
        enabled: fields.flag("enabled")?,
        max_concurrency: fields.number("max_concurrency")?,
        no_catchup: fields.flag("no_catchup")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
        progress: ScheduleProgress {
            last_due: fields.optional_time("last_due")?,
            runs_made: fields.number("runs_made")?,
            error: fields.optional_json("error")?,
        },
    })
}
