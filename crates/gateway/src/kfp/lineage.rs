//! What an artifact was made from, and what was made from it, across runs. Coracle's own path.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{Json, extract::State};
use coracle_api::id::{ArtifactId, TaskId};
use coracle_store::records::{self, IoType, TaskKind};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Options,
    artifact_tasks::ArtifactTask,
    artifacts::Artifact,
    error::Error,
    extract::{Ids, Params},
    tasks::Task,
    wire::Run,
};

/// How many tasks away to look when the request does not say.
const DEFAULT_DEPTH: u32 = 10;
/// The most artifacts and tasks that are shown.
const MOST: usize = 2000;

/// How far to look, and where to.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct LineageParams {
    /// `UPSTREAM` for what it was made from, `DOWNSTREAM` for what was made from it, `BOTH` when absent.
    direction: String,
    /// How many tasks away to look: 10 when absent.
    depth: Option<u32>,
}

/// A graph of artifacts and the tasks between them.
#[derive(Serialize, ToSchema)]
pub(super) struct Lineage {
    /// The artifact itself and those around it.
    artifacts: Vec<Artifact>,
    /// The tasks between them: containers and importers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<Task>,
    /// The runs of the tasks, without their tasks and pipelines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<Run>,
    /// Which task made or consumed which artifact.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<ArtifactTask>,
    /// Whether there is more, further away or beside what is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

/// Shows what an artifact was made from, and what was made from it.
#[utoipa::path(get, path = "/artifacts/{artifact_id}/:lineage", tag = "artifacts",
    params(("artifact_id" = String, Path), LineageParams), responses((status = 200, body = Lineage)))]
pub(super) async fn lineage(
    State(options): State<Arc<Options>>,
    Ids(id): Ids<ArtifactId>,
    Params(params): Params<LineageParams>,
) -> Result<Json<Lineage>, Error> {
    let directions: &[Direction] = match params.direction.to_ascii_uppercase().as_str() {
        "UPSTREAM" => &[Direction::Upstream],
        "DOWNSTREAM" => &[Direction::Downstream],
        "" | "BOTH" => &[Direction::Upstream, Direction::Downstream],
        other => {
            return Err(Error::Invalid(format!(
                "the `direction` is not known: expected UPSTREAM, DOWNSTREAM or BOTH, found `{other}`"
            )));
        }
    };
    let records = &options.records;
    let origin = records.artifact(id).await?;
    let mut graph = Graph::default();
    graph.artifacts.insert(origin.id);
    for direction in directions {
        graph
            .grow(
                records,
                origin.id,
                *direction,
                params.depth.unwrap_or(DEFAULT_DEPTH),
            )
            .await?;
    }
    let ids: Vec<_> = graph.artifacts.into_iter().collect();
    let mut artifacts = records.artifacts(&ids).await?;
    artifacts.sort_by_key(|artifact| (artifact.created_at, artifact.id));
    let mut tasks: Vec<_> = graph.tasks.into_values().collect();
    tasks.sort_by_key(|task| (task.created_at, task.id));
    let runs: BTreeSet<_> = tasks.iter().map(|task| task.run_id).collect();
    let mut runs = records.runs_by_ids(&runs.into_iter().collect::<Vec<_>>()).await?;
    runs.sort_by_key(|run| (run.created_at, run.id));
    Ok(Json(Lineage {
        artifacts: artifacts.into_iter().map(Artifact::from).collect(),
        tasks: tasks
            .into_iter()
            .map(|row| Task::new(row, Vec::new(), Vec::new()))
            .collect(),
        runs: runs.into_iter().map(Run::from).collect(),
        links: graph.links.into_values().map(ArtifactTask::from).collect(),
        truncated: graph.truncated,
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Upstream,
    Downstream,
}

/// Which side of a task a link is on. DAGs only hand on what the tasks inside make: links of
/// theirs are no lineage.
const fn is_output(io: IoType) -> bool {
    matches!(io, IoType::Output | IoType::ExecutorLog)
}

const fn is_input(io: IoType) -> bool {
    matches!(
        io,
        IoType::ComponentInput | IoType::TaskOutputInput | IoType::CollectedInputs
    )
}

impl Direction {
    /// Whether a link leads from an artifact to a task in this direction.
    const fn enters(self, io: IoType) -> bool {
        match self {
            Self::Upstream => is_output(io),
            Self::Downstream => is_input(io),
        }
    }

    /// Whether a link leads from a task to an artifact in this direction.
    const fn leaves(self, io: IoType) -> bool {
        match self {
            Self::Upstream => is_input(io),
            // The log of a task says nothing about what was made from its inputs.
            Self::Downstream => matches!(io, IoType::Output),
        }
    }
}

#[derive(Default)]
struct Graph {
    artifacts: BTreeSet<ArtifactId>,
    tasks: BTreeMap<TaskId, records::Task>,
    links: BTreeMap<(TaskId, String, String, i64, ArtifactId), records::ArtifactTask>,
    truncated: bool,
}

impl Graph {
    /// Adds what is in one direction, one generation after the other.
    async fn grow(
        &mut self,
        records: &records::Records,
        origin: ArtifactId,
        direction: Direction,
        depth: u32,
    ) -> Result<(), Error> {
        let mut seen_artifacts = BTreeSet::from([origin]);
        let mut seen_tasks: BTreeSet<TaskId> = BTreeSet::new();
        let mut frontier = vec![origin];
        for generation in 0.. {
            let mut entering = records.links_of_artifacts(&frontier).await?;
            entering.retain(|link| direction.enters(link.io));
            let unseen: BTreeSet<_> = entering
                .iter()
                .map(|link| link.task_id)
                .filter(|id| !seen_tasks.contains(id))
                .collect();
            let unseen: Vec<_> = unseen.into_iter().collect();
            let mut found = records.tasks_by_ids(&unseen).await?;
            found.retain(|task| matches!(task.kind, TaskKind::Container | TaskKind::Importer));
            if generation >= depth {
                self.truncated |= !found.is_empty();
                return Ok(());
            }
            let room = MOST.saturating_sub(self.tasks.len() + self.artifacts.len());
            self.truncated |= found.len() > room;
            found.truncate(room);
            let ids: Vec<_> = found.iter().map(|task| task.id).collect();
            seen_tasks.extend(&ids);
            self.tasks.extend(found.into_iter().map(|task| (task.id, task)));

            let mut leaving = records.links_of_tasks(&ids).await?;
            leaving.retain(|link| direction.leaves(link.io));
            let mut next = Vec::new();
            for link in &leaving {
                if seen_artifacts.contains(&link.artifact_id) {
                    continue;
                }
                if self.tasks.len() + self.artifacts.len() >= MOST {
                    self.truncated = true;
                    break;
                }
                seen_artifacts.insert(link.artifact_id);
                self.artifacts.insert(link.artifact_id);
                next.push(link.artifact_id);
            }
            for link in entering.into_iter().chain(leaving) {
                let is_shown =
                    self.tasks.contains_key(&link.task_id) && self.artifacts.contains(&link.artifact_id);
                if is_shown {
                    let key = (
                        link.task_id,
                        link.io.to_string(),
                        link.key.clone(),
                        link.position,
                        link.artifact_id,
                    );
                    self.links.insert(key, link);
                }
            }
            if next.is_empty() {
                return Ok(());
            }
            frontier = next;
        }
        Ok(())
    }
}
