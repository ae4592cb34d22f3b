//! What can go wrong, and the one place where it becomes a Kubernetes `Status`.
//!
//! Reasons, codes and wording are those of kubernetes/apimachinery `pkg/api/errors`, because
//! clients branch on them (and people search for them). The chain of sources is logged here once
//! and never sent to the client.

use std::error::Error as _;

use axum::response::{IntoResponse, Response};
use coracle_api::reason::Reason;
use coracle_store::{database, resources};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{kinds::KindRef, managed::Conflict, object, validation::Problems};

/// The kind and name that an error is about.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) kind: KindRef,
    pub(crate) name: String,
}

impl Subject {
    fn qualified_resource(&self) -> String {
        qualified(&self.kind.plural, &self.kind.group)
    }

    fn qualified_kind(&self) -> String {
        qualified(&self.kind.kind, &self.kind.group)
    }
}

fn qualified(noun: &str, group: &str) -> String {
    if group.is_empty() {
        noun.to_owned()
    } else {
        format!("{noun}.{group}")
    }
}

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing is served at this path.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// The object does not exist.
    #[error("{} \"{}\" not found", .0.qualified_resource(), .0.name)]
    NotFound(Subject),
    /// An object of this name exists.
    #[error("{} \"{}\" already exists", .0.qualified_resource(), .0.name)]
    AlreadyExists(Subject),
    /// Names were drawn for the object, and each was taken.
    #[error(
        "{} \"{}\" already exists, the server was not able to generate a unique name for the object",
        .0.qualified_resource(), .0.name
    )]
    NoNameLeft(Subject),
    /// The object is not in the state that the caller took it to be in.
    #[error("Operation cannot be fulfilled on {} \"{}\": {why}", .subject.qualified_resource(), .subject.name)]
    Conflict { subject: Subject, why: String },
    /// The object does not follow its kind's rules.
    #[error("{} \"{}\" is invalid: {problems}", .subject.qualified_kind(), .subject.name)]
    Invalid { subject: Subject, problems: Problems },
    /// The object is well formed, and still not admitted.
    #[error("{} \"{}\" is forbidden: {why}", .subject.qualified_resource(), .subject.name)]
    Forbidden {
        subject: Subject,
        why: String,
        cause: Option<Box<Cause>>,
    },
    /// Nobody is known to have made the request.
    #[error("Unauthorized")]
    Unauthorized,
    /// Whoever makes the request may not.
    #[error("{0}")]
    Denied(Box<Denial>),
    /// The request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// The body cannot be read as an object of the kind.
    #[error("{} in version \"{}\" cannot be handled as a {}: {why}", .kind.kind, .kind.version, .kind.kind)]
    Undecodable { kind: KindRef, why: String },
    /// The options of the request do not follow their rules.
    #[error("{options}.meta.k8s.io \"\" is invalid: {problems}")]
    InvalidOptions {
        options: &'static str,
        problems: Problems,
    },
    /// The patch is well formed and cannot be applied to this object.
    #[error("the server rejected our request due to an error in our request: {0}")]
    PatchFailed(String),
    /// What the patch makes of the object is no object of its kind.
    #[error(" \"\" is invalid: {0}")]
    PatchResult(Problems),
    /// Others manage the fields that were to be applied.
    #[error("{}", conflicts(.0))]
    ApplyConflict(Vec<Conflict>),
    /// A failure to which Kubernetes gives no reason.
    #[error("{0}")]
    Unexplained(String),
    /// The path exists and has no such verb.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// No representation that the client accepts.
    #[error("only the following media types are accepted: {0}")]
    NotAcceptable(&'static str),
    /// The body is in a format that this server does not read.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The body is over the limit.
    #[error("Request entity too large: limit is {limit}")]
    TooLarge { limit: usize },
    /// The patch has more operations than are carried out.
    #[error("Request entity too large: The allowed maximum operations in a JSON patch is {limit}, got {got}")]
    TooManyOperations { limit: usize, got: usize },
    /// The revision asked for is no longer, or not, in the log.
    #[error("{0}")]
    Expired(String),
    /// The list that the token goes on with is gone; another token goes on with what is there now.
    #[error("{}", INCONSISTENT)]
    ExpiredToken { next: String },
    /// The revision asked for has not been reached.
    #[error("Too large resource version: {asked}, current: {current}")]
    FutureRevision { asked: u64, current: u64 },
    /// The node's kubelet answered with an error.
    #[error("{message}")]
    Kubelet { code: StatusCode, message: String },
    /// The store failed.
    #[error("the store could not serve the request; the server's log says why")]
    Store(#[source] Box<resources::Error>),
    /// The database could not do it now, and may later.
    #[error("{0}")]
    Database(#[source] database::Error),
    /// Something that should not happen did.
    #[error("{0}")]
    Internal(String),
}

/// What is said to those who come back with a token too late.
const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. \
     You can start a new list without the continue parameter, or use the continue token in this response to \
     retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list \
     - objects that were created, modified, or deleted between the time the first chunk was returned and now \
     may show up in the list.";

/// Conflicts as kubectl shows them: by manager, in order.
fn conflicts(conflicts: &[Conflict]) -> String {
    if let [Conflict { manager, field }] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {manager}: {field}");
    }
    let mut message = format!("Apply failed with {} conflicts: ", conflicts.len());
    let mut lines = Vec::new();
    let mut last = None;
    for Conflict { manager, field } in conflicts {
        if last.replace(manager) != Some(manager) {
            lines.push(format!("conflicts with {manager}:"));
        }
        lines.push(format!("- {field}"));
    }
    message.push_str(&lines.join("\n"));
    message
}

/// What somebody may not do. The resource need not be one that is served.
#[derive(Debug, Clone)]
pub(crate) struct Denial {
    pub(crate) group: String,
    /// Empty for what is no resource.
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) why: String,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.resource.is_empty() {
            write!(f, "{} ", qualified(&self.resource, &self.group))?;
            if !self.name.is_empty() {
                write!(f, "{:?} ", self.name)?;
            }
            f.write_str("is ")?;
        }
        write!(f, "forbidden: {}", self.why)
    }
}

/// A `StatusCause` with a reason of its own.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) field: String,
}

impl Cause {
    fn value(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

impl Error {
    pub(crate) fn not_found(kind: &KindRef, name: impl Into<String>) -> Self {
        Self::NotFound(kind.subject(name))
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::BadRequest(message.into())
    }

    pub(crate) fn conflict(kind: &KindRef, name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Conflict {
            subject: kind.subject(name),
            why: why.into(),
        }
    }

    /// The conflict of optimistic concurrency: the object moved on.
    pub(crate) fn modified(kind: &KindRef, name: impl Into<String>) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    pub(crate) fn expired() -> Self {
        Self::Expired("The resourceVersion for the provided watch is too old.".to_owned())
    }

    /// The HTTP status and the `reason` field.
    pub(crate) const fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchPath | Self::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            Self::AlreadyExists(_) | Self::NoNameLeft(_) => (StatusCode::CONFLICT, "AlreadyExists"),
            Self::Conflict { .. } => (StatusCode::CONFLICT, "Conflict"),
            Self::Invalid { .. }
            | Self::InvalidOptions { .. }
            | Self::PatchFailed(_)
            | Self::PatchResult(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            Self::Forbidden { .. } | Self::Denied(_) => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::ApplyConflict(_) => (StatusCode::CONFLICT, "Conflict"),
            Self::BadRequest(_) | Self::Undecodable { .. } => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::NotAcceptable(_) => (StatusCode::NOT_ACCEPTABLE, "NotAcceptable"),
            Self::UnsupportedMediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
            Self::TooLarge { .. } | Self::TooManyOperations { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge")
            }
            Self::Unexplained(_) => (StatusCode::INTERNAL_SERVER_ERROR, ""),
            Self::Expired(_) | Self::ExpiredToken { .. } => (StatusCode::GONE, "Expired"),
            Self::FutureRevision { .. } => (StatusCode::GATEWAY_TIMEOUT, "Timeout"),
            Self::Kubelet { code, .. } => (*code, kubelet_reason(*code)),
            Self::Database(error) if matches!(error.reason(), Reason::DiskFull) => {
                (StatusCode::INSUFFICIENT_STORAGE, "DiskFull")
            }
            Self::Database(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Self::Store(_) | Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        }
    }

    /// The `Status` object that tells the client.
    pub(crate) fn status(&self) -> Value {
        let (code, reason) = self.code();
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": reason,
        });
        let details = self.details();
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        if reason.is_empty() {
            object::put(object::as_map(&mut status), "reason", None);
        }
        if let Self::ExpiredToken { next } = self {
            status["metadata"]["continue"] = next.as_str().into();
        }
        status["code"] = code.as_u16().into();
        status
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        let (subject, noun) = match self {
            Self::NotFound(subject) | Self::AlreadyExists(subject) | Self::NoNameLeft(subject) => {
                (Some(subject), false)
            }
            Self::Conflict { subject, .. } | Self::Forbidden { subject, .. } => (Some(subject), false),
            Self::Invalid { subject, .. } => (Some(subject), true),
            _ => (None, false),
        };
        if let Some(subject) = subject {
            details.insert("name".to_owned(), subject.name.as_str().into());
            if !subject.kind.group.is_empty() {
                details.insert("group".to_owned(), (*subject.kind.group).into());
            }
            let kind = if noun {
                &subject.kind.kind
            } else {
                &subject.kind.plural
            };
            details.insert("kind".to_owned(), (**kind).into());
        }
        match self {
            Self::Denied(denial) => {
                for (field, value) in [
                    ("name", &denial.name),
                    ("group", &denial.group),
                    ("kind", &denial.resource),
                ] {
                    if !value.is_empty() {
                        details.insert(field.to_owned(), value.as_str().into());
                    }
                }
            }
            Self::Invalid { problems, .. } | Self::PatchResult(problems) => {
                details.insert("causes".to_owned(), problems.causes());
            }
            Self::InvalidOptions { options, problems } => {
                details.insert("group".to_owned(), "meta.k8s.io".into());
                details.insert("kind".to_owned(), (*options).into());
                details.insert("causes".to_owned(), problems.causes());
            }
            Self::ApplyConflict(conflicts) => {
                let causes = conflicts.iter().map(|conflict| {
                    let message = format!("conflict with {}", conflict.manager);
                    json!({"reason": "FieldManagerConflict", "message": message, "field": conflict.field})
                });
                details.insert("causes".to_owned(), causes.collect());
            }
            Self::Forbidden {
                cause: Some(cause), ..
            } => {
                details.insert("causes".to_owned(), Value::Array(vec![cause.value()]));
            }
            Self::FutureRevision { .. } => {
                let causes =
                    json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
                details.insert("causes".to_owned(), causes);
                details.insert("retryAfterSeconds".to_owned(), 1.into());
            }
            Self::Database(error) if error.reason() == Reason::DatabaseUnavailable => {
                details.insert("retryAfterSeconds".to_owned(), 2.into());
            }
            _ => {}
        }
        details
    }

    fn log(&self) {
        if let Self::Store(source) = self {
            let mut chain = source.to_string();
            let mut next = source.source();
            while let Some(error) = next {
                chain.push_str(": ");
                chain.push_str(&error.to_string());
                next = error.source();
            }
            tracing::error!(error = chain, "the resource store failed");
        } else if let Self::Internal(message) = self {
            tracing::error!(error = message, "a request to the Kubernetes API failed");
        }
    }
}

const fn kubelet_reason(code: StatusCode) -> &'static str {
    match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    }
}

impl From<resources::Error> for Error {
    fn from(error: resources::Error) -> Self {
        match error {
            resources::Error::TooDeep { .. } => Self::BadRequest(error.to_string()),
            resources::Error::Database(error) if error.reason() != Reason::InternalError => {
                Self::Database(error)
            }
            error => Self::Store(Box::new(error)),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let headers = [(header::CONTENT_TYPE, "application/json")];
        let status = self.status();
        let mut response = (self.code().0, headers, status.to_string()).into_response();
        if let Some(seconds) = status["details"]["retryAfterSeconds"].as_u64() {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// Tells the client something beside the answer.
pub(crate) fn with_warnings(mut response: Response, warnings: Vec<String>) -> Response {
    for warning in warnings {
        let quoted = warning
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(char::is_control, " ");
        // Text that cannot be in a header is not worth failing for.
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// The `Status` of an operation that has nothing better to return.
pub(crate) fn success(subject: Option<(&Subject, &str)>) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if let Some((subject, uid)) = subject {
        let mut details = json!({"name": subject.name});
        if !subject.kind.group.is_empty() {
            details["group"] = (*subject.kind.group).into();
        }
        details["kind"] = (*subject.kind.plural).into();
        if !uid.is_empty() {
            details["uid"] = uid.into();
        }
        status["details"] = details;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    #[test]
    fn an_invalid_object_names_every_field_at_fault() {
        let mut problems = Problems::default();
        problems.required("spec.containers", "");
        problems.forbidden("spec.nodeName", "it is bound");
        let subject = kinds::PODS.subject("p");
        let status = Error::Invalid { subject, problems }.status();
        assert_eq!(status["code"], 422);
        assert_eq!(status["reason"], "Invalid");
        assert_eq!(
            status["message"],
            "Pod \"p\" is invalid: [spec.containers: Required value, spec.nodeName: Forbidden: it is bound]"
        );
        assert_eq!(status["details"]["kind"], "Pod");
        assert_eq!(status["details"]["causes"][0]["reason"], "FieldValueRequired");
        assert_eq!(status["details"]["causes"][1]["field"], "spec.nodeName");
    }

    #[test]
    fn a_named_group_is_part_of_the_message() {
        let error = Error::not_found(&kinds::LEASES, "leader");
        assert_eq!(
            error.to_string(),
            "leases.coordination.k8s.io \"leader\" not found"
        );
        assert_eq!(error.status()["details"]["group"], "coordination.k8s.io");
    }
}
