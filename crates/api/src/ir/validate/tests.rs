//! What is refused, and in which words.

use serde_json::json;

use super::*;

/// A pipeline `a → b`, with inner pipeline `deep` to aim at.
fn pipeline() -> Value {
    json!({
        "pipelineInfo": {"name": "p"},
        "schemaVersion": "2.1.0",
        "root": {
            "inputDefinitions": {"parameters": {
                "rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.1},
                "count": {"parameterType": "NUMBER_INTEGER"},
                "mode": {"parameterType": "STRING", "defaultValue": "fast", "literals": ["fast", "slow"]}
            }},
            "dag": {"tasks": {
                "a": {
                    "componentRef": {"name": "comp-a"},
                    "inputs": {"parameters": {
                        "rate": {"componentInputParameter": "rate"},
                        "steps": {"runtimeValue": {"constant": 3}}
                    }}
                },
                "b": {
                    "componentRef": {"name": "comp-b"},
                    "dependentTasks": ["a"],
                    "inputs": {
                        "parameters": {"score": {"taskOutputParameter": {"producerTask": "a", "outputParameterKey": "score"}}},
                        "artifacts": {"model": {"taskOutputArtifact": {"producerTask": "a", "outputArtifactKey": "model"}}}
                    }
                }
            }}
        },
        "components": {
            "comp-a": {
                "executorLabel": "exec-a",
                "inputDefinitions": {"parameters": {
                    "rate": {"parameterType": "NUMBER_DOUBLE"},
                    "steps": {"parameterType": "NUMBER_INTEGER"}
                }},
                "outputDefinitions": {
                    "parameters": {"score": {"parameterType": "NUMBER_DOUBLE"}},
                    "artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}}
                }
            },
            "comp-b": {
                "executorLabel": "exec-b",
                "inputDefinitions": {
                    "parameters": {"score": {"parameterType": "NUMBER_DOUBLE"}},
                    "artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}}
                }
            }
        },
        "deploymentSpec": {"executors": {
            "exec-a": {"container": {"image": "alpine"}},
            "exec-b": {"container": {"image": "alpine"}}
        }}
    })
}

fn read(value: &Value) -> PipelineSpec {
    serde_json::from_value(value.clone()).expect("well-formed")
}

/// Puts `value` at `pointer` and expects the problem.
fn check_refused(pointer: &str, value: Value, expected: &str) {
    let mut document = pipeline();
    *document.pointer_mut(pointer).expect(pointer) = value;
    let problem = check(&read(&document)).expect_err(expected);
    assert_eq!(problem.to_string(), expected);
}

#[test]
fn a_sound_pipeline_passes() {
    assert_eq!(check(&read(&pipeline())), Ok(()));
}

#[test]
fn dangling_names_are_refused_at_their_place() {
    check_refused(
        "/root/dag/tasks/a/componentRef/name",
        json!("comp-x"),
        "`root.dag.tasks.a.componentRef.name`: there is no component `comp-x`; components are `comp-a`, `comp-b`",
    );
    check_refused(
        "/components/comp-a/executorLabel",
        json!("exec-x"),
        "`components.comp-a.executorLabel`: there is no executor `exec-x`; deploymentSpec.executors holds `exec-a`, `exec-b`",
    );
    check_refused(
        "/root/dag/tasks/b/dependentTasks",
        json!(["c"]),
        "`root.dag.tasks.b.dependentTasks`: there is no task `c` here; tasks are `a`, `b`",
    );
    check_refused(
        "/root/dag/tasks/b/inputs/parameters/score/taskOutputParameter/outputParameterKey",
        json!("loss"),
        "`root.dag.tasks.b.inputs.parameters.score.taskOutputParameter.outputParameterKey`: task `a` has no output parameter `loss`; it has `score`",
    );
    check_refused(
        "/root/dag/tasks/b/inputs/artifacts/model/taskOutputArtifact/producerTask",
        json!("z"),
        "`root.dag.tasks.b.inputs.artifacts.model.taskOutputArtifact.producerTask`: there is no task `z` here; tasks are `a`, `b`",
    );
    check_refused(
        "/root/dag/tasks/a/inputs/parameters/rate/componentInputParameter",
        json!("speed"),
        "`root.dag.tasks.a.inputs.parameters.rate.componentInputParameter`: the component around this task has no input parameter `speed`; it takes `rate`, `count`, `mode`",
    );
}

#[test]
fn a_constant_of_another_type_is_refused_at_its_place() {
    check_refused(
        "/root/dag/tasks/a/inputs/parameters/steps/runtimeValue/constant",
        json!("many"),
        r#"`root.dag.tasks.a.inputs.parameters.steps.runtimeValue.constant`: expected NUMBER_INTEGER, found the text "many""#,
    );
}

#[test]
fn an_executor_that_is_not_known_is_refused() {
    check_refused(
        "/deploymentSpec/executors/exec-a",
        json!({"teleport": {}}),
        "`deploymentSpec.executors.exec-a`: unknown executor: expected `container` or `importer`",
    );
    check_refused(
        "/deploymentSpec/executors/exec-a",
        json!({"customJob": {}}),
        "`deploymentSpec.executors.exec-a`: the executor `customJob` belongs to a cloud service and is not supported: expected `container` or `importer`",
    );
}

#[test]
fn a_missing_input_is_refused() {
    check_refused(
        "/root/dag/tasks/a/inputs/parameters",
        json!({"rate": {"componentInputParameter": "rate"}}),
        "`root.dag.tasks.a.inputs.parameters.steps`: missing: the component needs a value of type NUMBER_INTEGER",
    );
}

#[test]
fn tasks_that_wait_for_each_other_are_refused_with_the_cycle() {
    let mut document = pipeline();
    document["root"]["dag"]["tasks"]["a"]["dependentTasks"] = json!(["b"]);
    let problem = check(&read(&document)).expect_err("cycle");
    assert_eq!(
        problem.to_string(),
        "`root.dag.tasks.a.dependentTasks`: the tasks wait for each other: a → b → a"
    );
}

#[test]
fn a_component_that_holds_itself_is_refused() {
    let mut document = pipeline();
    document["components"]["comp-a"] = json!({
        "inputDefinitions": document["components"]["comp-a"]["inputDefinitions"],
        "outputDefinitions": document["components"]["comp-a"]["outputDefinitions"],
        "dag": {"tasks": {"again": {
            "componentRef": {"name": "comp-a"},
            "inputs": {"parameters": {
                "rate": {"componentInputParameter": "rate"},
                "steps": {"componentInputParameter": "steps"}
            }}
        }}}
    });
    let problem = check(&read(&document)).expect_err("holds itself");
    assert_eq!(
        problem.to_string(),
        "`components.comp-a`: the component holds itself, without end: comp-a → comp-a"
    );
}

#[test]
fn run_parameters_are_checked_against_what_the_pipeline_takes() {
    let spec = read(&pipeline());
    let check = |given: Value| {
        let given = given.as_object().expect("object").clone();
        check_parameters(&spec, &given).map_err(|problem| problem.to_string())
    };
    assert_eq!(check(json!({"count": 3})), Ok(()));
    assert_eq!(check(json!({"count": 3.0, "rate": 1, "mode": "slow"})), Ok(()));
    assert_eq!(
        check(json!({})),
        Err(
            "`runtime_config.parameters.count`: missing: the pipeline needs a value of type NUMBER_INTEGER"
                .into()
        )
    );
    assert_eq!(
        check(json!({"count": 3, "speed": 1})),
        Err("`runtime_config.parameters.speed`: the pipeline has no such parameter; it takes `rate`, `count`, `mode`".into())
    );
    assert_eq!(
        check(json!({"count": "three"})),
        Err(r#"`runtime_config.parameters.count`: expected NUMBER_INTEGER, found the text "three""#.into())
    );
    assert_eq!(
        check(json!({"count": 3, "mode": "medium"})),
        Err(
            r#"`runtime_config.parameters.mode`: "medium" is not allowed; allowed are "fast", "slow""#.into()
        )
    );
}
