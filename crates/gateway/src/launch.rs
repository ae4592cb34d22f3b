//! The server's side of the launcher contract (`coracle_api::launch`).
//!
//! A token admits to one attempt of one task: its bearer may fetch what to run and say how it
//! ended, and nothing else. Saying so twice changes nothing.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, State},
    http::{
        StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE},
        request::Parts,
    },
    response::IntoResponse,
};
use coracle_api::launch::Report;
use coracle_store::records::Attempt;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Options,
    kfp::{error::Error, extract::Raw},
};

/// The most that a report may hold.
const REPORT_LIMIT: usize = 64 * 1024 * 1024;

/// The paths, under `/launch/v1`.
pub(crate) fn routes() -> OpenApiRouter<Arc<Options>> {
    OpenApiRouter::new().routes(routes!(spec)).routes(routes!(report))
}

/// The attempt whose token the request shows.
struct Admitted(Attempt);

impl FromRequestParts<Arc<Options>> for Admitted {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, options: &Arc<Options>) -> Result<Self, Error> {
        let header = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty())
            .ok_or_else(|| {
                Error::Unauthenticated(
                    "the request shows no launcher token: send `Authorization: Bearer TOKEN`".to_owned(),
                )
            })?;
        options
            .records
            .attempt_by_token(token)
            .await?
            .map(Self)
            .ok_or_else(|| {
                Error::Unauthenticated(
                    "the launcher token is not that of any attempt: the run may have been deleted".to_owned(),
                )
            })
    }
}

/// What the attempt is to run.
#[utoipa::path(get, path = "/spec", tag = "launch", responses((status = 200, body = Object)))]
async fn spec(
    State(options): State<Arc<Options>>,
    Admitted(attempt): Admitted,
) -> Result<impl IntoResponse, Error> {
    let is_reported = options
        .records
        .report(attempt.task_id, attempt.number)
        .await?
        .is_some();
    if attempt.state.is_terminal() || is_reported {
        return Err(Error::Aborted(format!(
            "attempt {} of task `{}` has already ended: it is not run again",
            attempt.number, attempt.task_id
        )));
    }
    let spec = options
        .records
        .attempt_spec(attempt.task_id, attempt.number)
        .await?;
    Ok(([(CONTENT_TYPE, "application/json")], spec.launch))
}

/// How the attempt ended. The first report is kept; the same again is welcome.
#[utoipa::path(put, path = "/report", tag = "launch", request_body = Object, responses((status = 204)))]
async fn report(
    State(options): State<Arc<Options>>,
    Admitted(attempt): Admitted,
    Raw(body): Raw<REPORT_LIMIT>,
) -> Result<StatusCode, Error> {
    let report: Report = serde_json::from_slice(&body)
        .map_err(|error| Error::Invalid(format!("the report cannot be read: {error}")))?;
    options
        .records
        .put_report(attempt.task_id, attempt.number, &report)
        .await?;
    coracle_breakpoint::at("gateway.report-stored");
    match options.records.report(attempt.task_id, attempt.number).await? {
        Some(kept) if kept != report => Err(Error::Aborted(format!(
            "attempt {} of task `{}` already has another report, which is kept",
            attempt.number, attempt.task_id
        ))),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}
