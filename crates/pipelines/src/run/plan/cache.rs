//! The cache: work that was done before is not done again.

use coracle_api::{id::TaskId, ir::ParameterSource, state::RuntimeState};
use coracle_store::records::{CacheEntry, CachedFrom, IoType};
use serde::Deserialize;
use serde_json::Value;

use super::{Known, Lookup, Planner};
use crate::task::{
    fingerprint,
    inputs::{self, Surroundings},
};

impl Planner<'_> {
    /// Looks for results of what a task is about to do. False when it is to be done anyway.
    pub(super) fn look_up(&mut self, id: TaskId) -> bool {
        let Some(key) = self.cache_key(id) else {
            return false;
        };
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.looking_up = Some(key.clone());
        }
        self.changed.insert(id);
        let pipeline = self.pipeline.spec().pipeline_info.name.clone();
        self.plan.lookups.push(Lookup {
            task: id,
            pipeline,
            key,
        });
        true
    }

    /// The key of what a task does; none when the cache is not to be used for it.
    fn cache_key(&self, id: TaskId) -> Option<String> {
        self.settings.cache.as_ref()?;
        let node = self.state.nodes.get(&id)?;
        let options = &self.spec_of(id)?.caching_options;
        if !options.enable_cache {
            return None;
        }
        if !options.cache_key.is_empty() {
            return Some(fingerprint::chosen(&node.component, &options.cache_key));
        }
        let component = self.pipeline.component(&node.component)?;
        let container = self.pipeline.spec().executor_of(component)?.container.as_ref()?;
        let work = fingerprint::Work {
            component,
            container,
            inputs: &node.task.inputs,
            artifact: &|id| self.state.artifacts.get(id),
            settings: self.settings_in_full(id),
        };
        Some(work.key())
    }

    /// The Kubernetes settings of a task, with values where the pipeline names their sources: which
    /// secret or claim it mounts may decide what it makes.
    fn settings_in_full(&self, id: TaskId) -> Value {
        let Some(node) = self.state.nodes.get(&id) else {
            return Value::Null;
        };
        let component = self.pipeline.component(&node.component);
        let label = component.and_then(|component| component.executor_label.as_ref());
        let config = label.and_then(|label| self.pipeline.kubernetes_config(label));
        config.map_or(Value::Null, |config| {
            in_full(&Value::Object(config.clone()), &self.around(node))
        })
    }

    /// The answer to [`Planner::look_up`].
    pub(super) fn looked_up(&mut self, id: TaskId, known: Option<Known>) {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return;
        };
        let asked = node.looking_up.take();
        if node.task.state.is_terminal() || asked.is_none() {
            return;
        }
        let ttl = self.settings.cache.as_ref().and_then(|cache| cache.ttl);
        let is_fresh = |known: &Known| match ttl {
            Some(ttl) => self.now.duration_since(known.entry.created_at) <= ttl,
            None => true,
        };
        match known.filter(is_fresh) {
            Some(known) => self.take_over(id, known),
            None => {
                if let Err(unready) = self.begin_attempt(id) {
                    self.unready(id, unready);
                }
            }
        }
    }

    fn take_over(&mut self, id: TaskId, known: Known) {
        let Known { entry, artifacts } = known;
        let CacheEntry { made_by, outputs, .. } = entry;
        self.link_inputs(id);
        for (key, ids) in &outputs.artifacts {
            for (position, artifact) in ids.iter().enumerate() {
                self.link(id, *artifact, IoType::Output, key, position, String::new());
            }
        }
        for artifact in artifacts {
            self.state.artifacts.insert(artifact.id, artifact);
        }
        if let Some(node) = self.state.nodes.get_mut(&id) {
            node.task.outputs = outputs;
            node.task.cached_from = Some(made_by);
        }
        let message = format!(
            "took over what task {} of run {} made",
            made_by.task_id, made_by.run_id
        );
        self.event(id, "Normal", "Cached", message);
        self.end(id, RuntimeState::Succeeded, None);
    }

    /// Keeps what a task made for those that would do the same.
    pub(super) fn remember(&mut self, id: TaskId) {
        let Some(key) = self.cache_key(id) else {
            return;
        };
        let Some(node) = self.state.nodes.get(&id) else {
            return;
        };
        self.plan.commit.cache_entries.push(CacheEntry {
            key,
            namespace: self.state.run.namespace.clone(),
            pipeline_name: self.pipeline.spec().pipeline_info.name.clone(),
            task_name: node.task.name.clone(),
            made_by: CachedFrom {
                run_id: self.state.run.id,
                task_id: id,
            },
            outputs: node.task.outputs.clone(),
            created_at: self.now,
        });
    }
}

/// Settings with the value in the place of each source that leads to one.
fn in_full(settings: &Value, around: &impl Surroundings) -> Value {
    match settings {
        Value::Object(fields) => {
            let source = ParameterSource::deserialize(settings).ok();
            if let Some(value) = source.and_then(|source| inputs::value(&source, around)) {
                return value;
            }
            fields
                .iter()
                .map(|(name, field)| (name.clone(), in_full(field, around)))
                .collect()
        }
        Value::Array(items) => items.iter().map(|item| in_full(item, around)).collect(),
        other => other.clone(),
    }
}
