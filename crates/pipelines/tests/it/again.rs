//! Tries after a failure: by a retry policy, by a user, and what the cache spares.

use std::collections::BTreeMap;

use coracle_api::{launch::Failure, reason::Reason, state::RuntimeState};
use coracle_pipelines::run::{
    observe::PodView,
    plan::{Event, Known},
};
use serde_json::{Value, json};

use crate::world::{World, component, pipeline};

fn number(name: &str) -> Value {
    json!({"parameters": {name: {"parameterType": "NUMBER_INTEGER"}}})
}

fn from_task(task: &str) -> Value {
    json!({"taskOutputParameter": {"producerTask": task, "outputParameterKey": "n"}})
}

/// `a → b`, `b` with more fields; `c` after both, whatever came of them.
fn chain(b: Value) -> Value {
    let mut second = json!({
        "componentRef": {"name": "take"}, "inputs": {"parameters": {"n": from_task("a")}}
    });
    second
        .as_object_mut()
        .unwrap()
        .extend(b.as_object().unwrap().clone());
    pipeline(
        json!({"dag": {"tasks": {
            "a": {"componentRef": {"name": "make"}},
            "b": second,
            "c": {
                "componentRef": {"name": "make"},
                "dependentTasks": ["b"],
                "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
            }
        }}}),
        json!({
            "make": component(json!({}), number("n")),
            "take": component(number("n"), number("n")),
            "inner": {
                "inputDefinitions": number("n"),
                "dag": {"tasks": {
                    "first": {"componentRef": {"name": "make"}},
                    "second": {"componentRef": {"name": "take"}, "inputs": {"parameters": {"n": from_task("first")}}}
                }}
            }
        }),
    )
}

fn policy(count: u32, wait: &str) -> Value {
    json!({"retryPolicy": {"maxRetryCount": count, "backoffDuration": wait, "backoffFactor": 2.0}})
}

#[test]
fn a_task_that_fails_is_tried_again_after_longer_and_longer_waits() {
    let mut world = World::of(&chain(policy(2, "10s")), json!({}));
    world.succeeds("root.a", json!({"n": 1}), &[]);
    world.fails("root.b");
    assert_eq!(world.task("root.b").state, RuntimeState::Pending);
    assert!(world.at_work().is_empty());
    world.after(9);
    assert!(world.at_work().is_empty(), "too early");
    world.after(2);
    assert_eq!(world.at_work(), ["root.b"]);
    assert_eq!(world.launch("root.b").attempt, 2);
    world.fails("root.b");
    world.after(15);
    assert!(world.at_work().is_empty(), "the second wait is twice as long");
    world.after(6);
    world.succeeds("root.b", json!({"n": 2}), &[]);
    assert_eq!(world.task("root.b").retries, 2);
    assert_eq!(world.attempts("root.b"), 3);
    world.succeeds("root.c", json!({"n": 2}), &[]);
    assert_eq!(world.state.run.state, RuntimeState::Succeeded);
}

#[test]
fn when_no_try_is_left_the_task_fails_with_what_happened_last() {
    let mut world = World::of(&chain(policy(1, "0s")), json!({}));
    world.succeeds("root.a", json!({"n": 1}), &[]);
    world.fails("root.b");
    assert_eq!(world.at_work(), ["root.b"], "without a wait it begins at once");
    world.fails("root.b");
    assert_eq!(world.task("root.b").state, RuntimeState::Failed);
    assert_eq!(world.at_work(), ["root.c"]);
}

#[test]
fn an_attempt_that_is_followed_at_once_by_another_is_written_as_it_ended() {
    let mut world = World::of(&chain(policy(1, "0s")), json!({}));
    world.succeeds("root.a", json!({"n": 1}), &[]);
    world.fails("root.b");
    let task = world.id("root.b");
    let written = world.done.commit.attempts.iter();
    let newest: BTreeMap<u32, RuntimeState> = written
        .filter(|attempt| attempt.task_id == task)
        .map(|attempt| (attempt.number, attempt.state))
        .collect();
    assert_eq!(
        newest,
        [(1, RuntimeState::Failed), (2, RuntimeState::Pending)].into()
    );
}

#[test]
fn a_wait_survives_a_restart() {
    let mut world = World::of(&chain(policy(1, "10s")), json!({}));
    world.succeeds("root.a", json!({"n": 1}), &[]);
    world.fails("root.b");
    world.restarts();
    assert!(world.at_work().is_empty());
    world.after(11);
    assert_eq!(world.at_work(), ["root.b"]);
}

#[test]
fn a_dag_that_fails_is_tried_again_as_a_whole() {
    let mut b = policy(1, "5s");
    b["componentRef"] = json!({"name": "inner"});
    let mut world = World::of(&chain(b), json!({}));
    world.succeeds("root.a", json!({"n": 1}), &[]);
    world.succeeds("root.b.first", json!({"n": 1}), &[]);
    world.fails("root.b.second");
    assert_eq!(world.task("root.b").state, RuntimeState::Pending);
    world.restarts();
    world.after(6);
    assert_eq!(world.at_work(), ["root.b.first"]);
    assert_eq!(world.launch("root.b.first").attempt, 2);
    world.succeeds("root.b.first", json!({"n": 3}), &[]);
    let given = world
        .launch("root.b.second")
        .executor_input
        .inputs
        .parameter_values["n"]
        .clone();
    assert_eq!(given, json!(3));
    world.succeeds("root.b.second", json!({"n": 3}), &[]);
    assert_eq!(world.task("root.b").state, RuntimeState::Succeeded);
}

#[test]
fn a_dag_is_not_tried_again_after_a_failure_that_will_not_pass_whichever_came_first() {
    let mut document = chain(json!({}));
    document["root"] = json!({"dag": {"tasks": {"d": {
        "componentRef": {"name": "two"},
        "retryPolicy": {"maxRetryCount": 1, "backoffDuration": "5s"}
    }}}});
    document["components"]["two"] = json!({"dag": {"tasks": {
        "passes": {"componentRef": {"name": "make"}}, "stays": {"componentRef": {"name": "make"}}
    }}});
    let too_large = PodView::Stuck(Failure {
        reason: Reason::RequestExceedsNode,
        message: "needs 9 GPUs".into(),
    });
    for order in [["passes", "stays"], ["stays", "passes"]] {
        let mut world = World::of(&document, json!({}));
        for name in order {
            let path = format!("root.d.{name}");
            match name {
                "passes" => world.fails(&path),
                _ => world.pod(&path, too_large.clone()),
            };
        }
        assert_eq!(world.state.run.state, RuntimeState::Failed, "{order:?}");
        let error = world.task("root.d").error.clone().unwrap();
        assert_eq!(error.reason, Reason::RequestExceedsNode, "{order:?}");
    }
}

#[test]
fn a_run_that_is_retried_keeps_what_succeeded_and_does_the_rest_again() {
    let mut world = World::of(&chain(json!({"componentRef": {"name": "inner"}})), json!({}));
    world.succeeds("root.a", json!({"n": 1}), &[]);
    world.succeeds("root.b.first", json!({"n": 1}), &[]);
    world.fails("root.b.second");
    world.succeeds("root.c", json!({"n": 1}), &[]);
    assert_eq!(world.state.run.state, RuntimeState::Failed);
    let plan = world.retry();
    assert!(
        plan.commit
            .run
            .is_some_and(|run| run.retried && run.finished_at.is_none())
    );
    assert_eq!(world.at_work(), ["root.b.second"]);
    world.restarts();
    world.succeeds("root.b.second", json!({"n": 1}), &[]);
    assert_eq!(
        world.at_work(),
        ["root.c"],
        "it comes after one that was done again"
    );
    world.succeeds("root.c", json!({"n": 1}), &[]);
    assert_eq!(world.state.run.state, RuntimeState::Succeeded);
    assert_eq!((world.attempts("root.a"), world.attempts("root.b.first")), (1, 1));
    assert_eq!(
        (world.attempts("root.b.second"), world.attempts("root.c")),
        (2, 2)
    );
}

#[test]
fn a_run_that_was_stopped_can_go_on() {
    let mut world = World::of(&chain(json!({})), json!({}));
    world.happens(Event::TerminationRequested);
    world.fails("root.a");
    assert_eq!(world.state.run.state, RuntimeState::Canceled);
    world.retry();
    assert_eq!(world.at_work(), ["root.a"]);
    assert!(!world.state.run.termination_requested);
    for path in ["root.a", "root.b", "root.c"] {
        world.succeeds(path, json!({"n": 1}), &[]);
    }
    assert_eq!(world.state.run.state, RuntimeState::Succeeded);
}

#[test]
fn iterations_that_failed_are_done_again_and_the_others_are_not() {
    let mut document = chain(json!({"componentRef": {"name": "inner"}}));
    document["root"]["dag"]["tasks"]["b"] = json!({
        "componentRef": {"name": "inner"},
        "parameterIterator": {"itemInput": "n", "items": {"raw": "[1, 2, 3]"}},
        "iteratorPolicy": {"parallelismLimit": 1}
    });
    let mut world = World::of(&document, json!({}));
    world.succeeds("root.a", json!({"n": 1}), &[]);
    for index in 0..3 {
        world.succeeds(&format!("root.b.{index}.first"), json!({"n": index}), &[]);
        let second = format!("root.b.{index}.second");
        if index == 1 {
            world.succeeds(&second, json!({"n": 1}), &[]);
        } else {
            world.fails(&second);
        }
    }
    world.succeeds("root.c", json!({"n": 1}), &[]);
    world.retry();
    assert_eq!(world.at_work(), ["root.b.0.second"]);
    world.succeeds("root.b.0.second", json!({"n": 0}), &[]);
    assert_eq!(world.at_work(), ["root.b.2.second"]);
    world.succeeds("root.b.2.second", json!({"n": 0}), &[]);
    world.succeeds("root.c", json!({"n": 1}), &[]);
    assert_eq!(world.state.run.state, RuntimeState::Succeeded);
    assert_eq!(world.attempts("root.b.0.first"), 1);
}

#[test]
fn a_run_whose_time_is_up_ends_its_tasks_and_fails_with_the_limit() {
    let mut document = json!({"pipeline_spec": chain(json!({}))});
    document["platform_spec"] =
        json!({"platforms": {"kubernetes": {"pipelineConfig": {"activeDeadlineSeconds": 60}}}});
    let mut world = World::of(&document, json!({}));
    world.after(59);
    assert_eq!(world.at_work(), ["root.a"]);
    let plan = world.after(2);
    assert_eq!(plan.delete.len(), 1);
    world.fails("root.a");
    assert_eq!(world.state.run.state, RuntimeState::Failed);
    let error = world.state.run.error.clone().unwrap();
    assert!(error.message.contains("60 s"), "{}", error.message);
    world.retry();
    assert_eq!(world.at_work(), ["root.a"], "the time is counted anew");
}

#[test]
fn a_wait_is_as_long_when_somebody_sets_the_clock() {
    for seconds in [-86_400, -3600, 3600, 86_400] {
        let mut world = World::of(&chain(policy(1, "10s")), json!({}));
        world.succeeds("root.a", json!({"n": 1}), &[]);
        world.fails("root.b");
        world.after(4);
        world.clock_is_set(seconds, true);
        world.after(5);
        assert!(world.at_work().is_empty(), "too early: {seconds}");
        world.after(2);
        assert_eq!(world.at_work(), ["root.b"], "{seconds}");
    }
}

#[test]
fn a_wait_is_no_longer_than_it_was_to_be_when_the_clock_is_set_back_while_no_engine_runs() {
    let mut world = World::of(&chain(policy(1, "10s")), json!({}));
    world.succeeds("root.a", json!({"n": 1}), &[]);
    world.fails("root.b");
    world.after(4);
    world.clock_is_set(-3600, false);
    world.restarts();
    world.after(9);
    assert!(world.at_work().is_empty());
    world.after(2);
    assert_eq!(world.at_work(), ["root.b"]);
}

#[test]
fn the_time_of_a_run_is_as_long_when_somebody_sets_the_clock() {
    let mut document = json!({"pipeline_spec": chain(json!({}))});
    document["platform_spec"] =
        json!({"platforms": {"kubernetes": {"pipelineConfig": {"activeDeadlineSeconds": 60}}}});
    for seconds in [-3600, 3600] {
        let mut world = World::of(&document, json!({}));
        world.clock_is_set(seconds, true);
        world.after(59);
        assert_eq!(world.at_work(), ["root.a"], "{seconds}");
        assert_eq!(world.after(2).delete.len(), 1, "{seconds}");
        world.fails("root.a");
        world.retry();
        world.after(59);
        assert_eq!(world.at_work(), ["root.a"], "the time is counted anew: {seconds}");
        assert_eq!(world.after(2).delete.len(), 1, "{seconds}");
    }
}

fn cached() -> Value {
    chain(json!({"cachingOptions": {"enableCache": true}}))
}

/// What the cache holds after `world` has run.
fn known(world: &World) -> Known {
    let entry = world.done.commit.cache_entries.first().cloned().unwrap();
    Known {
        entry,
        artifacts: Vec::new(),
    }
}

#[test]
fn what_was_done_before_is_taken_over_without_a_pod() {
    let mut first = World::of(&cached(), json!({}));
    first.succeeds("root.a", json!({"n": 1}), &[]);
    let lookup = first.done.lookups[0].clone();
    first.happens(Event::LookedUp {
        task: lookup.task,
        found: None,
    });
    first.succeeds("root.b", json!({"n": 8}), &[]);

    let mut second = World::of(&cached(), json!({}));
    second.succeeds("root.a", json!({"n": 1}), &[]);
    assert_eq!(
        second.done.lookups.first(),
        Some(&lookup),
        "the same work has the same key"
    );
    assert!(second.at_work().is_empty());
    let found = Some(Box::new(known(&first)));
    second.happens(Event::LookedUp {
        task: lookup.task,
        found,
    });
    let task = second.task("root.b");
    assert_eq!(
        (task.state, task.cached_from.is_some()),
        (RuntimeState::Succeeded, true)
    );
    assert_eq!(task.outputs.parameters["n"], json!(8));
    assert_eq!(second.attempts("root.b"), 0);
}

#[test]
fn another_input_is_other_work_and_a_miss_runs_the_task() {
    let mut one = World::of(&cached(), json!({}));
    one.succeeds("root.a", json!({"n": 1}), &[]);
    let mut other = World::of(&cached(), json!({}));
    other.succeeds("root.a", json!({"n": 2}), &[]);
    let lookup = other.done.lookups[0].clone();
    assert_ne!(one.done.lookups[0].key, lookup.key);
    other.restarts();
    assert_eq!(other.done.lookups.len(), 2, "asked again after a restart");
    other.happens(Event::LookedUp {
        task: lookup.task,
        found: None,
    });
    assert_eq!(other.at_work(), ["root.b"]);
}
