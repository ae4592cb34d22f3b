//! What holds for every pipeline, every order in which tasks end, and every moment of a crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use coracle_api::state::RuntimeState;
use coracle_pipelines::run::plan::Event;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::world::{World, component, pipeline};

/// A task of a made-up pipeline.
#[derive(Debug, Clone)]
struct Made {
    what: What,
    /// Which of the tasks before it it waits for, one bit each.
    after: u8,
    /// Whether it runs however those ended.
    anyway: bool,
    retries: u8,
    waits: bool,
}

#[derive(Debug, Clone)]
enum What {
    Leaf,
    Dag(Vec<Made>),
    Loop {
        inside: Vec<Made>,
        count: usize,
        limit: u8,
    },
}

fn tasks() -> impl Strategy<Value = Vec<Made>> {
    let made = |what: BoxedStrategy<What>| {
        (
            what,
            any::<u8>(),
            prop::bool::weighted(0.2),
            0_u8..3,
            any::<bool>(),
        )
            .prop_map(|(what, after, anyway, retries, waits)| Made {
                what,
                after,
                anyway,
                retries,
                waits,
            })
    };
    let leaf = made(Just(What::Leaf).boxed());
    let leaves = prop::collection::vec(leaf, 1..4).boxed();
    leaves.prop_recursive(2, 12, 3, move |inside| {
        let what = prop_oneof![
            2 => Just(What::Leaf),
            1 => inside.clone().prop_map(What::Dag),
            1 => (inside, 0_usize..4, 0_u8..3)
                .prop_map(|(inside, count, limit)| What::Loop { inside, count, limit }),
        ];
        prop::collection::vec(made(what.boxed()), 1..4).boxed()
    })
}

/// The DAG of these tasks; the components inside it are added to `components`.
fn dag(tasks: &[Made], components: &mut Map<String, Value>) -> Value {
    let mut specs = Map::new();
    for (index, made) in tasks.iter().enumerate() {
        let inside = match &made.what {
            What::Leaf => None,
            What::Dag(inside) | What::Loop { inside, .. } => Some(inside),
        };
        let name = match inside {
            None => "leaf".to_owned(),
            Some(inside) => {
                let dag = dag(inside, components);
                let name = format!("comp-{}", components.len());
                let item =
                    json!({"parameters": {"item": {"parameterType": "NUMBER_INTEGER", "isOptional": true}}});
                components.insert(name.clone(), json!({"dag": dag, "inputDefinitions": item}));
                name
            }
        };
        let before = (0..index).filter(|before| made.after >> (before % 8) & 1 == 1);
        let before: Vec<_> = before.map(|before| format!("t{before}")).collect();
        let mut spec = json!({"componentRef": {"name": name}, "dependentTasks": before});
        if made.anyway {
            spec["triggerPolicy"] = json!({"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"});
        }
        if made.retries > 0 {
            let wait = if made.waits { "5s" } else { "0s" };
            spec["retryPolicy"] = json!({"maxRetryCount": made.retries, "backoffDuration": wait});
        }
        if let What::Loop { count, limit, .. } = &made.what {
            let items: Vec<usize> = (0..*count).collect();
            spec["parameterIterator"] =
                json!({"itemInput": "item", "items": {"raw": json!(items).to_string()}});
            spec["iteratorPolicy"] = json!({"parallelismLimit": limit});
        }
        specs.insert(format!("t{index}"), spec);
    }
    json!({"tasks": specs})
}

/// How an attempt ends: the same whenever it is made.
fn fails(seed: u64, path: &str, attempt: usize) -> bool {
    let mut hasher = DefaultHasher::new();
    (seed, path, attempt).hash(&mut hasher);
    hasher.finish().is_multiple_of(4)
}

/// Plays a run to its end: tasks end in the order that `script` gives, and the server crashes now
/// and then. Returns how each task ended, and how many attempts it took.
fn play(
    document: &Value,
    seed: u64,
    script: &[u8],
) -> Result<BTreeMap<String, (String, usize)>, TestCaseError> {
    let mut world = World::of(document, json!({}));
    let mut ended = BTreeSet::new();
    let mut steps = 0;
    while !world.state.run.state.is_terminal() {
        steps += 1;
        prop_assert!(steps < 5000, "the run does not end: {:?}", world.states());
        let choice = usize::from(script[steps % script.len()]);
        if choice % 7 == 0 {
            world.restarts();
        }
        let at_work = world.at_work();
        if at_work.is_empty() {
            prop_assert!(
                !world.state.timers.is_empty(),
                "nothing is at work: {:?}",
                world.states()
            );
            world.after(100);
            continue;
        }
        let path = at_work[choice % at_work.len()].to_owned();
        let attempt = world.attempts(&path);
        prop_assert!(
            ended.insert((path.clone(), attempt)),
            "attempt {attempt} of {path} ran twice"
        );
        if fails(seed, &path, attempt) {
            world.fails(&path);
        } else {
            world.succeeds(&path, json!({}), &[]);
        }
    }
    let nodes = world.state.nodes.values();
    prop_assert!(nodes.clone().all(|node| node.task.state.is_terminal()));
    Ok(nodes
        .map(|node| {
            let task = &node.task;
            (task.path.clone(), (task.state.to_string(), node.attempts.len()))
        })
        .collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Every run ends, no attempt runs twice, and neither the order of events nor a crash decides
    /// how a run ends.
    #[test]
    fn the_outcome_depends_on_the_pipeline_and_not_on_the_order(
        tasks in tasks(),
        seed in any::<u64>(),
        one in prop::collection::vec(any::<u8>(), 1..40),
        other in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut components = Map::new();
        let dag = dag(&tasks, &mut components);
        components.insert("leaf".to_owned(), component(json!({}), json!({})));
        let document = pipeline(json!({"dag": dag}), Value::Object(components));
        let first = play(&document, seed, &one)?;
        let second = play(&document, seed, &other)?;
        prop_assert_eq!(first, second);
    }

    /// Whenever a run is stopped, it ends with its last Pod, starts nothing more, and can go on.
    #[test]
    fn a_run_that_is_stopped_at_any_moment_ends(tasks in tasks(), seed in any::<u64>(), steps in 0_usize..12) {
        let mut components = Map::new();
        let dag = dag(&tasks, &mut components);
        components.insert("leaf".to_owned(), component(json!({}), json!({})));
        let document = pipeline(json!({"dag": dag}), Value::Object(components));
        let mut world = World::of(&document, json!({}));
        for _ in 0..steps {
            let Some(path) = world.at_work().first().map(|path| (*path).to_owned()) else {
                world.after(100);
                continue;
            };
            if fails(seed, &path, world.attempts(&path)) {
                world.fails(&path);
            } else {
                world.succeeds(&path, json!({}), &[]);
            }
        }
        if world.state.run.state.is_terminal() {
            return Ok(());
        }
        let at_work: Vec<String> = world.at_work().into_iter().map(str::to_owned).collect();
        world.happens(Event::TerminationRequested);
        world.restarts();
        for path in &at_work {
            let left: Vec<String> = world.at_work().into_iter().map(str::to_owned).collect();
            prop_assert!(left.iter().all(|path| at_work.contains(path)), "{left:?} began");
            world.fails(path);
        }
        prop_assert_eq!(world.state.run.state, RuntimeState::Canceled, "{:?}", world.states());
        prop_assert!(world.state.nodes.values().all(|node| node.task.state.is_terminal()));
        world.retry();
        prop_assert!(!world.at_work().is_empty() || !world.state.timers.is_empty()
            || world.state.run.state.is_terminal(), "{:?}", world.states());
    }

    /// A run that failed and is asked to go on until it succeeds does so, and what has succeeded
    /// once is done again only after something that was.
    #[test]
    fn a_run_that_is_retried_often_enough_succeeds(tasks in tasks(), seed in any::<u64>()) {
        let mut components = Map::new();
        let dag = dag(&tasks, &mut components);
        components.insert("leaf".to_owned(), component(json!({}), json!({})));
        let document = pipeline(json!({"dag": dag}), Value::Object(components));
        let mut world = World::of(&document, json!({}));
        for _ in 0..60 {
            while !world.state.run.state.is_terminal() {
                let Some(path) = world.at_work().first().map(|path| (*path).to_owned()) else {
                    world.after(100);
                    continue;
                };
                if fails(seed, &path, world.attempts(&path)) {
                    world.fails(&path);
                } else {
                    world.succeeds(&path, json!({}), &[]);
                }
            }
            if world.state.run.state == RuntimeState::Succeeded {
                return Ok(());
            }
            world.retry();
            world.restarts();
        }
        prop_assert!(false, "it never succeeds: {:?}", world.states());
    }
}
