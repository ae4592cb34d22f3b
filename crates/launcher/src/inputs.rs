//! What must be in place before the command starts: defaults, input artifacts, output folders.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use coracle_api::{
    launch::{ExecutorInput, Failure, RuntimeArtifact, Spec},
    reason::Reason,
};
use coracle_artifacts::{ArtifactUri, uri::Place};
use serde_json::Value;

use crate::{log::Log, signals::Events};

/// The executor input as the command gets it.
pub(crate) struct Prepared {
    /// Defaults and paths filled in.
    pub(crate) input: ExecutorInput,
    /// Input artifacts of this machine that are not there, by name and path. A task may get along
    /// without: metrics, for one, often have no file.
    pub(crate) absent: Vec<(String, PathBuf)>,
    /// Holds what was downloaded; removed when dropped.
    _downloads: Option<tempfile::TempDir>,
}

/// Opens the file that keeps the log.
pub(crate) fn open_log(uri: &str) -> Result<File, Failure> {
    let path = place(uri)?;
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
    make_output_folders(&input)?;

    let mut absent = Vec::new();
    let mut downloads = Downloads::default();
    for (name, list) in &mut input.inputs.artifacts {
        for artifact in &mut list.artifacts {
            if let Some(path) = fetch(name, artifact, &mut downloads, log, events)? {
                log.say(&format!(
                    "nothing is at `{}`, the input artifact `{name}`",
                    path.display()
                ));
                absent.push((name.clone(), path));
            }
        }
    }
    Ok(Prepared {
        input,
        absent,
        _downloads: downloads.folder,
    })
}

fn make_output_folders(input: &ExecutorInput) -> Result<(), Failure> {
    let outputs = &input.outputs;
    for file in outputs
        .parameters
        .values()
        .map(|parameter| &parameter.output_file)
    {
        make_parent(Path::new(file))?;
    }
    for artifact in outputs.artifacts.values().flat_map(|list| &list.artifacts) {
        make_parent(&place(&artifact.uri)?)?;
    }
    if outputs.output_file.is_empty() {
        Ok(())
    } else {
        make_parent(Path::new(&outputs.output_file))
    }
}

/// Makes one input artifact readable under a path; returns the path when nothing is there.
fn fetch(
    name: &str,
    artifact: &mut RuntimeArtifact,
    downloads: &mut Downloads,
    log: &Log,
    events: &mut Events,
) -> Result<Option<PathBuf>, Failure> {
    if artifact.uri.is_empty() || artifact.custom_path.as_ref().is_some_and(|path| !path.is_empty()) {
        return Ok(None);
    }
    let unavailable = |why: String| Failure {
        reason: Reason::InputArtifactUnavailable,
        message: format!(
            "cannot read the input artifact `{name}` at `{}`: {why}",
            artifact.uri
        ),
    };
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
                Ok(_) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(path.clone())),
                Err(error) => Err(unavailable(error.to_string())),
            }
        }
        Place::Http => {
            log.say(&format!("downloading the input artifact `{name}` from {uri}"));
            let path = downloads.get(uri.as_str(), events).map_err(unavailable)?;
            artifact.custom_path = Some(path.to_string_lossy().into_owned());
            Ok(None)
        }
        Place::Unsupported { .. } => Err(not_supported(&uri)),
    }
}

/// Files downloaded for this attempt.
#[derive(Default)]
struct Downloads {
    folder: Option<tempfile::TempDir>,
    count: usize,
}

impl Downloads {
    fn get(&mut self, url: &str, events: &mut Events) -> Result<PathBuf, String> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => tempfile::Builder::new()
                .prefix("coracle-inputs-")
                .tempdir()
                .map_err(|error| format!("no folder for downloads: {error}"))?,
        };
        let folder = self.folder.insert(folder).path();
        // The URL's own file name, for its extension; a folder each, for names repeat.
        let folder = folder.join(self.count.to_string());
        self.count += 1;
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let path = folder.join(file_name(url));

        let mut pause = Duration::from_secs(1);
        loop {
            match download(url, &path) {
                Ok(()) => return Ok(path),
                Err(Download::Passing(why)) if pause > Duration::from_secs(8) => {
                    return Err(format!("{why} (tried several times)"));
                }
                Err(Download::Passing(why)) => {
                    if events.wait(pause).is_some() {
                        return Err(why);
                    }
                }
                Err(Download::Lasting(why)) => return Err(why),
            }
            pause *= 2;
        }
    }
}

enum Download {
    Passing(String),
    Lasting(String),
}

fn download(url: &str, path: &Path) -> Result<(), Download> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent: ureq::Agent = config.into();
    let mut answer = agent.get(url).call().map_err(|error| match error {
        ureq::Error::BadUri(_) | ureq::Error::TooManyRedirects => Download::Lasting(error.to_string()),
        _ => Download::Passing(error.to_string()),
    })?;
    let status = answer.status();
    if !status.is_success() {
        let why = format!("the server answered {status}");
        let is_passing = status.is_server_error() || status.as_u16() == 429;
        return Err(if is_passing {
            Download::Passing(why)
        } else {
            Download::Lasting(why)
        });
    }
    let mut file = File::create(path).map_err(|error| Download::Lasting(error.to_string()))?;
    io::copy(&mut answer.body_mut().as_reader(), &mut file)
        .map(drop)
        .map_err(|error| Download::Passing(error.to_string()))
}

/// The last part of a URL's path as a file name.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = path
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

/// The local path of something that the task makes.
fn place(uri: &str) -> Result<PathBuf, Failure> {
    let uri: ArtifactUri = uri.parse().map_err(|error| Failure {
        reason: Reason::ArtifactNotStored,
        message: format!("{error}"),
    })?;
    uri.local().map(Path::to_owned).map_err(|_| not_supported(&uri))
}

fn not_supported(uri: &ArtifactUri) -> Failure {
    let message = uri
        .local()
        .map_or_else(|error| error.to_string(), |_| uri.to_string());
    Failure {
        reason: Reason::NotSupported,
        message,
    }
}

fn make_parent(path: &Path) -> Result<(), Failure> {
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
