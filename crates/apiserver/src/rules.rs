//! What a kind has of its own, as functions that its row names: the shape of its objects, their
//! defaults, the status they begin with, what is valid and what may change. Pure.

pub(crate) mod budget;
pub(crate) mod claim;
pub(crate) mod cron_job;
pub(crate) mod endpoints;
pub(crate) mod job;
pub(crate) mod namespace;
pub(crate) mod pod;
pub(crate) mod quota;
pub(crate) mod roles;
pub(crate) mod service;
pub(crate) mod settings;
pub(crate) mod syntax;
pub(crate) mod volume;
pub(crate) mod workload;

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    object,
    validation::{self, Problems},
};

/// The object as a type reads it: what is not in it is not known to the type.
pub(crate) type Shape = fn(&Value) -> Result<Value, serde_json::Error>;

/// The rules of a kind.
#[derive(Clone)]
pub(crate) struct Rules {
    /// The object as the kind's type reads it.
    pub(crate) shape: Shape,
    /// Fills in what was left out. Runs before every other rule, on create and on update.
    pub(crate) default: fn(&mut Value),
    /// The status of a new object. Without it, the object keeps the one it came with.
    pub(crate) initial_status: Option<fn(&Value) -> Value>,
    /// What is wrong with an object.
    pub(crate) check: fn(&Value, &mut Problems),
    /// What is wrong with a change, old first.
    pub(crate) check_change: fn(&Value, &Value, &mut Problems),
    /// How many seconds an object has to end, when its deletion asks for so many.
    pub(crate) grace: fn(&Value, Option<i64>) -> i64,
    /// What keeps an object with this name from being deleted at all.
    pub(crate) protection: fn(&str) -> Option<&'static str>,
    /// Changes an object that begins to leave.
    pub(crate) on_delete: fn(&mut Value),
    /// Whether something of the kind's own, beside finalizers, holds an object that is to leave.
    pub(crate) is_held: fn(&Value) -> bool,
    /// Takes over from the old object what a new one leaves out, before it is filled in.
    pub(crate) carry: fn(&Value, &mut Value),
    /// What is wrong with a name.
    pub(crate) name_problem: fn(&str) -> Option<&'static str>,
}

impl Rules {
    pub(crate) const NONE: Self = Self {
        shape: |object| Ok(object.clone()),
        default: |_| {},
        initial_status: None,
        check: |_, _| {},
        check_change: |_, _, _| {},
        grace: |_, _| 0,
        protection: |_| None,
        on_delete: |_| {},
        is_held: |_| false,
        carry: |_, _| {},
        name_problem: |name| (!validation::is_subdomain(name)).then_some(validation::SUBDOMAIN),
    };

    /// Of a kind whose objects only have to be of its type.
    pub(crate) const fn of(shape: Shape) -> Self {
        Self { shape, ..Self::NONE }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

/// The object as the type reads it.
pub(crate) fn shape<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(T::deserialize(object)?)
}

/// Quantities are written as Kubernetes writes them, as text.
fn quantities(object: &mut Value, pointer: &str) {
    if let Some(Value::Object(amounts)) = object::at_mut(object, pointer) {
        amounts.values_mut().for_each(pod::canonical);
    }
}

/// Problems with the quantities at the pointer, which messages name `field`.
fn check_quantities(object: &Value, pointer: &str, field: &str, problems: &mut Problems) {
    let Some(Value::Object(amounts)) = object::at(object, pointer) else {
        return;
    };
    for (resource, amount) in amounts {
        let text = amount.as_str().unwrap_or_default();
        let path = format!("{field}[{resource}]");
        match text.parse::<coracle_api::quantity::Quantity>() {
            Ok(amount) if amount.milli() < 0 => {
                problems.invalid(path, text, "must be greater than or equal to 0");
            }
            Ok(_) => {}
            Err(problem) => problems.invalid(path, text, &problem.to_string()),
        }
    }
}

/// Problems with a change to an object that says of itself that it is immutable.
fn check_immutable(old: &Value, new: &Value, fields: &[&str], problems: &mut Problems) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    if new.get("immutable") != Some(&Value::Bool(true)) {
        problems.forbidden("immutable", "field is immutable when `immutable` is set");
    }
    for field in fields {
        if old.get(*field) != new.get(*field) {
            problems.forbidden(*field, "field is immutable when `immutable` is set");
        }
    }
}

/// Problems with the keys of the data of ConfigMaps and Secrets.
fn check_data_keys(object: &Value, field: &str, problems: &mut Problems) {
    let Some(Value::Object(data)) = object.get(field) else {
        return;
    };
    for key in data.keys() {
        let sound = !key.is_empty()
            && key.len() <= 253
            && key != "."
            && !key.starts_with("..")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !sound {
            let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
                 (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name')";
            problems.invalid(format!("{field}[{key}]"), key.as_str(), detail);
        }
    }
}

/// Runs the function on each item of the list at the pointer.
pub(crate) fn each(object: &mut Value, pointer: &str, change: impl FnMut(&mut Value)) {
    if let Some(Value::Array(items)) = object::at_mut(object, pointer) {
        items.iter_mut().filter(|item| item.is_object()).for_each(change);
    }
}

/// Problems with the names of the items of a list: each must have one, alone.
fn check_names(items: &[Value], field: &str, problems: &mut Problems) {
    for (index, item) in items.iter().enumerate() {
        let path = format!("{field}[{index}].name");
        let name = object::text(item, "/name");
        if name.is_empty() {
            problems.required(path, "");
        } else if !validation::is_label(name) {
            problems.invalid(path, name, validation::LABEL);
        } else if items[..index]
            .iter()
            .any(|earlier| object::text(earlier, "/name") == name)
        {
            problems.duplicate(path, name);
        }
    }
}
