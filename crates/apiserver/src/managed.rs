//! Server-side apply, and the record of who manages which field. Pure: objects go in and come out.
//!
//! - [`structure`](crate::structure) says which values are one piece
//! - `set`: sets of places; `merge`: objects as places; `update`: whose they are after a write
//! - `fields`: `metadata.managedFields`

mod fields;
mod merge;
mod set;
mod update;

#[cfg(test)]
mod model;

use jiff::Timestamp;
use serde_json::{Map, Value};

use self::{
    fields::{Entry, Operation},
    set::{Set, show},
    update::Conflicts,
};
use crate::{object, structure::Structure};

/// The annotation in which `kubectl apply` keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager whose fields `kubectl apply` and `kubectl apply --server-side` share.
const KUBECTL: &str = "kubectl";
/// Who managed what was there before anybody applied.
const BEFORE: &str = "before-first-apply";

/// Who writes, and through what.
#[derive(Debug, Clone)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) api_version: &'a str,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) now: Timestamp,
}

impl Writer<'_> {
    fn entry(&self, operation: Operation) -> Entry {
        Entry {
            manager: self.manager.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: Some(self.now),
            set: Set::default(),
        }
    }
}

/// Someone manages what the applier wants to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The manager, as people read it.
    pub(crate) manager: String,
    pub(crate) field: String,
}

/// Why an object was not applied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    /// Others manage these fields.
    Conflicts(Vec<Conflict>),
    /// It cannot be laid over another object.
    Misfit(String),
}

/// `metadata.managedFields`, taken out of an object.
pub(crate) fn take(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.shift_remove("managedFields")
}

/// Puts `metadata.managedFields` into an object.
pub(crate) fn put(object: &mut Value, entries: Option<Value>) {
    object::put(object::metadata(object), "managedFields", entries);
}

/// The managers of a new object: all that it says is its writer's. `given` is what the request has
/// to say of managers.
pub(crate) fn created(
    new: &Value,
    given: Option<&Value>,
    structure: &Structure<'_>,
    writer: &Writer<'_>,
) -> Option<Value> {
    let entries = given.and_then(fields::read).unwrap_or_default();
    let nothing = Value::Object(Map::new());
    let writer = writer.entry(Operation::Update);
    fields::write(update::record(entries, &nothing, new, structure, &writer))
}

/// The managers after a change other than by apply, from those before. An object whose managers
/// are not known stays so. `given` is what the request has to say of managers.
pub(crate) fn updated(
    (old, before): (&Value, Option<&Value>),
    new: &Value,
    given: Option<&Value>,
    structure: &Structure<'_>,
    writer: &Writer<'_>,
) -> Option<Value> {
    let mut entries = None;
    if writer.subresource.is_empty()
        && let Some(given) = given
    {
        if fields::is_reset(given) {
            return None;
        }
        // A client that knows nothing of managers does not make them forgotten.
        entries = fields::read(given).filter(|entries| !entries.is_empty());
    }
    let entries = entries
        .or_else(|| before.and_then(fields::read))
        .unwrap_or_default();
    if entries.is_empty() {
        return None;
    }
    let writer = writer.entry(Operation::Update);
    fields::write(update::record(entries, old, new, structure, &writer))
}

/// The object as the applier wants it, and its managers, from those before. An object that is not
/// there yet is empty.
pub(crate) fn apply(
    (live, before): (&Value, Option<&Value>),
    wanted: &Value,
    structure: &Structure<'_>,
    writer: &Writer<'_>,
    is_forced: bool,
) -> Result<(Value, Option<Value>), Refusal> {
    let misfits = merge::check(wanted, structure);
    if !misfits.is_empty() {
        let misfits = misfits
            .iter()
            .map(|misfit| format!("{}: {}", show(&misfit.path), misfit.why));
        return Err(Refusal::Misfit(join(misfits.collect())));
    }
    let mut entries = before.and_then(fields::read).unwrap_or_default();
    if entries.is_empty() {
        let nothing = Value::Object(Map::new());
        let before = Writer {
            manager: BEFORE,
            ..writer.clone()
        };
        entries = update::record(
            entries,
            &nothing,
            live,
            structure,
            &before.entry(Operation::Update),
        );
    }
    let applier = writer.entry(Operation::Apply);
    let attempt = update::apply(entries.clone(), live, wanted, structure, &applier, is_forced);
    let (mut new, entries) = match attempt {
        Ok(applied) => applied,
        Err(conflicts) => {
            let conflicts = if writer.manager == KUBECTL {
                beyond_client_side(conflicts, live, structure, writer)
            } else {
                conflicts
            };
            if !conflicts.0.is_empty() {
                return Err(Refusal::Conflicts(told(conflicts)));
            }
            update::apply(entries, live, wanted, structure, &applier, true)
                .map_err(|conflicts| Refusal::Conflicts(told(conflicts)))?
        }
    };
    if writer.manager == KUBECTL && last_applied(&new).is_some() {
        let text = format!("{}\n", without_last_applied(wanted));
        let annotations = object::metadata(&mut new).get_mut("annotations");
        if let Some(Value::Object(annotations)) = annotations {
            annotations.insert(LAST_APPLIED.to_owned(), text.into());
        }
    }
    Ok((new, fields::write(entries)))
}

fn join(lines: Vec<String>) -> String {
    match lines.as_slice() {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    }
}

fn last_applied(object: &Value) -> Option<&str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(LAST_APPLIED)?
        .as_str()
}

fn without_last_applied(wanted: &Value) -> Value {
    let mut wanted = wanted.clone();
    if let Some(Value::Object(annotations)) = wanted.pointer_mut("/metadata/annotations") {
        annotations.shift_remove(LAST_APPLIED);
    }
    wanted
}

/// The conflicts without those over fields that are as client-side apply left them.
fn beyond_client_side(
    conflicts: Conflicts,
    live: &Value,
    structure: &Structure<'_>,
    writer: &Writer<'_>,
) -> Conflicts {
    let last = last_applied(live).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(last) = last.filter(|last| object::text(last, "/apiVersion") == writer.api_version) else {
        return conflicts;
    };
    let allowed = update::left_by_client(live, &last, structure);
    let rest = conflicts
        .0
        .into_iter()
        .map(|(entry, set)| (entry, set.difference(&allowed)));
    Conflicts(rest.filter(|(_, set)| !set.is_empty()).collect())
}

fn told(Conflicts(conflicts): Conflicts) -> Vec<Conflict> {
    let mut told = Vec::new();
    for (entry, set) in conflicts {
        let manager = entry.title();
        told.extend(set.paths().iter().map(|path| Conflict {
            manager: manager.clone(),
            field: show(path),
        }));
    }
    told.sort_by(|one, other| one.manager.cmp(&other.manager));
    told
}

/// Whether the two lists of managers differ in more than times.
pub(crate) fn differ(old: Option<&Value>, new: Option<&Value>) -> bool {
    let timeless = |entries: Option<&Value>| {
        let entries = entries.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let entries = entries.iter().map(|entry| {
            let mut entry = entry.clone();
            object::put(object::as_map(&mut entry), "time", None);
            entry
        });
        entries.collect::<Vec<_>>()
    };
    let (old, mut new) = (timeless(old), timeless(new));
    // Times are what orders them, too.
    old.len() != new.len()
        || old
            .iter()
            .any(|entry| match new.iter().position(|one| one == entry) {
                Some(at) => {
                    new.swap_remove(at);
                    false
                }
                None => true,
            })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn writer(manager: &str) -> Writer<'_> {
        Writer {
            manager,
            api_version: "v1",
            subresource: "",
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn structure() -> Structure<'static> {
        Structure::of("", "ConfigMap", None)
    }

    fn config(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
    }

    #[test]
    fn a_created_object_is_its_writers() {
        let entries = created(
            &config(json!({"a": "1"})),
            None,
            &structure(),
            &writer("kubectl-create"),
        )
        .unwrap();
        assert_eq!(
            entries,
            json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "v1", "time": "1970-01-01T00:00:00Z",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}, "f:a": {}}}}])
        );
    }

    #[test]
    fn what_was_there_before_the_first_apply_is_contested() {
        let live = config(json!({"a": "1"}));
        let Err(Refusal::Conflicts(conflicts)) = apply(
            (&live, None),
            &config(json!({"a": "2"})),
            &structure(),
            &writer("me"),
            false,
        ) else {
            panic!("it must conflict");
        };
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].manager, "\"before-first-apply\" using v1");
        assert_eq!(conflicts[0].field, ".data.a");
    }

    #[test]
    fn kubectl_takes_over_what_its_client_side_apply_left() {
        let last = config(json!({"a": "1", "b": "1"}));
        let mut live = last.clone();
        live["metadata"]["annotations"] = json!({LAST_APPLIED: last.to_string()});
        let entries = created(&live, None, &structure(), &writer("kubectl-client-side-apply"));
        let wanted = config(json!({"a": "2", "b": "1"}));
        let (new, _) = apply(
            (&live, entries.as_ref()),
            &wanted,
            &structure(),
            &writer("kubectl"),
            false,
        )
        .unwrap();
        assert_eq!(new["data"]["a"], "2");
        let annotation = new["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert!(annotation.contains("\"a\":\"2\""));
        // What has changed since is not kubectl's.
        live["data"]["b"] = json!("9");
        let refused = apply(
            (&live, entries.as_ref()),
            &config(json!({"b": "2"})),
            &structure(),
            &writer("kubectl"),
            false,
        );
        assert!(matches!(refused, Err(Refusal::Conflicts(_))));
    }

    #[test]
    fn managers_can_be_reset_and_are_not_lost_by_accident() {
        let old = config(json!({"a": "1"}));
        let entries = created(&old, None, &structure(), &writer("x"));
        let before = entries.as_ref();
        let update =
            |given: Option<Value>| updated((&old, before), &old, given.as_ref(), &structure(), &writer("y"));
        assert_eq!(update(None), entries);
        assert_eq!(update(Some(json!([]))), entries);
        assert_eq!(update(Some(json!([{}]))), None);
        assert!(!differ(entries.as_ref(), update(None).as_ref()));
    }

    #[test]
    fn duplicate_items_cannot_be_applied() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}});
        let refused = apply(
            (&json!({}), None),
            &pod,
            &Structure::of("", "Pod", None),
            &writer("x"),
            false,
        );
        assert_eq!(
            refused,
            Err(Refusal::Misfit(
                ".spec.containers: duplicate entries for key [name=\"a\"]".to_owned()
            ))
        );
    }
}
