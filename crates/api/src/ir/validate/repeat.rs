//! Tasks that are run more than once: loops and retries.

use serde_json::Value;

use super::{check_literals, listing, scope::Scope};
use crate::ir::{
    ArtifactIterator, ComponentSpec, ParameterIterator, ParameterType, RetryPolicy, TaskSpec,
    validate::Problem,
};

/// The longest duration that protobuf has, in seconds: about ten thousand years.
const LONGEST: f64 = 315_576_000_000.0;

impl Scope<'_> {
    pub(super) fn check_repeats(&self, task: &TaskSpec, component: &ComponentSpec) -> Result<(), Problem> {
        match (&task.parameter_iterator, &task.artifact_iterator) {
            (Some(_), Some(_)) => {
                return Err(self.problem(
                    "artifactIterator",
                    "the task has a `parameterIterator` as well: expected one of them",
                ));
            }
            (Some(iterator), None) => self.check_parameter_loop(task, component, iterator)?,
            (None, Some(iterator)) => self.check_artifact_loop(task, component, iterator)?,
            (None, None) => {}
        }
        match &task.retry_policy {
            Some(policy) => self.check_retries(policy),
            None => Ok(()),
        }
    }

    fn check_parameter_loop(
        &self,
        task: &TaskSpec,
        component: &ComponentSpec,
        iterator: &ParameterIterator,
    ) -> Result<(), Problem> {
        let inputs = &component.input_definitions.parameters;
        let Some(item) = inputs.get(&iterator.item_input) else {
            let (wrong, component) = (&iterator.item_input, &task.component_ref.name);
            let message = format!(
                "component `{component}` has no input parameter `{wrong}` for the element; it takes {}",
                listing(inputs.keys())
            );
            return Err(self.problem("parameterIterator.itemInput", message));
        };
        match (&iterator.items.raw, &iterator.items.input_parameter) {
            (Some(raw), None) => {
                let at = "parameterIterator.items.raw";
                let items = match serde_json::from_str(raw) {
                    Ok(Value::Array(items)) => items,
                    Ok(_) => return Err(self.problem(at, "expected a JSON list, found other JSON")),
                    Err(error) => return Err(self.problem(at, format!("expected a JSON list: {error}"))),
                };
                for (index, value) in items.into_iter().enumerate() {
                    if value.is_null() || value.as_str().is_some_and(|text| text.contains("{{$")) {
                        continue;
                    }
                    let at = format!("{at}[{index}]");
                    let value = item
                        .parameter_type
                        .coerce(value)
                        .map_err(|error| self.problem(&at, error.to_string()))?;
                    check_literals(item, &value).map_err(|message| self.problem(&at, message))?;
                }
                Ok(())
            }
            (None, Some(name)) => {
                let at = "parameterIterator.items.inputParameter";
                if !task.inputs.parameters.contains_key(name) && !inputs.contains_key(name) {
                    let message = format!(
                        "the task has no input parameter `{name}` to go over; it has {}",
                        listing(task.inputs.parameters.keys())
                    );
                    return Err(self.problem(at, message));
                }
                let declared = inputs.get(name).map(|input| input.parameter_type);
                match declared {
                    Some(
                        ParameterType::NumberDouble | ParameterType::NumberInteger | ParameterType::Boolean,
                    ) => Err(self.problem(
                        at,
                        format!("the loop's input `{name}` is of a type that holds no list: expected LIST, or STRING holding JSON"),
                    )),
                    _ => Ok(()),
                }
            }
            (Some(_), Some(_)) | (None, None) => Err(self.problem(
                "parameterIterator.items",
                "expected one of `raw` and `inputParameter`",
            )),
        }
    }

    fn check_artifact_loop(
        &self,
        task: &TaskSpec,
        component: &ComponentSpec,
        iterator: &ArtifactIterator,
    ) -> Result<(), Problem> {
        let inputs = &component.input_definitions.artifacts;
        if !inputs.contains_key(&iterator.item_input) {
            let (wrong, component) = (&iterator.item_input, &task.component_ref.name);
            let message = format!(
                "component `{component}` has no input artifact `{wrong}` for the element; it takes {}",
                listing(inputs.keys())
            );
            return Err(self.problem("artifactIterator.itemInput", message));
        }
        let list = &iterator.items.input_artifact;
        if !task.inputs.artifacts.contains_key(list) {
            let message = format!(
                "the task has no input artifact `{list}` to go over; it has {}",
                listing(task.inputs.artifacts.keys())
            );
            return Err(self.problem("artifactIterator.items.inputArtifact", message));
        }
        Ok(())
    }

    fn check_retries(&self, policy: &RetryPolicy) -> Result<(), Problem> {
        let RetryPolicy {
            max_retry_count: _,
            backoff_duration,
            backoff_factor,
            backoff_max_duration,
        } = policy;
        for (field, text) in [
            ("backoffDuration", backoff_duration),
            ("backoffMaxDuration", backoff_max_duration),
        ] {
            if let Some(text) = text.as_deref().filter(|text| !is_duration(text)) {
                let message = format!("expected seconds such as `30s` or `1.5s`, found `{text}`");
                return Err(self.problem(&format!("retryPolicy.{field}"), message));
            }
        }
        match backoff_factor {
            Some(factor) if !factor.is_finite() || (*factor != 0.0 && *factor < 1.0) => Err(self.problem(
                "retryPolicy.backoffFactor",
                format!("expected 1 or more, found {factor}"),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether the text is what protobuf's JSON writes for a duration that is not negative.
fn is_duration(text: &str) -> bool {
    let Some(number) = text.strip_suffix('s') else {
        return false;
    };
    let is_plain = number.starts_with(|first: char| first.is_ascii_digit())
        && number.chars().all(|char| char.is_ascii_digit() || char == '.');
    is_plain && number.parse::<f64>().is_ok_and(|seconds| seconds <= LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_as_protobuf_writes_them() {
        for (text, expect) in [
            ("0s", true),
            ("60s", true),
            ("1.5s", true),
            ("60", false),
            ("1m", false),
            ("-1s", false),
            ("infs", false),
            ("1e3s", false),
            ("1.2.3s", false),
            ("", false),
            ("999999999999s", false),
        ] {
            assert_eq!(is_duration(text), expect, "{text}");
        }
    }
}
