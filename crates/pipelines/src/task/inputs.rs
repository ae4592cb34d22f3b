//! What a task is given: each input followed to its source and made the declared type.
//!
//! The rules are those of KFP's driver (`backend/src/v2/driver/resolve.go`): an optional input
//! whose source has no value is left out; the default of a container's optional input is applied
//! at launch, that of a nested pipeline here.

use std::collections::BTreeMap;

use coracle_api::{
    id::ArtifactId,
    ir::{ComponentSpec, ParameterSource, TaskSpec, condition, placeholder, validate},
    launch::{Failure, SpilledValue},
    reason::Reason,
    state::RuntimeState,
};
use coracle_store::records::TaskIo;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::values::{Unready, Values};

/// What a task can see while its inputs are followed.
pub trait Surroundings {
    /// An input parameter of the DAG around the task.
    fn component_parameter(&self, name: &str) -> Option<&Value>;
    /// An input artifact of the DAG around the task.
    fn component_artifacts(&self, name: &str) -> Option<&Vec<ArtifactId>>;
    /// The outputs of another task of the same DAG; none when it did not succeed.
    fn outputs_of(&self, task: &str) -> Option<&TaskIo>;
    /// How another task of the same DAG ended: its state and, if it failed, why.
    fn final_status_of(&self, task: &str) -> Option<FinalStatus>;
    /// What the placeholders about the run stand for, by bare name, e.g. `pipeline_job_uuid`.
    fn context(&self) -> &BTreeMap<String, String>;
    /// Large values that have been read.
    fn values(&self) -> Values<'_>;
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

/// Follows every input of `task` to its value. The input that a loop fills in for each iteration
/// is not among them. Large values stay references, unless something here has to look inside.
///
/// # Errors
/// `InputMissing`, `InputTypeMismatch`, `PlaceholderUnresolved` or `ConditionInvalid`, naming the
/// input; or the large values to be read first.
pub fn resolve(
    task: &TaskSpec,
    component: &ComponentSpec,
    around: &impl Surroundings,
) -> Result<TaskIo, Unready> {
    let mut found = IndexMap::new();
    let mut constants = Vec::new();
    for (name, source) in &task.inputs.parameters {
        if let Some(value) = source.runtime_value.as_ref() {
            // Constants may quote the other inputs, so they come last.
            constants.push((name, source, value.constant.clone().unwrap_or(Value::Null)));
        } else if let Some(value) = follow(source, around) {
            let value = selected(name, source, value, around.values())?;
            found.insert(name.clone(), value);
        }
    }
    for (name, source, constant) in constants {
        let quoted = quoted(&constant, &found, around.values())?;
        // The run's own words before those of other inputs: what a user passes is never expanded.
        let constant = match constant {
            Value::String(text) => Value::String(placeholder::constant(&text, around.context())),
            other => other,
        };
        let value = placeholder::references(&constant, quoted.as_ref().unwrap_or(&found));
        let value = selected(name, source, value, around.values())?;
        found.insert(name.clone(), value);
    }
    let each = each_input(task);
    let parameters = typed(component, found, each)?;
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
                    .component_artifacts(source.component_input_artifact.as_ref()?)?
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
        if !declared.is_optional && !io.artifacts.contains_key(name) && each != Some(name) {
            let why = "no task made this artifact";
            return Err(fail(Reason::InputMissing, name, &why).into());
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
        parameters: typed(component, given, None)?,
        artifacts: BTreeMap::new(),
    })
}

/// Declared types and defaults, over the values found.
fn typed(
    component: &ComponentSpec,
    mut found: IndexMap<String, Value>,
    each: Option<&str>,
) -> Result<Map<String, Value>, Failure> {
    let mut parameters = Map::new();
    for (name, declared) in &component.input_definitions.parameters {
        if each == Some(name) {
            continue;
        }
        // A null says "no value" to whatever can do without one.
        let can_be_absent = declared.is_optional || declared.default_value.is_some();
        let value = found
            .swap_remove(name)
            .filter(|value| !(value.is_null() && can_be_absent));
        let default_applies_here = component.dag.is_some() || !declared.is_optional;
        let default = || declared.default_value.clone().filter(|_| default_applies_here);
        match value.or_else(default) {
            Some(Value::Null) if declared.is_optional => {}
            // The launcher that reads it makes it the declared type.
            Some(value) if SpilledValue::of(&value).is_some() => {
                parameters.insert(name.clone(), value);
            }
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

/// The input that a loop fills in for each iteration.
fn each_input(task: &TaskSpec) -> Option<&str> {
    let parameter = task
        .parameter_iterator
        .as_ref()
        .map(|iterator| &iterator.item_input);
    let artifact = || {
        task.artifact_iterator
            .as_ref()
            .map(|iterator| &iterator.item_input)
    };
    parameter.or_else(artifact).map(String::as_str)
}

/// The value that a setting takes from a source; none when there is none (yet).
pub fn value(source: &ParameterSource, around: &impl Surroundings) -> Option<Value> {
    let value = follow(source, around)?;
    let value = selected("", source, value, around.values()).ok()?;
    around.values().get(&value).ok().cloned()
}

/// The value at the end of a source; none when nothing was made or passed there.
pub fn follow(source: &ParameterSource, around: &impl Surroundings) -> Option<Value> {
    if let Some(name) = &source.component_input_parameter {
        return around.component_parameter(name).cloned();
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

fn selected(
    name: &str,
    source: &ParameterSource,
    value: Value,
    values: Values<'_>,
) -> Result<Value, Unready> {
    match source.parameter_expression_selector.as_str() {
        "" => Ok(value),
        selector => Ok(condition::select(selector, values.get(&value)?)
            .map_err(|error| fail(Reason::ConditionInvalid, name, &error))?),
    }
}

/// `found` with the large values that a constant quotes in full; none when it quotes none.
fn quoted(
    constant: &Value,
    found: &IndexMap<String, Value>,
    values: Values<'_>,
) -> Result<Option<IndexMap<String, Value>>, Unready> {
    let is_large = |value: &Value| SpilledValue::of(value).is_some();
    let text = constant.to_string();
    if !text.contains("{{$") || !found.values().any(is_large) {
        return Ok(None);
    }
    let mut full = found.clone();
    for (name, value) in &mut full {
        if is_large(value) && text.contains(name.as_str()) {
            *value = values.get(value)?.clone();
        }
    }
    Ok(Some(full))
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
        fn component_parameter(&self, name: &str) -> Option<&Value> {
            self.inputs.parameters.get(name)
        }

        fn component_artifacts(&self, name: &str) -> Option<&Vec<ArtifactId>> {
            self.inputs.artifacts.get(name)
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

        fn values(&self) -> Values<'_> {
            Values::none()
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
            .map_err(|unready| match unready {
                Unready::Failed(failure) => format!("{}: {}", failure.reason, failure.message),
                Unready::Needs(values) => format!("needs {}", values[0].uri),
            })
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
