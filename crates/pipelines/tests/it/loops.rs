//! Loops: what iterations get, how many run, what they leave behind.

use coracle_api::{reason::Reason, state::RuntimeState};
use coracle_pipelines::run::plan::Event;
use serde_json::{Value, json};

use crate::world::{World, component, pipeline};

fn parameter(name: &str, kind: &str) -> Value {
    json!({"parameters": {name: {"parameterType": kind}}})
}

fn output_of(task: &str, key: &str) -> Value {
    json!({"taskOutputParameter": {"producerTask": task, "outputParameterKey": key}})
}

/// `loop` over the run's `list`, doubling each item; `sum` takes what was collected.
fn doubling(more: Value) -> Value {
    let mut each = json!({
        "componentRef": {"name": "each"},
        "inputs": {"parameters": {"list": {"componentInputParameter": "list"}}},
        "parameterIterator": {"itemInput": "item", "items": {"inputParameter": "list"}}
    });
    each.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    pipeline(
        json!({
            "inputDefinitions": parameter("list", "LIST"),
            "dag": {"tasks": {
                "loop": each,
                "sum": {"componentRef": {"name": "sum"}, "inputs": {"parameters": {"all": output_of("loop", "out")}}}
            }}
        }),
        json!({
            "each": {
                "inputDefinitions": {"parameters": {
                    "item": {"parameterType": "NUMBER_INTEGER"}, "list": {"parameterType": "LIST"}
                }},
                "outputDefinitions": parameter("out", "LIST"),
                "dag": {
                    "tasks": {"double": {
                        "componentRef": {"name": "double"},
                        "inputs": {"parameters": {"n": {"componentInputParameter": "item"}}}
                    }},
                    "outputs": {"parameters": {"out": {"valueFromParameter":
                        {"producerSubtask": "double", "outputParameterKey": "twice"}}}}
                }
            },
            "double": component(parameter("n", "NUMBER_INTEGER"), parameter("twice", "NUMBER_INTEGER")),
            "sum": component(parameter("all", "LIST"), json!({}))
        }),
    )
}

fn given(world: &World, path: &str, name: &str) -> Value {
    world.launch(path).executor_input.inputs.parameter_values[name].clone()
}

#[test]
fn each_iteration_gets_its_item_and_outputs_are_collected_in_order() {
    let mut world = World::of(&doubling(json!({})), json!({"list": [5, 6, 7]}));
    assert_eq!(
        world.at_work(),
        ["root.loop.0.double", "root.loop.1.double", "root.loop.2.double"]
    );
    for (index, item) in [(2, 7), (0, 5), (1, 6)] {
        let path = format!("root.loop.{index}.double");
        assert_eq!(given(&world, &path, "n"), json!(item));
        world.succeeds(&path, json!({"twice": item * 2}), &[]);
    }
    assert_eq!(given(&world, "root.sum", "all"), json!([10, 12, 14]));
    assert_eq!(world.task("root.loop.1").iteration, Some(1));
    assert_eq!(
        Value::Object(world.task("root.loop.1").inputs.parameters.clone()),
        json!({"item": 6})
    );
    let ended = &world.state.nodes[&world.id("root.loop.1")].task;
    assert!(
        ended.inputs.parameters.is_empty(),
        "of a task that succeeded only the row has them"
    );
    world.succeeds("root.sum", json!({}), &[]);
    assert_eq!(world.state.run.state, RuntimeState::Succeeded);
}

#[test]
fn a_loop_over_nothing_succeeds_with_empty_lists() {
    let world = World::of(&doubling(json!({})), json!({"list": []}));
    assert_eq!(world.task("root.loop").state, RuntimeState::Succeeded);
    assert_eq!(given(&world, "root.sum", "all"), json!([]));
}

#[test]
fn no_more_iterations_are_at_work_than_the_limit_allows_also_after_a_restart() {
    let limit = json!({"iteratorPolicy": {"parallelismLimit": 2}});
    let mut world = World::of(&doubling(limit), json!({"list": [1, 2, 3, 4, 5]}));
    assert_eq!(world.at_work(), ["root.loop.0.double", "root.loop.1.double"]);
    world.succeeds("root.loop.1.double", json!({"twice": 4}), &[]);
    assert_eq!(world.at_work(), ["root.loop.0.double", "root.loop.2.double"]);
    world.restarts();
    assert_eq!(world.at_work(), ["root.loop.0.double", "root.loop.2.double"]);
    for index in [0, 2, 3, 4] {
        assert!(world.at_work().len() <= 2);
        world.succeeds(
            &format!("root.loop.{index}.double"),
            json!({"twice": (index + 1) * 2}),
            &[],
        );
    }
    assert_eq!(given(&world, "root.sum", "all"), json!([2, 4, 6, 8, 10]));
}

#[test]
fn one_iteration_that_fails_fails_the_loop_after_the_others_have_ended() {
    let mut world = World::of(&doubling(json!({})), json!({"list": [1, 2]}));
    world.fails("root.loop.0.double");
    assert_eq!(world.task("root.loop").state, RuntimeState::Running);
    world.succeeds("root.loop.1.double", json!({"twice": 4}), &[]);
    assert_eq!(world.task("root.loop").state, RuntimeState::Failed);
    assert_eq!(world.task("root.sum").state, RuntimeState::Skipped);
    assert_eq!(world.state.run.state, RuntimeState::Failed);
}

#[test]
fn what_is_no_list_fails_the_loop_and_says_what_it_is() {
    let mut document = doubling(json!({}));
    document["root"]["inputDefinitions"] = parameter("list", "STRING");
    document["components"]["each"]["inputDefinitions"]["parameters"]["list"]["parameterType"] =
        json!("STRING");
    let world = World::of(&document, json!({"list": "a, b"}));
    let error = world.task("root.loop").error.clone().unwrap();
    assert_eq!(error.reason, Reason::LoopItemsInvalid);
    let world = World::of(&document, json!({"list": "[1]"}));
    assert_eq!(world.at_work(), ["root.loop.0.double"]);
}

#[test]
fn a_run_that_is_asked_to_stop_begins_no_more_iterations() {
    let limit = json!({"iteratorPolicy": {"parallelismLimit": 1}});
    let mut world = World::of(&doubling(limit), json!({"list": [1, 2, 3]}));
    world.happens(Event::TerminationRequested);
    world.succeeds("root.loop.0.double", json!({"twice": 2}), &[]);
    assert!(world.at_work().is_empty());
    assert_eq!(world.task("root.loop").state, RuntimeState::Canceled);
    assert_eq!(world.state.run.state, RuntimeState::Canceled);
}

#[test]
fn nested_loops_collect_lists_of_lists() {
    let mut document = doubling(json!({}));
    // `outer` goes over lists; `loop` of each goes over the numbers.
    let inner = document["root"]["dag"]["tasks"]["loop"].clone();
    document["components"]["outer"] = json!({
        "inputDefinitions": parameter("list", "LIST"),
        "outputDefinitions": parameter("out", "LIST"),
        "dag": {
            "tasks": {"loop": inner},
            "outputs": {"parameters": {"out": {"valueFromParameter":
                {"producerSubtask": "loop", "outputParameterKey": "out"}}}}
        }
    });
    document["root"]["dag"]["tasks"]["loop"] = json!({
        "componentRef": {"name": "outer"},
        "parameterIterator": {"itemInput": "list", "items": {"raw": "[[1, 2], [3]]"}}
    });
    let mut world = World::of(&document, json!({"list": []}));
    for (path, n) in [("1.loop.0", 3), ("0.loop.1", 2), ("0.loop.0", 1)] {
        let path = format!("root.loop.{path}.double");
        assert_eq!(given(&world, &path, "n"), json!(n));
        world.succeeds(&path, json!({"twice": n * 2}), &[]);
    }
    assert_eq!(given(&world, "root.sum", "all"), json!([[2, 4], [6]]));
}

#[test]
fn a_loop_over_artifacts_hands_out_one_each_and_collects_what_was_made() {
    let list = json!({"artifacts": {"all": {"artifactType": {"schemaTitle": "system.Dataset"}, "isArtifactList": true}}});
    let one = |name: &str| json!({"artifacts": {name: {"artifactType": {"schemaTitle": "system.Dataset"}}}});
    let from = |task: &str, key: &str| json!({"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": key}});
    let document = pipeline(
        json!({"dag": {"tasks": {
            "make": {"componentRef": {"name": "make"}},
            "loop": {
                "componentRef": {"name": "each"},
                "inputs": {"artifacts": {"all": from("make", "all")}},
                "artifactIterator": {"itemInput": "item", "items": {"inputArtifact": "all"}}
            },
            "join": {"componentRef": {"name": "join"}, "inputs": {"artifacts": {"all": from("loop", "out")}}}
        }}}),
        json!({
            "make": component(json!({}), list.clone()),
            "join": component(list.clone(), json!({})),
            "clean": component(one("data"), one("out")),
            "each": {
                "inputDefinitions": {"artifacts": {"all": list["artifacts"]["all"], "item": one("x")["artifacts"]["x"]}},
                "outputDefinitions": {"artifacts": {"out": list["artifacts"]["all"]}},
                "dag": {
                    "tasks": {"clean": {
                        "componentRef": {"name": "clean"},
                        "inputs": {"artifacts": {"data": {"componentInputArtifact": "item"}}}
                    }},
                    "outputs": {"artifacts": {"out": {"artifactSelectors":
                        [{"producerSubtask": "clean", "outputArtifactKey": "out"}]}}}
                }
            }
        }),
    );
    let mut world = World::of(&document, json!({}));
    world.makes_list("root.make", "all", 3);
    let made = world.task("root.make").outputs.artifacts["all"].clone();
    for index in [1, 2, 0] {
        let path = format!("root.loop.{index}.clean");
        let given = world.launch(&path).executor_input.inputs.artifacts["data"].clone();
        assert_eq!(given.artifacts.len(), 1);
        assert_eq!(given.artifacts[0].name, made[index].to_string());
        world.succeeds(&path, json!({}), &["out"]);
    }
    let joined = &world.launch("root.join").executor_input.inputs.artifacts["all"].artifacts;
    let cleaned: Vec<_> = (0..3)
        .map(|index| world.task(&format!("root.loop.{index}.clean")).outputs.artifacts["out"][0].to_string())
        .collect();
    assert_eq!(
        joined
            .iter()
            .map(|artifact| artifact.name.clone())
            .collect::<Vec<_>>(),
        cleaned
    );
}

#[test]
fn ten_thousand_iterations_pass_with_a_bounded_number_at_work() {
    let items: Vec<u32> = (0..10_000).collect();
    let mut world = World::of(&doubling(json!({})), json!({"list": items}));
    let mut most = 0;
    for index in 0..10_000 {
        if index % 500 == 0 {
            most = most.max(world.at_work().len());
        }
        world.succeeds(
            &format!("root.loop.{index}.double"),
            json!({"twice": index * 2}),
            &[],
        );
        world.done = Default::default();
    }
    assert!(most > 100 && most < 1000, "{most} at once");
    let all = given(&world, "root.sum", "all");
    assert_eq!(all.as_array().unwrap().len(), 10_000);
    assert_eq!(all[9_999], json!(19_998));
}
