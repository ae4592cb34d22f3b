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

/// Changes the pipeline's task `a` and expects the problem at that task.
fn check_task_refused(changes: Value, expected: &str) {
    let mut document = pipeline();
    for (name, value) in changes.as_object().expect("object") {
        document["root"]["dag"]["tasks"]["a"][name] = value.clone();
    }
    let problem = check(&read(&document)).expect_err(expected);
    assert_eq!(problem.to_string(), format!("`root.dag.tasks.a.{expected}"));
}

#[test]
fn a_loop_that_cannot_be_gone_through_is_refused_at_its_place() {
    let over = |items: Value| json!({"parameterIterator": {"itemInput": "steps", "items": items}});
    let mut document = pipeline();
    // What a loop makes is a list, and `b` takes a number.
    document["root"]["dag"]["tasks"]["a"]["parameterIterator"] =
        json!({"itemInput": "steps", "items": {"raw": "[1, 2]"}});
    assert_eq!(
        check(&read(&document)).expect_err("types").to_string(),
        "`root.dag.tasks.b.inputs.parameters.score`: expected NUMBER_DOUBLE, and the value passed here is of type LIST"
    );
    document["root"]["dag"]["tasks"]["b"]["inputs"]["parameters"] =
        json!({"score": {"runtimeValue": {"constant": 1}}});
    assert_eq!(
        check(&read(&document)).expect_err("one artifact").to_string(),
        "`root.dag.tasks.b.inputs.artifacts.model`: `a` is a loop and makes a list of artifacts, and this input takes one"
    );
    document["components"]["comp-b"]["inputDefinitions"]["artifacts"]["model"]["isArtifactList"] =
        json!(true);
    assert_eq!(check(&read(&document)), Ok(()));

    check_task_refused(
        json!({"parameterIterator": {"itemInput": "item", "items": {"raw": "[]"}}}),
        "parameterIterator.itemInput`: component `comp-a` has no input parameter `item` for the element; it takes `rate`, `steps`",
    );
    check_task_refused(
        over(json!({})),
        "parameterIterator.items`: expected one of `raw` and `inputParameter`",
    );
    check_task_refused(
        over(json!({"raw": "[]", "inputParameter": "rate"})),
        "parameterIterator.items`: expected one of `raw` and `inputParameter`",
    );
    check_task_refused(
        over(json!({"raw": "{}"})),
        "parameterIterator.items.raw`: expected a JSON list, found other JSON",
    );
    check_task_refused(
        over(json!({"raw": "[1, \"two\"]"})),
        r#"parameterIterator.items.raw[1]`: expected NUMBER_INTEGER, found the text "two""#,
    );
    check_task_refused(
        over(json!({"inputParameter": "list"})),
        "parameterIterator.items.inputParameter`: the task has no input parameter `list` to go over; it has `rate`, `steps`",
    );
    check_task_refused(
        over(json!({"inputParameter": "steps"})),
        "parameterIterator.items.inputParameter`: the loop's input `steps` is of a type that holds no list: expected LIST, or STRING holding JSON",
    );
    check_task_refused(
        json!({"artifactIterator": {"itemInput": "model", "items": {"inputArtifact": "models"}}}),
        "artifactIterator.itemInput`: component `comp-a` has no input artifact `model` for the element; it takes none",
    );
}

#[test]
fn retries_that_make_no_sense_are_refused_at_their_place() {
    let policy = |field: &str, value: Value| json!({"retryPolicy": {"maxRetryCount": 2, field: value}});
    check_task_refused(
        policy("backoffDuration", json!("soon")),
        "retryPolicy.backoffDuration`: expected seconds such as `30s` or `1.5s`, found `soon`",
    );
    check_task_refused(
        policy("backoffMaxDuration", json!("-1s")),
        "retryPolicy.backoffMaxDuration`: expected seconds such as `30s` or `1.5s`, found `-1s`",
    );
    check_task_refused(
        policy("backoffFactor", json!(0.5)),
        "retryPolicy.backoffFactor`: expected 1 or more, found 0.5",
    );
}

#[test]
fn executors_are_checked_against_what_they_need() {
    let executor = "/deploymentSpec/executors/exec-a";
    check_refused(
        executor,
        json!({"container": {"image": "x", "env": [{"name": ""}]}}),
        "`deploymentSpec.executors.exec-a.container.env[0].name`: `` cannot be the name of a variable",
    );
    let mut document = pipeline();
    document["deploymentSpec"]["executors"]["exec-a"] =
        json!({"container": {"image": "x", "resources": {"resourceMemoryLimit": "much"}}});
    let problem = check(&read(&document)).expect_err("no quantity");
    assert_eq!(
        problem.path,
        "deploymentSpec.executors.exec-a.container.resources.resourceMemoryLimit"
    );
    check_refused(
        executor,
        json!({"importer": {"artifactUri": {"constant": 7}}}),
        "`deploymentSpec.executors.exec-a.importer.artifactUri.constant`: expected text with a URI, found 7",
    );
    check_refused(
        executor,
        json!({"importer": {"artifactUri": {"runtimeParameter": "uri"}}}),
        "`deploymentSpec.executors.exec-a.importer.artifactUri.runtimeParameter`: the importer's component has no input parameter `uri`; it takes `rate`, `steps`",
    );
}

#[test]
fn outputs_of_a_dag_are_of_the_type_it_declares() {
    let outputs = |parameter: Value, artifact: Value| {
        let mut document = pipeline();
        document["root"]["outputDefinitions"] = json!({
            "parameters": {"done": {"parameterType": "BOOLEAN"}, "text": {"parameterType": "STRING"}},
            "artifacts": {"model": {}},
        });
        document["root"]["dag"]["outputs"] = json!({"parameters": parameter, "artifacts": artifact});
        check(&read(&document)).map_err(|problem| problem.to_string())
    };
    let score = json!({"valueFromParameter": {"producerSubtask": "a", "outputParameterKey": "score"}});
    let model = json!({"artifactSelectors": [{"producerSubtask": "a", "outputArtifactKey": "model"}]});
    assert_eq!(outputs(json!({"text": score}), json!({"model": model})), Ok(()));
    assert_eq!(
        outputs(json!({"done": score}), json!({})),
        Err("`root.dag.outputs.parameters.done`: expected BOOLEAN, and output `score` of task `a` is of type NUMBER_DOUBLE".to_owned())
    );
    assert_eq!(
        outputs(json!({}), json!({"model": {}})),
        Err("`root.dag.outputs.artifacts.model`: expected one of `artifactSelectors` or more".to_owned())
    );
    assert_eq!(
        outputs(json!({}), json!({"other": model})),
        Err("`root.dag.outputs.artifacts.other`: the component declares no such output artifact".to_owned())
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

#[test]
fn expressions_that_cannot_be_read_are_refused_at_their_place() {
    let mut document = pipeline();
    document["root"]["dag"]["tasks"]["b"]["triggerPolicy"] = json!({"condition": "1 +"});
    let problem = check(&read(&document)).expect_err("refused");
    assert_eq!(problem.path, "root.dag.tasks.b.triggerPolicy.condition");
    let mut document = pipeline();
    document["root"]["dag"]["tasks"]["b"]["inputs"]["parameters"]["score"]["parameterExpressionSelector"] =
        json!("](");
    let problem = check(&read(&document)).expect_err("refused");
    assert_eq!(
        problem.path,
        "root.dag.tasks.b.inputs.parameters.score.parameterExpressionSelector"
    );
}
