//! `metadata.managedFields`: who manages which fields, as clients read and write it.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::set::Set;
use crate::object;

/// Managers that only update, and are remembered apart; the oldest beyond become one.
const UPDATERS: usize = 10;
/// The name of those that are not remembered apart.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// It says what they are to be.
    Apply,
    /// It wrote them.
    Update,
}

impl Operation {
    const fn text(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// A manager and its fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    pub(crate) operation: Operation,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) time: Option<Timestamp>,
    pub(crate) set: Set,
}

impl Entry {
    /// Whether both are of one manager: an applier is the same in every version of its kind.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (self.operation, &self.manager, &self.subresource)
            == (other.operation, &other.manager, &other.subresource)
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The manager as conflicts name it.
    pub(crate) fn title(&self) -> String {
        let mut title = Value::from(self.manager.as_str()).to_string();
        if !self.subresource.is_empty() {
            title.push_str(" with subresource ");
            title.push_str(&Value::from(self.subresource.as_str()).to_string());
        }
        if self.operation == Operation::Update {
            title.push_str(" using ");
            title.push_str(&self.api_version);
        }
        title
    }

    fn read(entry: &Value) -> Option<Self> {
        let text = |field: &str| object::text(entry, field).to_owned();
        let operation = match object::text(entry, "/operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let set = match entry.get("fieldsV1") {
            None | Some(Value::Null) => Set::default(),
            Some(fields) => Set::from_json(fields)?,
        };
        Some(Self {
            manager: text("/manager"),
            operation,
            api_version: text("/apiVersion"),
            subresource: text("/subresource"),
            time: object::time_at(entry, "/time"),
            set,
        })
    }

    fn write(&self) -> Value {
        let mut entry = Map::new();
        let mut put = |field: &str, text: &str| {
            if !text.is_empty() {
                entry.insert(field.to_owned(), text.into());
            }
        };
        put("manager", &self.manager);
        put("operation", self.operation.text());
        put("apiVersion", &self.api_version);
        if let Some(time) = self.time {
            entry.insert("time".to_owned(), object::time(time));
        }
        entry.insert("fieldsType".to_owned(), "FieldsV1".into());
        entry.insert("fieldsV1".to_owned(), self.set.to_json());
        if !self.subresource.is_empty() {
            entry.insert("subresource".to_owned(), self.subresource.as_str().into());
        }
        Value::Object(entry)
    }
}

/// Reads the entries, none when they are not such. Several of one manager become one.
pub(crate) fn read(entries: &Value) -> Option<Vec<Entry>> {
    let mut read: Vec<Entry> = Vec::new();
    for entry in entries.as_array()? {
        let entry = Entry::read(entry)?;
        match read.iter_mut().find(|one| one.is_of(&entry)) {
            Some(one) => one.set.extend(&entry.set),
            None => read.push(entry),
        }
    }
    Some(read)
}

/// The entries that say something, as they are stored; nothing when there are none.
pub(crate) fn write(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|entry| !entry.set.is_empty());
    cap(&mut entries);
    entries.sort_by(|one, other| order(one).cmp(&order(other)));
    let entries: Vec<Value> = entries.iter().map(Entry::write).collect();
    (!entries.is_empty()).then_some(Value::Array(entries))
}

fn order(entry: &Entry) -> (Operation, Option<i64>, &str, &str, &str) {
    let time = entry.time.map(Timestamp::as_second);
    (
        entry.operation,
        time,
        &entry.manager,
        &entry.api_version,
        &entry.subresource,
    )
}

/// Makes one of the updaters that are too many.
fn cap(entries: &mut Vec<Entry>) {
    let is_updater = |entry: &Entry| entry.operation == Operation::Update;
    let excess = entries.iter().filter(|entry| is_updater(entry)).count();
    if excess <= UPDATERS {
        return;
    }
    entries.sort_by_key(|entry| entry.time);
    let mut left = excess - UPDATERS + 1;
    let mut ancient: Vec<Entry> = Vec::new();
    entries.retain(|entry| {
        if left == 0 || !is_updater(entry) {
            return true;
        }
        left -= 1;
        let entry = Entry {
            manager: ANCIENT.to_owned(),
            subresource: String::new(),
            ..entry.clone()
        };
        match ancient.iter_mut().find(|one| one.is_of(&entry)) {
            Some(one) => {
                one.set.extend(&entry.set);
                one.time = entry.time;
            }
            None => ancient.push(entry),
        }
        false
    });
    entries.append(&mut ancient);
}

/// Whether the client asks that everything be forgotten: a list of one empty entry.
pub(crate) fn is_reset(entries: &Value) -> bool {
    matches!(entries.as_array().map(Vec::as_slice), Some([Value::Object(one)]) if one.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, second: i64, fields: Value) -> Value {
        let time = Timestamp::from_second(second).unwrap();
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": object::time(time),
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn entries_are_read_merged_and_written_in_order() {
        let stored = json!([
            entry("b", "Update", 2, json!({"f:data": {"f:b": {}}})),
            entry("a", "Apply", 9, json!({"f:data": {"f:a": {}}})),
            entry("b", "Update", 2, json!({"f:data": {"f:c": {}}})),
            entry("gone", "Update", 1, json!({})),
        ]);
        assert_eq!(
            write(read(&stored).unwrap()).unwrap(),
            json!([
                entry("a", "Apply", 9, json!({"f:data": {"f:a": {}}})),
                entry("b", "Update", 2, json!({"f:data": {"f:b": {}, "f:c": {}}})),
            ])
        );
        assert_eq!(read(&json!([{"manager": "x"}])), None);
        assert!(is_reset(&json!([{}])) && !is_reset(&json!([])));
    }

    #[test]
    fn the_oldest_of_too_many_updaters_become_one() {
        let stored: Value = (0..14_i64)
            .map(|at| {
                entry(
                    &format!("m{at}"),
                    "Update",
                    at,
                    json!({"f:data": {format!("f:{at}"): {}}}),
                )
            })
            .collect();
        let written = write(read(&stored).unwrap()).unwrap();
        let managers = object::list(&written, "")
            .iter()
            .map(|entry| object::text(entry, "/manager"));
        let managers = managers.collect::<Vec<_>>();
        assert_eq!(managers.len(), 10);
        assert_eq!(&managers[..2], ["ancient-changes", "m5"]);
        assert_eq!(written[0]["fieldsV1"]["f:data"].as_object().unwrap().len(), 5);
    }

    #[test]
    fn managers_are_named_with_what_tells_them_apart() {
        let named = |entry: Value| Entry::read(&entry).unwrap().title();
        assert_eq!(named(entry("a", "Apply", 1, json!({}))), "\"a\"");
        assert_eq!(named(entry("a", "Update", 1, json!({}))), "\"a\" using v1");
        let mut status = entry("a", "Update", 1, json!({}));
        status["subresource"] = json!("status");
        assert_eq!(named(status), "\"a\" with subresource \"status\" using v1");
    }
}
