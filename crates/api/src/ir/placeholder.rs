//! `{{$...}}`, `IfPresent`, `Concat`: what stands in a command for something known only at run time.
//!
//! The set is the SDK's (`kfp/dsl/placeholders.py`, `kfp/local/placeholder_utils.py`). Each text is
//! read once: a value put in place of a placeholder is never searched for placeholders itself.
//! Text that only looks alike, such as `{{$.Values.x}}` of another template language, is left
//! alone; a name under `inputs`, `outputs` or `pipeline_…` that means nothing is an error.

mod reference;

use std::{borrow::Cow, collections::BTreeMap};

use indexmap::IndexMap;
use serde_json::{Map, Value};

use self::reference::{Reference, split};
use super::value::text as text_of;
use crate::launch::{ArtifactList, ExecutorInput, ParameterDefault, RuntimeArtifact};

/// What the placeholders of one task stand for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// What the task is given, defaults included: what is here is *present*.
    pub input: &'a ExecutorInput,
    /// The input parameters that the component declares, present or not.
    pub declared: &'a BTreeMap<String, ParameterDefault>,
    /// Values by bare name, e.g. `pipeline_job_uuid`, `pipeline_root`, `workspace_path`.
    pub context: &'a BTreeMap<String, String>,
}

/// A placeholder that means nothing to its task ([`crate::reason::Reason::PlaceholderUnresolved`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot resolve `{placeholder}`: {why}")]
pub struct Unresolved {
    /// As written.
    pub placeholder: String,
    /// What it names that does not exist.
    pub why: String,
}

/// Whether the text holds a placeholder.
#[must_use]
pub fn is_present(text: &str) -> bool {
    split(text).iter().any(Result::is_ok)
}

/// A command line with every placeholder resolved.
///
/// An element that resolves to nothing (an absent optional input) is left out; one may also become
/// several (`IfPresent` with a list).
///
/// # Errors
/// [`Unresolved`] at the first placeholder that means nothing.
pub fn resolve(argv: &[String], scope: &Scope<'_>) -> Result<Vec<String>, Unresolved> {
    let mut resolved = Vec::with_capacity(argv.len());
    for element in argv {
        match structure(element) {
            Some(structure) => scope.expand(&structure, &mut resolved)?,
            None => resolved.extend(scope.text(element)?),
        }
    }
    Ok(resolved)
}

/// One text with every placeholder resolved; nothing at all becomes the empty text.
///
/// # Errors
/// [`Unresolved`] at the first placeholder that means nothing.
pub fn resolve_text(text: &str, scope: &Scope<'_>) -> Result<String, Unresolved> {
    let mut resolved = resolve(&[text.to_owned()], scope)?;
    Ok(if resolved.len() == 1 {
        resolved.remove(0)
    } else {
        resolved.join(" ")
    })
}

/// A JSON value with the placeholders in its texts, keys included, resolved.
///
/// # Errors
/// [`Unresolved`] at the first placeholder that means nothing.
pub fn resolve_value(value: &Value, scope: &Scope<'_>) -> Result<Value, Unresolved> {
    Ok(match value {
        Value::String(text) => Value::String(scope.text(text)?.unwrap_or_default()),
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| resolve_value(item, scope))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(key, value)| Ok((scope.text(key)?.unwrap_or_default(), resolve_value(value, scope)?)))
                .collect::<Result<Map<_, _>, _>>()?,
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

/// The constant of a task's input, with what it says about the run filled in.
///
/// Kubeflow takes `{{$.pipeline_job_name}}` and the like only as the whole constant. Here, as with
/// the SDK's local runner, they count anywhere in it: the constant is the author's own text.
#[must_use]
pub fn constant(text: &str, context: &BTreeMap<String, String>) -> String {
    join(&split(text), |path| match path {
        [name] => context.get(*name).cloned(),
        _ => None,
    })
}

/// The constant of a task's input, with the values of the same task's other inputs filled in, at
/// any depth: `{{$.inputs.parameters['pipelinechannel--a-Output']}}` is how the compiler writes an
/// f-string. A value becomes text. Placeholders of inputs that have no value stay as they are.
#[must_use]
pub fn references(constant: &Value, parameters: &IndexMap<String, Value>) -> Value {
    let fill = |text: &str| {
        join(&split(text), |path| match path {
            ["inputs", "parameters", name] => parameters.get(*name).map(text_of),
            _ => None,
        })
    };
    match constant {
        Value::String(text) => Value::String(fill(text)),
        Value::Array(items) => items.iter().map(|item| references(item, parameters)).collect(),
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(key, value)| (fill(key), references(value, parameters)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => constant.clone(),
    }
}

/// Where user code finds an artifact: its own path if it has one, else that of its URI; in the
/// run's workspace when it was put there.
#[must_use]
pub fn path(artifact: &RuntimeArtifact) -> String {
    let path = match artifact.custom_path.as_deref() {
        Some(path) if !path.is_empty() => path.to_owned(),
        _ => path_of_uri(&artifact.uri),
    };
    match artifact.metadata.get("_kfp_workspace") {
        Some(Value::Bool(true)) => format!("/kfp-workspace/.artifacts/{}", path.trim_start_matches('/')),
        _ => path,
    }
}

/// The path that the SDK takes a URI for: `gs://b/o` is `/gcs/b/o`; a plain path is itself.
#[must_use]
pub fn path_of_uri(uri: &str) -> String {
    for (scheme, mount) in [("gs://", "/gcs/"), ("minio://", "/minio/"), ("s3://", "/s3/")] {
        if let Some(rest) = uri.strip_prefix(scheme) {
            return format!("{mount}{rest}");
        }
    }
    match uri.strip_prefix("oci://") {
        Some(rest) => format!("/oci/{}", rest.replace('/', "_")),
        None => uri.to_owned(),
    }
}

/// The parts as one text, with the placeholders that `value` knows in place.
fn join<'a>(parts: &[Result<Reference<'a>, &'a str>], value: impl Fn(&[&str]) -> Option<String>) -> String {
    parts
        .iter()
        .map(|part| match part {
            Ok(reference) => value(&reference.path).unwrap_or_else(|| reference.text.to_owned()),
            Err(plain) => (*plain).to_owned(),
        })
        .collect()
}

/// `{"Concat": …}` or `{"IfPresent": …}`, which the compiler writes as one argument's text.
fn structure(text: &str) -> Option<Value> {
    if !text.starts_with('{') {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let entries = value.as_object()?;
    let is_known = entries.len() == 1
        && (entries.get("Concat").is_some_and(Value::is_array)
            || entries
                .get("IfPresent")
                .is_some_and(|inner| inner["InputName"].is_string()));
    is_known.then_some(value)
}

impl Scope<'_> {
    /// Whether an input has a value.
    fn has(&self, input: &str) -> bool {
        self.input
            .inputs
            .parameter_values
            .get(input)
            .is_some_and(|value| !value.is_null())
            || self.input.inputs.artifacts.contains_key(input)
    }

    /// Adds what an element of a command line becomes: a text, or a structure around texts.
    fn expand(&self, element: &Value, out: &mut Vec<String>) -> Result<(), Unresolved> {
        match element {
            Value::Null => Ok(()),
            Value::Array(items) => items.iter().try_for_each(|item| self.expand(item, out)),
            Value::Object(entries) => {
                if let Some(Value::Array(items)) = entries.get("Concat") {
                    let mut parts = Vec::new();
                    items.iter().try_for_each(|item| self.expand(item, &mut parts))?;
                    out.push(parts.concat());
                    return Ok(());
                }
                let inner = entries.get("IfPresent").ok_or_else(|| Unresolved {
                    placeholder: element.to_string(),
                    why: "expected `Concat` or `IfPresent`".to_owned(),
                })?;
                let branch = match inner["InputName"].as_str() {
                    Some(name) if self.has(name) => &inner["Then"],
                    Some(_) => &inner["Else"],
                    None => {
                        return Err(Unresolved {
                            placeholder: element.to_string(),
                            why: "`IfPresent` has no `InputName`".to_owned(),
                        });
                    }
                };
                self.expand(branch, out)
            }
            Value::String(text) => {
                out.extend(self.text(text)?);
                Ok(())
            }
            Value::Bool(_) | Value::Number(_) => {
                out.push(element.to_string());
                Ok(())
            }
        }
    }

    /// A text with its placeholders resolved; `None` when all of it is one that has no value.
    fn text(&self, text: &str) -> Result<Option<String>, Unresolved> {
        let parts = split(text);
        if let [Ok(only)] = &*parts {
            let value = self.value(only)?;
            return Ok((!value.is_null()).then(|| text_of(&value)));
        }
        let mut resolved = String::with_capacity(text.len());
        for part in parts {
            match part {
                Ok(reference) => resolved.push_str(&text_of(&self.value(&reference)?)),
                Err(plain) => resolved.push_str(plain),
            }
        }
        Ok(Some(resolved))
    }

    /// The executor input as the SDK reads it: it derives an artifact's path from the URI alone, so
    /// an artifact with a path of its own is given that in the URI's place.
    fn whole(&self) -> Cow<'_, ExecutorInput> {
        let has_path =
            |artifact: &RuntimeArtifact| artifact.custom_path.as_ref().is_some_and(|path| !path.is_empty());
        let (inputs, outputs) = (&self.input.inputs.artifacts, &self.input.outputs.artifacts);
        let mut all = inputs
            .values()
            .chain(outputs.values())
            .flat_map(|list| &list.artifacts);
        if !all.any(has_path) {
            return Cow::Borrowed(self.input);
        }
        let mut input = self.input.clone();
        let lists = input
            .inputs
            .artifacts
            .values_mut()
            .chain(input.outputs.artifacts.values_mut());
        for artifact in lists.flat_map(|list| &mut list.artifacts) {
            if let Some(path) = artifact.custom_path.as_ref().filter(|path| !path.is_empty()) {
                artifact.uri.clone_from(path);
            }
        }
        Cow::Owned(input)
    }

    fn value(&self, reference: &Reference<'_>) -> Result<Value, Unresolved> {
        let unresolved = |why: String| Unresolved {
            placeholder: reference.text.to_owned(),
            why,
        };
        let (inputs, outputs) = (&self.input.inputs, &self.input.outputs);
        match &*reference.path {
            [] => json(&self.whole()).map_err(unresolved),
            ["inputs", "parameters", name, rest @ ..] => match inputs.parameter_values.get(*name) {
                Some(value) => inside(value, rest).map_err(unresolved),
                None if self.declared.contains_key(*name) => Ok(Value::Null),
                None => Err(unresolved(format!("the task has no input parameter `{name}`"))),
            },
            ["inputs", "artifacts", name, rest @ ..] => match inputs.artifacts.get(*name) {
                Some(list) => artifact(list, rest).map_err(unresolved),
                None => Err(unresolved(format!(
                    "the task was given no artifact `{name}` (if it is optional, put the argument in IfPresent)"
                ))),
            },
            ["outputs", "artifacts", name, rest @ ..] => match outputs.artifacts.get(*name) {
                Some(list) => artifact(list, rest).map_err(unresolved),
                None => Err(unresolved(format!("the task has no output artifact `{name}`"))),
            },
            ["outputs", "parameters", name, "output_file" | "outputFile"] => {
                match outputs.parameters.get(*name) {
                    Some(parameter) => Ok(Value::String(parameter.output_file.clone())),
                    None => Err(unresolved(format!("the task has no output parameter `{name}`"))),
                }
            }
            ["outputs", "output_file" | "outputFile"] | ["outputMetadataUri"] => {
                Ok(Value::String(outputs.output_file.clone()))
            }
            [name] if self.context.contains_key(*name) => Ok(self
                .context
                .get(*name)
                .cloned()
                .map_or(Value::Null, Value::String)),
            ["workspace_path"] => Err(unresolved(
                "the pipeline has no workspace (set one in its PipelineConfig)".to_owned(),
            )),
            ["inputs" | "outputs", ..] => Err(unresolved("no such placeholder exists".to_owned())),
            [name, ..] if name.starts_with("pipeline_") || name.starts_with("json_escape") => Err(
                unresolved("it has no meaning outside the cloud service it is for".to_owned()),
            ),
            _ => Ok(Value::String(reference.text.to_owned())),
        }
    }
}

/// What a placeholder says of the artifacts under one name.
fn artifact(list: &ArtifactList, path: &[&str]) -> Result<Value, String> {
    let Some((field, rest)) = path.split_first() else {
        return json(list);
    };
    let first = list
        .artifacts
        .first()
        .ok_or_else(|| "its list of artifacts is empty".to_owned())?;
    match *field {
        "uri" => Ok(Value::String(first.uri.clone())),
        "path" => Ok(Value::String(self::path(first))),
        "name" => Ok(Value::String(first.name.clone())),
        "metadata" if rest.is_empty() => Ok(Value::Object(first.metadata.clone())),
        "metadata" => first
            .metadata
            .get(rest[0])
            .ok_or_else(|| format!("the artifact's metadata has no `{}`", rest[0]))
            .and_then(|value| inside(value, &rest[1..])),
        other => Err(format!(
            "an artifact has no `{other}` (it has uri, path, name, metadata)"
        )),
    }
}

/// The part of a value that a path leads to.
fn inside(value: &Value, path: &[&str]) -> Result<Value, String> {
    path.iter()
        .try_fold(value, |value, key| value.get(key))
        .cloned()
        .ok_or_else(|| format!("the value has no `{}`", path.join(".")))
}

/// A value as JSON, as text.
fn json(value: &impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_string(value)
        .map(Value::String)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
