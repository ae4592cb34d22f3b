//! Experiments.

use coracle_api::{id::ExperimentId, state::StorageState};
use sqlx::SqliteConnection;

use super::{
    Change, Error, Experiment, Page, Records, Result,
    entity::{Entity, Kind, field},
    query::List,
    recurring,
    row::{Bind, Fields},
    runs,
};
use crate::database::to_the_end;

const KIND: &str = "experiment";

const ENTITY: Entity<Experiment> = Entity {
    name: KIND,
    table: "experiments",
    columns: "experiments.*",
    join: "",
    fields: &[
        field("experiment_id", "id", Kind::Text),
        field("id", "id", Kind::Text),
        field("display_name", "name", Kind::Text),
        field("name", "name", Kind::Text),
        field("namespace", "namespace", Kind::Text),
        field("description", "description", Kind::Text),
        field("storage_state", "storage_state", Kind::Text),
        field("created_at", "created_at", Kind::Time),
        field("last_run_created_at", "last_run_created_at", Kind::OptionalTime),
    ],
    has_tags: false,
    beside: None,
    read,
};

impl Records {
    /// Makes an experiment.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] when the namespace has one of that name.
    pub async fn create_experiment(&self, experiment: Experiment) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            sqlx::query(
                "INSERT INTO experiments
                     (id, namespace, name, storage_state, created_at, last_run_created_at, description)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(experiment.id.to_string())
            .bind(&experiment.namespace)
            .bind(&experiment.name)
            .bind(experiment.storage_state.to_string())
            .bind(experiment.created_at.as_microsecond())
            .bind(
                experiment
                    .last_run_created_at
                    .map(jiff::Timestamp::as_microsecond),
            )
            .bind(&experiment.description)
            .execute(&mut *writer)
            .await
            .map_err(|error| Error::inserting(error, KIND, &experiment.name))?;
            Ok(())
        })
        .await
    }

    /// The experiment.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn experiment(&self, id: ExperimentId) -> Result<Experiment> {
        let mut reader = self.database.reader().await?;
        ENTITY.find(&mut reader, id).await
    }

    /// The experiment of that name, or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn experiment_named(&self, namespace: &str, name: &str) -> Result<Option<Experiment>> {
        let mut reader = self.database.reader().await?;
        let name = vec![Bind::from(namespace), Bind::from(name)];
        ENTITY
            .first(&mut reader, "namespace = $1 AND name = $2", name)
            .await
    }

    /// Lists the experiments of a namespace, or of all.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::InvalidValue`] or [`Error::InvalidCursor`].
    pub async fn list_experiments(&self, namespace: Option<&str>, list: &List) -> Result<Page<Experiment>> {
        let scope = namespace.map(|namespace| ("namespace = ?", Bind::from(namespace)));
        let mut reader = self.database.reader().await?;
        ENTITY.page(&mut reader, scope.into_iter().collect(), list).await
    }

    /// Shows or archives an experiment. Archiving it archives its runs and disables its recurring
    /// runs; showing it again leaves these as they are, as in KFP.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn set_experiment_storage_state(&self, id: ExperimentId, state: StorageState) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            writer.begin().await?;
            let storage_state = vec![("storage_state", Bind::word(state))];
            ENTITY.set(&mut writer, id, storage_state).await?;
            let mut disabled = Vec::new();
            if state == StorageState::Archived {
                runs::archive_of(&mut writer, id).await?;
                disabled = recurring::disable_of(&mut writer, id).await?;
            }
            writer.commit().await?;
            for id in disabled {
                records.announce(Change::RecurringRunChanged(id));
            }
            Ok(())
        })
        .await
    }

    /// Deletes an experiment. Its runs and recurring runs stay, as in KFP.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn delete_experiment(&self, id: ExperimentId) -> Result<()> {
        let records = self.clone();
        to_the_end(async move {
            let mut writer = records.database.writer().await?;
            ENTITY.delete(&mut writer, id).await
        })
        .await
    }
}

pub(super) async fn experiment(connection: &mut SqliteConnection, id: ExperimentId) -> Result<Experiment> {
    ENTITY.find(connection, id).await
}

fn read(fields: &Fields<'_>) -> Result<Experiment> {
    Ok(Experiment {
        id: fields.word("id")?,
        namespace: fields.string("namespace")?,
        name: fields.string("name")?,
        description: fields.string("description")?,
        storage_state: fields.word("storage_state")?,
        created_at: fields.time("created_at")?,
        last_run_created_at: fields.optional_time("last_run_created_at")?,
    })
}
