//! Parameter values that are too large for rows: their JSON is a file of the artifact store, and a
//! reference stands in for them ([`SpilledValue`]). User code sees values only.

use std::{
    fs::{self, File},
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
};

use coracle_api::{
    launch::{ExecutorInput, Failure, Spec, SpilledValue},
    reason::Reason,
};
use coracle_artifacts::{ArtifactUri, content};
use serde_json::Value;

use crate::{
    inputs::make_parent,
    launch::terminated,
    signals::Events,
    transfers::{self, Interrupted, Transfer},
};

/// Bytes of JSON of the largest value that is kept at all.
pub(crate) const LARGEST: u64 = 32 << 20;

/// Puts the values of input parameters in the place of references to them, at any depth: the items
/// of a collected list are references of their own.
pub(crate) fn restore(input: &mut ExecutorInput, spec: &Spec, events: &mut Events) -> Result<(), Failure> {
    for (name, value) in &mut input.inputs.parameter_values {
        if !holds_reference(value) {
            continue;
        }
        let unavailable = |why: String| Failure {
            reason: Reason::InputArtifactUnavailable,
            message: format!("cannot read the value of the input parameter `{name}`: {why}"),
        };
        replace(value, &mut |spilled| match read(spilled, events) {
            Ok(value) => Ok(value),
            Err(Unread::Why(why)) => Err(unavailable(why)),
            Err(Unread::Failed(failure)) => Err(failure),
        })?;
        if let Some(declared) = spec.input_parameters.get(name) {
            *value = declared
                .parameter_type
                .coerce(value.take())
                .map_err(|mismatch| Failure {
                    reason: Reason::InputTypeMismatch,
                    message: format!("input `{name}`: {mismatch}"),
                })?;
        }
    }
    Ok(())
}

fn holds_reference(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_reference),
        Value::Object(entries) => SpilledValue::of(value).is_some() || entries.values().any(holds_reference),
        _ => false,
    }
}

fn replace(
    value: &mut Value,
    read: &mut impl FnMut(&SpilledValue) -> Result<Value, Failure>,
) -> Result<(), Failure> {
    if let Some(spilled) = SpilledValue::of(value) {
        *value = read(&spilled)?;
        return Ok(());
    }
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| replace(item, read)),
        Value::Object(entries) => entries.values_mut().try_for_each(|value| replace(value, read)),
        _ => Ok(()),
    }
}

enum Unread {
    Why(String),
    Failed(Failure),
}

fn read(spilled: &SpilledValue, events: &mut Events) -> Result<Value, Unread> {
    let why = |error: &dyn std::fmt::Display| Unread::Why(format!("`{}`: {error}", spilled.uri));
    let uri: ArtifactUri = spilled.uri.parse().map_err(|error| why(&error))?;
    let fetched;
    let path: PathBuf = match uri.local() {
        Ok(path) => path.to_owned(),
        Err(_) => {
            fetched = tempfile::tempdir().map_err(|error| why(&error))?;
            let path = fetched.path().join("value");
            let transfer = Transfer {
                uri: uri.clone(),
                path: path.clone(),
            };
            match transfers::fetch(&[transfer], events) {
                Ok(outcomes) => {
                    for outcome in outcomes {
                        outcome.map_err(|error| why(&error))?;
                    }
                }
                Err(Interrupted::Stopped(signal)) => return Err(Unread::Failed(terminated(signal))),
                Err(Interrupted::Broken(error)) => return Err(why(&error)),
            }
            path
        }
    };
    let measure = content::measure(&path).map_err(|error| why(&error))?;
    if measure.is_none_or(|measure| measure.digest != spilled.digest) {
        return Err(why(
            &"it is gone, or is not what it was when it was written; run the task that made it again",
        ));
    }
    let file = File::open(&path).map_err(|error| why(&error))?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| why(&error))
}

/// The value as it is reported: itself when it is small, else a reference to a file beside the
/// parameter's own. `room` is how many bytes the report may still take.
pub(crate) fn keep(name: &str, value: Value, output_file: &str, room: &mut usize) -> Result<Value, Failure> {
    let json = value.to_string();
    if json.len() as u64 > LARGEST {
        return Err(too_large(name, json.len() as u64));
    }
    let is_kept = json.len() <= SpilledValue::LONGEST_KEPT && json.len() <= *room;
    if is_kept || json.len() < 500 {
        *room = room.saturating_sub(json.len());
        return Ok(value);
    }
    let path = spilled_path(Path::new(output_file));
    make_parent(&path)?;
    let not_stored = |error: io::Error| Failure {
        reason: Reason::ArtifactNotStored,
        message: format!(
            "cannot store the value of the output parameter `{name}` in `{}`: {error}",
            path.display()
        ),
    };
    // Whatever the command put there is not what is meant.
    let _ = fs::remove_file(&path);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(not_stored)?;
    file.write_all(json.as_bytes()).map_err(not_stored)?;
    let measure = content::measure(&path)
        .map_err(io::Error::other)
        .and_then(|measure| measure.ok_or_else(|| io::Error::other("it is gone")))
        .map_err(not_stored)?;
    let spilled = SpilledValue {
        uri: path.to_string_lossy().into_owned(),
        size: measure.size,
        digest: measure.digest,
    };
    Ok(spilled.to_value())
}

fn spilled_path(output_file: &Path) -> PathBuf {
    let mut name = output_file.file_name().unwrap_or_default().to_owned();
    name.push(".json");
    let folder = output_file.parent().unwrap_or_else(|| Path::new("/"));
    folder.join(".values").join(name)
}

pub(crate) fn too_large(name: &str, size: u64) -> Failure {
    Failure {
        reason: Reason::OutputParameterTooLarge,
        message: format!(
            "the output parameter `{name}` has {size} bytes, and {LARGEST} are the most that is kept; \
             make it an output artifact"
        ),
    }
}
