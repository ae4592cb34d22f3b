//! REST façades over the records: what unmodified clients of Kubeflow Pipelines speak, and the
//! contract with the launcher beside user code.
//!
//! Nothing is decided here: a request becomes rows that the engine reads, and rows become JSON.
//!
//! - `kfp`: the API of Kubeflow Pipelines
//! - `log`: task logs, live and kept
//! - `node`: which task a path names
//! - `launch`: the server's side of the launcher contract

mod kfp;
mod launch;
mod log;
mod node;

use std::sync::Arc;

use axum::Router;
use coracle_artifacts::Artifacts;
use coracle_store::records::Records;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, Paths};
use utoipa_axum::router::OpenApiRouter;

/// What the façades need.
#[derive(Debug, Clone)]
pub struct Options {
    /// The rows.
    pub records: Records,
    /// Where logs are read from; nothing outside is shown.
    pub artifacts: Artifacts,
    /// The namespace of everything that is made here.
    pub namespace: String,
    /// The server's version, for `healthz`.
    pub version: String,
    /// The commit that the server was built from, for `healthz`.
    pub commit: String,
    /// Whether pipelines may be fetched from addresses of this machine and of private networks.
    pub private_urls: bool,
    /// The time.
    pub clock: fn() -> Timestamp,
    /// Cancelled when the server stops: streams then end.
    pub shutdown: CancellationToken,
}

/// Where the API of Kubeflow Pipelines is mounted: bare, and as behind Kubeflow's own page.
const PIPELINES: [&str; 2] = ["/apis/v2beta1", "/pipeline/apis/v2beta1"];
/// Where what is left of its older version is mounted.
const PIPELINES_V1: [&str; 2] = ["/apis/v1beta1", "/pipeline/apis/v1beta1"];
/// Where logs are mounted.
const LOGS: [&str; 2] = ["/apis/v1alpha1", "/pipeline/apis/v1alpha1"];
/// Where the launcher contract is mounted.
const LAUNCH: &str = "/launch/v1";

/// All façades, to be merged into the server's router.
pub fn router(options: Options) -> Router {
    let options = Arc::new(options);
    let pipelines = ServiceBuilder::new()
        .map_request(kfp::split_verb)
        .service(kfp::router(Arc::clone(&options)));
    let mut router = Router::new();
    for prefix in PIPELINES {
        router = router.nest_service(prefix, pipelines.clone());
    }
    let pipelines_v1 = ServiceBuilder::new()
        .map_request(kfp::split_verb)
        .service(kfp::router_v1(Arc::clone(&options)));
    for prefix in PIPELINES_V1 {
        router = router.nest_service(prefix, pipelines_v1.clone());
    }
    for prefix in LOGS {
        router = router.nest(prefix, plain(log::routes(), &options));
    }
    router.nest(LAUNCH, plain(launch::routes(), &options))
}

/// The OpenAPI document of all façades, made from the code that serves them.
#[must_use]
pub fn openapi() -> OpenApi {
    let mut document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Coracle pipelines")
                .description(Some(
                    "The v2beta1 API of Kubeflow Pipelines, and what Coracle adds to it.",
                ))
                .version("v2beta1")
                .build(),
        )
        .build();
    for (prefix, routes) in [
        (PIPELINES[0], kfp::routes()),
        (PIPELINES_V1[0], kfp::routes_v1()),
        (LOGS[0], log::routes()),
        (LAUNCH, launch::routes()),
    ] {
        let mut part = routes.into_openapi();
        part.paths = under(prefix, part.paths);
        document.merge(part);
    }
    document
}

fn plain(routes: OpenApiRouter<Arc<Options>>, options: &Arc<Options>) -> Router {
    routes.with_state(Arc::clone(options)).split_for_parts().0
}

/// The paths as clients write them: custom verbs belong to the segment before.
fn under(prefix: &str, paths: Paths) -> Paths {
    let mut moved = Paths::new();
    moved.paths = paths
        .paths
        .into_iter()
        .map(|(path, item)| (format!("{prefix}{}", path.replace("/:", ":")), item))
        .collect();
    moved
}
