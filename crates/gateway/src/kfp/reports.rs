//! What KFP's agent in a cluster reports about Argo Workflows and ScheduledWorkflows.
//!
//! Here the engine and the scheduler write the state of runs themselves, and there are no such
//! objects. Reports are refused with the code on which the agent drops an object instead of
//! sending it again.

use axum::Json;

use super::{
    error::Error,
    extract::{BODY_LIMIT, Raw},
    wire::Empty,
};

/// Refuses a report about a Workflow: there are none.
#[utoipa::path(post, path = "/workflows", tag = "reports", request_body = String,
    responses((status = 400, description = "Always: the engine writes the state of runs itself.")))]
pub(super) async fn workflow(Raw(body): Raw<BODY_LIMIT>) -> Result<Json<Empty>, Error> {
    refuse(&body, "Workflow")
}

/// Refuses a report about a ScheduledWorkflow: there are none.
#[utoipa::path(post, path = "/scheduledworkflows", tag = "reports", request_body = String,
    responses((status = 400, description = "Always: the scheduler writes the state of recurring runs itself.")))]
pub(super) async fn scheduled_workflow(Raw(body): Raw<BODY_LIMIT>) -> Result<Json<Empty>, Error> {
    refuse(&body, "ScheduledWorkflow")
}

/// The body is an object's JSON, as JSON text.
fn refuse(body: &[u8], kind: &str) -> Result<Json<Empty>, Error> {
    if serde_json::from_slice::<String>(body).is_err() {
        return Err(Error::Invalid(format!(
            "the report cannot be used: expected a {kind} in JSON, as a JSON text"
        )));
    }
    Err(Error::Invalid(format!(
        "reports about {kind}s are not taken: runs are executed by this server, which writes their state itself; \
         stop the agent that sends them"
    )))
}
