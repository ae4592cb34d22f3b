//! What must be in place before the command starts: defaults, input artifacts, output folders.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use coracle_api::{
    ir::placeholder,
    launch::{ExecutorInput, Failure, RuntimeArtifact, Spec},
    reason::Reason,
};
use coracle_artifacts::{
    ArtifactUri, content, layout, remote,
    uri::{NotSupported, Place},
};
use indexmap::IndexMap;
use serde_json::Value;

use crate::{
    launch::terminated,
    log::Log,
    signals::Events,
    transfers::{self, Interrupted, Transfer},
    values,
};

/// The metadata of an artifact that is in the run's workspace.
pub(crate) const IN_WORKSPACE: &str = "_kfp_workspace";

/// The executor input as the command gets it.
pub(crate) struct Prepared {
    /// Defaults and paths filled in.
    pub(crate) input: ExecutorInput,
    /// Input artifacts of this machine that are not there, by name and path. A task may get along
    /// without: metrics, for one, often have no file.
    pub(crate) absent: Vec<(String, PathBuf)>,
    /// Holds what was fetched; removed when dropped.
    _downloads: Option<tempfile::TempDir>,
}

/// Opens the file that keeps the log.
pub(crate) fn open_log(uri: &str) -> Result<File, Failure> {
    let path = place_of(uri)?.ok_or_else(|| Failure {
        reason: Reason::ArtifactNotStored,
        message: format!("the log cannot be kept at `{uri}`, which is not on this machine"),
    })?;
    make_parent(&path)?;
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| not_stored(&path, &error))
}

/// Puts everything in place.
pub(crate) fn prepare(spec: &Spec, log: &Log, events: &mut Events) -> Result<Prepared, Failure> {
    let mut input = spec.executor_input.clone();
    for (name, parameter) in &spec.input_parameters {
        let is_absent = input.inputs.parameter_values.get(name).is_none_or(Value::is_null);
        if let Some(default) = parameter
            .default_value
            .as_ref()
            .filter(|default| is_absent && !default.is_null())
        {
            let value = parameter
                .parameter_type
                .coerce(default.clone())
                .unwrap_or_else(|_| default.clone());
            input.inputs.parameter_values.insert(name.clone(), value);
        }
    }
    values::restore(&mut input, spec, events)?;
    make_output_folders(&mut input)?;

    let mut wanted = Vec::new();
    let mut absent = Vec::new();
    for (name, list) in &mut input.inputs.artifacts {
        for (position, artifact) in list.artifacts.iter_mut().enumerate() {
            match find(name, artifact)? {
                Found::Here => {}
                Found::Absent(path) => {
                    say_absent(log, &path.display().to_string(), name);
                    absent.push((name.clone(), path));
                }
                Found::Elsewhere(uri) => wanted.push(Wanted {
                    name: name.clone(),
                    position,
                    uri,
                }),
            }
        }
    }
    let downloads = download(&wanted, &mut input, spec, log, events)?;
    Ok(Prepared {
        input,
        absent,
        _downloads: downloads,
    })
}

fn say_absent(log: &Log, place: &str, name: &str) {
    log.say(&format!("nothing is at `{place}`, the input artifact `{name}`"));
}

/// Makes the folders of what the task makes; what goes to another machine gets a place here first,
/// in the task's own folder.
fn make_output_folders(input: &mut ExecutorInput) -> Result<(), Failure> {
    let outputs = &mut input.outputs;
    for file in outputs
        .parameters
        .values()
        .map(|parameter| &parameter.output_file)
    {
        make_parent(Path::new(file))?;
    }
    let folder = Path::new(&outputs.output_file).parent().map(Path::to_owned);
    for artifact in outputs
        .artifacts
        .values_mut()
        .flat_map(|list| &mut list.artifacts)
    {
        let path = match (place_of(&artifact.uri)?, &artifact.custom_path) {
            (_, Some(path)) if !path.is_empty() => PathBuf::from(path),
            (Some(path), _) => path,
            (None, _) => {
                let name = artifact.uri.rsplit('/').next().unwrap_or_default();
                let path = folder.clone().unwrap_or_default().join(name);
                artifact.custom_path = Some(path.to_string_lossy().into_owned());
                path
            }
        };
        make_parent(&path)?;
    }
    if outputs.output_file.is_empty() {
        Ok(())
    } else {
        make_parent(Path::new(&outputs.output_file))
    }
}

/// Where an input artifact is.
enum Found {
    Here,
    Absent(PathBuf),
    Elsewhere(ArtifactUri),
}

fn find(name: &str, artifact: &mut RuntimeArtifact) -> Result<Found, Failure> {
    if artifact.uri.is_empty() || artifact.custom_path.as_ref().is_some_and(|path| !path.is_empty()) {
        return Ok(Found::Here);
    }
    let unavailable = |why: String| unavailable(name, &artifact.uri, &why);
    if artifact.metadata.get(IN_WORKSPACE) == Some(&Value::Bool(true)) {
        // An importer brought it there.
        let path = PathBuf::from(placeholder::path(artifact));
        return match path.try_exists() {
            Ok(true) => Ok(Found::Here),
            Ok(false) => Ok(Found::Absent(path)),
            Err(error) => Err(unavailable(error.to_string())),
        };
    }
    let uri: ArtifactUri = artifact
        .uri
        .parse()
        .map_err(|error| unavailable(format!("{error}")))?;
    match uri.place() {
        Place::Local(path) => {
            let found = fs::metadata(path);
            if artifact.uri != path.to_string_lossy() {
                artifact.custom_path = Some(path.to_string_lossy().into_owned());
            }
            match found {
                Ok(_) => Ok(Found::Here),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent(path.clone())),
                Err(error) => Err(unavailable(error.to_string())),
            }
        }
        Place::Http | Place::Object(_) => Ok(Found::Elsewhere(uri)),
        Place::Unsupported { scheme } => Err(Failure {
            reason: Reason::NotSupported,
            message: NotSupported {
                uri: uri.to_string(),
                scheme: scheme.clone(),
            }
            .to_string(),
        }),
    }
}

/// An input artifact of another machine.
struct Wanted {
    name: String,
    position: usize,
    uri: ArtifactUri,
}

/// Fetches what is on other machines, all at once, and tells the command where it is.
fn download(
    wanted: &[Wanted],
    input: &mut ExecutorInput,
    spec: &Spec,
    log: &Log,
    events: &mut Events,
) -> Result<Option<tempfile::TempDir>, Failure> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let folder = scratch(&input.outputs.output_file).map_err(|error| Failure {
        reason: Reason::ArtifactNotStored,
        message: format!("no folder for downloads: {error}"),
    })?;
    // Its own file name, for its extension; a folder each, for names repeat. One URI is fetched once.
    let mut transfers: IndexMap<&str, Transfer> = IndexMap::new();
    for Wanted { name, uri, .. } in wanted {
        let path = folder
            .path()
            .join(transfers.len().to_string())
            .join(file_name(uri.as_str()));
        transfers.entry(uri.as_str()).or_insert_with(|| {
            log.say(&format!("downloading the input artifact `{name}` from {uri}"));
            Transfer {
                uri: uri.clone(),
                path,
            }
        });
    }
    let list: Vec<Transfer> = transfers.values().cloned().collect();
    let outcomes = transfers::fetch(&list, events).map_err(|interrupted| match interrupted {
        Interrupted::Stopped(signal) => terminated(signal),
        Interrupted::Broken(message) => Failure {
            reason: Reason::InternalError,
            message,
        },
    })?;
    for Wanted { name, position, uri } in wanted {
        let Some((index, _, transfer)) = transfers.get_full(uri.as_str()) else {
            continue;
        };
        match outcomes.get(index) {
            Some(Ok(_)) => check_digest(name, transfer, spec)?,
            Some(Err(remote::Error::NotFound { .. })) if *uri.place() == Place::Http => {
                return Err(unavailable(name, uri.as_str(), "the server answered 404"));
            }
            // As on this machine: metrics, for one, often have no file.
            Some(Err(remote::Error::NotFound { .. })) => say_absent(log, uri.as_str(), name),
            Some(Err(error)) => {
                let reason = match (error.reason(), uri.place()) {
                    // A web server is no store of ours.
                    (Reason::StorageUnavailable, Place::Http) => Reason::InputArtifactUnavailable,
                    (reason, _) => reason,
                };
                return Err(Failure {
                    reason,
                    ..unavailable(name, uri.as_str(), &error.to_string())
                });
            }
            None => return Err(unavailable(name, uri.as_str(), "its download was lost")),
        }
        let list = input.inputs.artifacts.get_mut(name);
        if let Some(artifact) = list.and_then(|list| list.artifacts.get_mut(*position)) {
            artifact.custom_path = Some(transfer.path.to_string_lossy().into_owned());
        }
    }
    Ok(Some(folder))
}

/// A folder for what is fetched, where there is room: beside what the task makes.
fn scratch(output_file: &str) -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    match Path::new(output_file).parent().filter(|folder| folder.is_dir()) {
        Some(folder) => builder.prefix(".inputs-").tempdir_in(folder),
        None => builder.prefix("coracle-inputs-").tempdir(),
    }
}

fn check_digest(name: &str, transfer: &Transfer, spec: &Spec) -> Result<(), Failure> {
    let Some(recorded) = spec.input_digests.get(transfer.uri.as_str()) else {
        return Ok(());
    };
    let found = content::measure(&transfer.path)
        .map_err(|error| unavailable(name, transfer.uri.as_str(), &error.to_string()))?
        .map(|measure| measure.digest);
    if found.as_ref() == Some(recorded) {
        return Ok(());
    }
    let why = format!(
        "it is not what it was when it was made: its digest was {recorded}, and is {} now",
        found.as_deref().unwrap_or("that of nothing")
    );
    Err(unavailable(name, transfer.uri.as_str(), &why))
}

fn unavailable(name: &str, uri: &str, why: &str) -> Failure {
    Failure {
        reason: Reason::InputArtifactUnavailable,
        message: format!("cannot read the input artifact `{name}` at `{uri}`: {why}"),
    }
}

/// The last part of a URL's path as a file name.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = path
        .trim_end_matches('/')
        .split_once('/')
        .and_then(|(_, path)| path.rsplit('/').next())
        .unwrap_or_default();
    let clean: String = name
        .chars()
        .filter(|char| char.is_ascii_alphanumeric() || "-_.".contains(*char))
        .take(100)
        .collect();
    if clean.trim_matches('.').is_empty() {
        "download".to_owned()
    } else {
        clean
    }
}

/// The local path of something that the task makes; none when it goes to an object store.
fn place_of(uri: &str) -> Result<Option<PathBuf>, Failure> {
    let root = layout::pipeline_root(uri).map_err(|_| Failure {
        reason: Reason::ArtifactNotStored,
        message: format!("`{uri}` is no place to keep an artifact in"),
    })?;
    Ok(root.and_then(|uri| uri.local().ok().map(Path::to_owned)))
}

pub(crate) fn make_parent(path: &Path) -> Result<(), Failure> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(|error| not_stored(parent, &error)),
        None => Ok(()),
    }
}

fn not_stored(path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot write `{}`: {error}", path.display());
    Failure {
        reason: Reason::ArtifactNotStored,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_keep_the_name_they_have() {
        for (url, name) in [
            ("https://h/data/iris.csv", "iris.csv"),
            ("https://h/data/a%20b.tar.gz?x=/y#z", "a20b.tar.gz"),
            ("https://h", "download"),
            ("https://h/", "download"),
            ("https://h/..", "download"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }
}
