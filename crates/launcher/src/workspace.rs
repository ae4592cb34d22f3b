//! An importer's artifact, brought into the run's workspace. There is no command then.

use std::path::{Path, PathBuf};

use coracle_api::{
    ir::placeholder,
    launch::{Failure, ProducedArtifact, Report, Spec, WorkspaceImport},
    reason::Reason,
};
use coracle_artifacts::{ArtifactUri, content, remote, uri::Place};
use indexmap::IndexMap;
use serde_json::Value;

use crate::{
    boundary::goes_up,
    inputs::IN_WORKSPACE,
    launch::terminated,
    log::Log,
    signals::Events,
    transfers::{self, Interrupted, Transfer},
};

/// Copies the artifact to where the SDK looks for it: the path that it makes of the URI, below the
/// workspace's folder for artifacts.
pub(crate) fn import(
    import: &WorkspaceImport,
    spec: &Spec,
    log: &Log,
    events: &mut Events,
) -> Result<Report, Failure> {
    let mut artifact = import.artifact.clone();
    let unavailable = |reason: Reason, why: String| Failure {
        reason,
        message: format!("cannot bring `{}` into the workspace: {why}", artifact.uri),
    };
    let uri: ArtifactUri = artifact
        .uri
        .parse()
        .map_err(|error| unavailable(Reason::InputArtifactUnavailable, format!("{error}")))?;
    let below = PathBuf::from(
        placeholder::path_of_uri(uri.as_str())
            .trim_start_matches('/')
            .trim_end_matches('/'),
    );
    if goes_up(&below) {
        let why = "its path goes up by `..`".to_owned();
        return Err(unavailable(Reason::InputArtifactUnavailable, why));
    }
    let target = Path::new(&import.folder).join(below);
    log.say(&format!(
        "bringing {uri} into the workspace at {}",
        target.display()
    ));
    let not_written = |error: content::Error| {
        let reason = match &error {
            content::Error::Write { .. } => Reason::ArtifactNotStored,
            _ => Reason::InputArtifactUnavailable,
        };
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        unavailable(reason, format!("{error}{}", source.unwrap_or_default()))
    };
    match uri.place() {
        Place::Local(path) => content::copy(path, &target).map_err(not_written)?,
        _ => {
            // Another importer may have brought it before.
            content::remove(&target).map_err(not_written)?;
            let transfer = Transfer {
                uri: uri.clone(),
                path: target.clone(),
            };
            let outcomes =
                transfers::fetch(&[transfer], events).map_err(|interrupted| match interrupted {
                    Interrupted::Stopped(signal) => terminated(signal),
                    Interrupted::Broken(why) => unavailable(Reason::InternalError, why),
                })?;
            for outcome in outcomes {
                outcome.map_err(|error: remote::Error| unavailable(error.reason(), error.to_string()))?;
            }
        }
    }
    let measure = content::measure(&target).map_err(not_written)?;
    let (digest, size) = measure.map(|measure| (measure.digest, measure.size)).unzip();
    if let (Some(recorded), Some(found)) = (spec.input_digests.get(uri.as_str()), &digest)
        && recorded != found
    {
        let why = format!("it is not what it was: its digest was {recorded}, and is {found} now");
        return Err(unavailable(Reason::InputArtifactUnavailable, why));
    }
    artifact
        .metadata
        .insert(IN_WORKSPACE.to_owned(), Value::Bool(true));
    let produced = ProducedArtifact {
        artifact,
        digest,
        size,
    };
    Ok(Report {
        parameters: IndexMap::new(),
        artifacts: IndexMap::from([(import.output.clone(), vec![produced])]),
        failure: None,
        exit_code: Some(0),
    })
}
