//! Output artifacts: where the command left each, whether that is its own to hand over, and the way
//! to where it belongs.

use std::path::{Path, PathBuf};

use coracle_api::{
    ir::placeholder,
    launch::{ExecutorInput, Failure, ProducedArtifact, RuntimeArtifact},
    reason::Reason,
};
use coracle_artifacts::{ArtifactUri, content, remote::Error, uri::Place};
use indexmap::IndexMap;

use super::{Written, WrittenArtifact};
use crate::{
    boundary::{Boundary, Owner, goes_up, outside},
    signals::Events,
    transfers::{self, Interrupted, Transfer},
};

/// Bytes of the metadata of all artifacts of one output.
const METADATA: usize = 1 << 20;

/// All output artifacts, and the first thing that went wrong with one. What belongs to an object
/// store is sent there.
pub(crate) fn artifacts(
    input: &ExecutorInput,
    written: &Written,
    boundary: &Boundary,
    events: &mut Events,
) -> (IndexMap<String, Vec<ProducedArtifact>>, Option<Failure>) {
    let mut produced: IndexMap<String, Vec<ProducedArtifact>> = IndexMap::new();
    let mut failure = None;
    let mut uploads = Vec::new();
    for (name, assigned) in &input.outputs.artifacts {
        let said = written
            .artifacts
            .get(name)
            .map_or(&[][..], |list| &list.artifacts);
        let count = assigned.artifacts.len().max(said.len());
        let list = produced.entry(name.clone()).or_default();
        let mut room = METADATA;
        for position in 0..count {
            let Some(artifact) = assigned_at(&assigned.artifacts, position) else {
                continue;
            };
            match collect(name, artifact, said.get(position), boundary, &mut room) {
                Ok((artifact, upload)) => {
                    if let Some(transfer) = upload {
                        uploads.push((name.clone(), list.len(), transfer));
                    }
                    list.push(artifact);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
    }
    if let Some(error) = send(&uploads, &mut produced, boundary, events) {
        failure.get_or_insert(error);
    }
    (produced, failure)
}

/// The artifact to be made at a position; beyond those that were assigned, one beside the last.
fn assigned_at(assigned: &[RuntimeArtifact], position: usize) -> Option<RuntimeArtifact> {
    match assigned.get(position) {
        Some(artifact) => Some(artifact.clone()),
        None => assigned.last().cloned().map(|mut artifact| {
            artifact.uri = format!("{}-{position}", artifact.uri);
            if let Some(path) = &mut artifact.custom_path {
                path.push_str(&format!("-{position}"));
            }
            artifact
        }),
    }
}

/// What became of one artifact, and what is still to be sent.
fn collect(
    name: &str,
    mut artifact: RuntimeArtifact,
    said: Option<&WrittenArtifact>,
    boundary: &Boundary,
    room: &mut usize,
) -> Result<(ProducedArtifact, Option<Transfer>), Failure> {
    let what = format!("the output artifact `{name}`");
    let assigned_path = artifact.custom_path.take().filter(|path| !path.is_empty());
    if let Some(said) = said {
        if let Some(metadata) = &said.metadata {
            let size = serde_json::to_string(metadata).map_or(0, |json| json.len());
            *room = room.checked_sub(size).ok_or_else(|| Failure {
                reason: Reason::OutputMetadataInvalid,
                message: format!(
                    "the metadata of {what} has {size} bytes, and an output's {METADATA} at most; \
                     write what is large to the artifact's file"
                ),
            })?;
            artifact.metadata.extend(metadata.clone());
        }
        if let Some(name) = said.name.as_ref().filter(|name| !name.is_empty()) {
            artifact.name.clone_from(name);
        }
    }
    let place = locate(&what, &mut artifact, assigned_path.as_deref(), said, boundary)?;
    let Some(path) = place else {
        // It is elsewhere, as it was before the task.
        return Ok((bare(artifact), None));
    };
    let not_stored = |error: &dyn std::error::Error| Failure {
        reason: Reason::ArtifactNotStored,
        message: format!("cannot store {what}: {}", coracle_api::reason::chain(error)),
    };
    let target = artifact.uri.parse::<ArtifactUri>();
    let (path, transfer) = match target.as_ref().map(ArtifactUri::place) {
        Ok(Place::Local(place)) => {
            if path.real != *place {
                content::copy(&path.real, place).map_err(|error| not_stored(&error))?;
            }
            (place.clone(), None)
        }
        Ok(Place::Object(_)) => {
            let uri = target.clone().map_err(|error| not_stored(&error))?;
            let transfer = Transfer {
                uri,
                path: path.real.clone(),
            };
            (path.real, Some(transfer))
        }
        _ => return Ok((bare(artifact), None)),
    };
    let measure = content::measure(&path).map_err(|error| not_stored(&error))?;
    let transfer = transfer.filter(|_| measure.is_some());
    let (digest, size) = measure.map(|measure| (measure.digest, measure.size)).unzip();
    Ok((
        ProducedArtifact {
            artifact,
            digest,
            size,
        },
        transfer,
    ))
}

const fn bare(artifact: RuntimeArtifact) -> ProducedArtifact {
    ProducedArtifact {
        artifact,
        digest: None,
        size: None,
    }
}

/// Bytes of this machine to hand over.
struct Bytes {
    /// Links followed, where something is there.
    real: PathBuf,
}

/// Where the bytes are, with the artifact's URI made what it is to be. None when the URI leads to
/// another machine and there is nothing here to send.
fn locate(
    what: &str,
    artifact: &mut RuntimeArtifact,
    assigned_path: Option<&str>,
    said: Option<&WrittenArtifact>,
    boundary: &Boundary,
) -> Result<Option<Bytes>, Failure> {
    let assigned = artifact.uri.parse::<ArtifactUri>().ok();
    let default = match (assigned_path, assigned.as_ref().map(ArtifactUri::local)) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(Ok(path))) => path.to_owned(),
        _ => return Ok(None),
    };
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let custom = said.and_then(|said| given(&said.custom_path));
    let uri = said
        .and_then(|said| given(&said.uri))
        .filter(|uri| *uri != artifact.uri && Some(&**uri) != assigned_path);
    if let Some(path) = custom {
        let path = PathBuf::from(path);
        // Nothing there is nothing written, which metrics may do.
        if let Some(bytes) = own(what, &path, boundary)? {
            return Ok(Some(bytes));
        }
    } else if let Some(uri) = uri {
        return elsewhere(what, artifact, &uri, boundary);
    }
    Ok(Some(
        own(what, &default, boundary)?.unwrap_or(Bytes { real: default }),
    ))
}

/// The command named a URI of its own.
fn elsewhere(
    what: &str,
    artifact: &mut RuntimeArtifact,
    uri: &str,
    boundary: &Boundary,
) -> Result<Option<Bytes>, Failure> {
    let Ok(named) = uri.parse::<ArtifactUri>() else {
        uri.clone_into(&mut artifact.uri);
        return Ok(None);
    };
    let path = match named.place() {
        Place::Local(path) => path.clone(),
        _ => {
            // User code writes to the path that the SDK makes of a URI.
            let path = PathBuf::from(placeholder::path_of_uri(uri));
            uri.clone_into(&mut artifact.uri);
            let is_made = matches!(named.place(), Place::Object(_))
                && boundary.owner(&path).is_ok_and(|owner| owner == Owner::Made);
            return Ok(is_made.then_some(Bytes { real: path }));
        }
    };
    if goes_up(&path) || boundary.is_trespass(&path) {
        return Err(outside(
            what,
            &path,
            "which is outside the folder that the task may write to",
        ));
    }
    match boundary.owner(&path) {
        Ok(Owner::Own) => {
            let Some(bytes) = own(what, &path, boundary)? else {
                return Ok(None);
            };
            let below = boundary.folder().and_then(|folder| {
                let real = path.canonicalize().ok()?;
                Some(real.strip_prefix(folder).ok()?.to_string_lossy().into_owned())
            });
            let assigned = artifact.uri.parse::<ArtifactUri>().ok();
            match (assigned, below) {
                // In an object store it has the place that it has in the folder here.
                (Some(assigned), Some(below)) if matches!(assigned.place(), Place::Object(_)) => {
                    if let Some((folder, _)) = artifact.uri.rsplit_once('/') {
                        artifact.uri = format!("{folder}/{below}");
                    }
                }
                _ => uri.clone_into(&mut artifact.uri),
            }
            Ok(Some(bytes))
        }
        // Where it is, it would be lost: it is brought to its place.
        Ok(Owner::Made) => own(what, &path, boundary),
        // What was there before and is no input is not the task's to hand out.
        Ok(Owner::Foreign) => Err(outside(
            what,
            &path,
            "which the task did not make; import what exists, and write to the path that the task is given",
        )),
        // An input that is handed on stays where it is.
        _ => {
            uri.clone_into(&mut artifact.uri);
            Ok(Some(Bytes { real: path }))
        }
    }
}

/// The task's own bytes at a path, if there are any.
fn own(what: &str, path: &Path, boundary: &Boundary) -> Result<Option<Bytes>, Failure> {
    if goes_up(path) {
        return Err(outside(what, path, "and `..` may lead out of the task's folder"));
    }
    match boundary.owner(path) {
        Ok(Owner::Nobody) if path.is_symlink() => Err(outside(what, path, "a link that leads nowhere")),
        Ok(Owner::Nobody) => Ok(None),
        Ok(Owner::Foreign) => Err(outside(
            what,
            path,
            "which leads out of what the task may write; write to the path that the task is given",
        )),
        Ok(_) => Ok(Some(Bytes {
            real: if path.is_symlink() {
                path.canonicalize().unwrap_or_else(|_| path.to_owned())
            } else {
                path.to_owned()
            },
        })),
        Err(error) => Err(Failure {
            reason: Reason::ArtifactNotStored,
            message: format!("cannot store {what}: cannot read `{}`: {error}", path.display()),
        }),
    }
}

/// Sends what belongs elsewhere. What arrived is removed here; what did not is left for whoever looks.
fn send(
    uploads: &[(String, usize, Transfer)],
    produced: &mut IndexMap<String, Vec<ProducedArtifact>>,
    boundary: &Boundary,
    events: &mut Events,
) -> Option<Failure> {
    if uploads.is_empty() {
        return None;
    }
    let transfers: Vec<Transfer> = uploads.iter().map(|(_, _, transfer)| transfer.clone()).collect();
    let outcomes = match transfers::send(&transfers, events) {
        Ok(outcomes) => outcomes,
        Err(interrupted) => {
            let (reason, why) = match interrupted {
                Interrupted::Stopped(signal) => (Reason::RunTerminated, format!("asked to stop ({signal})")),
                Interrupted::Broken(why) => (Reason::InternalError, why),
            };
            for (name, position, _) in uploads {
                forget(produced, name, *position);
            }
            return Some(Failure {
                reason,
                message: format!("the output artifacts were not stored: {why}"),
            });
        }
    };
    let mut failure = None;
    for ((name, position, transfer), outcome) in uploads.iter().zip(outcomes) {
        match outcome {
            Ok(_) => {
                let is_own = boundary
                    .owner(&transfer.path)
                    .is_ok_and(|owner| owner == Owner::Own);
                if is_own {
                    // What stays costs space, and nothing else.
                    let _ = content::remove(&transfer.path);
                }
            }
            Err(error) => {
                forget(produced, name, *position);
                let reason = match &error {
                    Error::LeadsOut { .. } => Reason::OutputOutsideFolder,
                    Error::Local { .. } => Reason::ArtifactNotStored,
                    _ => Reason::StorageUnavailable,
                };
                failure.get_or_insert_with(|| Failure {
                    reason,
                    message: format!(
                        "cannot store the output artifact `{name}`: {error}; its bytes are still at `{}`",
                        transfer.path.display()
                    ),
                });
            }
        }
    }
    failure
}

/// What is not where its URI says has neither digest nor size.
fn forget(produced: &mut IndexMap<String, Vec<ProducedArtifact>>, name: &str, position: usize) {
    if let Some(artifact) = produced.get_mut(name).and_then(|list| list.get_mut(position)) {
        artifact.digest = None;
        artifact.size = None;
    }
}
