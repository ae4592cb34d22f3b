//! Objects, lists and events in the form that the client accepts.

use bytes::Bytes;
use coracle_store::resources::Body;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{kinds::KindRef, negotiate::Form, request::Parameters, status::Error};

/// What a row of a table carries of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// How to show objects of one kind.
#[derive(Debug, Clone)]
pub(crate) struct View {
    kind: KindRef,
    form: Form,
    include: Include,
}

/// What is said of a list as a whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListMetadata {
    pub(crate) revision: u64,
    /// The token of the next page, when there is one.
    pub(crate) next: Option<String>,
    /// How many objects follow, when that is known.
    pub(crate) remaining: Option<u64>,
}

impl ListMetadata {
    fn value(self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = self.next {
            metadata["continue"] = next.into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

impl View {
    pub(crate) fn new(kind: KindRef, form: Form, parameters: &Parameters) -> Result<Self, Error> {
        let include = match parameters.given("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            Some(other) => {
                return Err(Error::BadRequest(format!(
                    "includeObject: Unsupported value: \"{other}\": supported values: \"None\", \"Metadata\", \
                     \"Object\""
                )));
            }
        };
        Ok(Self { kind, form, include })
    }

    /// One object.
    pub(crate) fn object(&self, object: Value, now: Timestamp) -> Value {
        match self.form {
            Form::Object => self.kind.served(object),
            Form::Metadata => partial(object),
            Form::Table => {
                let revision = object
                    .pointer("/metadata/resourceVersion")
                    .cloned()
                    .unwrap_or_default();
                self.table(json!({"resourceVersion": revision}), vec![object], now)
            }
        }
    }

    /// Whether objects are shown as they are stored.
    pub(crate) fn is_plain(&self) -> bool {
        self.form == Form::Object && self.kind.storage.is_none()
    }

    /// One object as JSON. What is shown as it is stored is not parsed.
    pub(crate) fn text(&self, object: &Body, now: Timestamp) -> Bytes {
        if self.is_plain() {
            return object.text().clone();
        }
        self.object(Value::clone(object), now).to_string().into()
    }

    /// Objects of a list as JSON, in pieces. What is shown as it is stored is not parsed.
    pub(crate) fn list_text(
        &self,
        metadata: ListMetadata,
        objects: Vec<Body>,
        now: Timestamp,
    ) -> impl Iterator<Item = Bytes> + Send + use<> {
        let (head, objects) = if self.is_plain() {
            let empty = self.list(metadata, Vec::new(), now).to_string();
            (empty, objects)
        } else {
            let objects = objects.into_iter().map(Body::into_value).collect();
            (self.list(metadata, objects, now).to_string(), Vec::new())
        };
        pieces(head, objects)
    }

    /// Objects of a list.
    pub(crate) fn list(&self, metadata: ListMetadata, objects: Vec<Value>, now: Timestamp) -> Value {
        let metadata = metadata.value();
        let (kind, api_version) = match self.form {
            Form::Object => (self.kind.list_kind.clone().into_owned(), self.kind.api_version()),
            Form::Metadata => ("PartialObjectMetadataList".to_owned(), META.to_owned()),
            Form::Table => return self.table(metadata, objects, now),
        };
        let items: Vec<Value> = if self.form == Form::Metadata {
            objects.into_iter().map(partial).collect()
        } else {
            objects
                .into_iter()
                .map(|object| self.kind.served(object))
                .collect()
        };
        json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items})
    }

    /// One object of a watch as JSON.
    pub(crate) fn watched_text(&self, object: &Body, is_first: bool, now: Timestamp) -> Bytes {
        if self.is_plain() {
            return object.text().clone();
        }
        self.watched(Value::clone(object), is_first, now)
            .to_string()
            .into()
    }

    /// One object of a watch. Only the first table has its columns explained.
    fn watched(&self, object: Value, is_first: bool, now: Timestamp) -> Value {
        let mut shown = self.object(object, now);
        if self.form == Form::Table && !is_first {
            shown["columnDefinitions"] = Value::Null;
        }
        shown
    }

    /// The object of a bookmark.
    pub(crate) fn bookmark(&self, revision: u64, ends_initial: bool) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.form {
            Form::Object => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata})
            }
            Form::Table => self.table(metadata, Vec::new(), Timestamp::UNIX_EPOCH),
        }
    }

    fn table(&self, metadata: Value, objects: Vec<Value>, now: Timestamp) -> Value {
        let columns = &self.kind.columns;
        let rows = objects.into_iter().map(|object| {
            let mut row = Map::new();
            row.insert("cells".to_owned(), columns.cells(&object, now));
            if let Some(conditions) = (self.kind.row_conditions)(&object) {
                row.insert("conditions".to_owned(), conditions);
            }
            let carried = match self.include {
                Include::None => Value::Null,
                Include::Metadata => partial(object),
                Include::Object => self.kind.served(object),
            };
            row.insert("object".to_owned(), carried);
            Value::Object(row)
        });
        let rows: Value = rows.collect();
        json!({
            "kind": "Table",
            "apiVersion": META,
            "metadata": metadata,
            "columnDefinitions": columns.definitions(),
            "rows": rows,
        })
    }
}

/// How much of a list is sent at once, about.
const PIECE: usize = 64 * 1024;

/// The text of a list, with the objects put into its items, which are its last field.
fn pieces(list: String, objects: Vec<Body>) -> impl Iterator<Item = Bytes> + Send {
    let (head, tail) = match list.strip_suffix("]}") {
        Some(head) if !objects.is_empty() => (head.to_owned(), "]}\n"),
        _ => (list, "\n"),
    };
    let mut objects = objects.into_iter().peekable();
    let mut piece = Some(head.into_bytes());
    std::iter::from_fn(move || {
        let mut piece = piece.take().or_else(|| objects.peek().map(|_| Vec::new()))?;
        // Where one object is larger, so is the piece.
        while let Some(object) = objects.next() {
            piece.extend_from_slice(object.text());
            if objects.peek().is_some() {
                piece.push(b',');
            }
            if piece.len() >= PIECE {
                break;
            }
        }
        if objects.peek().is_none() {
            piece.extend_from_slice(tail.as_bytes());
        }
        Some(piece.into())
    })
}

const META: &str = "meta.k8s.io/v1";

fn partial(mut object: Value) -> Value {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::PODS;

    fn view(form: Form, query: &str) -> View {
        let parameters = Parameters::parse(&format!("/x?{query}").parse().unwrap()).unwrap();
        View::new(PODS.clone(), form, &parameters).unwrap()
    }

    fn pod() -> Value {
        json!({
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": "p", "resourceVersion": "5", "creationTimestamp": "2026-11-22T10:00:00Z"},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": "Succeeded"},
        })
    }

    fn now() -> Timestamp {
        "2026-11-22T10:01:00Z".parse().unwrap()
    }

    #[test]
    fn a_table_has_a_row_for_each_object() {
        let metadata = ListMetadata {
            revision: 9,
            next: Some("more".to_owned()),
            remaining: None,
        };
        let table = view(Form::Table, "").list(metadata, vec![pod()], now());
        assert_eq!(
            table["metadata"],
            json!({"resourceVersion": "9", "continue": "more"})
        );
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        let row = &table["rows"][0];
        assert_eq!(
            row["cells"],
            json!([
                "p",
                "0/1",
                "Succeeded",
                "0",
                "60s",
                "<none>",
                "<none>",
                "<none>",
                "<none>"
            ])
        );
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(row["conditions"][0]["type"], "Completed");
        let full = view(Form::Table, "includeObject=Object").object(pod(), now());
        assert_eq!(full["rows"][0]["object"], pod());
        assert_eq!(full["metadata"]["resourceVersion"], "5");
    }

    #[test]
    fn a_list_in_pieces_is_the_list() {
        for count in [0, 1, 2, 400] {
            for form in [Form::Object, Form::Metadata, Form::Table] {
                let view = view(form, "");
                let metadata = ListMetadata {
                    revision: 9,
                    ..ListMetadata::default()
                };
                let pieces = view.list_text(metadata.clone(), vec![pod().into(); count], now());
                let pieces: Vec<Bytes> = pieces.collect();
                let list = view.list(metadata, vec![pod(); count], now());
                assert_eq!(
                    pieces.concat(),
                    format!("{list}\n").into_bytes(),
                    "{count} {form:?}"
                );
                assert_eq!(pieces.len() > 1, count == 400 && form == Form::Object);
            }
        }
    }

    #[test]
    fn metadata_comes_without_the_rest() {
        let partial = view(Form::Metadata, "").object(pod(), now());
        assert_eq!(partial["kind"], "PartialObjectMetadata");
        assert_eq!(partial["metadata"]["name"], "p");
        assert_eq!(partial.get("spec"), None);
    }

    #[test]
    fn only_the_first_table_of_a_watch_explains_its_columns() {
        let view = view(Form::Table, "");
        assert!(view.watched(pod(), true, now())["columnDefinitions"].is_array());
        assert!(view.watched(pod(), false, now())["columnDefinitions"].is_null());
    }
}
