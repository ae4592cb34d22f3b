//! What can go wrong in this façade, and the shapes in which KFP's clients read it.
//!
//! The only place that turns an error into a response: `google.rpc.Status` with the status that
//! grpc-gateway gives its code, or `{error_message, error_details}` for the two uploads.

use axum::{
    Json,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use coracle_api::{
    id::InvalidId,
    ir::validate::Problem,
    launch::Failure,
    reason::{Reason, chain},
};
use coracle_store::{database, records};
use serde_json::{Value, json};

use super::wire::Status;

/// When to ask again what the database could not do, in seconds.
const LATER: u64 = 2;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The pipeline, or a value for one of its parameters, is wrong.
    #[error("{subject}: {problem}")]
    Pipeline {
        /// What was looked at, e.g. `the pipeline cannot be used`.
        subject: &'static str,
        /// What is wrong, and where.
        problem: Problem,
    },
    /// The request cannot be done, for a reason that has a name.
    #[error("{message}")]
    Refused {
        /// The name.
        reason: Reason,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// What the request names does not exist.
    #[error("{kind} `{id}` was not found: it may have been deleted, or never made")]
    NotFound {
        /// E.g. `run`.
        kind: String,
        /// What was asked for.
        id: String,
    },
    /// What was asked for has nothing to show.
    #[error("{0}")]
    Absent(String),
    /// The name is taken.
    #[error("{kind} `{name}` already exists: choose another name, or delete the old one first")]
    AlreadyExists {
        /// E.g. `pipeline`.
        kind: String,
        /// The name.
        name: String,
    },
    /// The request is right, and what it is about is in no state for it.
    #[error("{0}")]
    FailedPrecondition(String),
    /// Something else was quicker.
    #[error("{0}")]
    Aborted(String),
    /// Nobody known is asking.
    #[error("{0}")]
    Unauthenticated(String),
    /// The request is too large.
    #[error("{0}")]
    TooLarge(String),
    /// Not for those who ask here.
    #[error("{0}")]
    PermissionDenied(String),
    /// The path exists, and not for this method.
    #[error("this path does not take {0}")]
    MethodNotAllowed(axum::http::Method),
    /// The records could not be read or written.
    #[error("the records could not be read or written: the server's log says why")]
    Records(#[source] records::Error),
    /// The database could not do it now, and may later.
    #[error("{0}")]
    Database(#[source] database::Error),
    /// Something here is at fault.
    #[error("{context}: the server's log says why")]
    Internal {
        /// What was being done.
        context: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The same, to be shown as the upload endpoints do.
    #[error(transparent)]
    Upload(Box<Self>),
}

impl Error {
    /// The same error, in the shape of the upload endpoints.
    pub(crate) fn of_upload(self) -> Self {
        Self::Upload(Box::new(self))
    }

    /// An error of ours, with what caused it.
    pub(crate) fn internal(
        context: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Internal {
            context,
            source: source.into(),
        }
    }

    /// The gRPC code.
    pub(crate) fn code(&self) -> i32 {
        match self {
            Self::Invalid(_) | Self::Pipeline { .. } | Self::Refused { .. } => 3,
            Self::NotFound { .. } | Self::Absent(_) => 5,
            Self::AlreadyExists { .. } => 6,
            Self::PermissionDenied(_) => 7,
            Self::Database(error) if error.reason() != Reason::DiskFull => 14,
            Self::TooLarge(_) | Self::Database(_) => 8,
            Self::FailedPrecondition(_) => 9,
            Self::Aborted(_) => 10,
            Self::MethodNotAllowed(_) => 12,
            Self::Records(_) | Self::Internal { .. } => 13,
            Self::Unauthenticated(_) => 16,
            Self::Upload(inner) => inner.code(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Database(error) if error.reason() == Reason::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upload(inner) => inner.status(),
            _ => match self.code() {
                3 | 9 => StatusCode::BAD_REQUEST,
                5 => StatusCode::NOT_FOUND,
                6 | 10 => StatusCode::CONFLICT,
                7 => StatusCode::FORBIDDEN,
                16 => StatusCode::UNAUTHORIZED,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (code, status, message) = (self.code(), self.status(), self.to_string());
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %chain(&self), "a request failed");
        } else if status.is_server_error() {
            tracing::warn!(error = %chain(&self), "a request was not done");
        }
        let body = if let Self::Upload(_) = self {
            json!({ "error_message": message, "error_details": message })
        } else {
            let mut details = vec![json!({
                "@type": "type.googleapis.com/google.rpc.Status",
                "code": code,
                "message": message,
            })];
            match &self {
                Self::Refused { reason, .. } => details.push(error_info(*reason)),
                Self::Database(error) => details.push(error_info(error.reason())),
                _ => {}
            }
            json!({ "code": code, "message": message, "details": details })
        };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, LATER.into());
        }
        response
    }
}

impl From<records::Error> for Error {
    fn from(error: records::Error) -> Self {
        match error {
            records::Error::AlreadyExists { kind, name } => Self::AlreadyExists {
                kind: kind.to_owned(),
                name,
            },
            records::Error::NotFound { kind, id } => Self::NotFound {
                kind: kind.to_owned(),
                id,
            },
            records::Error::UnknownField { .. }
            | records::Error::InvalidValue { .. }
            | records::Error::InvalidCursor { .. } => Self::Invalid(error.to_string()),
            records::Error::NotEnded { .. } => Self::FailedPrecondition(error.to_string()),
            records::Error::Database(error) if error.reason() != Reason::InternalError => {
                Self::Database(error)
            }
            other => Self::Records(other),
        }
    }
}

impl From<InvalidId> for Error {
    /// Text that is no id names nothing: KFP, whose ids are plain text, says the same.
    fn from(error: InvalidId) -> Self {
        Self::NotFound {
            kind: error.kind.to_owned(),
            id: error.text,
        }
    }
}

/// A failure of a run or task as `google.rpc.Status`, its stable reason and its hint beside it.
pub(super) fn status_of(failure: &Failure) -> Status {
    let code = match failure.reason {
        Reason::RunTerminated => 1,
        Reason::OOMKilled | Reason::InsufficientResources | Reason::RequestExceedsNode => 8,
        Reason::NotSupported => 12,
        Reason::InternalError => 13,
        _ => 2,
    };
    Status {
        code,
        message: failure.message.clone(),
        details: vec![error_info(failure.reason)],
    }
}

fn error_info(reason: Reason) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason.to_string(),
        "domain": "coracle.dev",
        "metadata": { "hint": reason.hint() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_the_status_of_its_code() {
        let check = |error: Error, code: i32, status: u16| {
            assert_eq!(
                (error.code(), error.status().as_u16()),
                (code, status),
                "{error:?}"
            );
            let upload = error.of_upload();
            assert_eq!(
                (upload.code(), upload.status().as_u16()),
                (code, status),
                "{upload:?}"
            );
        };
        let text = || "x".to_owned();
        check(Error::Invalid(text()), 3, 400);
        check(
            Error::NotFound {
                kind: text(),
                id: text(),
            },
            5,
            404,
        );
        check(Error::Absent(text()), 5, 404);
        check(
            Error::AlreadyExists {
                kind: text(),
                name: text(),
            },
            6,
            409,
        );
        check(Error::TooLarge(text()), 8, 413);
        check(Error::FailedPrecondition(text()), 9, 400);
        check(Error::Aborted(text()), 10, 409);
        check(Error::PermissionDenied(text()), 7, 403);
        check(Error::MethodNotAllowed(axum::http::Method::PUT), 12, 405);
        check(Error::internal("x", "y"), 13, 500);
        check(Error::Unauthenticated(text()), 16, 401);
        check(Error::Database(database::Error::Closed), 14, 503);
    }

    #[test]
    fn a_failure_carries_its_reason_and_hint() {
        let status = status_of(&Failure {
            reason: Reason::CommandFailed,
            message: "exit code 1".to_owned(),
        });
        assert_eq!(status.message, "exit code 1");
        assert_eq!(status.details[0]["reason"], "CommandFailed");
        assert_eq!(
            status.details[0]["metadata"]["hint"],
            Reason::CommandFailed.hint()
        );
    }
}
