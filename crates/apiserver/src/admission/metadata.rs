//! Metadata of written objects: generated names, and what is wrong with what users wrote.

use serde_json::Value;
use uuid::Uuid;

use crate::{
    kinds::Kind,
    object,
    validation::{self, Problems},
};

/// Names are generated from these, as Kubernetes does: nothing that spells a word.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Of the prefix of a generated name, so that the name stays a DNS label.
const PREFIX: usize = 58;
/// All annotations of an object together.
const ANNOTATIONS: usize = 256 * 1024;

/// A name from the prefix, as random as the id.
pub(super) fn generated_name(prefix: &str, id: Uuid) -> String {
    let cut = prefix
        .char_indices()
        .nth(PREFIX)
        .map_or(prefix.len(), |(at, _)| at);
    // The low half of a version 7 UUID is random.
    let mut random = id.as_u64_pair().1 & u64::from(u32::MAX);
    let base = ALPHABET.len() as u64;
    let mut name = prefix[..cut].to_owned();
    for _ in 0..5 {
        let letter = usize::try_from(random % base).map_or('x', |at| char::from(ALPHABET[at]));
        name.push(letter);
        random /= base;
    }
    name
}

/// What is wrong with the metadata of an object.
pub(super) fn check(kind: &Kind, object: &Value, problems: &mut Problems) {
    let name = object::name(object);
    if name.is_empty() {
        problems.required("metadata.name", "name or generateName is required");
    } else if let Some(problem) = (kind.rules.name_problem)(name) {
        let is_sound = |length: usize| {
            name.get(..length)
                .is_some_and(|cut| (kind.rules.name_problem)(cut).is_none())
        };
        match [253, 63].into_iter().find(|length| is_sound(*length)) {
            Some(length) => {
                let detail = format!("must be no more than {length} characters");
                problems.invalid("metadata.name", name, &detail);
            }
            None => problems.invalid("metadata.name", name, problem),
        }
    }
    for (key, value) in map(object, "/metadata/labels") {
        if let Some(problem) = validation::qualified_name_problem(key) {
            problems.invalid("metadata.labels", key.as_str(), problem);
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(problem) = validation::label_value_problem(value) {
            problems.invalid("metadata.labels", value, problem);
        }
    }
    let mut size = 0;
    for (key, value) in map(object, "/metadata/annotations") {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Some(problem) = validation::qualified_name_problem(&key.to_lowercase()) {
            problems.invalid("metadata.annotations", key.as_str(), problem);
        }
    }
    if size > ANNOTATIONS {
        problems.too_long("metadata.annotations", ANNOTATIONS);
    }
    for finalizer in object::finalizers(object) {
        if let Some(problem) = validation::qualified_name_problem(finalizer) {
            problems.invalid("metadata.finalizers", finalizer, problem);
        }
    }
    check_owners(object, problems);
}

fn check_owners(object: &Value, problems: &mut Problems) {
    let owners = object::list(object, "/metadata/ownerReferences");
    for owner in owners {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if object::text(owner, &format!("/{field}")).is_empty() {
                problems.required(format!("metadata.ownerReferences.{field}"), "must not be empty");
            }
        }
    }
    let controllers = owners
        .iter()
        .filter(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    if controllers.count() > 1 {
        let detail = "Only one reference can have Controller set to true";
        problems.invalid("metadata.ownerReferences", "", detail);
    }
}

/// What is wrong with a change of the finalizers.
pub(super) fn check_finalizers(old: &Value, new: &Value, problems: &mut Problems) {
    if !object::is_terminating(old) {
        return;
    }
    let added = object::finalizers(new).filter(|one| !object::finalizers(old).any(|old| old == *one));
    let added = added.collect::<Vec<_>>();
    if !added.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
        );
        problems.forbidden("metadata.finalizers", &detail);
    }
}

fn map<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object::at(object, pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}
