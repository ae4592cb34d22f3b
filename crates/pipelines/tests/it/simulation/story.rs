//! One simulation: an engine, its store, its Kubernetes API, and somebody who decides what happens
//! next, from a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use coracle_api::id::{ExperimentId, RunId};
use coracle_artifacts::Artifacts;
use coracle_pipelines::{
    Clock, Engine, Options,
    task::container::{Cache, Settings},
};
use coracle_store::records::{NewRun, Records};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Checked,
    cluster::{Cluster, Done, How, Key, Verb},
    dice::{Dice, fixed},
    expected::Expected,
    fate::{Fate, output},
    node::{Attempt, Pod, Stepped},
    pipelines,
};

/// When a simulation begins.
pub(super) const BEGIN: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// More than any simulation needs.
const MOST_STEPS: usize = 20_000;
/// So many minutes in which nothing happens mean that nothing will.
const LONG: usize = 30;

/// A run, and what is to come of it.
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) seed: u64,
    pub(super) pipeline: Value,
    pub(super) expected: Expected,
    /// Whether somebody stopped it: what comes of it depends on when that was.
    pub(super) was_stopped: bool,
    pub(super) is_made: bool,
    pub(super) retries: usize,
}

/// What can happen next.
#[derive(Debug, Clone)]
enum Step {
    Begin(usize),
    Answer(u64, Verb),
    Deliver(u64),
    Pod(Key),
}

/// How much goes wrong.
struct Temper {
    /// Percent of steps at which something does.
    mischief: u64,
    /// What may still go wrong, so that the simulation ends.
    left: usize,
    stops: bool,
}

pub(super) struct Story {
    pub(super) dice: Dice,
    pub(super) records: Records,
    pub(super) cluster: Cluster,
    pub(super) runs: Vec<Run>,
    pub(super) pods: BTreeMap<Key, Pod>,
    /// The attempts whose commands have begun.
    pub(super) begun: BTreeSet<Attempt>,
    /// The attempts whose Pods somebody deleted.
    vanished: Vec<Attempt>,
    /// What happened so far, for whoever looks for a fault.
    pub(super) told: Vec<String>,
    experiment: ExperimentId,
    engine: Option<JoinHandle<()>>,
    clock: Clock,
    /// By how many seconds somebody set the clock.
    set_by: Arc<AtomicI64>,
    temper: Temper,
}

impl Story {
    /// Before anything has happened. The experiment must be there.
    pub(super) fn new(seed: u64, records: Records, experiment: ExperimentId) -> Self {
        let mut dice = Dice::new(seed);
        let runs = (0..1 + dice.below(3) / 2 + dice.below(5) / 4).map(|index| {
            let pipeline = pipelines::pipeline(&mut dice);
            let seed = fixed(seed, index);
            Run {
                id: format!(
                    "{:08x}-0000-7000-8000-{:012x}",
                    seed >> 32,
                    seed & 0xffff_ffff_ffff
                )
                .parse()
                .unwrap(),
                seed,
                expected: Expected::of(&pipeline, seed),
                pipeline,
                was_stopped: false,
                is_made: false,
                retries: dice.below(3) / 2,
            }
        });
        let runs = runs.collect();
        let begin = Instant::now();
        let set_by = Arc::new(AtomicI64::new(0));
        let by = Arc::clone(&set_by);
        Self {
            temper: Temper {
                mischief: dice.pick(&[0, 3, 10, 25]),
                left: 3 + dice.below(12),
                stops: dice.chance(15),
            },
            dice,
            records,
            cluster: Cluster::default(),
            runs,
            pods: BTreeMap::new(),
            begun: BTreeSet::new(),
            vanished: Vec::new(),
            told: Vec::new(),
            experiment,
            engine: None,
            clock: Arc::new(move || {
                let passed = SignedDuration::try_from(begin.elapsed()).unwrap();
                BEGIN + passed + SignedDuration::from_secs(by.load(Ordering::Relaxed))
            }),
            set_by,
        }
    }

    /// Plays everything to its end.
    pub(super) async fn play(&mut self) -> Checked {
        self.start_engine();
        let mut idle = 0;
        let mut is_deleted = false;
        for _ in 0..MOST_STEPS {
            self.settle().await;
            let mut steps = self.steps();
            if !steps.is_empty() {
                let step = self.draw(&mut steps);
                if !matches!(step, Step::Answer(_, Verb::Watch(_))) {
                    idle = 0;
                }
                if self.temper.left > 0 && self.dice.chance(self.temper.mischief) {
                    self.temper.left -= 1;
                    self.go_wrong(step).await?;
                    continue;
                }
                self.take(step).await?;
                // More happens before the engine gets to do anything.
                while !steps.is_empty() && self.dice.chance(25) {
                    let step = self.draw(&mut steps);
                    self.take(step).await?;
                }
                continue;
            }
            idle += 1;
            tokio::time::sleep(Duration::from_secs(60)).await;
            if idle < 3 {
                continue;
            }
            if is_deleted {
                return self.check_nothing_is_left();
            }
            match self.check_ends().await? {
                false if idle > LONG => {
                    return Err(format!("nothing happens any more: {}", self.unfinished().await));
                }
                false => continue,
                true => {}
            }
            idle = 0;
            if !self.retry().await? {
                is_deleted = true;
                for run in &self.runs {
                    self.records
                        .delete_run(run.id)
                        .await
                        .map_err(|error| error.to_string())?;
                }
            }
        }
        Err("it does not end".to_owned())
    }

    /// Waits until everything that can go on by itself has: the clock, which is paused, moves only then.
    pub(super) async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        self.told.push(what());
    }

    fn start_engine(&mut self) {
        let engine = Engine::new(Options {
            client: self.cluster.client(),
            records: self.records.clone(),
            artifacts: Artifacts::local(std::env::temp_dir()).unwrap(),
            settings: Settings {
                artifact_root: "/artifacts".into(),
                launcher: "/bin/coracle".to_owned(),
                server_url: "http://127.0.0.1:1".to_owned(),
                cluster: None,
                cache: Some(Cache::default()),
            },
        });
        let engine = engine.with_clock(Arc::clone(&self.clock));
        self.engine = Some(tokio::spawn(engine.run(CancellationToken::new())));
    }

    /// What can happen next.
    fn steps(&self) -> Vec<Step> {
        let is_up = self.engine.is_some();
        let runs = self.runs.iter().enumerate();
        let mut steps: Vec<Step> = runs
            .filter(|(_, run)| is_up && !run.is_made)
            .map(|(index, _)| Step::Begin(index))
            .collect();
        let requests = self.cluster.requests().into_iter();
        steps.extend(requests.map(|(number, verb)| Step::Answer(number, verb)));
        steps.extend(self.cluster.behind().into_iter().map(Step::Deliver));
        let pods = self.pods.iter().filter(|(_, pod)| pod.can_step(is_up));
        steps.extend(pods.map(|(key, _)| Step::Pod(key.clone())));
        steps
    }

    fn draw(&mut self, steps: &mut Vec<Step>) -> Step {
        let chosen = self.dice.below(steps.len());
        steps.swap_remove(chosen)
    }

    async fn take(&mut self, step: Step) -> Checked {
        match step {
            Step::Begin(index) => self.begin(index).await,
            Step::Answer(number, verb) => self.answer(number, verb, How::Well).await,
            Step::Deliver(watch) => {
                self.tell(|| "the engine hears of a change".to_owned());
                self.cluster.deliver(watch);
                Ok(())
            }
            Step::Pod(key) => self.step_pod(&key).await,
        }
    }

    async fn begin(&mut self, index: usize) -> Checked {
        let run = &mut self.runs[index];
        run.is_made = true;
        let created_at = (self.clock)();
        let new = NewRun {
            id: run.id,
            experiment_id: self.experiment,
            display_name: "a run".to_owned(),
            description: String::new(),
            pipeline_id: None,
            pipeline_version_id: None,
            document: run.pipeline.clone(),
            parameters: Default::default(),
            pipeline_root: String::new(),
            service_account: String::new(),
            recurring_run_id: None,
            scheduled_at: created_at,
            created_at,
        };
        self.records
            .create_run(new)
            .await
            .map_err(|error| error.to_string())?;
        self.tell(|| format!("run {index} is made"));
        Ok(())
    }

    async fn answer(&mut self, number: u64, verb: Verb, how: How) -> Checked {
        let (what, mut how) = (described(&verb), how);
        let mut pod = None;
        if let Verb::Create(_, object) = &verb {
            let attempt = Attempt::of(&self.records, object).await?;
            let seed = self.run(attempt.run)?.seed;
            let fate = Fate::of(seed, &attempt.path, attempt.number as usize);
            if fate == Fate::Refused && how != How::NotNow {
                how = How::Refused;
            }
            pod = Some(Pod::new(attempt, seed, fate, object));
        }
        self.tell(|| format!("{what}: {how:?}"));
        match (self.cluster.answer(number, how), pod) {
            (Done::Made(key), Some(pod)) => {
                self.pods.insert(key, pod);
            }
            (Done::MadeAgain(key), _) => return Err(format!("{} is made twice", key.2)),
            _ => {}
        }
        if let (Verb::Create(key, _), How::Well) = (&verb, how)
            && let Some(pod) = self.pods.get_mut(key)
        {
            pod.is_acknowledged = true;
        }
        Ok(())
    }

    async fn step_pod(&mut self, key: &Key) -> Checked {
        let pod = self.pods.get_mut(key).unwrap();
        let stepped = pod
            .step(key, &self.cluster, &self.records, &mut self.dice)
            .await?;
        let (attempt, seed) = (pod.attempt.clone(), pod.seed);
        match stepped {
            Stepped::Vanished => {
                self.tell(|| format!("{} is deleted by somebody", key.2));
                self.vanished.push(attempt);
            }
            Stepped::Otherwise(what) => self.tell(|| format!("{} {what}", key.2)),
            Stepped::Began(spec) => {
                self.tell(|| format!("{} begins ({})", key.2, attempt.path));
                self.check_may_begin(&attempt).await?;
                let maker = pipelines::maker_of(&self.run(attempt.run)?.pipeline, &attempt.path);
                let given = spec.executor_input.inputs.parameter_values.get("x");
                let made = maker.map(|maker| Value::from(output(seed, &maker)));
                if given != made.as_ref() {
                    return Err(format!("{} is given {given:?} and not {made:?}", attempt.path));
                }
                if !self.begun.insert(attempt.clone()) {
                    return Err(format!(
                        "attempt {} of {} runs twice",
                        attempt.number, attempt.path
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn run(&self, id: RunId) -> Checked<&Run> {
        let run = self.runs.iter().find(|run| run.id == id);
        run.ok_or_else(|| format!("there is no run {id}"))
    }

    /// Something goes wrong at the moment at which `step` could be taken.
    async fn go_wrong(&mut self, step: Step) -> Checked {
        match (self.dice.below(10), step) {
            (0 | 1, Step::Answer(number, verb)) => self.answer(number, verb, How::NotNow).await,
            (2 | 3, Step::Answer(number, verb @ (Verb::Create(..) | Verb::Delete(_)))) => {
                self.answer(number, verb, How::Lost).await
            }
            (0, _) => {
                self.tell(|| "watches end".to_owned());
                self.cluster.end_watches(false);
                Ok(())
            }
            (1, _) => {
                self.tell(|| "watches expire".to_owned());
                self.cluster.end_watches(true);
                Ok(())
            }
            (2 | 3, _) => {
                let wait = self.dice.pick(&[100, 1000, 6000, 70_000]);
                self.tell(|| format!("{wait} ms pass"));
                tokio::time::sleep(Duration::from_millis(wait)).await;
                Ok(())
            }
            (4, _) if self.temper.stops => self.stop_a_run().await,
            (5, _) => {
                let seconds = self.dice.pick(&[-86_400, -60, 60, 86_400]);
                self.tell(|| format!("the clock is set by {seconds} s"));
                self.set_by.fetch_add(seconds, Ordering::Relaxed);
                Ok(())
            }
            (_, step) => self.crash(step).await,
        }
    }

    /// Whether the engine knows of all Pods that somebody deleted: after a restart it could not tell
    /// them from Pods that were never made.
    async fn may_crash(&mut self) -> Checked<bool> {
        while let Some(attempt) = self.vanished.last() {
            let rows = self
                .records
                .attempts_of(attempt.task)
                .await
                .map_err(|error| error.to_string())?;
            let row = rows.iter().find(|row| row.number == attempt.number);
            if row.is_some_and(|row| !row.state.is_terminal() && row.started_at.is_none()) {
                return Ok(false);
            }
            self.vanished.pop();
        }
        Ok(true)
    }

    /// A new engine knows only of the Pods that the old one saw run.
    async fn forget_what_was_heard(&mut self) -> Checked {
        for pod in self.pods.values_mut() {
            let Attempt { task, number, .. } = pod.attempt;
            let rows = self
                .records
                .attempts_of(task)
                .await
                .map_err(|error| error.to_string())?;
            let row = rows.iter().find(|row| row.number == number);
            pod.is_acknowledged = row.is_some_and(|row| row.started_at.is_some());
        }
        Ok(())
    }

    async fn stop_a_run(&mut self) -> Checked {
        let index = self.dice.below(self.runs.len());
        let run = &mut self.runs[index];
        // It may have been deleted.
        if run.is_made && self.records.request_termination(run.id).await.is_ok() {
            run.was_stopped = true;
            self.tell(|| format!("somebody stops run {index}"));
        }
        Ok(())
    }

    /// The engine dies, perhaps while it works on what `step` led to, and another takes its place.
    async fn crash(&mut self, step: Step) -> Checked {
        if self.dice.chance(60) {
            self.take(step).await?;
            // Each of these waits for its turn at the database, and so does the engine.
            for _ in 0..self.dice.below(12) {
                let _ = self.records.run(self.runs[0].id).await;
            }
        }
        if !self.may_crash().await? {
            return Ok(());
        }
        self.tell(|| "the engine dies".to_owned());
        if let Some(engine) = self.engine.take() {
            engine.abort();
            if engine.await.is_err_and(|error| error.is_panic()) {
                return Err("the engine panicked".to_owned());
            }
        }
        self.cluster.hang_up();
        self.settle().await;
        self.forget_what_was_heard().await?;
        for _ in 0..self.dice.below(4) {
            let mut steps = self.steps();
            if !steps.is_empty() {
                let step = self.draw(&mut steps);
                self.take(step).await?;
            }
        }
        self.tell(|| "another engine starts".to_owned());
        self.start_engine();
        Ok(())
    }

    /// Asks runs to go on that did not succeed. False when none is to.
    async fn retry(&mut self) -> Checked<bool> {
        let mut is_any = false;
        for run in &mut self.runs {
            let row = self
                .records
                .run(run.id)
                .await
                .map_err(|error| error.to_string())?;
            if run.retries == 0 || row.state == coracle_api::state::RuntimeState::Succeeded {
                continue;
            }
            run.retries -= 1;
            is_any = true;
            if !run.was_stopped {
                run.expected.retry();
            }
            self.records
                .request_retry(run.id)
                .await
                .map_err(|error| error.to_string())?;
        }
        if is_any {
            self.tell(|| "somebody asks what failed to go on".to_owned());
        }
        Ok(is_any)
    }

    /// Ends the engine, and waits for what it was doing.
    pub(super) async fn end(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.abort();
            let _ = engine.await;
        }
        self.cluster.hang_up();
        self.settle().await;
    }
}

fn described(verb: &Verb) -> String {
    match verb {
        Verb::Create(key, _) => format!("{} is asked for", key.2),
        Verb::Delete(key) => format!("{} is to go", key.2),
        Verb::Get(key) => format!("{} is looked for", key.2),
        other => format!("{other:?}"),
    }
}
