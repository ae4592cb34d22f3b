//! Decisions about Deployments in made-up states, and whole rollouts of made-up Pods.

use std::sync::Arc;

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    amounts::{Amounts, replicas},
    observe::{self, Observed},
    plan::plan,
    status::{Outcome, status},
};
use crate::samples::{at, object};

fn deployment(replicas: i32, image: &str, rolling: &Value) -> Deployment {
    object(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "web", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    }))
}

/// The API and the ReplicaSets' controller, as far as a Deployment sees them.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
}

impl World {
    fn observe(&self) -> Observed {
        let sets = self.sets.iter().cloned().map(Arc::new).collect();
        observe::of(Arc::new(self.deployment.clone()), sets)
    }

    /// Does what is planned. Whether there was anything to do.
    fn step(&mut self) -> bool {
        let plan = plan(&self.observe());
        let mut has_changed = plan.create.is_some() || !plan.remove.is_empty();
        for change in plan.changes {
            let set = self
                .sets
                .iter_mut()
                .find(|set| set.name_any() == change.set.name_any())
                .expect("there");
            has_changed |= change.replicas.is_some();
            if let Some(size) = change.replicas {
                set.spec.get_or_insert_default().replicas = Some(size);
            }
            set.metadata
                .annotations
                .get_or_insert_default()
                .extend(change.annotations);
        }
        if let Some(mut set) = plan.create {
            set.metadata.creation_timestamp = Some(Time(at(i64::try_from(self.sets.len()).expect("few"))));
            set.status = Some(ReplicaSetStatus::default());
            self.sets.push(set);
        }
        self.sets
            .retain(|set| plan.remove.iter().all(|gone| gone.name_any() != set.name_any()));
        if let Some(revision) = plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(super::amounts::REVISION.to_owned(), revision);
        }
        has_changed
    }

    /// One Pod of the set comes, goes or becomes available. Whether there was anything to do.
    fn work(&mut self, set: usize) -> bool {
        let set = set % self.sets.len();
        let set = &mut self.sets[set];
        let wanted = replicas(set);
        let status = set.status.get_or_insert_default();
        let available = status.available_replicas.unwrap_or(0);
        if status.replicas > wanted {
            status.replicas -= 1;
            status.available_replicas = Some(available.min(status.replicas));
        } else if status.replicas < wanted {
            status.replicas += 1;
        } else if available < status.replicas {
            status.available_replicas = Some(available + 1);
        } else {
            return false;
        }
        status.ready_replicas = status.available_replicas;
        true
    }

    fn available(&self) -> i32 {
        self.sets.iter().map(super::amounts::available).sum()
    }

    fn wanted(&self) -> i32 {
        self.sets.iter().map(replicas).sum()
    }

    fn settle(&mut self) {
        for _ in 0..2000 {
            let has_worked = (0..self.sets.len()).any(|set| self.work(set));
            if !self.step() && !has_worked {
                return;
            }
        }
        panic!("it never settles: {:#?}", self.sets);
    }
}

fn share() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..4_i32).prop_map(|number| json!(number)),
        (0..=100_i32).prop_map(|share| json!(format!("{share}%")))
    ]
}

proptest! {
    #[test]
    fn a_rollout_never_has_too_few_or_too_many_pods_and_arrives(
        replicas in 0..12_i32, surge in share(), unavailable in share(), order in proptest::collection::vec(0..5_usize, 0..120),
    ) {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        let mut world = World { deployment: deployment(replicas, "one", &rolling), sets: Vec::new() };
        world.settle();
        prop_assert_eq!(world.available(), replicas);
        world.deployment = Deployment {
            metadata: world.deployment.metadata.clone(),
            ..deployment(replicas, "two", &rolling)
        };
        let amounts = Amounts::of(&world.deployment);
        for event in order {
            if event == 0 {
                world.step();
            } else {
                world.work(event);
            }
            prop_assert!(world.available() >= amounts.fewest_available(), "too few: {:#?}", world.sets);
            prop_assert!(world.wanted() <= amounts.most(), "too many: {:#?}", world.sets);
        }
        world.settle();
        let new = world.observe().new.expect("the new set");
        prop_assert_eq!(super::amounts::available(&new), replicas);
        prop_assert_eq!(world.wanted(), replicas);
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_arrives_too(
        before in 1..10_i32, after in 0..15_i32, order in proptest::collection::vec(0..5_usize, 0..40),
    ) {
        let rolling = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
        let mut world = World { deployment: deployment(before, "one", &rolling), sets: Vec::new() };
        world.settle();
        for (replicas, image) in [(before, "two"), (after, "two")] {
            world.deployment = Deployment {
                metadata: world.deployment.metadata.clone(),
                ..deployment(replicas, image, &rolling)
            };
            for event in &order {
                if *event == 0 { world.step(); } else { world.work(*event); }
            }
        }
        world.settle();
        let new = world.observe().new.expect("the new set");
        prop_assert_eq!(super::amounts::available(&new), after);
        prop_assert_eq!(world.wanted(), after);
    }
}

#[test]
fn a_template_that_comes_back_finds_its_set_and_is_the_newest_revision() {
    let rolling = json!({});
    let mut world = World {
        deployment: deployment(2, "one", &rolling),
        sets: Vec::new(),
    };
    for image in ["one", "two", "one"] {
        world.deployment = Deployment {
            metadata: world.deployment.metadata.clone(),
            ..deployment(2, image, &rolling)
        };
        world.settle();
    }
    let observed = world.observe();
    let revisions: Vec<i64> = observed.all().map(|set| super::amounts::revision(set)).collect();
    assert_eq!(revisions, [2, 3]);
    assert_eq!(world.deployment.annotations()[super::amounts::REVISION], "3");
}

#[test]
fn conditions_say_whether_it_gets_on() {
    let mut world = World {
        deployment: deployment(2, "one", &json!({})),
        sets: Vec::new(),
    };
    let reasons = |world: &mut World, second: i64| {
        let outcome = Outcome::default();
        let (status, wake) = status(&world.observe(), &outcome, at(second));
        let conditions = status.conditions.clone().unwrap_or_default();
        world.deployment.status = Some(status);
        let reasons = conditions
            .into_iter()
            .map(|one| one.reason.unwrap_or_default())
            .collect::<Vec<_>>();
        (reasons.join(" "), wake)
    };
    world.step();
    assert_eq!(
        reasons(&mut world, 0),
        (
            "MinimumReplicasUnavailable FoundNewReplicaSet".to_owned(),
            Some(at(601))
        )
    );
    world.work(0);
    world.work(0);
    // Each Pod that comes is progress, and the time begins anew.
    assert_eq!(reasons(&mut world, 5).1, Some(at(606)));
    assert_eq!(
        reasons(&mut world, 606),
        (
            "MinimumReplicasUnavailable ProgressDeadlineExceeded".to_owned(),
            None
        )
    );
    world.work(0);
    assert_eq!(
        reasons(&mut world, 700).0,
        "MinimumReplicasUnavailable ReplicaSetUpdated"
    );
    world.settle();
    assert_eq!(
        reasons(&mut world, 701),
        ("MinimumReplicasAvailable NewReplicaSetAvailable".to_owned(), None)
    );
    // Afterwards nothing is late.
    assert_eq!(
        reasons(&mut world, 9999).0,
        "MinimumReplicasAvailable NewReplicaSetAvailable"
    );
}
