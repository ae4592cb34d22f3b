//! The cache: work that was done before is not done again.

use coracle_api::{id::TaskId, state::RuntimeState};
use coracle_store::records::{CacheEntry, CachedFrom, IoType};

use super::{Known, Lookup, Planner};
use crate::task::fingerprint;

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
            claims: self.claims_mounted(id),
        };
        Some(work.key())
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
