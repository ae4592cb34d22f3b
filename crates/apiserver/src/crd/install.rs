//! Keeps the catalogue at what the definitions in the store say, and tells in their status what
//! came of it.
//!
//! [`refresh`] may be run by anyone at any time: after a write to a definition, by the garbage
//! collector when it hears of one, and before the first request is answered. It looks at those
//! definitions only that it has not seen as they are.

use std::{collections::HashMap, sync::Arc};

use coracle_store::resources::{self, At, Object, Resources};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::definition::{self, Names};
use crate::{
    kinds::{CUSTOM_RESOURCE_DEFINITIONS, Catalogue},
    object,
};

/// The finalizer that stands until the objects of a definition are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The definitions that the catalogue shows: by name, the revision that was looked at.
pub(crate) type Definitions = Arc<Mutex<HashMap<String, Seen>>>;

/// A definition as it was looked at.
#[derive(Debug)]
pub(crate) struct Seen {
    revision: u64,
    group: String,
    plural: String,
    is_served: bool,
}

/// Brings the catalogue to what the definitions say.
///
/// # Errors
///
/// When the store fails.
pub(crate) async fn refresh(resources: &Resources, catalogue: &Catalogue) -> resources::Result<()> {
    let mut seen = catalogue.definitions().lock().await;
    let kind = CUSTOM_RESOURCE_DEFINITIONS.resource();
    let list = resources.list(&kind, None, At::Latest, None, None).await?;
    let is_there = |name: &String| list.objects.iter().any(|object| object.key.name == *name);
    let gone = seen
        .keys()
        .filter(|name| !is_there(name))
        .cloned()
        .collect::<Vec<_>>();
    for name in &gone {
        if let Some(gone) = seen.remove(name) {
            catalogue.replace(&gone.group, &gone.plural, Vec::new());
        }
    }
    if !gone.is_empty() {
        // Their names may have been what others wait for.
        seen.retain(|_, seen| seen.is_served);
    }
    let is_news = |object: &Object| {
        let seen = seen.get(&object.key.name);
        seen.is_none_or(|seen| seen.revision != object.revision)
    };
    let mut news = list.objects.into_iter().filter(is_news).collect::<Vec<_>>();
    // Of two that want the same name, the older has it.
    news.sort_by_cached_key(|one| object::text(&one.body, "/metadata/creationTimestamp").to_owned());
    for object in news {
        let name = object.key.name.clone();
        if let Some(settled) = settle(resources, catalogue, object).await? {
            seen.insert(name, settled);
        }
    }
    Ok(())
}

/// Serves what the definition says, and writes into it that this is so.
async fn settle(
    resources: &Resources,
    catalogue: &Catalogue,
    mut object: Object,
) -> resources::Result<Option<Seen>> {
    loop {
        let names = Names::of(&object.body);
        let conflict = names.conflict(&catalogue.all());
        let now = object::time(Timestamp::now());
        let told = told(&object.body, conflict.as_ref(), &now);
        if told != *object.body {
            match resources.update(object.key.clone(), told, object.revision).await {
                Ok(written) => object = written,
                Err(resources::Error::Conflict { .. }) => {
                    let Some(current) = resources.get(&object.key).await? else {
                        return Ok(None);
                    };
                    object = current;
                    continue;
                }
                Err(resources::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let is_served = condition(&object.body, "Established") == "True";
        if is_served {
            catalogue.replace(&names.group, &names.plural, definition::rows(&object.body));
        }
        return Ok(Some(Seen {
            revision: object.revision,
            group: names.group,
            plural: names.plural,
            is_served,
        }));
    }
}

/// The definition with what became of it in its status, and with the finalizer that lets its
/// objects go first.
fn told(definition: &Value, conflict: Option<&(&'static str, String)>, now: &Value) -> Value {
    let mut told = definition.clone();
    if object::is_terminating(definition) {
        let message = "CustomResource deletion is in progress";
        set(
            &mut told,
            "Terminating",
            true,
            "InstanceDeletionInProgress",
            message,
            now,
        );
        return told;
    }
    if !object::finalizers(definition).any(|finalizer| finalizer == CLEANUP) {
        let metadata = object::metadata(&mut told);
        let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Value::Array(finalizers) = finalizers {
            finalizers.push(CLEANUP.into());
        }
    }
    match conflict {
        None => {
            set(
                &mut told,
                "NamesAccepted",
                true,
                "NoConflicts",
                "no conflicts found",
                now,
            );
            let message = "the initial names have been accepted";
            set(
                &mut told,
                "Established",
                true,
                "InitialNamesAccepted",
                message,
                now,
            );
            let names = definition.pointer("/spec/names").cloned().unwrap_or_default();
            object::section(&mut told, "status").insert("acceptedNames".to_owned(), names);
        }
        Some((reason, message)) => {
            set(&mut told, "NamesAccepted", false, reason, message, now);
            if condition(definition, "Established") != "True" {
                set(
                    &mut told,
                    "Established",
                    false,
                    "NotAccepted",
                    "not all names are accepted",
                    now,
                );
            }
        }
    }
    let stored = object::list(definition, "/spec/versions").iter();
    let stored = stored.filter(|version| version.get("storage") == Some(&Value::Bool(true)));
    let stored = stored
        .filter_map(|version| version.get("name"))
        .cloned()
        .collect::<Vec<_>>();
    let known = object::section(&mut told, "status")
        .entry("storedVersions")
        .or_insert_with(|| json!([]));
    if let Value::Array(known) = known {
        known.extend(
            stored
                .into_iter()
                .filter(|name| !object::list(definition, "/status/storedVersions").contains(name)),
        );
    }
    told
}

fn condition<'a>(definition: &'a Value, name: &str) -> &'a str {
    let conditions = object::list(definition, "/status/conditions").iter();
    conditions
        .filter(|one| object::text(one, "/type") == name)
        .map(|one| object::text(one, "/status"))
        .next()
        .unwrap_or_default()
}

fn set(definition: &mut Value, name: &str, holds: bool, reason: &str, message: &str, now: &Value) {
    let status = if holds { "True" } else { "False" };
    let since = if condition(definition, name) == status {
        let conditions = object::list(definition, "/status/conditions").iter();
        conditions
            .filter(|one| object::text(one, "/type") == name)
            .find_map(|one| one.get("lastTransitionTime").cloned())
    } else {
        None
    };
    let condition = json!({
        "type": name,
        "status": status,
        "lastTransitionTime": since.unwrap_or_else(|| now.clone()),
        "reason": reason,
        "message": message,
    });
    let conditions = object::section(definition, "status")
        .entry("conditions")
        .or_insert_with(|| json!([]));
    if let Value::Array(conditions) = conditions {
        match conditions
            .iter_mut()
            .find(|one| object::text(one, "/type") == name)
        {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
}
