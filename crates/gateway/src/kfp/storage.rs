//! Makes room: removes what no run needs any more, by a policy. Coracle's own path; what goes is
//! decided in [`coracle_artifacts::retention`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use axum::{Json, extract::State};
use coracle_api::id::{ArtifactId, RunId};
use coracle_artifacts::{
    ArtifactUri,
    retention::{self, Policy, Removal, StoredArtifact, StoredRun, Why},
    uri::Place,
};
use coracle_store::records::{self, IoType, LinkFilter, Records};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Options, artifacts::Artifact, error::Error, extract::Body, wire::Int64};

/// Links read at once.
const AT_ONCE: u32 = 10_000;

/// What is to be kept. Without any limit nothing goes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CollectRequest {
    /// Only say what would go.
    #[serde(default, alias = "dryRun")]
    dry_run: bool,
    /// What ended longer ago goes.
    #[serde(default, alias = "olderThanSeconds")]
    older_than_seconds: Option<Int64>,
    /// So many of the runs that ended last stay, whatever else is said; alone, all others go.
    #[serde(default, alias = "keepLast")]
    keep_last: Option<Int64>,
    /// The oldest go until no more than this is left.
    #[serde(default, alias = "maxBytes")]
    max_bytes: Option<Int64>,
}

/// What went, or would go.
#[derive(Serialize, ToSchema)]
pub(super) struct CollectResponse {
    /// Whether it was only asked.
    dry_run: bool,
    /// Artifacts that went: their bytes and their rows. The runs stay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    artifacts: Vec<Artifact>,
    /// Their bytes.
    bytes: Int64,
    /// The runs they were of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<CollectedRun>,
    /// What could not be removed, and why. It is still there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// A run whose artifacts went.
#[derive(Serialize, ToSchema)]
pub(super) struct CollectedRun {
    run_id: String,
    /// `AGE`, `COUNT` or `SIZE`: the limit it went for.
    why: &'static str,
    /// Bytes of its artifacts that went.
    bytes: Int64,
}

/// Removes artifacts that no kept run made or used, by age, count and size.
#[utoipa::path(post, path = "/storage/:collect", tag = "storage", request_body = CollectRequest,
    responses((status = 200, body = CollectResponse)))]
pub(super) async fn collect(
    State(options): State<Arc<Options>>,
    Body(body): Body<CollectRequest>,
) -> Result<Json<CollectResponse>, Error> {
    let now = (options.clock)();
    let policy = policy(&body)?;
    let stock = Stock::read(&options, now).await?;
    let removals = retention::plan(&stock.runs, &stock.orphans, &policy, &stock.store, now);
    let ids: Vec<_> = removals
        .iter()
        .flat_map(|removal| removal.artifacts.iter().map(|artifact| artifact.id))
        .collect();
    let rows: HashMap<_, _> = options
        .records
        .artifacts(&ids)
        .await?
        .into_iter()
        .map(|row| (row.id, row))
        .collect();
    let (removals, problems) = if body.dry_run {
        (removals, Vec::new())
    } else {
        remove(&options, &stock, removals, &ids, now).await?
    };
    let gone = removals.iter().flat_map(|removal| &removal.artifacts);
    Ok(Json(CollectResponse {
        dry_run: body.dry_run,
        bytes: bytes(removals.iter().map(|removal| removal.bytes).sum()),
        artifacts: gone
            .filter_map(|artifact| rows.get(&artifact.id).cloned())
            .map(Artifact::from)
            .collect(),
        runs: removals.iter().filter_map(collected).collect(),
        problems,
    }))
}

fn bytes(number: u64) -> Int64 {
    Int64(i64::try_from(number).unwrap_or(i64::MAX))
}

fn collected(removal: &Removal) -> Option<CollectedRun> {
    Some(CollectedRun {
        run_id: removal.run?.to_string(),
        why: match removal.why {
            Why::Age => "AGE",
            Why::Count => "COUNT",
            Why::Size => "SIZE",
        },
        bytes: bytes(removal.bytes),
    })
}

fn policy(body: &CollectRequest) -> Result<Policy, Error> {
    let natural = |name: &str, number: Option<Int64>| match number {
        None => Ok(None),
        Some(Int64(number)) => u64::try_from(number).map(Some).map_err(|_| {
            Error::Invalid(format!(
                "`{name}`: expected a number that is not negative, found {number}"
            ))
        }),
    };
    let seconds = natural("older_than_seconds", body.older_than_seconds)?;
    Ok(Policy {
        older_than: seconds
            .map(|seconds| SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))),
        keep_last: natural("keep_last", body.keep_last)?
            .map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
        max_bytes: natural("max_bytes", body.max_bytes)?,
    })
}

/// All that is stored, and who holds it.
struct Stock {
    runs: Vec<StoredRun>,
    orphans: Vec<StoredArtifact>,
    store: retention::Store,
}

impl Stock {
    async fn read(options: &Options, now: Timestamp) -> Result<Self, Error> {
        let records = &options.records;
        let links = links(records).await?;
        let ids: BTreeSet<_> = links.iter().map(|link| link.artifact_id).collect();
        let rows = records.artifacts(&ids.into_iter().collect::<Vec<_>>()).await?;
        let rows: HashMap<ArtifactId, StoredArtifact> =
            rows.into_iter().map(|row| (row.id, stored(row))).collect();
        let ended: HashMap<RunId, Timestamp> = records
            .stored_runs(None)
            .await?
            .into_iter()
            .map(|run| (run.id, run.finished_at))
            .collect();
        let mut roots = vec![ArtifactUri::from(options.artifacts.root())];
        let mut seen_roots = BTreeSet::new();
        let mut runs: BTreeMap<RunId, StoredRun> = BTreeMap::new();
        // Also those that hold nothing: they count among the last.
        let all = ended.keys().copied().chain(links.iter().map(|link| link.run_id));
        for id in all {
            runs.entry(id).or_insert_with(|| StoredRun {
                id,
                finished_at: ended.get(&id).copied(),
                outputs: Vec::new(),
                inputs: Vec::new(),
            });
        }
        for link in &links {
            let (Some(artifact), Some(run)) = (rows.get(&link.artifact_id), runs.get_mut(&link.run_id))
            else {
                continue;
            };
            if matches!(link.io, IoType::Output | IoType::ExecutorLog) {
                if let Some(root) = folder_of_run(&artifact.uri, link.run_id)
                    && seen_roots.insert(root.as_str().to_owned())
                {
                    roots.push(root);
                }
                run.outputs.push(artifact.clone());
            } else {
                run.inputs.push(artifact.uri.clone());
            }
        }
        let orphans = records.artifacts_without_runs(None, now).await?;
        Ok(Self {
            runs: runs.into_values().collect(),
            orphans: orphans
                .into_iter()
                .map(|orphan| stored(orphan.artifact))
                .collect(),
            store: retention::Store::new(roots),
        })
    }
}

/// All links. The order is by key, so that none is missed while others come and go.
async fn links(records: &Records) -> Result<Vec<records::ArtifactTask>, Error> {
    let filter = LinkFilter::default();
    let mut links = Vec::new();
    let mut after = None;
    loop {
        let page = records
            .list_artifact_tasks(&filter, AT_ONCE, after.as_ref())
            .await?;
        links.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(links);
        }
    }
}

fn stored(row: records::Artifact) -> StoredArtifact {
    StoredArtifact {
        id: row.id,
        uri: row.uri,
        bytes: row.size.unwrap_or(0),
        created_at: row.created_at,
    }
}

/// The folder of a run in an object store, when that is where something is. Of other things in the
/// same store nobody can say whether they are ours.
fn folder_of_run(uri: &str, run: RunId) -> Option<ArtifactUri> {
    let run = run.to_string();
    let at = uri.find(&format!("/{run}/"))?;
    let folder: ArtifactUri = uri.get(..=at + run.len())?.parse().ok()?;
    matches!(folder.place(), Place::Object(_)).then_some(folder)
}

/// Removes bytes, then rows. The order leaves no reference to bytes that are gone: see the store's
/// `retention`. Returns what went, and what did not.
async fn remove(
    options: &Options,
    stock: &Stock,
    removals: Vec<Removal>,
    ids: &[ArtifactId],
    now: Timestamp,
) -> Result<(Vec<Removal>, Vec<String>), Error> {
    let records = &options.records;
    records.forget_cached(ids).await?;
    // A run may have taken something over since.
    let runs: Vec<_> = removals.iter().filter_map(|removal| removal.run).collect();
    let only = records.artifacts_only_of(&runs).await?;
    let without = records.artifacts_without_runs(None, now).await?;
    let free: BTreeSet<_> = only
        .iter()
        .chain(&without)
        .map(|stored| stored.artifact.id)
        .collect();
    let mut gone = Vec::with_capacity(removals.len());
    let mut problems = Vec::new();
    for mut removal in removals {
        removal.artifacts.retain(|artifact| free.contains(&artifact.id));
        removal.bytes = removal.artifacts.iter().map(|artifact| artifact.bytes).sum();
        match retention::remove(&options.artifacts, &stock.store, &removal).await {
            Ok(_) => {
                let ids: Vec<_> = removal.artifacts.iter().map(|artifact| artifact.id).collect();
                records.delete_artifacts(&ids).await?;
                gone.push(removal);
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    Ok((gone, problems))
}
