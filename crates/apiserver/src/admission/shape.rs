//! Objects against the types of their kinds: wrong types are refused, unknown fields too when the
//! client asks for that, and dropped when it does not.

use std::fmt;

use serde_json::{Map, Value};

use crate::{
    crd,
    kinds::KindRef,
    request::{self, Parameters},
    status::Error,
    validation::Problems,
};

/// What becomes of fields that the kind does not have, or that the client gave twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    /// They are dropped.
    Ignore,
    /// They are dropped, and the client is told.
    Warn,
    /// They make the request fail.
    Strict,
}

/// Validation of the fields of one object, and what it found.
#[derive(Debug, Clone)]
pub(crate) struct FieldValidation {
    directive: Directive,
    /// What is said of fields given twice.
    repeated: Vec<String>,
    /// The paths of unknown fields.
    unknown: Vec<String>,
    /// Those of them in the metadata, which is looked at apart from the rest.
    in_metadata: Vec<String>,
}

/// Every field of `ObjectMeta`.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

impl FieldValidation {
    const fn new(directive: Directive) -> Self {
        Self {
            directive,
            repeated: Vec::new(),
            unknown: Vec::new(),
            in_metadata: Vec::new(),
        }
    }

    /// Without a word.
    pub(crate) const fn ignore() -> Self {
        Self::new(Directive::Ignore)
    }

    /// By which unknown fields make a request fail.
    pub(crate) const fn strict() -> Self {
        Self::new(Directive::Strict)
    }

    /// As `fieldValidation` in the query says. `options` names the options for the message.
    pub(crate) fn parse(parameters: &Parameters, options: &'static str) -> Result<Self, Error> {
        Ok(Self::new(match parameters.text("fieldValidation") {
            "Ignore" => Directive::Ignore,
            "" | "Warn" => Directive::Warn,
            "Strict" => Directive::Strict,
            other => {
                let mut problems = Problems::default();
                problems.unsupported("fieldValidation", other, &["Ignore", "Strict", "Warn"]);
                request::invalid_options(options, problems)?;
                Directive::Ignore
            }
        }))
    }

    /// Notes what is to be said of fields that the body has twice.
    pub(crate) fn repeated(&mut self, complaints: Vec<String>) {
        self.repeated = complaints;
    }

    /// Looks at the fields of the metadata that the client sent.
    pub(super) fn see_metadata(&mut self, metadata: &Map<String, Value>) {
        let unknown = metadata
            .keys()
            .filter(|field| !METADATA.contains(&field.as_str()));
        self.in_metadata = unknown.map(|field| format!("metadata.{field}")).collect();
    }

    fn complaints(&self) -> impl Iterator<Item = String> {
        let unknown = self.in_metadata.iter().chain(&self.unknown);
        let unknown = unknown.map(|path| format!("unknown field \"{path}\""));
        unknown.chain(self.repeated.iter().cloned())
    }

    /// What the client is to be told beside the answer.
    pub(crate) fn warnings(&self) -> Vec<String> {
        if self.directive == Directive::Warn {
            self.complaints().collect()
        } else {
            Vec::new()
        }
    }

    /// Why the object is refused, if it is.
    fn refusal(&self) -> Option<String> {
        if self.directive != Directive::Strict {
            return None;
        }
        let complaints = self.complaints().collect::<Vec<_>>();
        (!complaints.is_empty()).then(|| format!("strict decoding error: {}", complaints.join(", ")))
    }
}

/// Makes the object one of its kind, or says why it is not.
pub(super) fn conform(kind: &KindRef, object: &mut Value, fields: &mut FieldValidation) -> Result<(), Error> {
    let refuse = |why: String| Error::Undecodable {
        kind: KindRef::clone(kind),
        why,
    };
    fields.unknown.clear();
    match &kind.schema {
        Some(schema) => {
            let unknown = crd::shape::prune(schema, object);
            fields.unknown = unknown.map_err(|error| refuse(error.to_string()))?;
            crd::shape::default(schema, object);
        }
        None => {
            let known = (kind.rules.shape)(object).map_err(|error| refuse(error.to_string()))?;
            keep(object, &known, "", &mut fields.unknown);
        }
    }
    match fields.refusal() {
        Some(why) => Err(refuse(why)),
        None => Ok(()),
    }
}

/// The paths of the fields that the kind does not have.
pub(crate) fn unknown_fields(kind: &KindRef, object: &Value) -> Result<Vec<String>, Error> {
    let mut fields = FieldValidation::ignore();
    if let Some(Value::Object(metadata)) = object.get("metadata") {
        fields.see_metadata(metadata);
    }
    conform(kind, &mut object.clone(), &mut fields)?;
    let FieldValidation {
        mut in_metadata,
        unknown,
        ..
    } = fields;
    for path in unknown {
        if !in_metadata.contains(&path) {
            in_metadata.push(path);
        }
    }
    Ok(in_metadata)
}

/// Drops what is not in `known`, and says where it was.
pub(crate) fn keep(object: &mut Value, known: &Value, path: &str, dropped: &mut Vec<String>) {
    keep_at(object, known, &Place::Beginning(path), dropped);
}

/// Where a value is: written out only for what is dropped.
enum Place<'a> {
    Beginning(&'a str),
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning(path) => f.write_str(path),
            Self::Field(Self::Beginning(""), name) => f.write_str(name),
            Self::Field(of, name) => write!(f, "{of}.{name}"),
            Self::Item(of, index) => write!(f, "{of}[{index}]"),
        }
    }
}

fn keep_at(object: &mut Value, known: &Value, place: &Place<'_>, dropped: &mut Vec<String>) {
    match (object, known) {
        (Value::Object(fields), Value::Object(known)) => {
            fields.retain(|field, value| {
                let place = Place::Field(place, field);
                if let Some(known) = known.get(field) {
                    keep_at(value, known, &place, dropped);
                    return true;
                }
                dropped.push(place.to_string());
                false
            });
        }
        (Value::Array(items), Value::Array(known)) => {
            for (index, (item, known)) in items.iter_mut().zip(known).enumerate() {
                keep_at(item, known, &Place::Item(place, index), dropped);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::PODS;

    fn pod() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "labels": {}, "annotations": {"any.key/at": "all"}},
            "spec": {"containers": [{
                "name": "c",
                "image": "x",
                "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}},
                "livenessProbe": {"httpGet": {"port": 80}},
            }]},
        })
    }

    #[test]
    fn what_the_kind_has_is_kept() {
        let mut kept = pod();
        conform(&PODS, &mut kept, &mut FieldValidation::strict()).unwrap();
        assert_eq!(kept, pod());
    }

    #[test]
    fn unknown_fields_are_dropped_or_named() {
        let mut misspelt = pod();
        misspelt["spec"]["containers"][0]["comand"] = json!(["sh"]);
        misspelt["spec"]["colour"] = json!({"red": 1});
        let error = conform(&PODS, &mut misspelt.clone(), &mut FieldValidation::strict()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: \
             unknown field \"spec.containers[0].comand\", unknown field \"spec.colour\""
        );
        let mut warning = FieldValidation::new(Directive::Warn);
        conform(&PODS, &mut misspelt, &mut warning).unwrap();
        assert_eq!(
            warning.warnings(),
            [
                "unknown field \"spec.containers[0].comand\"",
                "unknown field \"spec.colour\""
            ]
        );
        assert_eq!(misspelt, pod());
    }
}
