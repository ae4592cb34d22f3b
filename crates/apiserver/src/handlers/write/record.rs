//! The record of who manages what, for one write.

use serde_json::{Map, Value};

use super::{Options, subresource};
use crate::{
    admission,
    kinds::Subresource,
    managed::{self, Refusal, Writer},
    object,
    server::Call,
    status::Error,
    structure::Structure,
};

/// A write, and all that it takes to say whose fields are whose after it.
pub(crate) struct Record<'a> {
    call: &'a Call,
    manager: String,
    is_forced: bool,
    api_version: String,
    structure: Structure<'a>,
}

impl<'a> Record<'a> {
    pub(crate) fn new(call: &'a Call, options: &Options) -> Self {
        Self {
            call,
            manager: options.manager.clone(),
            is_forced: options.is_forced,
            api_version: call.kind().api_version(),
            structure: Structure::of_kind(call.kind()),
        }
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            manager: &self.manager,
            api_version: &self.api_version,
            subresource: subresource(self.call.target.subresource),
            now: self.call.now,
        }
    }

    /// The new object with its managers. Its status is not its writer's.
    pub(crate) fn created(&self, mut new: Value, given: Option<&Value>) -> Value {
        let status = self.without_status(&mut new);
        let managers = managed::created(&new, given, &self.structure, &self.writer());
        object::put(object::as_map(&mut new), "status", status);
        managed::put(&mut new, managers);
        new
    }

    fn without_status(&self, object: &mut Value) -> Option<Value> {
        if self.call.kind().has(Subresource::Status) {
            object::as_map(object).shift_remove("status")
        } else {
            object.get("status").cloned()
        }
    }

    /// The managers after a change that is not apply's.
    pub(crate) fn updated(
        &self,
        old: (&Value, Option<&Value>),
        new: &Value,
        given: Option<&Value>,
    ) -> Option<Value> {
        managed::updated(old, new, given, &self.structure, &self.writer())
    }

    /// What of the applied object can be applied through this path, once it has been found fit.
    pub(crate) fn applicable(&self, wanted: &Value) -> Result<Value, Error> {
        let kind = self.call.kind();
        let (version, name) = (object::text(wanted, "/apiVersion"), object::text(wanted, "/kind"));
        if version != self.api_version {
            return Err(Error::BadRequest(format!(
                "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
                self.api_version
            )));
        }
        if name != kind.kind {
            return Err(Error::BadRequest(format!(
                "invalid object type: {version}, Kind={name}"
            )));
        }
        if wanted
            .pointer("/metadata/managedFields")
            .is_some_and(|entries| !entries.is_null())
        {
            return Err(Error::bad_request("metadata.managedFields must be nil"));
        }
        let unknown = admission::unknown_fields(kind, wanted)?;
        if !unknown.is_empty() {
            let unknown = unknown
                .iter()
                .map(|path| format!(".{path}: field not declared in schema"));
            return Err(self.misfit(wanted, &unknown.collect::<Vec<_>>().join("\n  ")));
        }
        let mut wanted = wanted.clone();
        if self.call.target.subresource == Some(Subresource::Status) {
            let kept = |field: &&str| *field != "spec";
            let fields = wanted.as_object().into_iter().flatten();
            let fields = fields.filter(|(field, _)| kept(&field.as_str()));
            let mut of_status: Map<String, Value> = fields
                .map(|(field, value)| (field.clone(), value.clone()))
                .collect();
            if let Some(Value::Object(metadata)) = of_status.get_mut("metadata") {
                metadata.retain(|field, _| {
                    matches!(field.as_str(), "name" | "namespace" | "uid" | "resourceVersion")
                });
            }
            wanted = Value::Object(of_status);
        } else if kind.has(Subresource::Status) {
            object::put(object::as_map(&mut wanted), "status", None);
        }
        Ok(wanted)
    }

    fn misfit(&self, wanted: &Value, why: &str) -> Error {
        let kind = self.call.kind();
        let (namespace, name) = (&self.call.target.namespace, object::name(wanted));
        let group = if kind.group.is_empty() {
            format!("/{}", kind.version)
        } else {
            self.api_version.clone()
        };
        Error::Unexplained(format!(
            "failed to create typed patch object ({namespace}/{name}; {group}, Kind={}): {why}",
            kind.kind
        ))
    }

    /// The object as the applier wants it, and its managers.
    pub(crate) fn apply(
        &self,
        (live, before): (&Value, Option<&Value>),
        wanted: &Value,
    ) -> Result<(Value, Option<Value>), Error> {
        // What was there before the first apply is somebody's, but for the status.
        let mut of_part = live.clone();
        let status = match self.call.target.subresource {
            None => self.without_status(&mut of_part),
            Some(_) => None,
        };
        let applied = managed::apply(
            (&of_part, before),
            wanted,
            &self.structure,
            &self.writer(),
            self.is_forced,
        );
        let (mut new, managers) = applied.map_err(|refusal| match refusal {
            Refusal::Conflicts(conflicts) => Error::ApplyConflict(conflicts),
            Refusal::Misfit(why) => self.misfit(wanted, &why),
        })?;
        if status.is_some() {
            object::put(object::as_map(&mut new), "status", status);
        }
        Ok((new, managers))
    }
}

/// The changed object with its managers. When nothing else changed, the time did not either.
pub(crate) fn with(mut new: Value, old: &Value, before: Option<Value>, managers: Option<Value>) -> Value {
    let is_same = new == *old && !managed::differ(before.as_ref(), managers.as_ref());
    managed::put(&mut new, if is_same { before } else { managers });
    new
}
