//! What KFP's API has and this version of Coracle has not: each path answers 501 and says so.
//!
//! A client that meets 404 here would look for a mistake of its own.

use std::sync::Arc;

use axum::{
    Router,
    http::Uri,
    routing::{any, patch, post},
};

use super::{Options, error::Error};

/// The paths.
pub(super) fn router() -> Router<Arc<Options>> {
    Router::new()
        .without_v07_checks()
        .route("/runs/{run_id}/:retry", post(retry))
        .route(
            "/runs/{run_id}/nodes/{node_id}/artifacts/{name}/:read",
            any(read_artifact),
        )
        .route("/recurringruns", any(recurring))
        .route("/recurringruns/{id}", any(recurring))
        .route("/recurringruns/{id}/{*verb}", any(recurring))
        .route("/pipelines/{pipeline_id}", patch(tags))
        .route(
            "/pipelines/{pipeline_id}/versions/{pipeline_version_id}",
            patch(tags),
        )
        .route("/visualizations/{namespace}", any(other))
        .route("/workflows", any(other))
        .route("/scheduledworkflows", any(other))
        .route("/filters", any(other))
        .route("/auth", any(other))
}

async fn retry() -> Error {
    Error::Unimplemented(
        "this version of Coracle cannot retry a run: make it again with `POST /runs`".to_owned(),
    )
}

async fn recurring() -> Error {
    Error::Unimplemented(
        "this version of Coracle has no recurring runs: make single runs with `POST /runs`".to_owned(),
    )
}

async fn tags() -> Error {
    Error::Unimplemented(
        "this version of Coracle cannot change a pipeline's tags: set them when it is uploaded".to_owned(),
    )
}

async fn read_artifact() -> Error {
    Error::Unimplemented(
        "this version of Coracle does not read artifacts by node: find the `uri` with `GET /artifacts?run_id=`"
            .to_owned(),
    )
}

async fn other(uri: Uri) -> Error {
    Error::Unimplemented(format!("this version of Coracle has no `{}`", uri.path()))
}
