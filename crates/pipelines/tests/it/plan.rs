//! What the planner decides.

use coracle_api::{launch::Failure, reason::Reason, state::RuntimeState};
use coracle_pipelines::run::{
    observe::{PodEnd, PodView},
    plan::{Event, MOST_ATTEMPTS},
};
use coracle_store::records::IoType;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{World, component, pipeline};

fn number(name: &str) -> Value {
    json!({"parameters": {name: {"parameterType": "NUMBER_INTEGER"}}})
}

fn from_task(task: &str) -> Value {
    json!({"taskOutputParameter": {"producerTask": task, "outputParameterKey": "n"}})
}

/// `a → b`, and `c` beside them.
fn fork() -> Value {
    pipeline(
        json!({"dag": {"tasks": {
            "a": {"componentRef": {"name": "make"}},
            "b": {"componentRef": {"name": "take"}, "inputs": {"parameters": {"n": from_task("a")}}},
            "c": {"componentRef": {"name": "make"}}
        }}}),
        json!({"make": component(json!({}), number("n")), "take": component(number("n"), json!({}))}),
    )
}

/// `flip`, then `yes` if it gives 1, then `after` that takes from `yes`.
fn conditional() -> Value {
    pipeline(
        json!({"dag": {"tasks": {
            "flip": {"componentRef": {"name": "make"}},
            "branch": {
                "componentRef": {"name": "inner"},
                "dependentTasks": ["flip"],
                "inputs": {"parameters": {"n": from_task("flip")}},
                "triggerPolicy": {"condition": "int(inputs.parameter_values['n']) == 1"}
            },
            "after": {"componentRef": {"name": "take"}, "inputs": {"parameters": {"n": from_task("branch")}}}
        }}}),
        json!({
            "make": component(json!({}), number("n")),
            "take": component(number("n"), json!({})),
            "inner": {
                "inputDefinitions": number("n"),
                "outputDefinitions": number("n"),
                "dag": {
                    "tasks": {"yes": {"componentRef": {"name": "make"}}},
                    "outputs": {"parameters": {"n": {"valueFromParameter": {"producerSubtask": "yes", "outputParameterKey": "n"}}}}
                }
            }
        }),
    )
}

#[test]
fn what_a_plan_has_no_room_for_begins_with_the_next_ones() {
    let tasks: serde_json::Map<String, Value> = (0..600)
        .map(|number| (format!("t{number}"), json!({"componentRef": {"name": "comp"}})))
        .collect();
    let root = json!({"dag": {"tasks": tasks}});
    let pipeline = pipeline(root, json!({"comp": component(json!({}), json!({}))}));
    let mut world = World::of(&pipeline, json!({}));
    assert_eq!(world.at_work().len(), MOST_ATTEMPTS);
    // After a restart the rows tell which have yet to begin, and the others are created again.
    let plan = world.restarts();
    assert_eq!(plan.create.len(), MOST_ATTEMPTS);
    for left in [88, 0] {
        world.happens(Event::Room);
        assert_eq!(world.at_work().len(), 600 - left);
        assert_eq!(world.state.postponed.len(), left);
    }
    for number in 0..600 {
        world.succeeds(&format!("root.t{number}"), json!({}), &[]);
    }
    assert_eq!(world.state.run.state, RuntimeState::Succeeded);
    let mut attempts = world
        .done
        .commit
        .specs
        .iter()
        .map(|spec| (spec.task_id, spec.number));
    assert!(attempts.all(|(_, number)| number == 1));
    assert_eq!(world.done.commit.specs.len(), 600);
}

#[test]
fn what_waits_for_nothing_starts_at_once_and_the_rest_when_its_upstream_succeeded() {
    let mut world = World::of(&fork(), json!({}));
    assert_eq!(world.at_work(), ["root.a", "root.c"]);
    assert_eq!(world.state.run.state, RuntimeState::Running);
    world.succeeds("root.a", json!({"n": 7}), &[]);
    assert_eq!(world.at_work(), ["root.b", "root.c"]);
    assert_eq!(
        world.launch("root.b").executor_input.inputs.parameter_values["n"],
        json!(7)
    );
    world.succeeds("root.b", json!({}), &[]);
    world.succeeds("root.c", json!({"n": 1}), &[]);
    assert_eq!(world.state.run.state, RuntimeState::Succeeded);
    assert_eq!(
        world.states(),
        [
            "root.a=SUCCEEDED",
            "root.b=SUCCEEDED",
            "root.c=SUCCEEDED",
            "root=SUCCEEDED"
        ]
    );
}

#[test]
fn a_failure_stops_what_depends_on_it_and_nothing_else() {
    let mut world = World::of(&fork(), json!({}));
    world.fails("root.a");
    assert_eq!(world.at_work(), ["root.c"]);
    world.succeeds("root.c", json!({"n": 1}), &[]);
    assert_eq!(
        world.states(),
        [
            "root.a=FAILED (CommandFailed)",
            "root.b=SKIPPED (UpstreamFailed)",
            "root.c=SUCCEEDED",
            "root=FAILED (CommandFailed)"
        ]
    );
    let error = world.state.run.error.clone().expect("the run says why");
    assert_eq!(error.message, "task `a`: exit code 1: boom");
}

#[test]
fn a_false_condition_skips_the_branch_and_what_consumes_it_and_the_run_succeeds() {
    let mut world = World::of(&conditional(), json!({}));
    world.succeeds("root.flip", json!({"n": 0}), &[]);
    assert_eq!(
        world.states(),
        [
            "root.after=SKIPPED",
            "root.branch=SKIPPED",
            "root.flip=SUCCEEDED",
            "root=SUCCEEDED"
        ]
    );
}

#[test]
fn a_true_condition_runs_the_branch_and_hands_its_outputs_up() {
    let mut world = World::of(&conditional(), json!({}));
    world.succeeds("root.flip", json!({"n": 1}), &[]);
    assert_eq!(world.at_work(), ["root.branch.yes"]);
    world.succeeds("root.branch.yes", json!({"n": 5}), &[]);
    assert_eq!(world.task("root.branch").state, RuntimeState::Succeeded);
    assert_eq!(
        world.launch("root.after").executor_input.inputs.parameter_values["n"],
        json!(5)
    );
}

#[test]
fn a_condition_that_cannot_be_evaluated_fails_its_task_with_the_expression() {
    let mut document = conditional();
    document["root"]["dag"]["tasks"]["branch"]["triggerPolicy"]["condition"] =
        json!("inputs.parameter_values['x'] == 1");
    let mut world = World::of(&document, json!({}));
    world.succeeds("root.flip", json!({"n": 1}), &[]);
    let error = world.task("root.branch").error.clone().expect("an error");
    assert_eq!(error.reason, Reason::ConditionInvalid);
    assert!(
        error.message.contains("inputs.parameter_values['x'] == 1"),
        "{}",
        error.message
    );
    assert_eq!(world.state.run.state, RuntimeState::Failed);
}

#[test]
fn a_value_of_another_type_fails_the_consumer_and_names_the_input() {
    let mut world = World::of(&fork(), json!({}));
    world.succeeds("root.a", json!({"n": "seven"}), &[]);
    let error = world.task("root.b").error.clone().expect("an error");
    assert_eq!(error.reason, Reason::InputTypeMismatch);
    assert_eq!(
        error.message,
        r#"input `n`: expected NUMBER_INTEGER, found the text "seven""#
    );
}

#[test]
fn artifacts_travel_by_id_and_leave_a_trail() {
    let model = json!({"artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}}});
    let document = pipeline(
        json!({"dag": {"tasks": {
            "train": {"componentRef": {"name": "train"}},
            "test": {"componentRef": {"name": "test"}, "inputs": {"artifacts": {
                "model": {"taskOutputArtifact": {"producerTask": "train", "outputArtifactKey": "model"}}
            }}}
        }}}),
        json!({"train": component(json!({}), model.clone()), "test": component(model, json!({}))}),
    );
    let mut world = World::of(&document, json!({}));
    world.succeeds("root.train", json!({}), &["model"]);
    let given = &world.launch("root.test").executor_input.inputs.artifacts["model"].artifacts[0];
    let made = &world.task("root.train").outputs.artifacts["model"][0];
    assert_eq!(given.name, made.to_string());
    assert_eq!(given.artifact_type.schema_title, "system.Model");
    let trail: Vec<_> = world
        .done
        .commit
        .artifact_tasks
        .iter()
        .filter(|link| link.artifact_id == *made)
        .map(|link| (link.io, link.producer_task.as_str()))
        .collect();
    assert_eq!(trail, [(IoType::Output, ""), (IoType::TaskOutputInput, "train")]);
}

#[test]
fn an_importer_asks_for_its_artifact_and_ends_with_it() {
    let document = pipeline(
        json!({
            "inputDefinitions": {"parameters": {"where": {"parameterType": "STRING"}}},
            "dag": {"tasks": {"load": {
                "componentRef": {"name": "load"},
                "inputs": {"parameters": {"uri": {"componentInputParameter": "where"}}}
            }}}
        }),
        json!({"load": {
            "executorLabel": "import",
            "inputDefinitions": {"parameters": {"uri": {"parameterType": "STRING"}}},
            "outputDefinitions": {"artifacts": {"artifact": {"artifactType": {"schemaTitle": "system.Dataset"}}}}
        }}),
    );
    let mut world = World::of(&document, json!({"where": "/data/x.csv"}));
    let import = world.done.imports[0].clone();
    assert_eq!(import.artifact.uri, "/data/x.csv");
    assert_eq!(
        Value::Object(import.artifact.metadata.clone()),
        json!({"from": "/data/x.csv"})
    );
    world.happens(Event::Imported {
        task: import.task,
        artifact: Box::new(import.artifact),
    });
    assert_eq!(world.state.run.state, RuntimeState::Succeeded);
}

#[test]
fn a_result_counts_before_the_pod_has_ended_and_a_late_pod_changes_nothing() {
    let mut world = World::of(&fork(), json!({}));
    world.pod("root.a", PodView::Running(Some(Timestamp::UNIX_EPOCH)));
    assert_eq!(world.task("root.a").state, RuntimeState::Running);
    world.succeeds("root.a", json!({"n": 1}), &[]);
    let plan = world.pod("root.a", PodView::Ended(PodEnd::gone()));
    assert_eq!(plan, Default::default());
    assert_eq!(world.task("root.a").state, RuntimeState::Succeeded);
}

#[test]
fn a_failure_waits_for_the_pod_which_may_know_that_memory_ran_out() {
    let mut world = World::of(&fork(), json!({}));
    let killed = Failure {
        reason: Reason::KilledBySignal,
        message: "SIGKILL".into(),
    };
    let report = coracle_api::launch::Report {
        parameters: Default::default(),
        artifacts: Default::default(),
        failure: Some(killed),
        exit_code: None,
    };
    world.reports("root.a", report);
    assert_eq!(world.task("root.a").state, RuntimeState::Pending);
    let oom = Failure {
        reason: Reason::OOMKilled,
        message: "used more than 64Mi".into(),
    };
    world.pod(
        "root.a",
        PodView::Ended(PodEnd {
            failure: Some(oom.clone()),
            exit_code: Some(137),
        }),
    );
    assert_eq!(world.task("root.a").error, Some(oom));
}

#[test]
fn a_pod_without_a_result_fails_its_task() {
    let mut world = World::of(&fork(), json!({}));
    world.pod(
        "root.a",
        PodView::Ended(PodEnd {
            failure: None,
            exit_code: Some(0),
        }),
    );
    assert_eq!(
        world.task("root.a").error.as_ref().map(|failure| failure.reason),
        Some(Reason::ResultMissing)
    );
    world.pod("root.c", PodView::Ended(PodEnd::gone()));
    assert_eq!(
        world.task("root.c").error.as_ref().map(|failure| failure.reason),
        Some(Reason::PodDeleted)
    );
}

#[test]
fn a_pod_that_can_never_run_fails_its_task_at_once_and_one_that_waits_says_so_once() {
    let mut world = World::of(&fork(), json!({}));
    let waits = Failure {
        reason: Reason::InsufficientResources,
        message: "needs 2 cpu; 1 of 2 free".into(),
    };
    world.pod("root.a", PodView::Waiting(waits.clone()));
    world.pod("root.a", PodView::Waiting(waits));
    assert_eq!(world.done.commit.events.len(), 1);
    let never = Failure {
        reason: Reason::RequestExceedsNode,
        message: "needs 1 nvidia.com/gpu; this machine has 0".into(),
    };
    let plan = world.pod("root.a", PodView::Stuck(never.clone()));
    assert_eq!(plan.delete, [(world.id("root.a"), 1)]);
    assert_eq!(world.task("root.a").error, Some(never));
}

#[test]
fn a_run_that_is_asked_to_stop_ends_its_pods_first_and_starts_nothing_more() {
    let mut world = World::of(&fork(), json!({}));
    let plan = world.happens(Event::TerminationRequested);
    assert_eq!(world.state.run.state, RuntimeState::Canceling);
    assert_eq!(plan.delete.len(), 2);
    assert_eq!(world.task("root.b").state, RuntimeState::Canceled);
    world.pod("root.a", PodView::Ended(PodEnd::gone()));
    world.fails("root.c");
    assert_eq!(
        world.states(),
        [
            "root.a=CANCELED (RunTerminated)",
            "root.b=CANCELED (RunTerminated)",
            "root.c=CANCELED (RunTerminated)",
            "root=CANCELED (RunTerminated)"
        ]
    );
    assert_eq!(world.state.run.state, RuntimeState::Canceled);
}

#[test]
fn the_log_is_kept_however_an_attempt_that_started_ended() {
    let mut world = World::of(&fork(), json!({}));
    world.pod("root.a", PodView::Running(None));
    world.happens(Event::TerminationRequested);
    world.pod("root.a", PodView::Ended(PodEnd::gone()));
    world.fails("root.c");
    let logs: Vec<_> = world
        .done
        .commit
        .artifacts
        .iter()
        .filter(|artifact| artifact.name == "executor-logs")
        .collect();
    assert_eq!(logs.len(), 2);
    assert!(logs.iter().all(|log| log.uri.contains("executor-logs")));
}

#[test]
fn after_a_restart_pods_that_may_not_exist_are_asked_for_again_and_the_run_goes_on() {
    let mut world = World::of(&fork(), json!({}));
    world.succeeds("root.a", json!({"n": 7}), &[]);
    world.pod("root.c", PodView::Running(None));
    let plan = world.restarts();
    assert_eq!(plan.create, [(world.id("root.b"), 1)]);
    world.succeeds("root.c", json!({"n": 1}), &[]);
    world.succeeds("root.b", json!({}), &[]);
    assert_eq!(world.state.run.state, RuntimeState::Succeeded);
}

#[test]
fn after_a_restart_nothing_is_created_for_a_run_that_is_being_stopped() {
    let mut world = World::of(&fork(), json!({}));
    world.succeeds("root.a", json!({"n": 7}), &[]);
    world.happens(Event::TerminationRequested);
    let plan = world.restarts();
    assert_eq!(plan.create, []);
    let mut deleted = plan.delete;
    deleted.sort_unstable();
    let mut expected = vec![(world.id("root.b"), 1), (world.id("root.c"), 1)];
    expected.sort_unstable();
    assert_eq!(deleted, expected);
}

#[test]
fn a_pod_that_a_list_lacks_is_looked_for_by_name_before_it_is_given_up() {
    let mut world = World::of(&fork(), json!({}));
    let (task, number) = (world.id("root.a"), 1);
    let plan = world.happens(Event::Missing { task, number });
    assert_eq!((plan.look, plan.create), (vec![(task, number)], vec![]));
    assert!(world.at_work().contains(&"root.a"));
    world.pod("root.a", PodView::Ended(PodEnd::gone()));
    assert_eq!(world.task("root.a").state, RuntimeState::Failed);
}

proptest! {
    /// Whatever order launchers and Pods speak in, whatever is said twice, whenever the server
    /// restarts: the run ends, every task ends once, and a success is never taken back.
    #[test]
    fn any_order_of_events_ends_the_run(script in prop::collection::vec((0_usize..6, 0_usize..5), 0..60)) {
        let paths = ["root.flip", "root.branch.yes", "root.after"];
        let mut world = World::of(&conditional(), json!({}));
        let mut ended: std::collections::BTreeMap<String, RuntimeState> = Default::default();
        for (what, which) in script {
            let path = paths[which % paths.len()];
            if world.at_work().contains(&path) {
                match what {
                    0 => { world.pod(path, PodView::Pending); }
                    1 => { world.pod(path, PodView::Running(None)); }
                    2 => { world.succeeds(path, json!({"n": 1}), &[]); }
                    3 => { world.fails(path); }
                    4 => { world.pod(path, PodView::Ended(PodEnd::gone())); }
                    _ => { world.restarts(); }
                }
            } else if what == 5 && which == 4 {
                world.happens(Event::TerminationRequested);
            }
            for (path, state) in &ended {
                prop_assert_eq!(world.task(path).state, *state);
            }
            for node in world.state.nodes.values().filter(|node| node.task.state.is_terminal()) {
                ended.insert(node.task.path.clone(), node.task.state);
            }
        }
        for _ in 0..paths.len() {
            for path in world.at_work().into_iter().map(str::to_owned).collect::<Vec<_>>() {
                world.succeeds(&path, json!({"n": 1}), &[]);
            }
        }
        prop_assert!(world.state.run.state.is_terminal());
        prop_assert!(world.state.nodes.values().all(|node| node.task.state.is_terminal()));
    }
}
