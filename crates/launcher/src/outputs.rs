//! What the command left behind: parameters, artifacts, and what it says of them.
//!
//! `output_metadata.json`, which the KFP executor writes, wins over the single files.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use coracle_api::{
    ir::ParameterType,
    launch::{ExecutorInput, Failure, ProducedArtifact, RuntimeArtifact, Spec},
    reason::Reason,
};
use coracle_artifacts::{ArtifactUri, content};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value};

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
pub(crate) fn read(input: &ExecutorInput) -> Result<Written, Failure> {
    let path = &input.outputs.output_file;
    let invalid = |why: String| Failure {
        reason: Reason::OutputMetadataInvalid,
        message: format!("cannot understand `{path}`, which the command wrote: {why}"),
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Written::default()),
        Err(error) => return Err(invalid(error.to_string())),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Written::default());
    }
    serde_json::from_slice(&bytes)
        .or_else(|error| {
            serde_json::from_str(&quote_odd_numbers(&String::from_utf8_lossy(&bytes))).map_err(|_| error)
        })
        .map_err(|error| invalid(error.to_string()))
}

/// The values of all output parameters.
pub(crate) fn parameters(spec: &Spec, written: &Written) -> Result<IndexMap<String, Value>, Failure> {
    let mut values = IndexMap::new();
    for (name, parameter) in &spec.executor_input.outputs.parameters {
        let declared = spec.output_parameters.get(name).copied().unwrap_or_default();
        let value = match written.parameter_values.get(name) {
            Some(value) if !value.is_null() => declared.coerce(value.clone()),
            _ => declared.parse(&parameter_file(name, declared, &parameter.output_file)?),
        };
        let value = value.map_err(|mismatch| Failure {
            reason: Reason::OutputParameterInvalid,
            message: format!("the output parameter `{name}` is not what it should be: {mismatch}"),
        })?;
        values.insert(name.clone(), value);
    }
    Ok(values)
}

fn parameter_file(name: &str, declared: ParameterType, path: &str) -> Result<String, Failure> {
    fs::read(path)
        .map_err(|error| error.to_string())
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()))
        .map_err(|why| {
            if Path::new(path).exists() {
                let message = format!("cannot read the output parameter `{name}` from `{path}`: {why}");
                return Failure {
                    reason: Reason::OutputParameterInvalid,
                    message,
                };
            }
            let message = format!(
                "the command ended well without a value for the output parameter `{name}` ({declared}): \
             nothing is in `{path}`"
            );
            Failure {
                reason: Reason::OutputParameterMissing,
                message,
            }
        })
}

/// All output artifacts, and the first thing that went wrong with one.
pub(crate) fn artifacts(
    input: &ExecutorInput,
    written: &Written,
    started: SystemTime,
) -> (IndexMap<String, Vec<ProducedArtifact>>, Option<Failure>) {
    let folder = Path::new(&input.outputs.output_file).parent().map(Path::to_owned);
    let collector = Collector { folder, started };
    let (mut produced, mut failure) = (IndexMap::new(), None);
    for (name, assigned) in &input.outputs.artifacts {
        let said = written
            .artifacts
            .get(name)
            .map_or(&[][..], |list| &list.artifacts);
        let count = assigned.artifacts.len().max(said.len());
        let list: &mut Vec<ProducedArtifact> = produced.entry(name.clone()).or_default();
        for position in 0..count {
            let Some(artifact) = assigned_at(&assigned.artifacts, position) else {
                continue;
            };
            let (artifact, error) = collector.collect(artifact, said.get(position));
            list.push(artifact);
            if let Some(error) = error {
                let message = format!("cannot store the output artifact `{name}`: {}", chain(&error));
                failure.get_or_insert(Failure {
                    reason: Reason::ArtifactNotStored,
                    message,
                });
            }
        }
    }
    (produced, failure)
}

/// The artifact to be made at a position; beyond those that were assigned, one beside the last.
fn assigned_at(assigned: &[RuntimeArtifact], position: usize) -> Option<RuntimeArtifact> {
    match assigned.get(position) {
        Some(artifact) => Some(artifact.clone()),
        None => assigned.last().cloned().map(|mut artifact| {
            artifact.uri = format!("{}-{position}", artifact.uri);
            artifact
        }),
    }
}

struct Collector {
    /// The task's own folder in the store.
    folder: Option<PathBuf>,
    /// When the command started.
    started: SystemTime,
}

impl Collector {
    fn collect(
        &self,
        mut artifact: RuntimeArtifact,
        said: Option<&WrittenArtifact>,
    ) -> (ProducedArtifact, Option<content::Error>) {
        let mut from = None;
        if let Some(said) = said {
            if let Some(metadata) = &said.metadata {
                artifact.metadata.extend(metadata.clone());
            }
            if let Some(name) = said.name.as_ref().filter(|name| !name.is_empty()) {
                artifact.name.clone_from(name);
            }
            let custom = said.custom_path.as_ref().filter(|path| !path.is_empty());
            let uri = said
                .uri
                .as_ref()
                .filter(|uri| !uri.is_empty() && **uri != artifact.uri);
            match (custom, uri) {
                (Some(path), _) => from = Some(PathBuf::from(path)),
                (None, Some(uri)) => match local(uri) {
                    Some(path) if self.is_fresh(&path) => from = Some(path),
                    _ => artifact.uri.clone_from(uri),
                },
                (None, None) => {}
            }
        }
        let (measure, error) = match store(&artifact, from.as_deref()) {
            Ok(measure) => (measure, None),
            Err(error) => (None, Some(error)),
        };
        let (digest, size) = measure.map(|measure| (measure.digest, measure.size)).unzip();
        (
            ProducedArtifact {
                artifact,
                digest,
                size,
            },
            error,
        )
    }

    /// Whether the command wrote this outside its folder in the store, where it would be lost.
    /// What was there before is somebody else's, and stays where it is.
    fn is_fresh(&self, path: &Path) -> bool {
        if self
            .folder
            .as_ref()
            .is_some_and(|folder| path.starts_with(folder))
        {
            return false;
        }
        // File systems take their time from a clock that ticks every few milliseconds.
        let started = self.started - Duration::from_millis(10);
        fs::metadata(path).is_ok_and(|metadata| changed(&metadata).is_some_and(|changed| changed >= started))
    }
}

/// Brings an artifact to its place, if it is elsewhere, and weighs it.
fn store(
    artifact: &RuntimeArtifact,
    from: Option<&Path>,
) -> Result<Option<content::Measure>, content::Error> {
    let Some(path) = local(&artifact.uri) else {
        return Ok(None);
    };
    if let Some(from) = from.filter(|from| *from != path && from.exists()) {
        content::copy(from, &path)?;
    }
    content::measure(&path)
}

/// When a file or folder last changed in any way.
fn changed(metadata: &fs::Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
    UNIX_EPOCH.checked_add(seconds + Duration::from_nanos(u64::try_from(metadata.ctime_nsec()).ok()?))
}

fn local(uri: &str) -> Option<PathBuf> {
    uri.parse::<ArtifactUri>().ok()?.local().ok().map(Path::to_owned)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
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
