//! Attempts: how they begin, what their Pods and launchers say, how they are concluded.

use std::{collections::BTreeMap, sync::LazyLock};

use coracle_api::{
    id::{ArtifactId, TaskId},
    ir::{ArtifactTypeSchema, ContainerSpec, ParameterSource},
    launch::{ArtifactList, Failure, LOG_ARTIFACT, ProducedArtifact, Report, RuntimeArtifact},
    reason::Reason,
    state::RuntimeState,
};
use coracle_store::records::{Artifact, Attempt, AttemptSpec, IoType, TaskIo};

use super::{Planner, begin::internal};
use crate::{
    run::{
        observe::{PodEnd, PodView},
        state::State,
    },
    task::{container, inputs, values::Unready},
};

/// Pods of a run that stay after they have ended, for `kubectl` to see.
const FINISHED_PODS: usize = 500;

/// What the Pod of an importer runs in: its launcher does all there is to do.
static COPIES: LazyLock<ContainerSpec> = LazyLock::new(|| ContainerSpec {
    image: "busybox".to_owned(),
    ..ContainerSpec::default()
});

impl Planner<'_> {
    /// A new attempt: its row, and its Pod to be created.
    pub(super) fn begin_attempt(&mut self, id: TaskId) -> Result<(), Unready> {
        let pipeline = self.pipeline;
        let node = self
            .state
            .nodes
            .get(&id)
            .ok_or_else(|| internal("its row is gone"))?;
        let component = pipeline
            .component(&node.component)
            .ok_or_else(|| internal("its component is gone"))?;
        let executor = pipeline
            .spec()
            .executor_of(component)
            .ok_or_else(|| internal("its executor is gone"))?;
        let (container, workspace_import) = match &executor.container {
            Some(container) => (container, None),
            None => (&*COPIES, Some(self.workspace_import(id)?)),
        };
        let number = u32::try_from(node.attempts.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let token = (self.token)();
        let around = self.around(node);
        let resolve = |source: &ParameterSource| inputs::value(source, &around);
        let order = container::Order {
            run_id: self.state.run.id,
            task_id: id,
            task_name: &node.task.name,
            pipeline_name: &pipeline.spec().pipeline_info.name,
            attempt: number,
            namespace: namespace(self.state),
            token: &token,
            component,
            container,
            parameters: &node.task.inputs.parameters,
            artifacts: runtime_artifacts(self.state, &node.task.inputs),
            digests: digests(self.state, &node.task.inputs),
            context: self.context(node),
            pipeline_root: &self.state.run.pipeline_root,
            resolve: container::Resolve(&resolve),
            kubernetes: component
                .executor_label
                .as_ref()
                .and_then(|label| pipeline.kubernetes_config(label)),
            workspace_claim: self.workspace_claim(),
            workspace_import,
        };
        let built = container::build(&order, self.settings)?;
        let launch = serde_json::to_string(&built.launch)
            .map_err(|error| internal(&format!("its launch spec cannot be written: {error}")))?;
        let spec = AttemptSpec {
            task_id: id,
            number,
            launch,
            pod: built.pod.to_string(),
        };
        let attempt = Attempt {
            task_id: id,
            run_id: self.state.run.id,
            number,
            namespace: order.namespace.to_owned(),
            pod_name: built.pod_name,
            token: token.clone(),
            state: RuntimeState::Pending,
            error: None,
            exit_code: None,
            log_uri: built.launch.log_uri,
            created_at: self.now,
            started_at: None,
            finished_at: None,
        };
        // Not part of the state: once it is written and the Pod is made, nothing here asks for it.
        self.plan.commit.specs.push(spec);
        self.link_inputs(id);
        if let Some(node) = self.state.nodes.get_mut(&id) {
            (node.report, node.pod_end, node.waiting_reason) = (None, None, None);
            // Most tasks have one, and a run may have many tasks.
            node.attempts.reserve_exact(1);
            node.attempts.push(attempt);
        }
        self.changed.insert(id);
        self.plan.create.push((id, number));
        Ok(())
    }

    /// Rows for the artifacts that a task consumes.
    pub(super) fn link_inputs(&mut self, id: TaskId) {
        let Some((node, spec)) = self.lookup(id) else {
            return;
        };
        let mut links = Vec::new();
        for (key, ids) in &node.task.inputs.artifacts {
            let source = spec.inputs.artifacts.get(key);
            let producer = source.and_then(|source| source.task_output_artifact.as_ref());
            let io = if producer.is_some() {
                IoType::TaskOutputInput
            } else {
                IoType::ComponentInput
            };
            let producer = producer
                .map(|output| output.producer_task.clone())
                .unwrap_or_default();
            for (position, artifact) in ids.iter().enumerate() {
                links.push((*artifact, io, key.clone(), position, producer.clone()));
            }
        }
        for (artifact, io, key, position, producer) in links {
            self.link(id, artifact, io, &key, position, producer);
        }
    }

    pub(super) fn observe_pod(&mut self, id: TaskId, number: u32, view: PodView) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        let Some(attempt) = node.attempts.last_mut() else {
            return;
        };
        if attempt.number != number || attempt.state.is_terminal() {
            return;
        }
        match view {
            PodView::Pending => {}
            PodView::Waiting(failure) => {
                let said = format!("{}: {}", failure.reason, failure.message);
                if node.waiting_reason.as_ref() != Some(&said) {
                    node.waiting_reason = Some(said);
                    self.event(id, "Warning", failure.reason.into(), failure.message);
                }
            }
            PodView::Stuck(failure) => {
                self.plan.delete.push((id, number));
                self.pod_ended(
                    id,
                    number,
                    PodEnd {
                        failure: Some(failure),
                        exit_code: None,
                    },
                );
            }
            PodView::Running(since) => {
                if attempt.state == RuntimeState::Pending {
                    attempt.state = RuntimeState::Running;
                    attempt.started_at = since.or(Some(self.now));
                    self.changed.insert(id);
                    if node.task.state == RuntimeState::Pending {
                        self.set_task_state(id, RuntimeState::Running, None);
                    }
                }
            }
            PodView::Ended(end) => self.pod_ended(id, number, end),
        }
    }

    pub(super) fn pod_ended(&mut self, id: TaskId, number: u32, end: PodEnd) {
        if let Some(node) = self.state.nodes.get_mut(&id)
            && node
                .current_attempt()
                .is_some_and(|attempt| attempt.number == number)
        {
            node.pod_end = Some(end);
            self.conclude(id);
        }
    }

    /// Ends the attempt under way once it is known how: a result counts as soon as it is there; a
    /// failure waits for the Pod's end, which may know better (memory, signals).
    pub(super) fn conclude(&mut self, id: TaskId) {
        let why_stopped = self.state.is_canceling().then(|| self.why_stopped());
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        if node.current_attempt().is_none() {
            return;
        }
        let Some(failure) = known_end(node.report.as_deref(), node.pod_end.as_ref()) else {
            return;
        };
        let mut report = node.report.take();
        let exit_code = node.pod_end.take().and_then(|end| end.exit_code);
        let (state, failure) = match failure {
            None => (RuntimeState::Succeeded, None),
            Some(_) if why_stopped.is_some() => (RuntimeState::Canceled, why_stopped),
            Some(failure) => (RuntimeState::Failed, Some(failure)),
        };
        if let Some(attempt) = node.attempts.last_mut() {
            attempt.state = state;
            attempt.error.clone_from(&failure);
            attempt.exit_code = report.as_ref().and_then(|report| report.exit_code).or(exit_code);
            attempt.finished_at = Some(self.now);
            let ran = attempt.started_at.is_some() || report.is_some();
            if attempt.started_at.is_none() && ran {
                attempt.started_at = Some(attempt.created_at);
            }
            if ran {
                let log = report
                    .as_mut()
                    .and_then(|report| report.artifacts.shift_remove(LOG_ARTIFACT));
                self.record_log(id, log.and_then(|mut logs| logs.pop()));
            }
        }
        if let Some(report) = report {
            let outputs = self.record_outputs(id, *report);
            if let Some(node) = self.state.nodes.get_mut(&id) {
                node.task.outputs = outputs;
            }
        }
        self.forget_a_pod(id);
        match &failure {
            None => self.remember(id),
            Some(failure) if state == RuntimeState::Failed && self.retry(id, failure) => {
                self.changed.insert(id);
                return;
            }
            Some(_) => {}
        }
        self.end(id, state, failure);
    }

    /// Objects must not grow without bound: only the newest Pods that have ended stay.
    fn forget_a_pod(&mut self, id: TaskId) {
        let Some(number) = self.state.nodes.get(&id).map(|node| node.attempts.len()) else {
            return;
        };
        let ended = &mut self.state.finished_pods;
        ended.push_back((id, u32::try_from(number).unwrap_or(u32::MAX)));
        if ended.len() > FINISHED_PODS {
            self.plan.delete.extend(ended.pop_front());
        }
    }

    fn record_log(&mut self, id: TaskId, kept: Option<ProducedArtifact>) {
        let Some(attempt) = self.state.nodes.get(&id).and_then(|node| node.attempts.last()) else {
            return;
        };
        let artifact = Artifact {
            id: ArtifactId::of_output(id, attempt.number, LOG_ARTIFACT, 0),
            namespace: self.state.run.namespace.clone(),
            name: LOG_ARTIFACT.to_owned(),
            artifact_type: "system.Artifact".to_owned(),
            type_version: "0.0.1".to_owned(),
            uri: attempt.log_uri.clone(),
            metadata: Default::default(),
            digest: kept.as_ref().and_then(|log| log.digest.clone()),
            size: kept.and_then(|log| log.size),
            created_at: self.now,
        };
        self.link(
            id,
            artifact.id,
            IoType::ExecutorLog,
            LOG_ARTIFACT,
            0,
            String::new(),
        );
        // No task is ever given it.
        self.plan.commit.artifacts.push(artifact);
    }

    /// Rows for what an attempt made; its outputs.
    fn record_outputs(&mut self, id: TaskId, report: Report) -> TaskIo {
        let number = self.state.nodes.get(&id).map_or(1, |node| node.attempts.len());
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut outputs = TaskIo {
            parameters: report.parameters.into_iter().collect(),
            ..TaskIo::default()
        };
        for (key, produced) in report.artifacts {
            let mut ids = Vec::with_capacity(produced.len());
            for (position, made) in produced.into_iter().enumerate() {
                let artifact = Artifact {
                    id: ArtifactId::of_output(id, number, &key, position),
                    namespace: self.state.run.namespace.clone(),
                    name: key.clone(),
                    artifact_type: made.artifact.artifact_type.schema_title,
                    type_version: made.artifact.artifact_type.schema_version,
                    uri: made.artifact.uri,
                    metadata: made.artifact.metadata,
                    digest: made.digest,
                    size: made.size,
                    created_at: self.now,
                };
                ids.push(artifact.id);
                self.link(id, artifact.id, IoType::Output, &key, position, String::new());
                self.add_artifact(artifact);
            }
            outputs.artifacts.insert(key, ids);
        }
        outputs
    }
}

pub(super) fn namespace(state: &State) -> &str {
    if state.run.namespace.is_empty() {
        "default"
    } else {
        &state.run.namespace
    }
}

fn digests(state: &State, inputs: &TaskIo) -> BTreeMap<String, String> {
    let ids = inputs.artifacts.values().flatten();
    ids.filter_map(|id| {
        let artifact = state.artifacts.get(id)?;
        Some((artifact.uri.clone(), artifact.digest.clone()?))
    })
    .collect()
}

fn runtime_artifacts(state: &State, inputs: &TaskIo) -> BTreeMap<String, ArtifactList> {
    let runtime = |artifact: &Artifact| RuntimeArtifact {
        name: artifact.id.to_string(),
        artifact_type: ArtifactTypeSchema {
            schema_title: artifact.artifact_type.clone(),
            schema_version: artifact.type_version.clone(),
            ..Default::default()
        },
        uri: artifact.uri.clone(),
        metadata: artifact.metadata.clone(),
        custom_path: None,
    };
    let list = |ids: &Vec<ArtifactId>| ArtifactList {
        artifacts: ids
            .iter()
            .filter_map(|id| state.artifacts.get(id))
            .map(runtime)
            .collect(),
    };
    inputs
        .artifacts
        .iter()
        .map(|(name, ids)| (name.clone(), list(ids)))
        .collect()
}

/// How an attempt ended, once that is certain: inside, why it failed, or none when it succeeded. A success counts
/// as soon as it is reported; a failure waits for the Pod's end, which may know better.
fn known_end(report: Option<&Report>, pod: Option<&PodEnd>) -> Option<Option<Failure>> {
    let reported = report.map(|report| &report.failure);
    match (reported, pod) {
        (Some(None), _) => Some(None),
        (Some(Some(reported)), Some(pod)) => {
            let knows_better = |failure: &&Failure| {
                matches!(
                    failure.reason,
                    Reason::OOMKilled | Reason::DeadlineExceeded | Reason::Evicted
                )
            };
            let better = pod.failure.as_ref().filter(knows_better);
            Some(match reported.reason {
                _ if better.is_some() => better.cloned(),
                // The launcher was asked to stop, and not by us: somebody deleted its Pod.
                Reason::RunTerminated => PodEnd::gone().failure,
                _ => Some(reported.clone()),
            })
        }
        (None, Some(pod)) => Some(Some(pod.failure.clone().unwrap_or_else(|| Failure {
            reason: Reason::ResultMissing,
            message: "the Pod ended well and no result came from its launcher".to_owned(),
        }))),
        (Some(Some(_)) | None, None) => None,
    }
}
