//! What must hold, while a simulation goes on and at its end.

use std::collections::BTreeMap;

use coracle_api::{id::TaskId, state::RuntimeState};
use coracle_store::records::TaskKind;
use serde_json::json;

use super::{
    Checked,
    expected::Ends,
    fate::output,
    node::Attempt,
    pipelines,
    story::{Run, Story},
};

impl Story {
    /// No task begins before those it waits for have ended.
    pub(super) async fn check_may_begin(&self, attempt: &Attempt) -> Checked {
        let Attempt { run, path, .. } = attempt;
        for before in pipelines::before(&self.run(*run)?.pipeline, path) {
            let inside = format!("{before}.");
            let early = self.pods.values().find(|pod| {
                let other = &pod.attempt;
                pod.is_at_work()
                    && other.run == *run
                    && (other.path == before || other.path.starts_with(&inside))
            });
            if let Some(early) = early {
                return Err(format!("{path} begins while {} is at work", early.attempt.path));
            }
            let row = self.records.task(TaskId::at(*run, &before)).await;
            let row = row.map_err(|error| format!("{path} begins, and {before} has no row: {error}"))?;
            if !row.state.is_terminal() {
                return Err(format!("{path} begins while {before} is {}", row.state));
            }
        }
        Ok(())
    }

    /// Whether all runs have ended; then, whether as they should.
    pub(super) async fn check_ends(&self) -> Checked<bool> {
        for run in &self.runs {
            let row = self
                .records
                .run(run.id)
                .await
                .map_err(|error| error.to_string())?;
            if !row.state.is_terminal() || row.retry_requested {
                return Ok(false);
            }
            if row.finished_at.is_none() {
                return Err("a run has ended, and nobody knows when".to_owned());
            }
            if !run.was_stopped && row.state != run.expected.state() {
                return Err(format!("a run is {} and not {}", row.state, run.expected.state()));
            }
            self.check_tasks(run).await?;
        }
        let left = self
            .pods
            .iter()
            .find(|(key, pod)| pod.is_at_work() && self.cluster.object(key).is_some());
        if let Some((key, _)) = left {
            return Err(format!("all runs have ended, and {} has not", key.2));
        }
        Ok(true)
    }

    /// The tasks that have not ended, for whoever looks for a fault.
    pub(super) async fn unfinished(&self) -> String {
        let mut unfinished = Vec::new();
        for run in &self.runs {
            let tasks = self.records.tasks(run.id).await.unwrap_or_default();
            let tasks = tasks.into_iter().filter(|task| !task.state.is_terminal());
            unfinished.extend(tasks.map(|task| format!("{} is {}", task.path, task.state)));
        }
        unfinished.join(", ")
    }

    async fn check_tasks(&self, run: &Run) -> Checked {
        let tasks = self
            .records
            .tasks(run.id)
            .await
            .map_err(|error| error.to_string())?;
        let attempts = self
            .records
            .attempts(run.id)
            .await
            .map_err(|error| error.to_string())?;
        let logs = self
            .records
            .artifacts_of_run(run.id)
            .await
            .map_err(|error| error.to_string())?;
        let mut counts: BTreeMap<TaskId, usize> = BTreeMap::new();
        for attempt in &attempts {
            *counts.entry(attempt.task_id).or_default() += 1;
            if !attempt.state.is_terminal() || attempt.finished_at.is_none() {
                return Err(format!(
                    "an attempt of a run that ended is {}: {}",
                    attempt.state, attempt.pod_name
                ));
            }
        }
        let ran = attempts
            .iter()
            .filter(|attempt| attempt.started_at.is_some())
            .count();
        if logs.len() != ran {
            return Err(format!("{ran} attempts ran, and there are {} logs", logs.len()));
        }
        let mut ends = Ends::new();
        for task in &tasks {
            if !task.state.is_terminal() {
                return Err(format!("{} of a run that ended is {}", task.path, task.state));
            }
            if task.kind == TaskKind::Container && task.state == RuntimeState::Succeeded {
                let made = task.outputs.parameters.get("out");
                if made != Some(&json!(output(run.seed, &task.path))) {
                    return Err(format!("{} succeeded and made {made:?}", task.path));
                }
            }
            let attempts = counts.get(&task.id).copied().unwrap_or_default();
            let attempts = (!pipelines::is_kept(&task.path)).then_some(attempts);
            ends.insert(task.path.clone(), (task.state, attempts));
        }
        if run.was_stopped {
            return Ok(());
        }
        let expected = run.expected.ends();
        let paths = ends.keys().chain(expected.keys());
        let other = paths
            .into_iter()
            .find(|path| ends.get(*path) != expected.get(*path));
        match other {
            Some(path) => Err(format!(
                "{path} ended as {:?} and not as {:?} (state, attempts)",
                ends.get(path),
                expected.get(path)
            )),
            None => Ok(()),
        }
    }

    /// The runs were deleted.
    pub(super) fn check_nothing_is_left(&self) -> Checked {
        match self.cluster.keys().first() {
            Some(key) => Err(format!("all runs are deleted, and {} is still there", key.2)),
            None => Ok(()),
        }
    }
}
