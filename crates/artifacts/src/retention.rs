//! What may go when space is wanted back: [`plan`] says what and why, and touches nothing;
//! [`remove`] does it, and may be repeated.
//!
//! Bytes are told apart by their URI. They go when every run that made or used them goes; of a run
//! that is at work nothing goes, and nothing outside the store ever.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use coracle_api::id::{ArtifactId, RunId};
use jiff::{SignedDuration, Timestamp};

use crate::{
    content,
    local::{Artifacts, Error},
    uri::{ArtifactUri, Place},
};

/// A run and what it holds.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// The run.
    pub id: RunId,
    /// When it ended; none while it is at work.
    pub finished_at: Option<Timestamp>,
    /// What it made, logs included.
    pub outputs: Vec<StoredArtifact>,
    /// URIs of what it used.
    pub inputs: Vec<String>,
}

/// An artifact's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredArtifact {
    /// Its row.
    pub id: ArtifactId,
    /// Where its bytes are.
    pub uri: String,
    /// How many, as far as is known.
    pub bytes: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What is to be kept. Without any limit nothing goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// What ended longer ago than this goes.
    pub older_than: Option<SignedDuration>,
    /// This many of the runs that ended last stay, whatever else is said; alone, all others go.
    pub keep_last: Option<usize>,
    /// The oldest go until no more than this is left.
    pub max_bytes: Option<u64>,
}

/// Where artifacts may be removed.
#[derive(Debug, Clone)]
pub struct Store {
    roots: Vec<ArtifactUri>,
}

/// Something that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The run; none for what no run holds any more.
    pub run: Option<RunId>,
    /// Its artifacts that go.
    pub artifacts: Vec<StoredArtifact>,
    /// Their bytes.
    pub bytes: u64,
    /// Which limit it is for.
    pub why: Why,
}

/// Which limit something goes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is older than is kept.
    Age,
    /// More runs ended after it than are kept.
    Count,
    /// All together are more bytes than are kept.
    Size,
}

impl Store {
    /// What is under these roots, and nothing else.
    #[must_use]
    pub const fn new(roots: Vec<ArtifactUri>) -> Self {
        Self { roots }
    }

    /// Whether something is below one of the roots.
    #[must_use]
    pub fn holds(&self, uri: &str) -> bool {
        let Ok(uri) = uri.parse::<ArtifactUri>() else {
            return false;
        };
        self.roots.iter().any(|root| match (root.place(), uri.place()) {
            (Place::Local(root), Place::Local(path)) => {
                let goes_up = path
                    .components()
                    .any(|part| part == std::path::Component::ParentDir);
                !goes_up && path.starts_with(root) && path != root
            }
            (Place::Object(root), Place::Object(object)) => {
                let below = object.key.strip_prefix(&*root.key);
                let is_below = below.is_some_and(|below| {
                    !below.is_empty() && (root.key.is_empty() || below.starts_with('/'))
                });
                let same = |one: &crate::uri::Object| (one.provider, one.bucket.clone(), one.account.clone());
                is_below && same(root) == same(object)
            }
            _ => false,
        })
    }
}

/// What goes: oldest first, what no run holds before runs. `orphans` are artifacts whose runs are gone.
#[must_use]
pub fn plan(
    runs: &[StoredRun],
    orphans: &[StoredArtifact],
    policy: &Policy,
    store: &Store,
    now: Timestamp,
) -> Vec<Removal> {
    let mut ledger = Ledger::new(runs, orphans, store);
    let is_old = |time: Timestamp| {
        let limit = policy.older_than;
        limit.is_some_and(|limit| now.duration_since(time) > limit)
    };
    let mut ended: Vec<(Timestamp, &StoredRun)> = runs
        .iter()
        .filter_map(|run| Some((run.finished_at?, run)))
        .collect();
    ended.sort_unstable_by_key(|(time, run)| (*time, run.id));
    let kept_last = policy.keep_last.unwrap_or(0);
    let candidates = &ended[..ended.len().saturating_sub(kept_last)];
    let mut loose: Vec<&StoredArtifact> = orphans.iter().collect();
    loose.sort_unstable_by_key(|artifact| (artifact.created_at, artifact.id));

    // A number alone says that all others go; beside another limit it says what stays in any case.
    let count_alone = policy.keep_last.is_some() && policy.older_than.is_none() && policy.max_bytes.is_none();
    let mut going: Vec<(Option<RunId>, Why)> = Vec::new();
    let mut lost: BTreeSet<ArtifactId> = BTreeSet::new();
    let mut gone: BTreeSet<RunId> = BTreeSet::new();
    for (why, asked) in [(Why::Age, policy.older_than.is_some()), (Why::Count, count_alone)] {
        if !asked {
            continue;
        }
        for artifact in &loose {
            if (why == Why::Count || is_old(artifact.created_at)) && lost.insert(artifact.id) {
                ledger.drop_orphan(artifact);
            }
        }
        if !lost.is_empty() {
            going.push((None, why));
        }
        for (time, run) in candidates {
            if (why == Why::Count || is_old(*time)) && gone.insert(run.id) {
                ledger.drop_run(run);
                going.push((Some(run.id), why));
            }
        }
    }
    if let Some(most) = policy.max_bytes {
        for artifact in &loose {
            if ledger.total > most && lost.insert(artifact.id) {
                ledger.drop_orphan(artifact);
                if !going.iter().any(|(run, _)| run.is_none()) {
                    going.push((None, Why::Size));
                }
            }
        }
        for (_, run) in candidates {
            if ledger.total > most && gone.insert(run.id) {
                ledger.drop_run(run);
                going.push((Some(run.id), Why::Size));
            }
        }
    }
    let by_id: HashMap<RunId, &StoredRun> = runs.iter().map(|run| (run.id, run)).collect();
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut removals = Vec::with_capacity(going.len());
    for (run, why) in going {
        let of_run = run.and_then(|run| by_id.get(&run));
        let all: Vec<&StoredArtifact> = match of_run {
            Some(run) => run.outputs.iter().collect(),
            None => loose
                .iter()
                .copied()
                .filter(|artifact| lost.contains(&artifact.id))
                .collect(),
        };
        let artifacts: Vec<StoredArtifact> = all
            .into_iter()
            .filter(|artifact| ledger.is_free(&artifact.uri) && told.insert(&artifact.uri))
            .cloned()
            .collect();
        let bytes = artifacts.iter().map(|artifact| artifact.bytes).sum();
        removals.push(Removal {
            run,
            artifacts,
            bytes,
            why,
        });
    }
    removals
}

/// Who still holds which bytes.
struct Ledger {
    /// Holders left, and bytes, by URI; what is outside the store is not here.
    held: BTreeMap<String, (usize, u64)>,
    /// Bytes that are held.
    total: u64,
}

impl Ledger {
    fn new(runs: &[StoredRun], orphans: &[StoredArtifact], store: &Store) -> Self {
        let mut held: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        for artifact in runs.iter().flat_map(|run| &run.outputs).chain(orphans) {
            if store.holds(&artifact.uri) {
                let entry = held.entry(artifact.uri.clone()).or_default();
                entry.1 = entry.1.max(artifact.bytes);
            }
        }
        for uri in runs.iter().flat_map(holdings) {
            if let Some(entry) = held.get_mut(uri) {
                entry.0 += 1;
            }
        }
        for artifact in orphans {
            if let Some(entry) = held.get_mut(&artifact.uri) {
                entry.0 += 1;
            }
        }
        let total = held.values().map(|(_, bytes)| bytes).sum();
        Self { held, total }
    }

    fn drop_run(&mut self, run: &StoredRun) {
        for uri in holdings(run) {
            self.drop_holder(uri);
        }
    }

    fn drop_orphan(&mut self, artifact: &StoredArtifact) {
        self.drop_holder(&artifact.uri);
    }

    fn drop_holder(&mut self, uri: &str) {
        if let Some((holders, bytes)) = self.held.get_mut(uri) {
            *holders = holders.saturating_sub(1);
            if *holders == 0 {
                self.total = self.total.saturating_sub(*bytes);
            }
        }
    }

    fn is_free(&self, uri: &str) -> bool {
        self.held.get(uri).is_some_and(|(holders, _)| *holders == 0)
    }
}

/// The URIs that a run made or used, each once.
fn holdings(run: &StoredRun) -> BTreeSet<&str> {
    let made = run.outputs.iter().map(|artifact| &*artifact.uri);
    made.chain(run.inputs.iter().map(String::as_str)).collect()
}

/// Removes the bytes of what goes, with the folders that are empty then and what was kept beside the
/// artifacts. What is gone already is no error. Returns how many artifacts are gone.
///
/// # Errors
/// [`Error`] at the first that stays, and for anything outside the store.
pub async fn remove(artifacts: &Artifacts, store: &Store, removal: &Removal) -> Result<usize, Error> {
    for artifact in &removal.artifacts {
        let uri: ArtifactUri = artifact.uri.parse().map_err(|error| Error::Read {
            uri: artifact.uri.clone(),
            source: Box::new(error),
        })?;
        if !store.holds(&artifact.uri) {
            return Err(Error::Outside {
                path: PathBuf::from(&artifact.uri),
                root: artifacts.root().to_owned(),
            });
        }
        match uri.place() {
            Place::Local(path) => {
                let (artifacts, path) = (artifacts.clone(), path.clone());
                let removed = tokio::task::spawn_blocking(move || remove_here(&artifacts, &path)).await;
                removed.map_err(|error| Error::Read {
                    uri: artifact.uri.clone(),
                    source: Box::new(error),
                })??;
            }
            _ => {
                artifacts.remote().delete(&uri).await?;
            }
        }
    }
    Ok(removal.artifacts.len())
}

/// Blocking.
fn remove_here(artifacts: &Artifacts, path: &Path) -> Result<(), Error> {
    let failed = |source: content::Error| Error::Read {
        uri: path.display().to_string(),
        source: Box::new(source),
    };
    // The folder is made sure of; a link in it goes, and not what it leads to.
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let parent = artifacts.confine(parent)?;
    content::remove(&parent.join(name)).map_err(failed)?;
    let mut folder = parent;
    while folder != artifacts.root() && folder.starts_with(artifacts.root()) {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            break;
        };
        let left: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        // Names that begin with a dot are Coracle's own, except the log, which is an artifact.
        let is_kept = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            !name.starts_with('.') || name == ".executor-logs.txt"
        };
        if left.iter().any(is_kept) {
            break;
        }
        content::remove(&folder).map_err(failed)?;
        if !folder.pop() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
