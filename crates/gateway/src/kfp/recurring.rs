//! Recurring runs: made, shown, listed, switched and deleted here; made into runs by the scheduler.

use std::sync::Arc;

use axum::{Json, extract::State};
use coracle_api::{
    id::RecurringRunId,
    ir::document::{self, Document},
    reason::Reason,
    schedule::Cron,
};
use coracle_store::records::{self, Schedule, ScheduleProgress};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Options,
    error::{Error, status_of},
    extract::{Body, Ids, Params},
    name::{RECURRING_RUN_NAME, checked},
    page::ListParams,
    runs::ExperimentParam,
    source::{self, Source},
    wire::{
        CronSchedule, Empty, Int64, Mode, PeriodicSchedule, PipelineVersionReference, RecurringRun,
        RecurringRunStatus, RuntimeConfig, Time, Trigger, list as list_of, text,
    },
};

/// The most runs of one recurring run at once, as in KFP.
const MOST_AT_ONCE: i64 = 10;
/// The longest interval, in seconds: a hundred years.
const LONGEST_INTERVAL: i64 = 100 * 366 * 24 * 3600;

/// One page of recurring runs.
#[derive(Serialize, ToSchema)]
pub(super) struct ListRecurringRunsResponse {
    /// The page. The only list of KFP's whose name is in camelCase.
    #[serde(rename = "recurringRuns", skip_serializing_if = "Vec::is_empty")]
    recurring_runs: Vec<RecurringRun>,
    /// How many there are in all.
    total_size: i64,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// How a recurring run is deleted.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteParams {
    /// What becomes of its runs, in KFP. Here they stay, and those at work go on, whatever it says:
    /// `DELETE_PROPAGATION_POLICY_UNSPECIFIED`, `FOREGROUND`, `BACKGROUND` or `ORPHAN`.
    #[serde(alias = "propagationPolicy")]
    propagation_policy: String,
}

impl From<records::RecurringRun> for RecurringRun {
    /// Without the inline pipeline.
    fn from(row: records::RecurringRun) -> Self {
        let records::Trigger { schedule, start, end } = row.trigger;
        let (start_time, end_time) = (start.map(Time), end.map(Time));
        let trigger = match schedule {
            Schedule::Cron(cron) => Trigger {
                cron_schedule: Some(CronSchedule {
                    start_time,
                    end_time,
                    cron: Some(cron),
                }),
                periodic_schedule: None,
            },
            Schedule::Every(seconds) => Trigger {
                cron_schedule: None,
                periodic_schedule: Some(PeriodicSchedule {
                    start_time,
                    end_time,
                    interval_second: Some(Int64(i64::try_from(seconds).unwrap_or(i64::MAX))),
                }),
            },
        };
        Self {
            recurring_run_id: Some(row.id.to_string()),
            display_name: text(&row.display_name),
            description: text(&row.description),
            pipeline_version_reference: row.pipeline_id.map(|id| PipelineVersionReference {
                pipeline_id: Some(id.to_string()),
                pipeline_version_id: row.pipeline_version_id.map(|id| id.to_string()),
            }),
            runtime_config: Some(RuntimeConfig {
                parameters: (!row.parameters.is_empty()).then_some(row.parameters),
                pipeline_root: text(&row.pipeline_root),
            }),
            service_account: text(&row.service_account),
            max_concurrency: Some(Int64(row.max_concurrency.into())),
            trigger: Some(trigger),
            mode: Some(if row.enabled { Mode::Enable } else { Mode::Disable }),
            created_at: Some(Time(row.created_at)),
            updated_at: Some(Time(row.updated_at)),
            status: Some(if row.enabled {
                RecurringRunStatus::Enabled
            } else {
                RecurringRunStatus::Disabled
            }),
            error: row.progress.error.as_ref().map(status_of),
            no_catchup: row.no_catchup.then_some(true),
            experiment_id: Some(row.experiment_id.to_string()),
            ..Self::default()
        }
    }
}

/// Makes a recurring run.
#[utoipa::path(post, path = "/recurringruns", tag = "recurring runs", params(ExperimentParam),
    request_body = RecurringRun, responses((status = 200, body = RecurringRun)))]
pub(super) async fn create(
    State(options): State<Arc<Options>>,
    Params(params): Params<ExperimentParam>,
    Body(body): Body<RecurringRun>,
) -> Result<Json<RecurringRun>, Error> {
    let display_name = checked("recurring run", RECURRING_RUN_NAME, body.display_name)?;
    let trigger = trigger(body.trigger)?;
    let max_concurrency = max_concurrency(body.max_concurrency)?;
    let source = Source::find(
        &options,
        body.pipeline_version_reference,
        body.pipeline_version_id,
        body.pipeline_spec,
    )
    .await?;
    let (parameters, pipeline_root) = source::config(&options, &source.document, body.runtime_config).await?;
    // Last, for it may make the experiment `Default`.
    let named = body.experiment_id.unwrap_or_default();
    let experiment = source::experiment(&options, &[&named, &params.experiment_id]).await?;
    let now = (options.clock)();
    let Document { value, warnings, .. } = source.document;
    let row = options
        .records
        .create_recurring_run(records::RecurringRun {
            id: RecurringRunId::new(),
            experiment_id: experiment.id,
            namespace: options.namespace.clone(),
            display_name,
            description: body.description.unwrap_or_default(),
            pipeline_id: source.uploaded.map(|uploaded| uploaded.pipeline),
            pipeline_version_id: source
                .uploaded
                .filter(|uploaded| uploaded.is_named)
                .map(|uploaded| uploaded.version),
            document: source.uploaded.is_none().then_some(value),
            parameters,
            pipeline_root,
            service_account: body.service_account.unwrap_or_default(),
            trigger,
            enabled: body.mode != Some(Mode::Disable),
            max_concurrency,
            no_catchup: body.no_catchup.unwrap_or_default(),
            created_at: now,
            updated_at: now,
            progress: ScheduleProgress::default(),
        })
        .await?;
    Ok(Json(RecurringRun {
        warnings: list_of(warnings),
        ..whole(row)
    }))
}

/// Shows a recurring run.
#[utoipa::path(get, path = "/recurringruns/{recurring_run_id}", tag = "recurring runs",
    params(("recurring_run_id" = String, Path)), responses((status = 200, body = RecurringRun)))]
pub(super) async fn get(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RecurringRunId>,
) -> Result<Json<RecurringRun>, Error> {
    Ok(Json(whole(options.records.recurring_run(id).await?)))
}

/// Lists recurring runs, without their inline pipelines.
#[utoipa::path(get, path = "/recurringruns", tag = "recurring runs", params(ListParams, ExperimentParam),
    responses((status = 200, body = ListRecurringRunsResponse)))]
pub(super) async fn list(
    State(options): State<Arc<Options>>,
    Params(params): Params<ListParams>,
    Params(of): Params<ExperimentParam>,
) -> Result<Json<ListRecurringRunsResponse>, Error> {
    let query = params.read()?;
    let scope = of.scope(&options).await?;
    let page = options.records.list_recurring_runs(scope, &query.list).await?;
    Ok(Json(ListRecurringRunsResponse {
        next_page_token: query.next_token(&page),
        total_size: page.total,
        recurring_runs: page.items.into_iter().map(RecurringRun::from).collect(),
    }))
}

/// Lets a recurring run make runs.
#[utoipa::path(post, path = "/recurringruns/{recurring_run_id}/:enable", tag = "recurring runs",
    params(("recurring_run_id" = String, Path)), responses((status = 200, body = Empty)))]
pub(super) async fn enable(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RecurringRunId>,
) -> Result<Json<Empty>, Error> {
    let row = options.records.recurring_run(id).await?;
    source::experiment(&options, &[&row.experiment_id.to_string()]).await?;
    let now = (options.clock)();
    options.records.set_recurring_run_enabled(id, true, now).await?;
    Ok(Json(Empty {}))
}

/// Lets a recurring run make no more runs, until it is enabled. Its runs go on.
#[utoipa::path(post, path = "/recurringruns/{recurring_run_id}/:disable", tag = "recurring runs",
    params(("recurring_run_id" = String, Path)), responses((status = 200, body = Empty)))]
pub(super) async fn disable(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RecurringRunId>,
) -> Result<Json<Empty>, Error> {
    let now = (options.clock)();
    options.records.set_recurring_run_enabled(id, false, now).await?;
    Ok(Json(Empty {}))
}

/// Deletes a recurring run. Its runs stay, and those at work go on.
#[utoipa::path(delete, path = "/recurringruns/{recurring_run_id}", tag = "recurring runs",
    params(("recurring_run_id" = String, Path), DeleteParams), responses((status = 200, body = Empty)))]
pub(super) async fn delete(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<RecurringRunId>,
    Params(params): Params<DeleteParams>,
) -> Result<Json<Empty>, Error> {
    let policy = params.propagation_policy;
    let known = [
        "",
        "DELETE_PROPAGATION_POLICY_UNSPECIFIED",
        "FOREGROUND",
        "BACKGROUND",
        "ORPHAN",
    ];
    if !known.contains(&policy.as_str()) {
        return Err(Error::Invalid(format!(
            "the propagation_policy `{policy}` is not known: expected FOREGROUND, BACKGROUND or ORPHAN"
        )));
    }
    options.records.delete_recurring_run(id).await?;
    Ok(Json(Empty {}))
}

/// With the inline pipeline, and what is to be said about it.
fn whole(mut row: records::RecurringRun) -> RecurringRun {
    let pipeline_spec = row.document.take();
    let warnings = pipeline_spec.as_ref().map(document::unknown_fields);
    RecurringRun {
        warnings: warnings.and_then(list_of),
        pipeline_spec,
        ..row.into()
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::Refused {
        reason: Reason::ScheduleInvalid,
        message: message.into(),
    }
}

fn trigger(trigger: Option<Trigger>) -> Result<records::Trigger, Error> {
    let trigger = trigger.unwrap_or_default();
    let (schedule, start, end) = match (trigger.cron_schedule, trigger.periodic_schedule) {
        (Some(by), None) => {
            let text = by.cron.unwrap_or_default();
            let cron = Cron::parse(&text)
                .map_err(|error| invalid(format!("`trigger.cron_schedule.cron`: {error}")))?;
            (Schedule::Cron(cron.to_string()), by.start_time, by.end_time)
        }
        (None, Some(by)) => {
            let seconds = by.interval_second.map_or(0, |seconds| seconds.0);
            let interval = u64::try_from(seconds)
                .ok()
                .filter(|_| (1..=LONGEST_INTERVAL).contains(&seconds))
                .ok_or_else(|| {
                    invalid(format!(
                        "`trigger.periodic_schedule.interval_second`: expected seconds from 1 to {LONGEST_INTERVAL}, \
                         found {seconds}"
                    ))
                })?;
            (Schedule::Every(interval), by.start_time, by.end_time)
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(invalid(
                "`trigger`: expected one of `cron_schedule` and `periodic_schedule`",
            ));
        }
    };
    let (start, end) = (start.map(|time| time.0), end.map(|time| time.0));
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        return Err(invalid("`trigger`: `end_time` is before `start_time`"));
    }
    Ok(records::Trigger { schedule, start, end })
}

fn max_concurrency(given: Option<Int64>) -> Result<u32, Error> {
    let number = given.map_or(1, |number| number.0);
    match u32::try_from(number) {
        Ok(most) if (1..=MOST_AT_ONCE).contains(&number) => Ok(most),
        _ => Err(Error::Invalid(format!(
            "`max_concurrency`: expected a number from 1 to {MOST_AT_ONCE}, found {number}"
        ))),
    }
}
