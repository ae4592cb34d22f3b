//! What a loop goes over, and what its iterations leave behind. Pure.

use std::sync::Arc;

use coracle_api::{
    id::ArtifactId,
    ir::{ComponentSpec, TaskSpec},
    launch::Failure,
    reason::Reason,
};
use coracle_store::records::TaskIo;
use serde_json::Value;

use super::values::{Unready, Values};

/// What a loop goes over.
#[derive(Debug, Clone, PartialEq)]
pub struct Items {
    input: String,
    list: List,
}

#[derive(Debug, Clone, PartialEq)]
enum List {
    Parameters(Arc<Vec<Value>>),
    Artifacts(Arc<Vec<ArtifactId>>),
}

impl Items {
    /// The items of a loop with these inputs. None when the task is no loop.
    ///
    /// # Errors
    /// `LoopItemsInvalid`, when what is to be gone over is no list; a large list has to be read
    /// first.
    pub fn of(task: &TaskSpec, inputs: &TaskIo, values: &Values) -> Result<Option<Self>, Unready> {
        if let Some(iterator) = &task.parameter_iterator {
            let list = match (&iterator.items.raw, &iterator.items.input_parameter) {
                (Some(raw), _) => from_text("the list written in the pipeline", raw)?,
                (None, Some(name)) => {
                    let what = format!("input `{name}`");
                    match inputs.parameters.get(name) {
                        Some(value) => from_value(&what, values.get(value)?)?,
                        None => return Err(invalid(format!("{what} has no value")).into()),
                    }
                }
                (None, None) => return Err(invalid("it has no list to go over".to_owned()).into()),
            };
            return Ok(Some(Self {
                input: iterator.item_input.clone(),
                list: List::Parameters(Arc::new(list)),
            }));
        }
        let Some(iterator) = &task.artifact_iterator else {
            return Ok(None);
        };
        let name = &iterator.items.input_artifact;
        let list = inputs
            .artifacts
            .get(name)
            .ok_or_else(|| invalid(format!("input artifact `{name}` has no value")))?;
        Ok(Some(Self {
            input: iterator.item_input.clone(),
            list: List::Artifacts(Arc::new(list.clone())),
        }))
    }

    /// How many iterations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.list {
            List::Parameters(list) => list.len(),
            List::Artifacts(list) => list.len(),
        }
    }

    /// Whether there is nothing to go over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What iteration `index` is given beside the loop's own inputs.
    ///
    /// # Errors
    /// `InputTypeMismatch`, when the element is not of the declared type.
    pub fn item(&self, index: usize, component: &ComponentSpec) -> Result<TaskIo, Failure> {
        let mut io = TaskIo::default();
        match &self.list {
            List::Parameters(list) => {
                let mut value = list.get(index).cloned().unwrap_or_default();
                if let Some(declared) = component.input_definitions.parameters.get(&self.input) {
                    value = declared.parameter_type.coerce(value).map_err(|error| Failure {
                        reason: Reason::InputTypeMismatch,
                        message: format!("element {index} of the loop: {error}"),
                    })?;
                }
                io.parameters.insert(self.input.clone(), value);
            }
            List::Artifacts(list) => {
                let ids = list.get(index).copied().into_iter().collect();
                io.artifacts.insert(self.input.clone(), ids);
            }
        }
        Ok(io)
    }
}

/// The outputs of a loop: each output of its component as the list of what the iterations made,
/// in their order. What an iteration did not make is left out; lists of artifacts become one.
#[must_use]
pub fn collected<'a>(
    component: &ComponentSpec,
    iterations: impl Iterator<Item = &'a TaskIo> + Clone,
) -> TaskIo {
    let mut io = TaskIo::default();
    for name in component.output_definitions.parameters.keys() {
        let values = iterations
            .clone()
            .filter_map(|made| made.parameters.get(name).cloned());
        io.parameters.insert(name.clone(), Value::Array(values.collect()));
    }
    for name in component.output_definitions.artifacts.keys() {
        let ids = iterations.clone().filter_map(|made| made.artifacts.get(name));
        io.artifacts
            .insert(name.clone(), ids.flatten().copied().collect());
    }
    io
}

fn from_value(what: &str, value: &Value) -> Result<Vec<Value>, Failure> {
    match value {
        Value::Array(list) => Ok(list.clone()),
        Value::String(text) => from_text(what, text),
        other => Err(invalid(format!("{what} is {}", kind(other)))),
    }
}

fn from_text(what: &str, text: &str) -> Result<Vec<Value>, Failure> {
    match serde_json::from_str(text) {
        Ok(Value::Array(list)) => Ok(list),
        Ok(other) => Err(invalid(format!("{what} holds {}", kind(&other)))),
        Err(error) => Err(invalid(format!("{what} is text that is not JSON ({error})"))),
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a struct",
    }
}

fn invalid(why: String) -> Failure {
    Failure {
        reason: Reason::LoopItemsInvalid,
        message: format!("the loop cannot begin: {why}; expected a list, or text that holds a JSON list"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn items(iterator: Value, parameters: Value) -> Result<Option<Items>, String> {
        let task: TaskSpec = serde_json::from_value(json!({"parameterIterator": iterator})).expect("task");
        let inputs = TaskIo {
            parameters: parameters.as_object().expect("object").clone(),
            ..TaskIo::default()
        };
        Items::of(&task, &inputs, &Values::none()).map_err(|unready| match unready {
            Unready::Failed(failure) => failure.message,
            Unready::Needs(_) => "needs values".to_owned(),
        })
    }

    #[test]
    fn a_list_may_be_written_in_the_pipeline_come_from_an_input_or_be_text() {
        let count =
            |iterator, parameters| items(iterator, parameters).map(|items| items.expect("a loop").len());
        let from_input = || json!({"itemInput": "i", "items": {"inputParameter": "l"}});
        assert_eq!(
            count(json!({"itemInput": "i", "items": {"raw": "[1, 2]"}}), json!({})),
            Ok(2)
        );
        assert_eq!(count(from_input(), json!({"l": [1, 2, 3]})), Ok(3));
        assert_eq!(count(from_input(), json!({"l": "[\"a\"]"})), Ok(1));
        assert_eq!(count(from_input(), json!({"l": []})), Ok(0));
        for (given, why) in [
            (json!({"l": 3}), "input `l` is a number"),
            (json!({"l": "{}"}), "input `l` holds a struct"),
            (json!({"l": "a,b"}), "input `l` is text that is not JSON"),
            (json!({}), "input `l` has no value"),
        ] {
            let error = count(from_input(), given).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_iterations_made_becomes_lists_in_their_order() {
        let component: ComponentSpec = serde_json::from_value(json!({"outputDefinitions": {
            "parameters": {"n": {"parameterType": "LIST"}},
            "artifacts": {"m": {"isArtifactList": true}}
        }}))
        .expect("component");
        let ids = [ArtifactId::new(), ArtifactId::new(), ArtifactId::new()];
        let made = |n: Option<i32>, ids: &[ArtifactId]| TaskIo {
            parameters: n.map(|n| ("n".to_owned(), json!(n))).into_iter().collect(),
            artifacts: [("m".to_owned(), ids.to_vec())].into(),
        };
        let iterations = [
            made(Some(1), &ids[..1]),
            made(None, &[]),
            made(Some(3), &ids[1..]),
        ];
        let io = collected(&component, iterations.iter());
        assert_eq!(io.parameters["n"], json!([1, 3]));
        assert_eq!(io.artifacts["m"], ids);
    }
}
