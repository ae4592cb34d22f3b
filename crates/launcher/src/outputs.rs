//! What the command left behind: parameters, artifacts, and what it says of them.
//!
//! `output_metadata.json`, which the KFP executor writes, wins over the single files.

mod artifacts;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use coracle_api::{
    ir::ParameterType,
    launch::{ExecutorInput, Failure, Spec},
    reason::Reason,
};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) use self::artifacts::artifacts;
use crate::{
    boundary::{Boundary, Owner, outside},
    values::{self, LARGEST},
};

/// Bytes of `output_metadata.json` that are read: room for some values that are too large, so that
/// each of them can be named.
const LONGEST_METADATA: u64 = 512 << 20;
/// Bytes of all values in a report.
const REPORT: usize = 2 << 20;

/// What user code says it made: KFP's `ExecutorOutput`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Written {
    #[serde(default, alias = "parameter_values")]
    parameter_values: IndexMap<String, Value>,
    #[serde(default)]
    artifacts: IndexMap<String, WrittenList>,
}

#[derive(Debug, Default, Deserialize)]
struct WrittenList {
    #[serde(default)]
    artifacts: Vec<WrittenArtifact>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenArtifact {
    name: Option<String>,
    uri: Option<String>,
    metadata: Option<Map<String, Value>>,
    #[serde(alias = "custom_path")]
    custom_path: Option<String>,
}

/// Reads `output_metadata.json`; nothing when the command wrote none.
pub(crate) fn read(input: &ExecutorInput, boundary: &Boundary) -> Result<Written, Failure> {
    let path = &input.outputs.output_file;
    let invalid = |why: String| Failure {
        reason: Reason::OutputMetadataInvalid,
        message: format!("cannot understand `{path}`, which the command wrote: {why}"),
    };
    confined(&format!("`{path}`"), Path::new(path), boundary)?;
    let mut bytes = Vec::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Written::default()),
        Err(error) => return Err(invalid(error.to_string())),
    };
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    if size > LONGEST_METADATA {
        let message = format!(
            "`{path}` has {size} bytes, and a parameter's value {LARGEST} at most; make large results output artifacts"
        );
        return Err(Failure {
            reason: Reason::OutputParameterTooLarge,
            message,
        });
    }
    file.take(LONGEST_METADATA)
        .read_to_end(&mut bytes)
        .map_err(|error| invalid(error.to_string()))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Written::default());
    }
    serde_json::from_slice(&bytes)
        .or_else(|error| {
            serde_json::from_str(&quote_odd_numbers(&String::from_utf8_lossy(&bytes))).map_err(|_| error)
        })
        .map_err(|error| invalid(error.to_string()))
}

/// A link that the command put in a file's place is followed only to what is the command's own.
fn confined(what: &str, path: &Path, boundary: &Boundary) -> Result<(), Failure> {
    if !path.is_symlink() {
        return Ok(());
    }
    match boundary.owner(path) {
        Ok(Owner::Own | Owner::Made | Owner::Input) => Ok(()),
        Ok(Owner::Foreign | Owner::Nobody) | Err(_) => Err(outside(
            what,
            path,
            "a link that leads out of what the task may write; write the file itself",
        )),
    }
}

/// The values of all output parameters; large ones as references.
pub(crate) fn parameters(
    spec: &Spec,
    mut written: Written,
    boundary: &Boundary,
) -> Result<IndexMap<String, Value>, Failure> {
    let mut room = REPORT;
    let mut values = IndexMap::new();
    for (name, parameter) in &spec.executor_input.outputs.parameters {
        let declared = spec.output_parameters.get(name).copied().unwrap_or_default();
        let value = match written.parameter_values.swap_remove(name) {
            Some(value) if !value.is_null() => declared.coerce(value),
            _ => {
                let path = &parameter.output_file;
                confined(
                    &format!("the output parameter `{name}`"),
                    Path::new(path),
                    boundary,
                )?;
                declared.parse(&parameter_file(name, declared, path)?)
            }
        };
        let value = value.map_err(|mismatch| Failure {
            reason: Reason::OutputParameterInvalid,
            message: format!("the output parameter `{name}` is not what it should be: {mismatch}"),
        })?;
        let value = values::keep(name, value, &parameter.output_file, &mut room)?;
        values.insert(name.clone(), value);
    }
    Ok(values)
}

fn parameter_file(name: &str, declared: ParameterType, path: &str) -> Result<String, Failure> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!(
                "the command ended well without a value for the output parameter `{name}` ({declared}): \
                 nothing is in `{path}`"
            );
            return Err(Failure {
                reason: Reason::OutputParameterMissing,
                message,
            });
        }
        Err(error) => return Err(unreadable(name, path, &error.to_string())),
    };
    if !metadata.is_file() {
        return Err(unreadable(name, path, "it is not a file"));
    }
    if metadata.len() > LARGEST {
        return Err(values::too_large(name, metadata.len()));
    }
    let bytes = fs::read(path).map_err(|error| unreadable(name, path, &error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| unreadable(name, path, "it is not UTF-8 text"))
}

fn unreadable(name: &str, path: &str, why: &str) -> Failure {
    Failure {
        reason: Reason::OutputParameterInvalid,
        message: format!("cannot read the output parameter `{name}` from `{path}`: {why}"),
    }
}

/// Python writes `NaN` and `Infinity`, which JSON has not: they become text.
fn quote_odd_numbers(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 16);
    let (mut rest, mut in_text) = (json, false);
    while let Some(char) = rest.chars().next() {
        let mut taken = char.len_utf8();
        if in_text {
            if char == '\\' {
                taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
            }
            in_text = char != '"';
        } else if char == '"' {
            in_text = true;
        } else if let Some(word) = ["NaN", "Infinity", "-Infinity"]
            .into_iter()
            .find(|word| rest.starts_with(word))
        {
            out.push('"');
            out.push_str(word);
            out.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_has_not_become_text() {
        let json = r#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" NaN", "dé": 1}"#;
        let value: Value = serde_json::from_str(&quote_odd_numbers(json)).expect("JSON");
        let expected = r#"{"a":"NaN","b":["-Infinity","Infinity"],"c":"NaN \" NaN","dé":1}"#;
        assert_eq!(value.to_string(), expected);
    }
}
