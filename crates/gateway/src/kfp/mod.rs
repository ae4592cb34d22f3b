//! The REST API of Kubeflow Pipelines, `v2beta1`, as its unmodified clients speak it.
//!
//! - [`wire`], [`error`]: messages and errors in KFP's JSON
//! - [`extract`], [`name`], [`filter`], [`page`]: what requests may say
//! - [`experiments`], [`pipelines`], [`versions`], [`runs`], [`recurring`]: KFP's resources
//! - [`source`], [`upload`], [`package`], [`fetch`]: where pipelines come from
//! - [`read`], [`auth`], [`reports`], [`visualizations`]: the rest of KFP's paths
//! - [`tasks`], [`artifacts`], [`artifact_tasks`]: what KFP is moving to
//! - [`watch`], [`cache`], [`lineage`], [`storage`], [`debug`]: Coracle's own
//!
//! KFP writes custom verbs as `/runs/ID:terminate`. Here they are paths of their own,
//! `/runs/{run_id}/:terminate`: [`split_verb`] leads from one to the other.

mod artifact_tasks;
mod artifacts;
mod auth;
mod cache;
mod debug;
pub(crate) mod error;
mod experiments;
pub(crate) mod extract;
mod fetch;
mod filter;
mod lineage;
mod name;
mod package;
mod page;
mod pipelines;
mod read;
mod recurring;
mod reports;
mod runs;
mod source;
mod storage;
mod tasks;
mod upload;
mod versions;
mod visualizations;
mod watch;
mod wire;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{Method, Uri, uri::PathAndQuery},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::error::Error;
use crate::Options;

/// The custom verbs of this API. Only these are split off: names may hold colons.
const VERBS: [&str; 15] = [
    "archive",
    "unarchive",
    "terminate",
    "retry",
    "watch",
    "enable",
    "disable",
    "read",
    "batchCreate",
    "batchUpdate",
    "findCached",
    "lineage",
    "invalidate",
    "collect",
    "debug",
];

/// `GET /healthz`.
#[derive(Serialize, ToSchema)]
struct Healthz {
    /// The commit that the server was built from.
    commit_sha: String,
    /// The version of the server.
    tag_name: String,
    /// Whether users are kept apart.
    multi_user: bool,
    /// Where pipelines are kept.
    pipeline_store: &'static str,
}

/// Every path of the API, with verbs as paths of their own.
pub(crate) fn routes() -> OpenApiRouter<Arc<Options>> {
    OpenApiRouter::from(Router::new().without_v07_checks())
        .routes(routes!(healthz))
        .routes(routes!(experiments::list, experiments::create))
        .routes(routes!(experiments::get, experiments::delete))
        .routes(routes!(experiments::archive))
        .routes(routes!(experiments::unarchive))
        .routes(routes!(pipelines::list, pipelines::create))
        .routes(routes!(pipelines::create_with_version))
        .routes(routes!(upload::pipeline))
        .routes(routes!(upload::version))
        .routes(routes!(pipelines::get, pipelines::update, pipelines::delete))
        .routes(routes!(pipelines::get_by_name))
        .routes(routes!(versions::list, versions::create))
        .routes(routes!(versions::get, versions::update, versions::delete))
        .routes(routes!(runs::list, runs::create))
        .routes(routes!(runs::get, runs::delete))
        .routes(routes!(runs::terminate))
        .routes(routes!(runs::archive))
        .routes(routes!(runs::unarchive))
        .routes(routes!(runs::retry))
        .routes(routes!(watch::watch))
        .routes(routes!(recurring::list, recurring::create))
        .routes(routes!(recurring::get, recurring::delete))
        .routes(routes!(recurring::enable))
        .routes(routes!(recurring::disable))
        .routes(routes!(read::read))
        .routes(routes!(auth::authorize))
        .routes(routes!(reports::workflow))
        .routes(routes!(reports::scheduled_workflow))
        .routes(routes!(visualizations::create))
        .routes(routes!(filter::get))
        .routes(routes!(tasks::list_all, tasks::create))
        .routes(routes!(tasks::batch_update))
        .routes(routes!(tasks::get, tasks::update))
        .routes(routes!(tasks::find_cached))
        .routes(routes!(debug::show))
        .routes(routes!(artifacts::list, artifacts::create))
        .routes(routes!(artifacts::batch_create))
        .routes(routes!(artifacts::get))
        .routes(routes!(lineage::lineage))
        .routes(routes!(artifact_tasks::list, artifact_tasks::create))
        .routes(routes!(artifact_tasks::batch_create))
        .routes(routes!(cache::list))
        .routes(routes!(cache::delete))
        .routes(routes!(cache::invalidate))
        .routes(routes!(storage::collect))
}

/// What is left of the `v1beta1` API: what clients of `v2beta1` still ask it for.
pub(crate) fn routes_v1() -> OpenApiRouter<Arc<Options>> {
    OpenApiRouter::from(Router::new().without_v07_checks())
        .routes(routes!(healthz))
        .routes(routes!(read::read))
}

/// The `v1beta1` paths as a router: to be mounted under a prefix, behind [`split_verb`].
pub(crate) fn router_v1(options: Arc<Options>) -> Router {
    let (router, _) = routes_v1().split_for_parts();
    router
        .fallback(no_v1)
        .method_not_allowed_fallback(no_such_method)
        .with_state(options)
}

/// The API as a router: to be mounted under a prefix, behind [`split_verb`].
pub(crate) fn router(options: Arc<Options>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .route(
            "/openapi.json",
            axum::routing::get(async || Json(crate::openapi())),
        )
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(options)
}

/// Says that the server is well.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = Healthz)))]
async fn healthz(State(options): State<Arc<Options>>) -> Json<Healthz> {
    Json(Healthz {
        commit_sha: options.commit.clone(),
        tag_name: options.version.clone(),
        multi_user: false,
        pipeline_store: "database",
    })
}

async fn no_such_path(uri: Uri) -> Error {
    Error::Absent(format!(
        "there is nothing at `{}` of the pipelines API",
        uri.path()
    ))
}

async fn no_v1(uri: Uri) -> Error {
    Error::Absent(format!(
        "there is nothing at `{}` of the v1beta1 API, of which little is left: use v2beta1, as kfp 2 does",
        uri.path()
    ))
}

async fn no_such_method(method: Method) -> Error {
    Error::MethodNotAllowed(method)
}

/// Makes the custom verb at the end of a path a segment of its own: `/runs/ID:terminate` becomes
/// `/runs/ID/:terminate`.
pub(crate) fn split_verb(mut request: Request) -> Request {
    if let Some(path) = split_path(request.uri().path()) {
        let query = request
            .uri()
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        if let Ok(path_and_query) = PathAndQuery::try_from(format!("{path}{query}")) {
            let mut parts = request.uri().clone().into_parts();
            parts.path_and_query = Some(path_and_query);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    request
}

fn split_path(path: &str) -> Option<String> {
    let (before, verb) = path
        .rsplit_once(':')
        .or_else(|| path.rsplit_once("%3A"))
        .or_else(|| path.rsplit_once("%3a"))?;
    let is_verb = VERBS.contains(&verb) && !before.ends_with('/') && !before.starts_with("/pipelines/names/");
    is_verb.then(|| format!("{before}/:{verb}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_custom_verbs_are_split_off() {
        let check =
            |path: &str, expect: Option<&str>| assert_eq!(split_path(path).as_deref(), expect, "{path}");
        check("/runs/1:terminate", Some("/runs/1/:terminate"));
        check("/runs/1%3Aterminate", Some("/runs/1/:terminate"));
        check(
            "/runs/1/nodes/2/artifacts/a:b:read",
            Some("/runs/1/nodes/2/artifacts/a:b/:read"),
        );
        check("/artifacts:batchCreate", Some("/artifacts/:batchCreate"));
        check("/runs/1/tasks/2:debug", Some("/runs/1/tasks/2/:debug"));
        check("/runs/1", None);
        check("/runs/1:explode", None);
        check("/runs/:terminate", None);
        check("/pipelines/names/a:archive", None);
    }
}
