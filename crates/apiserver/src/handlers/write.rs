//! Create, replace, patch and apply. A change is computed from the object as it is and stored only
//! if it still is that; when it is not, the change is computed again.

pub(crate) mod options;
pub(crate) mod record;

use axum::response::Response;
use coracle_store::resources::{self, Body, Key, Object};
use http::StatusCode;
use serde_json::{Map, Value};
use uuid::Uuid;

use self::{options::Options, record::Record};
use crate::{
    admission, body, deletion,
    identity::{account, escalation},
    kinds::{Kind, KindRef, NAMESPACES, Subresource},
    managed, object,
    patch::Patch,
    reserve::{self, Held},
    server::Call,
    status::{self, Cause, Error},
    validation::Problems,
};

/// Names drawn for one object before giving up.
const DRAWS: usize = 8;

/// Kinds of which PUT makes an object that is not there.
const CREATED_BY_PUT: [(&str, &str); 10] = [
    ("", "endpoints"),
    ("", "events"),
    ("", "limitranges"),
    ("", "services"),
    ("events.k8s.io", "events"),
    ("coordination.k8s.io", "leases"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
];

/// Built-in kinds of which PUT replaces only what the client has seen.
const REPLACED_AS_SEEN: [(&str, &str); 3] = [
    ("coordination.k8s.io", "leases"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("policy", "poddisruptionbudgets"),
];

fn is_one_of(kinds: &[(&str, &str)], kind: &Kind) -> bool {
    kinds.contains(&(&*kind.group, &*kind.plural))
}

/// Answers POST to a collection.
pub(crate) async fn create(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let view = call.view()?;
    let kind = call.kind();
    let namespace = call.target.namespace.as_str();
    if kind.is_namespaced() && namespace.is_empty() {
        return Err(Error::MethodNotAllowed);
    }
    let mut options = Options::parse(call, "CreateOptions", None)?;
    let (mut given, repeated) =
        body::decode_checked(&call.headers, bytes).map_err(|error| unrecognized(kind, error))?;
    options.fields.repeated(repeated);
    let managers = managed::take(&mut given);
    let is_name_drawn = object::name(&given).is_empty();
    let draws = if is_name_drawn { DRAWS } else { 1 };
    let held = reserve::hold(call, true).await?;
    for draw in 1..=draws {
        let id = Uuid::now_v7();
        let given = if draw < draws {
            given.clone()
        } else {
            std::mem::take(&mut given)
        };
        let mut admitted = admission::create(kind, namespace, given, &mut options.fields, id, call.now)?;
        let key = kind.key(namespace, object::name(&admitted));
        check_namespace(call, &key).await?;
        admit(call, &mut admitted).await?;
        held.admit(None, &mut admitted)?;
        let admitted = Record::new(call, &options).created(admitted, managers.as_ref());
        match store(call, key, admitted, options.is_dry).await {
            Err(Error::AlreadyExists(_)) if draw < draws => {}
            Err(Error::AlreadyExists(subject)) if is_name_drawn => return Err(Error::NoNameLeft(subject)),
            stored => {
                let response = call.show(StatusCode::CREATED, &view, &stored?);
                return Ok(status::with_warnings(response, options.fields.warnings()));
            }
        }
    }
    Err(Error::Internal("no name was drawn".to_owned()))
}

/// Adds to a new object what its ServiceAccount has for it, and checks that it grants nothing that
/// its writer does not have.
async fn admit(call: &Call, new: &mut Value) -> Result<(), Error> {
    account::admit(call, new).await?;
    escalation::guard(call).await?.check(None, new)
}

/// A body that cannot be read, as an error that says what it was to be.
fn unrecognized(kind: &Kind, error: Error) -> Error {
    match error {
        Error::BadRequest(why) => {
            let kind = &kind.kind;
            Error::BadRequest(format!(
                "the object provided is unrecognized (must be of type {kind}): {why}"
            ))
        }
        other => other,
    }
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
    if found.body.find("/metadata/deletionTimestamp").is_none() {
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

/// What is to be done to an object.
enum Change {
    /// It becomes this.
    Replace(Value),
    Patch(Patch),
}

/// Answers PUT.
pub(crate) async fn replace(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let kind = call.kind();
    let mut options = Options::parse(call, "UpdateOptions", None)?;
    let (given, repeated) =
        body::decode_checked(&call.headers, bytes).map_err(|error| unrecognized(kind, error))?;
    options.fields.repeated(repeated);
    check_name(call, &given)?;
    change(call, &Change::Replace(given), options).await
}

/// Answers PATCH.
pub(crate) async fn patch(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let patch = Patch::parse(call.kind(), &call.headers, bytes)?;
    let mut options = Options::parse(call, "PatchOptions", Some(&patch))?;
    options.fields.repeated(patch.repeated().to_vec());
    change(call, &Change::Patch(patch), options).await
}

/// The object must have the name that the path has.
fn check_name(call: &Call, object: &Value) -> Result<(), Error> {
    let (given, name) = (object::name(object), call.target.name.as_str());
    if given.is_empty() {
        return Err(Error::BadRequest(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if given == name {
        return Ok(());
    }
    Err(Error::BadRequest(format!(
        "the name of the object ({given}) does not match the name on the URL ({name})"
    )))
}

async fn change(call: &Call, change: &Change, mut options: Options) -> Result<Response, Error> {
    let view = call.view()?;
    let key = call.key();
    let guard = escalation::guard(call).await?;
    loop {
        let (code, attempt) = match call.resources().get(&key).await? {
            Some(current) => {
                let held = reserve::hold(call, false).await?;
                let changed = changed(call, change, &current.body, &mut options, &held)?;
                guard.check(Some(&call.kind().served(Value::clone(&current.body))), &changed)?;
                let changed = call.kind().stored(changed);
                let attempt = put(call, &key, current, changed, options.is_dry).await;
                (StatusCode::OK, attempt)
            }
            None => {
                let held = reserve::hold(call, true).await?;
                let mut admitted = created(call, change, &mut options, &held)?;
                check_namespace(call, &key).await?;
                admit(call, &mut admitted).await?;
                let attempt = store(call, key.clone(), admitted, options.is_dry).await;
                (StatusCode::CREATED, attempt.map(Some))
            }
        };
        match attempt {
            Ok(Some(stored)) => {
                let response = call.show(code, &view, &stored);
                return Ok(status::with_warnings(response, options.fields.warnings()));
            }
            // Each such round means that another write went through. What must not be lost to
            // it, the caller says with a resourceVersion, which the change then refuses.
            Ok(None) | Err(Error::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Stores the changed object, none when it was changed in between.
async fn put(
    call: &Call,
    key: &Key,
    current: Object,
    changed: Value,
    is_dry: bool,
) -> Result<Option<Body>, Error> {
    if is_dry {
        return Ok(Some(changed.into()));
    }
    let stored = exchange(call.resources(), call.kind(), key, current, changed).await?;
    Ok(stored.map(|object| object.body))
}

/// The object after the change.
fn changed(
    call: &Call,
    change: &Change,
    current: &Value,
    options: &mut Options,
    held: &Held,
) -> Result<Value, Error> {
    let (kind, part) = (call.kind(), call.target.subresource);
    let current = kind.served(current.clone());
    let record = Record::new(call, options);
    if let Change::Patch(Patch::Apply(wanted, _)) = change {
        let (mut old, wanted) = (current, record.applicable(wanted)?);
        let before = managed::take(&mut old);
        let (new, managers) = record.apply((&old, before.as_ref()), &wanted)?;
        check_name(call, &new)?;
        let mut new = admission::update(kind, part, &old, new, &mut options.fields)?;
        held.admit(Some(&old), &mut new)?;
        return Ok(record::with(new, &old, before, managers));
    }
    let mut new = match change {
        Change::Replace(given) => {
            check_revision(kind, given)?;
            given.clone()
        }
        Change::Patch(patch) => patch.apply(&current)?,
    };
    let mut old = current;
    let before = managed::take(&mut old);
    let given = managed::take(&mut new);
    let patched = matches!(change, Change::Patch(_)).then(|| new.clone());
    let mut new = admission::update(kind, part, &old, new, &mut options.fields)
        .map_err(|error| of_patch(error, patched.as_ref()))?;
    held.admit(Some(&old), &mut new)?;
    let managers = record.updated((&old, before.as_ref()), &new, given.as_ref());
    Ok(record::with(new, &old, before, managers))
}

/// The object that the change makes where there is none.
fn created(call: &Call, change: &Change, options: &mut Options, held: &Held) -> Result<Value, Error> {
    let kind = call.kind();
    let missing = || Error::not_found(kind, &call.target.name);
    let is_whole = call.target.subresource.is_none();
    let namespace = call.target.namespace.as_str();
    let record = Record::new(call, options);
    let id = Uuid::now_v7();
    match change {
        Change::Patch(Patch::Apply(wanted, _)) if is_whole => {
            let wanted = record.applicable(wanted)?;
            let uid = object::uid(&wanted);
            if !uid.is_empty() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                );
                return Err(Error::conflict(kind, &call.target.name, why));
            }
            let nothing = Value::Object(Map::new());
            let (new, managers) = record.apply((&nothing, None), &wanted)?;
            check_name(call, &new)?;
            let mut new = admission::create(kind, namespace, new, &mut options.fields, id, call.now)?;
            held.admit(None, &mut new)?;
            managed::put(&mut new, managers);
            Ok(new)
        }
        Change::Replace(given) if is_whole && is_one_of(&CREATED_BY_PUT, kind) => {
            let mut given = given.clone();
            let managers = managed::take(&mut given);
            object::put(object::metadata(&mut given), "resourceVersion", None);
            let mut new = admission::create(kind, namespace, given, &mut options.fields, id, call.now)?;
            held.admit(None, &mut new)?;
            Ok(record.created(new, managers.as_ref()))
        }
        _ => Err(missing()),
    }
}

/// Of some kinds, a replacement must say what it replaces.
fn check_revision(kind: &KindRef, given: &Value) -> Result<(), Error> {
    let is_needed = kind.is_custom() || is_one_of(&REPLACED_AS_SEEN, kind);
    let revision = object::text(given, "/metadata/resourceVersion");
    if !is_needed || !(revision.is_empty() || revision == "0") {
        return Ok(());
    }
    let mut problems = Problems::default();
    problems.push_invalid(
        "metadata.resourceVersion",
        "0x0",
        "must be specified for an update",
    );
    Err(Error::Invalid {
        subject: kind.subject(object::name(given)),
        problems,
    })
}

/// An error of what a patch made as an error of the patch.
fn of_patch(error: Error, patched: Option<&Value>) -> Error {
    match (error, patched) {
        (Error::Undecodable { why, .. }, Some(patched)) => {
            let mut problems = Problems::default();
            problems.invalid("patch", patched.to_string(), &why);
            Error::PatchResult(problems)
        }
        (error, _) => error,
    }
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
        if let Some(stored) = exchange(resources, kind, key, current, changed).await? {
            return Ok(stored);
        }
    }
}

/// Puts the changed object in the place of the current one, or removes it when that leaves it free
/// to go. None when it is not the current one any more.
async fn exchange(
    resources: &resources::Resources,
    kind: &Kind,
    key: &Key,
    current: Object,
    changed: Value,
) -> Result<Option<Object>, Error> {
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
        Ok(object) => Ok(Some(object)),
        Err(resources::Error::Conflict { .. } | resources::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The part of the object that a request wrote to, as managers are told apart by it.
fn subresource(part: Option<Subresource>) -> &'static str {
    part.map_or("", Subresource::segment)
}
