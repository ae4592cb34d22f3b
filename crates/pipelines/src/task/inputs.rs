//! What a task is given: each input followed to its source and made the declared type.
//!
//! The rules are those of KFP's driver (`backend/src/v2/driver/resolve.go`): an optional input
//! whose source has no value is left out; the default of a container's optional input is applied
//! at launch, that of a nested pipeline here.

use std::collections::BTreeMap;

use coracle_api::{
    id::ArtifactId,
    ir::{ComponentSpec, ParameterSource, TaskSpec, placeholder, validate},
    launch::Failure,
    reason::Reason,
    state::RuntimeState,
};
use coracle_store::records::TaskIo;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::condition;

/// What a task can see while its inputs are followed.
pub trait Surroundings {
    /// The inputs of the DAG around the task.
    fn component_inputs(&self) -> &TaskIo;
    /// The outputs of another task of the same DAG; none when it did not succeed.
    fn outputs_of(&self, task: &str) -> Option<&TaskIo>;
    /// How another task of the same DAG ended: its state and, if it failed, why.
    fn final_status_of(&self, task: &str) -> Option<FinalStatus>;
    /// What the placeholders about the run stand for, by bare name, e.g. `pipeline_job_uuid`.
    fn context(&self) -> &BTreeMap<String, String>;
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub struct FinalStatus {
    /// Its last state.
    pub state: RuntimeState,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The name of the run, as `PipelineTaskFinalStatus.pipeline_job_resource_name` has it.
    pub job_resource_name: String,
}

/// Follows every input of `task` to its value.
///
/// # Errors
/// `InputMissing`, `InputTypeMismatch`, `PlaceholderUnresolved` or `ConditionInvalid`, naming the
/// input.
pub fn resolve(
    task: &TaskSpec,
    component: &ComponentSpec,
    around: &impl Surroundings,
) -> Result<TaskIo, Failure> {
    let mut found = IndexMap::new();
    let mut constants = Vec::new();
    for (name, source) in &task.inputs.parameters {
        if let Some(value) = source.runtime_value.as_ref() {
            // Constants may quote the other inputs, so they come last.
            constants.push((name, source, value.constant.clone().unwrap_or(Value::Null)));
        } else if let Some(value) = follow(source, around) {
            let value =
                selected(source, value).map_err(|error| fail(Reason::ConditionInvalid, name, &error))?;
            found.insert(name.clone(), value);
        }
    }
    for (name, source, constant) in constants {
        let value = match placeholder::references(&constant, &found) {
            Value::String(text) => Value::String(placeholder::constant(&text, around.context())),
            other => other,
        };
        let value = selected(source, value).map_err(|error| fail(Reason::ConditionInvalid, name, &error))?;
        found.insert(name.clone(), value);
    }
    let parameters = typed(component, found)?;
    let artifacts = task
        .inputs
        .artifacts
        .iter()
        .filter_map(|(name, source)| {
            let ids: Vec<ArtifactId> = if let Some(output) = &source.task_output_artifact {
                around
                    .outputs_of(&output.producer_task)?
                    .artifacts
                    .get(&output.output_artifact_key)?
                    .clone()
            } else {
                around
                    .component_inputs()
                    .artifacts
                    .get(source.component_input_artifact.as_ref()?)?
                    .clone()
            };
            Some((name.clone(), ids))
        })
        .collect();
    let io = TaskIo {
        parameters,
        artifacts,
    };
    for (name, declared) in &component.input_definitions.artifacts {
        if !declared.is_optional && !io.artifacts.contains_key(name) {
            let why = "no task made this artifact";
            return Err(fail(Reason::InputMissing, name, &why));
        }
    }
    Ok(io)
}

/// The inputs of a run's outermost DAG: what the caller gave, and defaults.
///
/// # Errors
/// As [`resolve`]; a run that was checked when it was made has none.
pub fn of_root(component: &ComponentSpec, given: &Map<String, Value>) -> Result<TaskIo, Failure> {
    let given = given
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Ok(TaskIo {
        parameters: typed(component, given)?,
        artifacts: BTreeMap::new(),
    })
}

/// Declared types and defaults, over the values found.
fn typed(
    component: &ComponentSpec,
    mut found: IndexMap<String, Value>,
) -> Result<Map<String, Value>, Failure> {
    let mut parameters = Map::new();
    for (name, declared) in &component.input_definitions.parameters {
        // A null says "no value" to whatever can do without one.
        let can_be_absent = declared.is_optional || declared.default_value.is_some();
        let value = found
            .swap_remove(name)
            .filter(|value| !(value.is_null() && can_be_absent));
        let default_applies_here = component.dag.is_some() || !declared.is_optional;
        let default = || declared.default_value.clone().filter(|_| default_applies_here);
        match value.or_else(default) {
            Some(Value::Null) if declared.is_optional => {}
            Some(value) => {
                let value = declared
                    .parameter_type
                    .coerce(value)
                    .map_err(|error| fail(Reason::InputTypeMismatch, name, &error))?;
                validate::check_literals(declared, &value)
                    .map_err(|error| fail(Reason::InputTypeMismatch, name, &error))?;
                parameters.insert(name.clone(), value);
            }
            None if can_be_absent => {}
            None => {
                return Err(fail(
                    Reason::InputMissing,
                    name,
                    &"its source has no value, and it has no default",
                ));
            }
        }
    }
    // Undeclared values are for the image and the resources, which may quote them.
    parameters.extend(found);
    Ok(parameters)
}

fn follow(source: &ParameterSource, around: &impl Surroundings) -> Option<Value> {
    if let Some(name) = &source.component_input_parameter {
        return around.component_inputs().parameters.get(name).cloned();
    }
    if let Some(output) = &source.task_output_parameter {
        return around
            .outputs_of(&output.producer_task)?
            .parameters
            .get(&output.output_parameter_key)
            .cloned();
    }
    let producer = &source.task_final_status.as_ref()?.producer_task;
    around
        .final_status_of(producer)
        .map(|status| final_status(&status, producer))
}

/// KFP's `PipelineTaskFinalStatus`. The state is MLMD's word, `COMPLETE`, as on a cluster.
fn final_status(status: &FinalStatus, task: &str) -> Value {
    let state = match status.state {
        RuntimeState::Succeeded => "COMPLETE".to_owned(),
        other => other.to_string(),
    };
    let error = status.failure.as_ref().map_or_else(
        || json!({}),
        |failure| json!({"code": 9, "message": format!("{}: {}", failure.reason, failure.message)}),
    );
    json!({
        "state": state,
        "pipelineJobResourceName": status.job_resource_name,
        "pipelineTaskName": task,
        "error": error,
    })
}

fn selected(source: &ParameterSource, value: Value) -> Result<Value, condition::Error> {
    match source.parameter_expression_selector.as_str() {
        "" => Ok(value),
        selector => condition::select(selector, &value),
    }
}

fn fail(reason: Reason, input: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure {
        reason,
        message: format!("input `{input}`: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Around {
        inputs: TaskIo,
        outputs: BTreeMap<&'static str, TaskIo>,
        context: BTreeMap<String, String>,
    }

    impl Surroundings for Around {
        fn component_inputs(&self) -> &TaskIo {
            &self.inputs
        }

        fn outputs_of(&self, task: &str) -> Option<&TaskIo> {
            self.outputs.get(task)
        }

        fn final_status_of(&self, task: &str) -> Option<FinalStatus> {
            (task == "broken").then(|| FinalStatus {
                state: RuntimeState::Failed,
                failure: Some(Failure {
                    reason: Reason::CommandFailed,
                    message: "exit code 1".into(),
                }),
                job_resource_name: "my-pipeline-1".into(),
            })
        }

        fn context(&self) -> &BTreeMap<String, String> {
            &self.context
        }
    }

    fn around() -> Around {
        let outer = json!({"text": "hi", "nothing": null})
            .as_object()
            .expect("object")
            .clone();
        let made = json!({"number": 3, "record": {"k": [1]}})
            .as_object()
            .expect("object")
            .clone();
        Around {
            inputs: TaskIo {
                parameters: outer,
                ..TaskIo::default()
            },
            outputs: BTreeMap::from([(
                "up",
                TaskIo {
                    parameters: made,
                    ..TaskIo::default()
                },
            )]),
            context: BTreeMap::from([("pipeline_job_uuid".to_owned(), "the-run".to_owned())]),
        }
    }

    fn check(source: Value, declared: Value) -> Result<Option<Value>, String> {
        let task: TaskSpec =
            serde_json::from_value(json!({"inputs": {"parameters": {"x": source}}})).expect("task");
        let component: ComponentSpec = serde_json::from_value(
            json!({"executorLabel": "e", "inputDefinitions": {"parameters": {"x": declared}}}),
        )
        .expect("component");
        resolve(&task, &component, &around())
            .map(|io| io.parameters.get("x").cloned())
            .map_err(|failure| format!("{}: {}", failure.reason, failure.message))
    }

    #[test]
    fn inputs_are_followed_to_their_source_and_typed() {
        let output =
            |key: &str| json!({"taskOutputParameter": {"producerTask": "up", "outputParameterKey": key}});
        assert_eq!(
            check(output("number"), json!({"parameterType": "NUMBER_INTEGER"})),
            Ok(Some(json!(3)))
        );
        assert_eq!(
            check(output("number"), json!({"parameterType": "STRING"})),
            Ok(Some(json!("3")))
        );
        assert_eq!(
            check(output("record"), json!({"parameterType": "STRING"})),
            Ok(Some(json!(r#"{"k":[1]}"#)))
        );
        assert_eq!(
            check(output("record"), json!({"parameterType": "BOOLEAN"})),
            Err(r#"InputTypeMismatch: input `x`: expected BOOLEAN, found the struct {"k":[1]}"#.into())
        );
        assert_eq!(
            check(
                json!({"componentInputParameter": "text"}),
                json!({"parameterType": "STRING"})
            ),
            Ok(Some(json!("hi")))
        );
        assert_eq!(
            check(
                json!({"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}),
                json!({"parameterType": "STRING"})
            ),
            Ok(Some(json!("the-run")))
        );
    }

    #[test]
    fn an_optional_input_without_a_value_is_left_out_and_a_required_one_is_an_error() {
        let source = || json!({"componentInputParameter": "nothing"});
        assert_eq!(
            check(source(), json!({"parameterType": "STRING", "isOptional": true})),
            Ok(None)
        );
        assert_eq!(
            check(
                source(),
                json!({"parameterType": "STRING", "isOptional": true, "defaultValue": "d"})
            ),
            Ok(None)
        );
        assert_eq!(
            check(source(), json!({"parameterType": "STRING", "defaultValue": "d"})),
            Ok(Some(json!("d")))
        );
        assert_eq!(
            check(
                json!({"componentInputParameter": "absent"}),
                json!({"parameterType": "STRING"})
            ),
            Err("InputMissing: input `x`: its source has no value, and it has no default".into())
        );
    }

    #[test]
    fn a_final_status_says_how_the_task_ended_and_why() {
        let status = check(
            json!({"taskFinalStatus": {"producerTask": "broken"}}),
            json!({"parameterType": "TASK_FINAL_STATUS"}),
        );
        assert_eq!(
            status,
            Ok(Some(json!({
                "state": "FAILED",
                "pipelineJobResourceName": "my-pipeline-1",
                "pipelineTaskName": "broken",
                "error": {"code": 9, "message": "CommandFailed: exit code 1"},
            })))
        );
    }
}
