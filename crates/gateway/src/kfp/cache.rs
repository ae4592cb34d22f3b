//! Cached outputs: shown, and forgotten on request. Coracle's own paths; KFP has none.

use std::sync::Arc;

use axum::{Json, extract::State};
use coracle_store::records::{
    self, CacheFilter,
    query::{Op, Predicate, Value as Bound},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Options,
    error::Error,
    extract::{Body, FromPath, Ids, Params},
    page::ListParams,
    tasks::TaskIo,
    wire::{Int64, Time},
};

/// The outputs of a task, kept for tasks that would do the same again.
#[derive(Serialize, ToSchema)]
pub(super) struct CacheEntry {
    /// What was done: a digest of all that decides the outputs.
    key: String,
    /// The pipeline whose runs find it.
    pipeline_name: String,
    /// The task's name in its DAG.
    task_name: String,
    /// The run that did it. It may be deleted since.
    run_id: String,
    /// The task that did it.
    task_id: String,
    /// What came of it.
    outputs: TaskIo,
    created_at: Time,
}

/// One page of cache entries.
#[derive(Serialize, ToSchema)]
pub(super) struct ListCacheEntriesResponse {
    /// The page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache_entries: Vec<CacheEntry>,
    /// How many there are in all.
    total_size: i64,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// Which entries to list.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct CacheParams {
    /// Those of the pipeline of this name.
    #[serde(alias = "pipelineName")]
    pipeline_name: String,
    /// Those of tasks of this name.
    #[serde(alias = "taskName")]
    task_name: String,
}

/// Which entries to forget. All that is given must hold.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InvalidateRequest {
    /// The one of this key.
    #[serde(default)]
    key: Option<String>,
    /// Those of the pipeline of this name.
    #[serde(default, alias = "pipelineName")]
    pipeline_name: Option<String>,
    /// Those of tasks of this name.
    #[serde(default, alias = "taskName")]
    task_name: Option<String>,
    /// Those made before this time, or so many seconds ago.
    #[serde(default, alias = "olderThan")]
    older_than: Option<Age>,
}

/// A moment in the past.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(untagged)]
enum Age {
    /// Seconds ago.
    Seconds(Int64),
    /// The moment itself.
    Moment(Time),
}

impl Age {
    fn before(self, now: Timestamp) -> Result<Timestamp, Error> {
        match self {
            Self::Moment(time) => Ok(time.0),
            Self::Seconds(Int64(seconds)) => now
                .checked_sub(SignedDuration::from_secs(seconds.max(0)))
                .map_err(|_| Error::Invalid(format!("`older_than`: {seconds} seconds ago is too long ago"))),
        }
    }
}

/// What was forgotten.
#[derive(Serialize, ToSchema)]
pub(super) struct InvalidateResponse {
    /// How many entries.
    deleted: u64,
}

impl From<records::CacheEntry> for CacheEntry {
    fn from(row: records::CacheEntry) -> Self {
        Self {
            key: row.key,
            pipeline_name: row.pipeline_name,
            task_name: row.task_name,
            run_id: row.made_by.run_id.to_string(),
            task_id: row.made_by.task_id.to_string(),
            outputs: row.outputs.into(),
            created_at: Time(row.created_at),
        }
    }
}

/// Lists cache entries.
#[utoipa::path(get, path = "/cache_entries", tag = "cache", params(ListParams, CacheParams),
    responses((status = 200, body = ListCacheEntriesResponse)))]
pub(super) async fn list(
    State(options): State<Arc<Options>>,
    Params(params): Params<ListParams>,
    Params(of): Params<CacheParams>,
) -> Result<Json<ListCacheEntriesResponse>, Error> {
    let query = params.read()?;
    let mut list = query.list.clone();
    for (field, value) in [("pipeline_name", of.pipeline_name), ("task_name", of.task_name)] {
        if !value.is_empty() {
            list.filter.push(Predicate {
                field: field.to_owned(),
                op: Op::Equals,
                values: vec![Bound::Text(value)],
            });
        }
    }
    let page = options
        .records
        .list_cache_entries(Some(&options.namespace), &list)
        .await?;
    Ok(Json(ListCacheEntriesResponse {
        next_page_token: query.next_token(&page),
        total_size: page.total,
        cache_entries: page.items.into_iter().map(CacheEntry::from).collect(),
    }))
}

/// A cache key in a path.
pub(super) struct Key(String);

impl FromPath for Key {
    fn from_path(segments: &[String]) -> Result<Self, Error> {
        Ok(Self(segments.first().cloned().unwrap_or_default()))
    }
}

/// Forgets one entry: the next task that would take it over runs instead.
#[utoipa::path(delete, path = "/cache_entries/{key}", tag = "cache", params(("key" = String, Path), CacheParams),
    responses((status = 200, body = InvalidateResponse)))]
pub(super) async fn delete(
    State(options): State<Arc<Options>>,
    Ids(Key(key)): Ids<Key>,
    Params(of): Params<CacheParams>,
) -> Result<Json<InvalidateResponse>, Error> {
    let present = |text: String| Some(text).filter(|text| !text.is_empty());
    let filter = CacheFilter {
        key: Some(key.clone()),
        pipeline_name: present(of.pipeline_name),
        task_name: present(of.task_name),
        older_than: None,
    };
    match options
        .records
        .delete_cache_entries(&options.namespace, filter)
        .await?
    {
        0 => Err(Error::NotFound {
            kind: "cache entry".to_owned(),
            id: key,
        }),
        deleted => Ok(Json(InvalidateResponse { deleted })),
    }
}

/// Forgets entries: those for which all holds that the body says, and all of them for `{}`.
#[utoipa::path(post, path = "/cache_entries/:invalidate", tag = "cache", request_body = InvalidateRequest,
    responses((status = 200, body = InvalidateResponse)))]
pub(super) async fn invalidate(
    State(options): State<Arc<Options>>,
    Body(body): Body<InvalidateRequest>,
) -> Result<Json<InvalidateResponse>, Error> {
    let filter = CacheFilter {
        key: body.key,
        pipeline_name: body.pipeline_name,
        task_name: body.task_name,
        older_than: body
            .older_than
            .map(|age| age.before((options.clock)()))
            .transpose()?,
    };
    let deleted = options
        .records
        .delete_cache_entries(&options.namespace, filter)
        .await?;
    Ok(Json(InvalidateResponse { deleted }))
}
