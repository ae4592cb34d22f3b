//! The scheduler, with the store in memory and a clock that only the test moves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    time::Duration,
};

use coracle_api::{
    id::{ExperimentId, PipelineId, PipelineVersionId, RunId},
    reason::Reason,
    state::{RuntimeState, StorageState},
};
use coracle_pipelines::schedule::{Options, Scheduler};
use coracle_store::{
    Location, Store,
    records::{
        Change, Commit, Experiment, NewRun, Pipeline, PipelineVersion, Records, RecurringRun, Run, RunStatus,
        Schedule,
    },
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::{sync::broadcast, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{schedule_plan::recurring, world::pipeline};

/// A scheduler at work.
struct Desk {
    store: Store,
    experiment: ExperimentId,
    changes: broadcast::Receiver<Change>,
    begin: Instant,
    /// Seconds by which the wall clock was set.
    set: Arc<AtomicI64>,
    scheduler: Option<(JoinHandle<()>, CancellationToken)>,
    /// As long as this lives, the paused clock moves only when told to.
    _hold: mpsc::Sender<()>,
}

/// When the clock starts; [`recurring`] is made then.
const BEGIN: Timestamp = Timestamp::constant(1_767_225_600, 0);

impl Desk {
    async fn new() -> Self {
        let (hold, held) = mpsc::channel::<()>();
        // A blocking task keeps tokio from moving a paused clock by itself.
        tokio::task::spawn_blocking(move || held.recv());
        let store = Store::open(Location::Memory).await.unwrap();
        let experiment = ExperimentId::new();
        let row = Experiment {
            id: experiment,
            namespace: "default".into(),
            name: "tests".into(),
            description: String::new(),
            storage_state: StorageState::Available,
            created_at: BEGIN,
            last_run_created_at: None,
        };
        store.records().create_experiment(row).await.unwrap();
        let mut desk = Self {
            changes: store.records().changes(),
            store,
            experiment,
            begin: Instant::now(),
            set: Arc::default(),
            scheduler: None,
            _hold: hold,
        };
        desk.start();
        desk
    }

    fn records(&self) -> &Records {
        self.store.records()
    }

    fn start(&mut self) {
        let (begin, set) = (self.begin, Arc::clone(&self.set));
        let scheduler = Scheduler::new(Options {
            records: self.records().clone(),
            clock: Arc::new(move || {
                let passed = SignedDuration::try_from(begin.elapsed()).unwrap();
                BEGIN + passed + SignedDuration::from_secs(set.load(Ordering::Relaxed))
            }),
        });
        let stop = CancellationToken::new();
        self.scheduler = Some((tokio::spawn(scheduler.run(stop.clone())), stop));
    }

    async fn stop(&mut self) {
        let (task, stop) = self.scheduler.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    async fn add(&self, row: RecurringRun) -> RecurringRun {
        let row = RecurringRun {
            experiment_id: self.experiment,
            ..row
        };
        self.records().create_recurring_run(row).await.unwrap()
    }

    async fn pass(&self, seconds: u64) {
        // The scheduler first gets to set its timer by the time as it was.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    /// The next run that is made.
    async fn made(&mut self) -> Run {
        loop {
            if let Change::RunCreated(run) = self.changes.recv().await.unwrap() {
                return self.records().run(run).await.unwrap();
            }
        }
    }

    async fn ends(&self, run: &Run) {
        let status = RunStatus {
            state: RuntimeState::Succeeded,
            error: None,
            state_history: Vec::new(),
            retried: false,
            finished_at: Some(BEGIN),
        };
        let commit = Commit {
            run: Some(status),
            ..Commit::default()
        };
        self.records().commit(run.id, commit).await.unwrap();
    }

    async fn version(&self, pipeline: PipelineId, name: &str, document: Value) -> PipelineVersion {
        let version = PipelineVersion {
            id: PipelineVersionId::new(),
            pipeline_id: pipeline,
            name: name.into(),
            display_name: name.into(),
            description: String::new(),
            code_source_url: String::new(),
            package_url: String::new(),
            tags: Default::default(),
            document,
            warnings: Vec::new(),
            created_at: BEGIN,
        };
        self.records()
            .create_pipeline_version(version.clone())
            .await
            .unwrap();
        version
    }
}

/// A pipeline with one parameter, a text unless said otherwise.
fn with_parameter(parameter_type: &str) -> Value {
    pipeline(
        json!({
            "inputDefinitions": {"parameters": {"day": {"parameterType": parameter_type}}},
            "dag": {"tasks": {"a": {"componentRef": {"name": "noop"}}}},
        }),
        json!({"noop": {"executorLabel": "exec"}}),
    )
}

/// Every so many seconds, with a pipeline of its own.
fn every(seconds: u64) -> RecurringRun {
    let mut row = recurring(Schedule::Every(seconds));
    row.document = Some(with_parameter("STRING"));
    row.parameters
        .insert("day".into(), json!("[[ScheduledTime.2006-01-02]] [[Index]]"));
    row
}

fn second(seconds: i64) -> Timestamp {
    BEGIN + SignedDuration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn runs_are_made_when_they_are_due_and_are_told_when_that_was() {
    let mut desk = Desk::new().await;
    let mut row = every(3600);
    row.max_concurrency = 10;
    let row = desk.add(row).await;
    for index in 1..=3 {
        desk.pass(3600).await;
        let run = desk.made().await;
        assert_eq!(run.scheduled_at, second(3600 * index));
        assert_eq!(run.display_name, format!("nightly-{index}"));
        assert_eq!(run.recurring_run_id, Some(row.id));
        assert_eq!(
            run.id,
            RunId::of_schedule(row.id, run.scheduled_at.as_microsecond())
        );
        assert_eq!(run.parameters["day"], format!("2026-01-01 {index}"));
    }
    let progress = desk.records().recurring_run(row.id).await.unwrap().progress;
    assert_eq!(
        (progress.last_due, progress.runs_made),
        (Some(second(3 * 3600)), 3)
    );
}

#[tokio::test(start_paused = true)]
async fn times_missed_while_the_server_was_down_are_made_up_one_after_the_other() {
    let mut desk = Desk::new().await;
    desk.add(every(60)).await;
    desk.stop().await;
    desk.pass(150).await;
    desk.start();
    let first = desk.made().await;
    assert_eq!(first.scheduled_at, second(60));
    desk.ends(&first).await;
    let next = desk.made().await;
    assert_eq!(next.scheduled_at, second(120));
    // Deleting a run makes room too, and nothing is due before the next time.
    desk.records().delete_run(next.id).await.unwrap();
    desk.pass(30).await;
    assert_eq!(desk.made().await.scheduled_at, second(180));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_made_before_a_crash_is_not_made_again() {
    let mut desk = Desk::new().await;
    desk.stop().await;
    let row = desk.add(every(60)).await;
    let new = NewRun {
        id: RunId::of_schedule(row.id, second(60).as_microsecond()),
        experiment_id: desk.experiment,
        display_name: "made before".into(),
        description: String::new(),
        pipeline_id: None,
        pipeline_version_id: None,
        document: with_parameter("STRING"),
        parameters: Default::default(),
        pipeline_root: String::new(),
        service_account: String::new(),
        recurring_run_id: Some(row.id),
        scheduled_at: second(60),
        created_at: second(60),
    };
    let before = desk.records().create_run(new).await.unwrap();
    desk.ends(&before).await;
    assert_eq!(desk.made().await.id, before.id);
    desk.pass(120).await;
    desk.start();
    assert_eq!(desk.made().await.scheduled_at, second(120));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_makes_nothing_twice() {
    let mut desk = Desk::new().await;
    let mut row = every(60);
    row.max_concurrency = 10;
    desk.add(row).await;
    desk.pass(60).await;
    assert_eq!(desk.made().await.scheduled_at, second(60));
    desk.set.store(-3600, Ordering::Relaxed);
    desk.pass(3600).await;
    desk.pass(60).await;
    assert_eq!(desk.made().await.scheduled_at, second(120));
}

#[tokio::test(start_paused = true)]
async fn the_latest_version_is_the_one_at_the_time_of_the_run() {
    let mut desk = Desk::new().await;
    let pipeline = Pipeline {
        id: PipelineId::new(),
        namespace: "default".into(),
        name: "p".into(),
        display_name: "p".into(),
        description: String::new(),
        tags: Default::default(),
        created_at: BEGIN,
    };
    desk.records()
        .create_pipeline(pipeline.clone(), None)
        .await
        .unwrap();
    let one = desk.version(pipeline.id, "1", with_parameter("STRING")).await;
    let mut row = every(60);
    row.document = None;
    row.pipeline_id = Some(pipeline.id);
    row.max_concurrency = 10;
    let row = desk.add(row).await;
    desk.pass(60).await;
    assert_eq!(desk.made().await.pipeline_version_id, Some(one.id));

    // This version takes no text: the time passes without a run, and the reason is kept.
    desk.version(pipeline.id, "2", with_parameter("NUMBER_INTEGER"))
        .await;
    desk.pass(60).await;
    let failure = loop {
        tokio::task::yield_now().await;
        let progress = desk.records().recurring_run(row.id).await.unwrap().progress;
        if let Some(failure) = progress.error {
            assert_eq!((progress.last_due, progress.runs_made), (Some(second(120)), 1));
            break failure;
        }
    };
    assert_eq!(failure.reason, Reason::ScheduleInvalid);
    assert!(failure.message.contains("day"), "{}", failure.message);

    let three = desk.version(pipeline.id, "3", with_parameter("STRING")).await;
    desk.pass(60).await;
    let run = desk.made().await;
    assert_eq!(
        (run.pipeline_version_id, run.scheduled_at),
        (Some(three.id), second(180))
    );
    assert_eq!(run.parameters["day"], "2026-01-01 2");
    assert_eq!(
        desk.records().recurring_run(row.id).await.unwrap().progress.error,
        None
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_disabled_or_deleted_makes_no_more_runs() {
    let mut desk = Desk::new().await;
    let (mut one, mut other) = (every(60), every(90));
    (one.max_concurrency, other.max_concurrency) = (10, 10);
    let one = desk.add(one).await;
    let other = desk.add(other).await;
    desk.pass(60).await;
    assert_eq!(desk.made().await.recurring_run_id, Some(one.id));
    desk.records()
        .set_recurring_run_enabled(one.id, false, second(60))
        .await
        .unwrap();
    desk.pass(100).await;
    assert_eq!(desk.made().await.recurring_run_id, Some(other.id));
    desk.records().delete_recurring_run(other.id).await.unwrap();
    desk.pass(100).await;
    // Enabled again, it makes up for what was missed: nothing else was made before.
    desk.records()
        .set_recurring_run_enabled(one.id, true, second(260))
        .await
        .unwrap();
    for time in [120, 180, 240] {
        let run = desk.made().await;
        assert_eq!(
            (run.recurring_run_id, run.scheduled_at),
            (Some(one.id), second(time))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pattern_that_cannot_be_read_stops_nobody_else() {
    let mut desk = Desk::new().await;
    let bad = desk.add(recurring(Schedule::Cron("never".into()))).await;
    desk.add(every(60)).await;
    desk.pass(60).await;
    desk.made().await;
    let failure = desk.records().recurring_run(bad.id).await.unwrap().progress.error;
    assert_eq!(failure.unwrap().reason, Reason::ScheduleInvalid);
}
