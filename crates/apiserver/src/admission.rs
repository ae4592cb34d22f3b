//! What a written object becomes before it is stored: its metadata is the server's, what was left
//! out is filled in, what is wrong is refused. Pure: time and identity are passed in.

mod metadata;
mod shape;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

pub(crate) use self::shape::{FieldValidation, keep as keep_known, unknown_fields};
use crate::{
    crd,
    kinds::{Handling, Kind, KindRef, Subresource},
    object,
    status::Error,
    validation::Problems,
};

/// Metadata that users write. Everything else is the server's.
const WRITABLE: [&str; 4] = ["labels", "annotations", "ownerReferences", "finalizers"];

/// A new object, as it is to be stored.
pub(crate) fn create(
    kind: &KindRef,
    namespace: &str,
    mut object: Value,
    fields: &mut FieldValidation,
    id: Uuid,
    now: Timestamp,
) -> Result<Value, Error> {
    if matches!(kind.handling, Handling::Leaving) {
        return Err(Error::MethodNotAllowed);
    }
    prune_nulls(kind, &mut object);
    check_kind(kind, &object)?;
    check_namespace(namespace, &object)?;
    if !object::text(&object, "/metadata/resourceVersion").is_empty() {
        return Err(Error::Unexplained(
            "resourceVersion should not be set on objects to be created".to_owned(),
        ));
    }
    let given = std::mem::take(object::metadata(&mut object));
    fields.see_metadata(&given);
    let mut metadata = Map::new();
    let prefix = given
        .get("generateName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match given.get("name").and_then(Value::as_str) {
        Some(name) if !name.is_empty() => {
            metadata.insert("name".to_owned(), name.into());
        }
        _ if !prefix.is_empty() => {
            metadata.insert("name".to_owned(), metadata::generated_name(prefix, id).into());
        }
        _ => {}
    }
    if !prefix.is_empty() {
        metadata.insert("generateName".to_owned(), prefix.into());
    }
    if !namespace.is_empty() {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    metadata.insert("uid".to_owned(), id.to_string().into());
    if kind.has_generation {
        metadata.insert("generation".to_owned(), 1.into());
    }
    metadata.insert("creationTimestamp".to_owned(), object::time(now));
    carry(&given, &mut metadata);

    let mut object = assemble(kind, metadata, object);
    if let Some(initial) = kind.rules.initial_status {
        object::put(object::as_map(&mut object), "status", None);
        (kind.rules.default)(&mut object);
        let status = initial(&object);
        object::as_map(&mut object).insert("status".to_owned(), status);
    } else {
        if kind.schema.is_some() && kind.has(Subresource::Status) {
            object::put(object::as_map(&mut object), "status", None);
        }
        (kind.rules.default)(&mut object);
    }
    shape::conform(kind, &mut object, fields)?;
    let mut problems = Problems::default();
    metadata::check(kind, &object, &mut problems);
    check(kind, None, &object, &mut problems);
    finish(kind, object, problems)
}

/// An object changed from `old`, as it is to be stored. `part` is the subresource written to.
pub(crate) fn update(
    kind: &KindRef,
    part: Option<Subresource>,
    old: &Value,
    mut new: Value,
    fields: &mut FieldValidation,
) -> Result<Value, Error> {
    prune_nulls(kind, &mut new);
    check_kind(kind, &new)?;
    check_namespace(object::namespace(old), &new)?;
    check_same_object(kind, old, &new)?;

    let mut metadata = old
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut object = match part {
        None => {
            let given = std::mem::take(object::metadata(&mut new));
            fields.see_metadata(&given);
            for field in WRITABLE {
                object::put(&mut metadata, field, None);
            }
            carry(&given, &mut metadata);
            if kind.has(Subresource::Status) {
                object::put(object::as_map(&mut new), "status", old.get("status").cloned());
            }
            if kind.has(Subresource::Finalize) {
                // Written through that subresource alone.
                let held = old.pointer("/spec/finalizers").cloned();
                object::put(object::section(&mut new, "spec"), "finalizers", held);
            }
            assemble(kind, metadata, new)
        }
        Some(Subresource::Finalize) => {
            let mut object = old.clone();
            let held = new.pointer("/spec/finalizers").cloned();
            object::put(object::section(&mut object, "spec"), "finalizers", held);
            object
        }
        Some(_) => {
            let mut object = old.clone();
            object::put(object::as_map(&mut object), "status", new.get("status").cloned());
            object
        }
    };
    let mut problems = Problems::default();
    if part.is_none() {
        (kind.rules.carry)(old, &mut object);
        (kind.rules.default)(&mut object);
        shape::conform(kind, &mut object, fields)?;
        metadata::check(kind, &object, &mut problems);
        metadata::check_finalizers(old, &object, &mut problems);
        check(kind, Some(old), &object, &mut problems);
        (kind.rules.check_change)(old, &object, &mut problems);
        if kind.has_generation && says(old) != says(&object) {
            let generation = object::number(old, "/metadata/generation") + 1;
            object::metadata(&mut object).insert("generation".to_owned(), generation.into());
        }
    } else {
        shape::conform(kind, &mut object, fields)?;
        if kind.schema.is_some() {
            check(kind, Some(old), &object, &mut problems);
        }
    }
    finish(kind, object, problems)
}

/// Of a kind with a schema of its own, the schema says what null is.
fn prune_nulls(kind: &Kind, object: &mut Value) {
    if kind.schema.is_none() {
        object::prune_nulls(object);
    } else if let Some(metadata) = object.get_mut("metadata") {
        object::prune_nulls(metadata);
    }
}

fn check(kind: &Kind, old: Option<&Value>, object: &Value, problems: &mut Problems) {
    (kind.rules.check)(object, problems);
    if let Some(schema) = &kind.schema {
        crd::check_object(schema, object, old, problems);
    }
}

/// What an object says beside metadata and status.
fn says(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    let mut says = fields
        .filter(|(field, _)| *field != "metadata" && *field != "status")
        .collect::<Vec<_>>();
    says.sort_by_key(|(field, _)| *field);
    says
}

fn finish(kind: &KindRef, object: Value, problems: Problems) -> Result<Value, Error> {
    if problems.is_empty() {
        return Ok(object);
    }
    let name = object::name(&object);
    let name = if name.is_empty() {
        object::text(&object, "/metadata/generateName")
    } else {
        name
    };
    Err(Error::Invalid {
        subject: kind.subject(name),
        problems,
    })
}

/// The object in the order that people read.
fn assemble(kind: &Kind, metadata: Map<String, Value>, mut object: Value) -> Value {
    let mut assembled = Map::new();
    assembled.insert("kind".to_owned(), (*kind.kind).into());
    assembled.insert("apiVersion".to_owned(), kind.api_version().into());
    assembled.insert("metadata".to_owned(), Value::Object(metadata));
    for (field, value) in std::mem::take(object::as_map(&mut object)) {
        assembled.entry(field).or_insert(value);
    }
    Value::Object(assembled)
}

/// Takes over what users write of the metadata, unless it is empty.
fn carry(given: &Map<String, Value>, metadata: &mut Map<String, Value>) {
    for field in WRITABLE {
        let is_empty = |value: &Value| {
            value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
        };
        if let Some(value) = given.get(field).filter(|value| !is_empty(value)) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
}

fn check_kind(kind: &KindRef, object: &Value) -> Result<(), Error> {
    let (api_version, name) = (object::text(object, "/apiVersion"), object::text(object, "/kind"));
    let right = kind.api_version();
    if !(api_version.is_empty() || api_version == right) {
        return Err(Error::BadRequest(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({right})"
        )));
    }
    if !(name.is_empty() || name == kind.kind) {
        let wanted = &kind.kind;
        return Err(Error::BadRequest(format!(
            "the object provided is unrecognized (must be of type {wanted}): its kind is {name}"
        )));
    }
    Ok(())
}

fn check_namespace(namespace: &str, object: &Value) -> Result<(), Error> {
    let given = object::namespace(object);
    if given.is_empty() || given == namespace {
        return Ok(());
    }
    let message = "the namespace of the provided object does not match the namespace sent on the request";
    Err(Error::bad_request(message))
}

/// Name, uid and revision, where the new object has them, must be those of the old one.
fn check_same_object(kind: &KindRef, old: &Value, new: &Value) -> Result<(), Error> {
    let name = object::name(old);
    let differs = |pointer: &str| {
        let given = object::text(new, pointer);
        (!given.is_empty() && given != object::text(old, pointer)).then_some(given)
    };
    if let Some(given) = differs("/metadata/name") {
        return Err(Error::BadRequest(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    if let Some(given) = differs("/metadata/uid") {
        let uid = object::uid(old);
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
        return Err(Error::conflict(kind, name, why));
    }
    match differs("/metadata/resourceVersion") {
        Some(given) if given != "0" => Err(Error::modified(kind, name)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        kinds::{self, PODS},
        validation,
    };

    const ID: Uuid = Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0001);

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}})
    }

    fn created(object: Value) -> Result<Value, Error> {
        create(
            &PODS,
            "ns",
            object,
            &mut FieldValidation::ignore(),
            ID,
            "2026-11-22T10:00:00.5Z".parse().unwrap(),
        )
    }

    #[test]
    fn a_new_object_has_the_metadata_that_the_server_gives_it() {
        let mut object = pod();
        object["metadata"]["uid"] = json!("mine");
        object["metadata"]["creationTimestamp"] = json!(null);
        object["metadata"]["labels"] = json!({"a": "b"});
        object["metadata"]["annotations"] = json!({});
        object["status"] = json!({"phase": "Running"});
        let object = created(object).unwrap();
        assert_eq!(
            object["metadata"],
            json!({
                "name": "p",
                "namespace": "ns",
                "uid": ID.to_string(),
                "generation": 1,
                "creationTimestamp": "2026-11-22T10:00:00Z",
                "labels": {"a": "b"},
            })
        );
        assert_eq!(
            object["status"],
            json!({"phase": "Pending", "qosClass": "BestEffort"})
        );
        assert_eq!(
            (&object["kind"], &object["apiVersion"]),
            (&json!("Pod"), &json!("v1"))
        );
    }

    #[test]
    fn names_are_generated_from_a_prefix() {
        let mut object = pod();
        object["metadata"] = json!({"generateName": "x".repeat(70)});
        let object = created(object).unwrap();
        let name = object::name(&object);
        assert_eq!(name.len(), 63);
        assert!(validation::is_label(name));
        object::name(&object).strip_prefix(&"x".repeat(58)).unwrap();
    }

    #[test]
    fn what_cannot_be_created_is_refused_with_the_reason() {
        for (pointer, value, expected) in [
            ("/metadata", json!({}), "metadata.name: Required value"),
            (
                "/metadata/name",
                json!("Bad_Name"),
                "metadata.name: Invalid value",
            ),
            (
                "/metadata",
                json!({"name": "p", "namespace": "other"}),
                "does not match the namespace",
            ),
            (
                "/metadata",
                json!({"name": "p", "resourceVersion": "1"}),
                "should not be set",
            ),
            (
                "/metadata",
                json!({"name": "p", "labels": {"a": "b c"}}),
                "metadata.labels: Invalid value: \"b c\"",
            ),
            (
                "/metadata",
                json!({"name": "p", "ownerReferences": [{"name": "x"}]}),
                "ownerReferences.uid",
            ),
            ("/spec", json!({}), "spec.containers: Required value"),
            (
                "/spec",
                json!({"containers": "none"}),
                "cannot be handled as a Pod",
            ),
            (
                "/spec/containers/0/image",
                json!(""),
                "spec.containers[0].image: Required value",
            ),
        ] {
            let mut object = pod();
            *object.pointer_mut(pointer).unwrap() = value;
            let message = created(object).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let mut service = pod();
        service["kind"] = json!("Service");
        assert!(created(service).unwrap_err().to_string().contains("unrecognized"));
    }

    #[test]
    fn the_object_and_its_status_are_written_apart() {
        let old = created(pod()).unwrap();
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a": "b"});
        new["status"]["phase"] = json!("Running");
        let main = update(&PODS, None, &old, new.clone(), &mut FieldValidation::ignore()).unwrap();
        assert_eq!(main["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(main["status"]["phase"], "Pending");
        assert_eq!(main["metadata"]["generation"], 1);
        let status = update(
            &PODS,
            Some(Subresource::Status),
            &old,
            new,
            &mut FieldValidation::ignore(),
        )
        .unwrap();
        assert_eq!(status["metadata"].get("labels"), None);
        assert_eq!(status["status"]["phase"], "Running");
    }

    #[test]
    fn a_change_of_the_spec_is_a_new_generation() {
        let old = created(pod()).unwrap();
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("x:2");
        assert_eq!(
            update(&PODS, None, &old, new, &mut FieldValidation::ignore()).unwrap()["metadata"]["generation"],
            2
        );
    }

    #[test]
    fn a_change_to_another_object_or_revision_is_a_conflict() {
        let mut old = created(pod()).unwrap();
        old["metadata"]["resourceVersion"] = json!("7");
        for (field, value) in [("uid", "other"), ("resourceVersion", "6")] {
            let mut new = old.clone();
            new["metadata"][field] = json!(value);
            assert!(
                matches!(
                    update(&PODS, None, &old, new, &mut FieldValidation::ignore()),
                    Err(Error::Conflict { .. })
                ),
                "{field}"
            );
        }
        let mut unconditional = old.clone();
        unconditional["metadata"] = json!({"name": "p"});
        assert!(update(&PODS, None, &old, unconditional, &mut FieldValidation::ignore()).is_ok());
    }

    #[test]
    fn no_finalizer_is_added_to_what_is_leaving() {
        let mut old = created(pod()).unwrap();
        old["metadata"]["deletionTimestamp"] = json!("2026-11-22T10:00:00Z");
        old["metadata"]["finalizers"] = json!(["a.io/x"]);
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["a.io/x", "a.io/y"]);
        assert!(matches!(
            update(&PODS, None, &old, new.clone(), &mut FieldValidation::ignore()),
            Err(Error::Invalid { .. })
        ));
        new["metadata"]["finalizers"] = json!([]);
        new["metadata"]["deletionTimestamp"] = json!(null);
        let freed = update(&PODS, None, &old, new, &mut FieldValidation::ignore()).unwrap();
        assert_eq!(freed["metadata"].get("finalizers"), None);
        assert!(object::is_terminating(&freed));
    }

    #[test]
    fn a_namespace_is_finalized_through_its_subresource() {
        let namespace = json!({"metadata": {"name": "n"}});
        let old = create(
            &kinds::NAMESPACES,
            "",
            namespace,
            &mut FieldValidation::ignore(),
            ID,
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        assert_eq!(old["spec"]["finalizers"], json!(["kubernetes"]));
        let mut new = old.clone();
        new["spec"]["finalizers"] = json!([]);
        assert_eq!(
            update(
                &kinds::NAMESPACES,
                None,
                &old,
                new.clone(),
                &mut FieldValidation::ignore()
            )
            .unwrap(),
            old
        );
        let done = update(
            &kinds::NAMESPACES,
            Some(Subresource::Finalize),
            &old,
            new,
            &mut FieldValidation::ignore(),
        )
        .unwrap();
        assert_eq!(done["spec"]["finalizers"], json!([]));
    }
}
