//! Which runs of a recurring run are due.

use coracle_api::id::{ExperimentId, RecurringRunId};
use coracle_pipelines::schedule::{Decision, Due, plan};
use coracle_store::records::{RecurringRun, Schedule, ScheduleProgress, Trigger};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::Map;

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A recurring run made at 2026-01-01T00:00:00Z, one run at a time, catching up.
pub(crate) fn recurring(schedule: Schedule) -> RecurringRun {
    let created_at = at("2026-01-01T00:00:00Z");
    RecurringRun {
        id: RecurringRunId::new(),
        experiment_id: ExperimentId::new(),
        namespace: "default".into(),
        display_name: "nightly".into(),
        description: String::new(),
        pipeline_id: None,
        pipeline_version_id: None,
        document: None,
        parameters: Map::new(),
        pipeline_root: String::new(),
        service_account: String::new(),
        trigger: Trigger {
            schedule,
            start: None,
            end: None,
        },
        enabled: true,
        max_concurrency: 1,
        no_catchup: false,
        created_at,
        updated_at: created_at,
        progress: ScheduleProgress::default(),
    }
}

fn hourly() -> RecurringRun {
    recurring(Schedule::Cron("0 0 * * * *".into()))
}

fn decide(recurring: &RecurringRun, unfinished: u32, now: &str) -> Decision {
    plan(recurring, unfinished, at(now)).unwrap()
}

/// Times of the runs, as `hour:minute#index`.
fn runs(decision: &Decision) -> Vec<String> {
    let shown = |due: &Due| format!("{}#{}", &due.time.to_string()[11..16], due.index);
    decision.runs.iter().map(shown).collect()
}

#[test]
fn nothing_is_due_before_the_first_time() {
    let decision = decide(&hourly(), 0, "2026-01-01T00:59:59Z");
    let expected = Decision {
        wake_at: Some(at("2026-01-01T01:00:00Z")),
        ..Decision::default()
    };
    assert_eq!(decision, expected);
}

#[test]
fn a_time_is_due_once_and_then_the_next_one_is_waited_for() {
    let mut recurring = hourly();
    recurring.max_concurrency = 5;
    let decision = decide(&recurring, 0, "2026-01-01T01:00:00Z");
    assert_eq!(runs(&decision), ["01:00#1"]);
    assert_eq!(decision.wake_at, Some(at("2026-01-01T02:00:00Z")));
    recurring.progress = ScheduleProgress {
        last_due: Some(at("2026-01-01T01:00:00Z")),
        runs_made: 1,
        error: None,
    };
    let again = decide(&recurring, 1, "2026-01-01T01:00:00Z");
    assert_eq!(runs(&again), [""; 0]);
    // The clock was set back.
    let back = decide(&recurring, 1, "2026-01-01T00:30:00Z");
    assert_eq!(runs(&back), [""; 0]);
    assert_eq!(back.wake_at, Some(at("2026-01-01T02:00:00Z")));
}

#[test]
fn missed_times_are_made_up_in_order_as_far_as_runs_may_be_at_work() {
    let mut recurring = hourly();
    recurring.max_concurrency = 3;
    let decision = decide(&recurring, 1, "2026-01-01T05:30:00Z");
    assert_eq!(runs(&decision), ["01:00#1", "02:00#2"]);
    assert!(decision.waits_for_runs);
    assert_eq!(decision.wake_at, None, "only the end of a run changes anything");
}

#[test]
fn without_catch_up_only_the_last_missed_time_counts() {
    let mut recurring = hourly();
    recurring.no_catchup = true;
    recurring.max_concurrency = 10;
    let decision = decide(&recurring, 0, "2026-01-01T05:30:00Z");
    assert_eq!(runs(&decision), ["05:00#1"]);
    assert_eq!(decision.wake_at, Some(at("2026-01-01T06:00:00Z")));
    // It waits as long as its runs leave no room, and then for the time that is the last then.
    recurring.max_concurrency = 1;
    assert!(decide(&recurring, 1, "2026-01-01T05:30:00Z").waits_for_runs);
    assert_eq!(runs(&decide(&recurring, 0, "2026-01-01T07:01:00Z")), ["07:00#1"]);
}

#[test]
fn what_is_disabled_makes_nothing_and_makes_up_for_it_when_enabled() {
    let mut recurring = hourly();
    recurring.max_concurrency = 9;
    recurring.enabled = false;
    assert_eq!(decide(&recurring, 0, "2026-01-01T02:30:00Z"), Decision::default());
    recurring.enabled = true;
    let decision = decide(&recurring, 0, "2026-01-01T02:30:00Z");
    assert_eq!(runs(&decision), ["01:00#1", "02:00#2"]);
}

#[test]
fn nothing_is_due_after_the_end_and_a_start_in_the_past_is_made_up() {
    let mut recurring = recurring(Schedule::Every(3600));
    recurring.max_concurrency = 9;
    recurring.trigger.start = Some(at("2025-12-31T22:00:00Z"));
    recurring.trigger.end = Some(at("2026-01-01T00:30:00Z"));
    let decision = decide(&recurring, 0, "2026-01-01T12:00:00Z");
    assert_eq!(runs(&decision), ["23:00#1", "00:00#2"]);
    assert_eq!(decision.wake_at, None);
    assert!(!decision.waits_for_runs);
}

#[test]
fn a_pattern_that_cannot_be_read_says_so() {
    let error = plan(
        &recurring(Schedule::Cron("now and then".into())),
        0,
        Timestamp::UNIX_EPOCH,
    );
    assert!(error.unwrap_err().to_string().contains("it has 3 fields"));
}

/// What happens to a recurring run.
#[derive(Debug, Clone)]
enum Event {
    /// The clock goes on, or is set back.
    Clock(i64),
    /// Some of its runs end.
    RunsEnd(u32),
    /// It is looked at, and the server dies after so many runs were made.
    Look(usize),
    Enable(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (-5000_i64..20_000).prop_map(Event::Clock),
        3 => (0_u32..4).prop_map(Event::RunsEnd),
        5 => (0_usize..6).prop_map(Event::Look),
        1 => any::<bool>().prop_map(Event::Enable),
    ];
    prop::collection::vec(event, 1..60)
}

fn schedules() -> impl Strategy<Value = Schedule> {
    prop_oneof![
        (1_u64..10_000).prop_map(Schedule::Every),
        prop::sample::select(vec![
            "0 */10 * * * *",
            "*/30 * * * * *",
            "0 0 9 ? * MON-FRI",
            "@hourly"
        ])
        .prop_map(|text| Schedule::Cron(text.into())),
    ]
}

proptest! {
    #[test]
    fn each_time_is_used_once_in_order_and_never_by_too_many_runs(
        schedule in schedules(), max_concurrency in 1_u32..5, no_catchup: bool,
        end in prop::option::of(0_i64..100_000), events in events(),
    ) {
        let mut row = recurring(schedule);
        row.max_concurrency = max_concurrency;
        row.no_catchup = no_catchup;
        row.trigger.end = end.map(|end| row.created_at + SignedDuration::from_secs(end));
        let mut now = row.created_at;
        let mut latest = now;
        let mut unfinished = 0_u32;
        let mut used: Vec<Due> = Vec::new();
        for event in events {
            match event {
                Event::Clock(seconds) => now += SignedDuration::from_secs(seconds),
                Event::RunsEnd(count) => unfinished = unfinished.saturating_sub(count),
                Event::Enable(enabled) => row.enabled = enabled,
                Event::Look(survived) => {
                    let decision = plan(&row, unfinished, now).unwrap();
                    prop_assert!(row.enabled || decision == Decision::default());
                    prop_assert!(decision.wake_at.is_none_or(|wake| wake > now));
                    prop_assert!(decision.wake_at.is_none() || !decision.waits_for_runs);
                    for due in decision.runs.into_iter().take(survived) {
                        prop_assert!(due.time <= now);
                        prop_assert!(row.trigger.end.is_none_or(|end| due.time <= end));
                        unfinished += 1;
                        row.progress = ScheduleProgress {
                            last_due: Some(due.time), runs_made: due.index, error: None,
                        };
                        used.push(due);
                    }
                    prop_assert!(unfinished <= max_concurrency);
                }
            }
            latest = latest.max(now);
        }
        prop_assert!(used.is_sorted_by(|one, next| one.time < next.time && one.index + 1 == next.index));
        // With room and no further misfortune, catching up uses every time there was.
        if !no_catchup {
            row.enabled = true;
            let times = coracle_pipelines::schedule::plan::times(&row.trigger).unwrap();
            let mut expected = Vec::new();
            let mut last = None;
            while let Some(next) = times.next(last, row.created_at).filter(|next| *next <= latest) {
                expected.push(next);
                last = Some(next);
            }
            row.max_concurrency = u32::MAX;
            used.extend(plan(&row, 0, latest).unwrap().runs);
            prop_assert_eq!(used.iter().map(|due| due.time).collect::<Vec<_>>(), expected);
        }
    }
}
