//! From a due time to a run: the document, the parameters, the row.

use coracle_api::{
    id::RunId,
    ir::{document, validate},
    launch::Failure,
    reason::Reason,
    schedule::Macros,
};
use coracle_store::records::{self, NewRun, PipelineVersion, Records, RecurringRun, ScheduleProgress};
use jiff::Timestamp;
use serde_json::Value;

use super::Due;

/// A due time led to no run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the recurring run says can make no run; waiting changes nothing about it.
    #[error("{0}")]
    Invalid(String),
    /// The store failed, or the recurring run is gone.
    #[error(transparent)]
    Store(#[from] records::Error),
}

impl Error {
    fn of_lookup(error: records::Error, what: &str) -> Self {
        match error {
            records::Error::NotFound { .. } => Self::Invalid(format!("{what} does not exist any more")),
            other => other.into(),
        }
    }
}

/// Makes the run of a due time, and notes that the time was used. False when that run is there
/// already, as after a crash.
///
/// # Errors
///
/// [`Error`]; nothing was written then.
pub async fn run(
    records: &Records,
    recurring: &RecurringRun,
    due: Due,
    now: Timestamp,
) -> Result<bool, Error> {
    let id = RunId::of_schedule(recurring.id, due.time.as_microsecond());
    let (version, document) = source(records, recurring).await?;
    let spec = document::from_value(&document)
        .map_err(|problem| Error::Invalid(format!("its pipeline cannot be used: {problem}")))?
        .spec;
    let macros = Macros {
        run_id: id,
        now,
        scheduled: Some(due.time),
        index: Some(due.index),
    };
    let parameters = macros.expand_parameters(&recurring.parameters);
    validate::check_parameters(&spec, &parameters)
        .map_err(|problem| Error::Invalid(format!("its parameters cannot be used: {problem}")))?;
    let new = NewRun {
        id,
        experiment_id: recurring.experiment_id,
        display_name: format!("{}-{}", recurring.display_name, due.index),
        description: recurring.description.clone(),
        pipeline_id: version.as_ref().map(|version| version.pipeline_id),
        pipeline_version_id: version.map(|version| version.id),
        document,
        parameters,
        pipeline_root: recurring.pipeline_root.clone(),
        service_account: recurring.service_account.clone(),
        recurring_run_id: Some(recurring.id),
        scheduled_at: due.time,
        created_at: now,
    };
    let progress = ScheduleProgress {
        last_due: Some(due.time),
        runs_made: due.index,
        error: None,
    };
    match records.create_scheduled_run(recurring.id, new, progress).await {
        Ok(made) => Ok(made.is_some()),
        Err(records::Error::NotFound {
            kind: "experiment",
            id,
        }) => Err(Error::Invalid(format!(
            "its experiment {id} does not exist any more"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// The version and the document that a run made now is of.
async fn source(
    records: &Records,
    recurring: &RecurringRun,
) -> Result<(Option<PipelineVersion>, Value), Error> {
    let Some(pipeline) = recurring.pipeline_id else {
        let document = recurring
            .document
            .clone()
            .ok_or_else(|| Error::Invalid("it has neither a pipeline nor a document".to_owned()))?;
        return Ok((None, document));
    };
    let version = match recurring.pipeline_version_id {
        Some(version) => records
            .pipeline_version(pipeline, version)
            .await
            .map_err(|error| Error::of_lookup(error, &format!("its pipeline version {version}")))?,
        None => records
            .latest_pipeline_version(pipeline)
            .await
            .map_err(|error| Error::of_lookup(error, &format!("its pipeline {pipeline}")))?
            .ok_or_else(|| Error::Invalid(format!("its pipeline {pipeline} has no version")))?,
    };
    let document = version.document.clone();
    Ok((Some(version), document))
}

/// What is kept and shown about a time that led to no run.
pub(crate) fn failure(message: String) -> Failure {
    Failure {
        reason: Reason::ScheduleInvalid,
        message,
    }
}
