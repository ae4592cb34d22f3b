//! Thousands of made-up pipelines through the engine as it is, with its store, on a Kubernetes API
//! and a node that are played here. What happens next is drawn from a seed: an answer of the API, an
//! event, a step of a Pod, an error, a crash of the engine between any two of these. Whatever is
//! drawn, each run must come to what the planner alone makes of it when nothing is in its way.
//!
//! `CORACLE_SIMULATION_SEED` plays one simulation again and tells what happened in it,
//! `CORACLE_SIMULATIONS` says how many to play.

mod checks;
mod cluster;
mod dice;
mod expected;
mod fate;
mod node;
mod pipelines;
mod story;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use coracle_api::{id::ExperimentId, state::StorageState};
use coracle_store::{Location, Store, records::Experiment};
use tokio::runtime::{Builder, Runtime};

use self::{
    dice::fixed,
    story::{BEGIN, Story},
};

/// How many simulations are played when nobody says otherwise; each has one to three runs.
const SIMULATIONS: u64 = 1400;
/// How long they are played for then.
const LONGEST: Duration = Duration::from_secs(90);

/// What must hold does, or what does not.
type Checked<T = ()> = Result<T, String>;

/// Where simulations are played, one after the other.
struct Stage {
    runtime: Runtime,
    store: Store,
}

impl Stage {
    fn new() -> Self {
        // What other threads wake is looked at when nothing else is left to do: not when they happen to do so.
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .global_queue_interval(u32::MAX)
            .event_interval(u32::MAX)
            .build()
            .unwrap();
        let store = runtime.block_on(Store::open(Location::Memory)).unwrap();
        Self { runtime, store }
    }

    /// Plays one; what happened, and what was wrong with it.
    fn play(&self, seed: u64) -> (Vec<String>, Checked) {
        let records = self.store.records().clone();
        // As a task like those of the engine: the runtime's own would be looked at out of turn.
        let played = self.runtime.block_on(self.runtime.spawn(async move {
            let experiment = Experiment {
                id: ExperimentId::new(),
                namespace: uuid::Uuid::new_v4().to_string(),
                name: "simulation".to_owned(),
                description: String::new(),
                storage_state: StorageState::Available,
                created_at: BEGIN,
                last_run_created_at: None,
            };
            let id = experiment.id;
            records.create_experiment(experiment).await.unwrap();
            let mut story = Story::new(seed, records, id);
            let checked = story.play().await;
            story.end().await;
            (story.told, checked)
        }));
        played.unwrap_or_else(|_| (Vec::new(), Err("a panic, told above".to_owned())))
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

#[test]
fn runs_end_as_they_should_in_whatever_order_things_happen_and_whenever_the_engine_dies() {
    if let Some(seed) = setting("CORACLE_SIMULATION_SEED") {
        let (told, checked) = Stage::new().play(seed);
        println!("{}", told.join("\n"));
        return checked.unwrap_or_else(|fault| panic!("{fault}"));
    }
    let asked = setting("CORACLE_SIMULATIONS");
    let count = usize::try_from(asked.unwrap_or(SIMULATIONS)).unwrap();
    // A busy machine plays fewer of them.
    let end = asked.is_none().then(|| Instant::now() + LONGEST);
    let base = fixed(0, uuid::Uuid::new_v4().as_u128());
    println!("{count} simulations from base {base}");
    let next = AtomicUsize::new(0);
    let work = || {
        let stage = Stage::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || end.is_some_and(|end| Instant::now() > end) {
                return Ok(());
            }
            let seed = fixed(base, number);
            if let Err(fault) = stage.play(seed).1 {
                next.store(count, Ordering::Relaxed);
                return Err(format!(
                    "{fault}\nsee what happened: CORACLE_SIMULATION_SEED={seed}"
                ));
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
    let faults: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().unwrap().err())
            .collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn a_simulation_is_the_same_when_it_is_played_again() {
    for number in 0..6 {
        let seed = fixed(7, number);
        let (first, _) = Stage::new().play(seed);
        let (second, _) = Stage::new().play(seed);
        let d = first.iter().zip(&second).position(|(one, other)| one != other);
        if let Some(d) = d {
            println!("{:#?}", &first[d.saturating_sub(12)..=d]);
            println!("{:#?}", &second[d.saturating_sub(3)..=d]);
        }
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert_eq!(
            differs,
            None,
            "seed {seed}: {:?}",
            differs.map(|at| (&first[at], &second[at]))
        );
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}
