//! Delete, of one object and of all that are selected in a collection.

use axum::response::Response;
use http::StatusCode;

use crate::{
    body,
    deletion::{self, Options, Outcome},
    handlers::read,
    object,
    server::Call,
    status::{self, Error},
};

/// Answers DELETE of one object.
pub(crate) async fn delete(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let view = call.view()?;
    let options = options(call, bytes)?;
    let kind = call.kind();
    let outcome = deletion::execute(call.resources(), kind, &call.key(), &options, call.now).await?;
    Ok(match outcome {
        Outcome::Removed(object) if !kind.returns_deleted => {
            let subject = kind.subject(&object.key.name);
            let success = status::success(Some((&subject, object::uid(&object.body))));
            call.reply(StatusCode::OK, &success)
        }
        Outcome::Removed(object) | Outcome::Pending(object) => call.show(StatusCode::OK, &view, &object.body),
    })
}

/// Answers DELETE of a collection, with what was in it.
pub(crate) async fn collection(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let kind = call.kind();
    if kind.is_namespaced() && call.target.namespace.is_empty() {
        return Err(Error::MethodNotAllowed);
    }
    let view = call.view()?;
    let options = options(call, bytes)?;
    let limit = read::limit(&call.parameters)?;
    let (metadata, objects) = read::snapshot(call, &read::selection(call)?, 0, limit).await?;
    let mut deleted = Vec::with_capacity(objects.len());
    for object in objects {
        match deletion::execute(call.resources(), kind, &object.key, &options, call.now).await {
            Ok(Outcome::Removed(object) | Outcome::Pending(object)) => deleted.push(object.body),
            // Someone else was faster, or it is one of those that stay.
            Err(Error::NotFound(_) | Error::Forbidden { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(call.show_list(&view, metadata, deleted))
}

fn options(call: &Call, bytes: &[u8]) -> Result<Options, Error> {
    let body = body::decode_optional(&call.headers, bytes)?;
    Options::parse(body.as_ref(), &call.parameters)
}
