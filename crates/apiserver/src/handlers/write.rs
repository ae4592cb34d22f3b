//! Create, replace and patch. A change is computed from the object as it is and stored only if
//! it still is that; when it is not, the change is computed again.

use axum::response::Response;
use coracle_store::resources::{self, Body, Key, Object};
use http::StatusCode;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    admission::{self, UnknownFields},
    body, deletion,
    kinds::{KindRef, NAMESPACES},
    object,
    patch::Patch,
    server::Call,
    status::{Cause, Error},
};

/// Names drawn for one object before giving up.
const DRAWS: usize = 8;

/// Answers POST to a collection.
pub(crate) async fn create(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let view = call.view()?;
    let kind = call.kind();
    let namespace = call.target.namespace.as_str();
    if kind.is_namespaced() && namespace.is_empty() {
        return Err(Error::MethodNotAllowed);
    }
    let given = body::decode_object(&call.headers, bytes)?;
    let is_dry = call.parameters.dry_run()?;
    let unknown = UnknownFields::parse(&call.parameters)?;
    let is_name_drawn = object::name(&given).is_empty();
    for draw in 1.. {
        let admitted = admission::create(kind, namespace, given.clone(), unknown, Uuid::now_v7(), call.now)?;
        let key = kind.key(namespace, object::name(&admitted));
        check_namespace(call, &key).await?;
        match store(call, key, admitted, is_dry).await {
            Err(Error::AlreadyExists(_)) if is_name_drawn && draw < DRAWS => {}
            stored => return Ok(call.show(StatusCode::CREATED, &view, &stored?)),
        }
    }
    Err(Error::Internal("no name was drawn".to_owned()))
}

async fn store(call: &Call, key: Key, admitted: Value, is_dry: bool) -> Result<Body, Error> {
    let kind = call.kind();
    let exists = |key: &Key| Error::AlreadyExists(kind.subject(&key.name));
    if is_dry {
        return match call.resources().get(&key).await? {
            Some(_) => Err(exists(&key)),
            None => Ok(kind.stored(admitted).into()),
        };
    }
    match call.resources().create(key, kind.stored(admitted)).await {
        Ok(object) => Ok(object.body),
        Err(resources::Error::AlreadyExists { key }) => Err(exists(&key)),
        Err(error) => Err(error.into()),
    }
}

/// The namespace of a new object must be there, and not on its way out.
async fn check_namespace(call: &Call, key: &Key) -> Result<(), Error> {
    if key.namespace.is_empty() {
        return Ok(());
    }
    let namespace = NAMESPACES.key("", &key.namespace);
    let found = call.resources().get(&namespace).await?;
    let found = found.ok_or_else(|| Error::not_found(&NAMESPACES, &key.namespace))?;
    if !object::is_terminating(&found.body) {
        return Ok(());
    }
    let name = &key.namespace;
    Err(Error::Forbidden {
        subject: call.kind().subject(&key.name),
        why: format!("unable to create new content in namespace {name} because it is being terminated"),
        cause: Some(Box::new(Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".to_owned(),
        })),
    })
}

/// Answers PUT.
pub(crate) async fn replace(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let given = body::decode_object(&call.headers, bytes)?;
    if object::name(&given).is_empty() {
        return Err(Error::bad_request(
            "metadata.name: Required value: the object to put must have a name",
        ));
    }
    change(call, |_| Ok(given.clone())).await
}

/// Answers PATCH.
pub(crate) async fn patch(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let patch = Patch::parse(&call.headers, bytes)?;
    change(call, |current| patch.apply(current)).await
}

async fn change(call: &Call, change: impl Fn(&Value) -> Result<Value, Error>) -> Result<Response, Error> {
    let view = call.view()?;
    let is_dry = call.parameters.dry_run()?;
    let unknown = UnknownFields::parse(&call.parameters)?;
    let (kind, part) = (call.kind(), call.target.subresource);
    let changed = mutate(call.resources(), kind, &call.key(), is_dry, |current| {
        let current = kind.served(current.clone());
        let changed = admission::update(kind, part, &current, change(&current)?, unknown)?;
        Ok(kind.stored(changed))
    })
    .await?;
    Ok(call.show(StatusCode::OK, &view, &changed.body))
}

/// Changes the object by the function, which sees it as it is. When that leaves it free to go, it
/// goes.
pub(crate) async fn mutate(
    resources: &resources::Resources,
    kind: &KindRef,
    key: &Key,
    is_dry: bool,
    change: impl Fn(&Value) -> Result<Value, Error>,
) -> Result<Object, Error> {
    loop {
        let current = resources.get(key).await?;
        let current = current.ok_or_else(|| Error::not_found(kind, &key.name))?;
        let changed = change(&current.body)?;
        if is_dry {
            return Ok(Object {
                body: changed.into(),
                ..current
            });
        }
        let attempt = if deletion::is_released(kind, &changed) {
            let last = Object {
                body: changed.into(),
                ..current
            };
            resources.delete(key, Some(last.revision)).await.map(|_| last)
        } else {
            resources.update(key.clone(), changed, current.revision).await
        };
        match attempt {
            Ok(object) => return Ok(object),
            // Each such round means that another write went through. What must not be lost to
            // it, the caller says with a resourceVersion, which the change then refuses.
            Err(resources::Error::Conflict { .. } | resources::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
