//! What a run comes to when nothing is in its way: the planner alone, without store, API and crashes.

use std::collections::BTreeMap;

use coracle_api::state::RuntimeState;
use coracle_pipelines::run::{observe::PodEnd, observe::PodView, plan::Event};
use serde_json::{Value, json};

use super::{fate::Fate, pipelines::is_kept};
use crate::world::World;

/// How a task ends, and how many attempts that takes; none where others' results may be taken over.
pub(super) type Ends = BTreeMap<String, (RuntimeState, Option<usize>)>;

/// A run that is always served at once.
pub(super) struct Expected {
    world: World,
    seed: u64,
    looked_up: usize,
}

impl Expected {
    /// A run of `pipeline`, up to its end.
    pub(super) fn of(pipeline: &Value, seed: u64) -> Self {
        let mut expected = Self {
            world: World::of(pipeline, json!({})),
            seed,
            looked_up: 0,
        };
        expected.play();
        expected
    }

    /// Goes on with a run that has not succeeded, up to its next end.
    pub(super) fn retry(&mut self) {
        self.world.retry();
        self.play();
    }

    /// How the run ended.
    pub(super) fn state(&self) -> RuntimeState {
        self.world.state.run.state
    }

    /// How each of its tasks did.
    pub(super) fn ends(&self) -> Ends {
        let nodes = self.world.state.nodes.values();
        nodes
            .map(|node| {
                let path = node.task.path.clone();
                let attempts = (!is_kept(&path)).then_some(node.attempts.len());
                (path, (node.task.state, attempts))
            })
            .collect()
    }

    fn play(&mut self) {
        while !self.world.state.run.state.is_terminal() {
            let lookups = &self.world.done.lookups;
            if let Some(lookup) = lookups.get(self.looked_up) {
                let task = lookup.task;
                self.looked_up += 1;
                self.world.happens(Event::LookedUp { task, found: None });
                continue;
            }
            let path = self.world.at_work().first().map(|path| (*path).to_owned());
            match path {
                Some(path) => self.attempt(&path),
                None => {
                    self.world.after(100);
                }
            }
        }
    }

    fn attempt(&mut self, path: &str) {
        let number = self.world.attempts(path);
        let fate = Fate::of(self.seed, path, number);
        if let Some(report) = fate.report(self.seed, path) {
            self.world.reports(path, report);
        }
        if self.world.attempts(path) != number || !self.world.at_work().contains(&path) {
            return;
        }
        match fate {
            Fate::Vanishes => self.world.pod(path, PodView::Ended(PodEnd::gone())),
            Fate::Refused => {
                let task = self.world.id(path);
                let number = u32::try_from(number).unwrap();
                let message = "refused".to_owned();
                self.world.happens(Event::PodRefused {
                    task,
                    number,
                    message,
                })
            }
            _ => self.world.pod(path, fate.view()),
        };
    }
}
