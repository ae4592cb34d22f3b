//! KFP's server-side visualizations: Python that a service of its own runs. There is none here.

use axum::Json;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{error::Error, extract::Body, wire::Empty};

/// `v2beta1.Visualization`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Visualization {
    /// `ROC_CURVE`, `TFDV`, `TFMA`, `TABLE` or `CUSTOM`.
    #[serde(default, rename = "type")]
    #[schema(value_type = Option<String>)]
    _kind: Option<Value>,
    /// The data.
    #[serde(default, rename = "source")]
    _source: Option<String>,
    /// Settings, as JSON.
    #[serde(default, rename = "arguments")]
    _arguments: Option<String>,
    /// Output.
    #[serde(default, rename = "html")]
    _html: Option<String>,
    /// Output.
    #[serde(default, rename = "error")]
    _error: Option<String>,
}

/// Refuses to make a visualization, as KFP does where its visualization service is not installed.
#[utoipa::path(post, path = "/visualizations/{namespace}", tag = "visualizations",
    params(("namespace" = String, Path)), request_body = Visualization,
    responses((status = 400, description = "Always: there is no visualization service.")))]
pub(super) async fn create(_body: Body<Visualization>) -> Result<Json<Empty>, Error> {
    Err(Error::FailedPrecondition(
        "there is no visualization service here, which would run Python on the server: let a task write an HTML \
         or Markdown artifact (dsl.HTML, dsl.Markdown), and read it with \
         `GET /runs/RUN/nodes/TASK/artifacts/NAME:read`"
            .to_owned(),
    ))
}
