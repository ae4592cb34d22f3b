//! Whether a user may do something. Here is one user, who may do everything.

use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{error::Error, extract::Params, wire::Empty};

/// What a user wants to do.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct AuthorizeParams {
    /// Ignored: there is one namespace for pipelines.
    #[serde(rename = "namespace")]
    _namespace: String,
    /// `VIEWERS`, the only resource that KFP asks about.
    resources: String,
    /// `CREATE`, `GET` or `DELETE`.
    verb: String,
}

/// Says whether the user may do that: `{}` for yes.
#[utoipa::path(get, path = "/auth", tag = "auth", params(AuthorizeParams), responses((status = 200, body = Empty)))]
pub(super) async fn authorize(Params(params): Params<AuthorizeParams>) -> Result<Json<Empty>, Error> {
    // By name or by number, as protobuf takes enums.
    if !["VIEWERS", "1"].contains(&params.resources.as_str()) {
        return Err(Error::Invalid(format!(
            "the `resources` are not known: expected VIEWERS, found `{}`",
            params.resources
        )));
    }
    if !["CREATE", "GET", "DELETE", "1", "2", "3"].contains(&params.verb.as_str()) {
        return Err(Error::Invalid(format!(
            "the `verb` is not known: expected CREATE, GET or DELETE, found `{}`",
            params.verb
        )));
    }
    Ok(Json(Empty {}))
}
