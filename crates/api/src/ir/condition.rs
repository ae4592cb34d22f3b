//! Conditions and expression selectors: CEL, as the KFP SDK writes it.
//!
//! A condition sees `inputs.parameter_values[…]`; a selector sees `string_value`. Beyond the
//! standard functions there is `parseJson(text)` (KFP's `backend/src/v2/expression`).

use std::sync::Arc;

use cel::{Context, ExecutionError, Program, objects::Key};
use serde_json::{Map, Value};

/// An expression cannot be evaluated.
#[derive(Debug, thiserror::Error)]
#[error("the expression `{expression}` cannot be evaluated: {why}")]
pub struct Error {
    /// The expression as written.
    pub expression: String,
    /// The evaluator's words.
    pub why: String,
}

/// Checks that an expression can be read, before there is anything to evaluate it over.
///
/// # Errors
/// [`Error`] when it is no CEL.
pub fn check(expression: &str) -> Result<(), Error> {
    compile(expression).map(|_| ())
}

/// Whether `condition` holds for a task with these input parameters.
///
/// # Errors
/// [`Error`] when it is no CEL, names an input the task does not have, compares what cannot be
/// compared, or gives anything but true or false.
pub fn holds(condition: &str, parameters: &Map<String, Value>) -> Result<bool, Error> {
    let inputs = serde_json::json!({ "parameter_values": parameters });
    match evaluate(condition, "inputs", &inputs)? {
        cel::Value::Bool(holds) => Ok(holds),
        other => Err(Error {
            expression: condition.to_owned(),
            why: format!("expected true or false, found {other:?}"),
        }),
    }
}

/// The part of `value` that `selector` takes out.
///
/// # Errors
/// [`Error`] as for [`holds`], and when the result is no JSON value.
pub fn select(selector: &str, value: &Value) -> Result<Value, Error> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let selected = evaluate(selector, "string_value", &Value::String(text))?;
    to_json(&selected).ok_or_else(|| Error {
        expression: selector.to_owned(),
        why: format!("{selected:?} is no JSON value"),
    })
}

fn evaluate(expression: &str, name: &'static str, value: &Value) -> Result<cel::Value, Error> {
    let failed = |why: String| Error {
        expression: expression.to_owned(),
        why,
    };
    let program = compile(expression)?;
    let mut context = Context::default();
    context.add_variable_from_value(name, from_json(value));
    context
        .add_function("parseJson", parse_json)
        .map_err(|error| failed(error.to_string()))?;
    program
        .execute(&context)
        .map_err(|error| failed(error.to_string()))
}

fn compile(expression: &str) -> Result<Program, Error> {
    Program::compile(expression).map_err(|error| Error {
        expression: expression.to_owned(),
        why: error.to_string(),
    })
}

fn parse_json(text: Arc<String>) -> Result<cel::Value, ExecutionError> {
    serde_json::from_str(&text)
        .map(|value| from_json(&value))
        .map_err(|error| ExecutionError::function_error("parseJson", error))
}

/// Whole numbers become CEL's signed integers, so that they compare with literals.
fn from_json(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::Number(number) => number.as_i64().map_or_else(
            || cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            cel::Value::Int,
        ),
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(from_json).collect())),
        Value::Object(fields) => {
            let fields: std::collections::HashMap<Key, cel::Value> = fields
                .iter()
                .map(|(key, value)| (Key::from(key.as_str()), from_json(value)))
                .collect();
            cel::Value::from(fields)
        }
    }
}

fn to_json(value: &cel::Value) -> Option<Value> {
    Some(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(value) => Value::Bool(*value),
        cel::Value::Int(number) => Value::from(*number),
        cel::Value::UInt(number) => Value::from(*number),
        cel::Value::Float(number) => Value::from(*number),
        cel::Value::String(text) => Value::String(text.to_string()),
        cel::Value::List(items) => Value::Array(items.iter().map(to_json).collect::<Option<_>>()?),
        cel::Value::Map(map) => {
            let fields = map
                .map
                .iter()
                .map(|(key, value)| Some((key.to_string(), to_json(value)?)));
            Value::Object(fields.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(condition: &str, parameters: Value, expected: bool) {
        let parameters = parameters.as_object().expect("object").clone();
        assert_eq!(
            holds(condition, &parameters).expect(condition),
            expected,
            "{condition}"
        );
    }

    #[test]
    fn the_conditions_that_the_sdk_compiles_are_evaluated() {
        let flip = "inputs.parameter_values['pipelinechannel--flip-Output']";
        let given = |value: Value| json!({"pipelinechannel--flip-Output": value});
        check(&format!("{flip} == 'heads'"), given(json!("heads")), true);
        check(&format!("!({flip} == 'heads')"), given(json!("heads")), false);
        check(
            &format!("!({flip} == 'heads') && {flip} == 'tails'"),
            given(json!("tails")),
            true,
        );
        check(&format!("int({flip}) == 3"), given(json!(3)), true);
        check(&format!("int({flip}) == 3"), given(json!(3.0)), true);
        check(&format!("{flip} >= 0.9"), given(json!(0.95)), true);
        check(&format!("{flip} >= 0.9"), given(json!(1)), true);
        check(&format!("{flip} < 2"), given(json!(1.5)), true);
        check(&format!("{flip} == true"), given(json!(true)), true);
        check(&format!("{flip} != ''"), given(json!("")), false);
        check(
            "inputs.parameter_values['a'] > inputs.parameter_values['b']",
            json!({"a": 0.97, "b": 1}),
            false,
        );
    }

    #[test]
    fn a_selector_takes_a_part_out_of_json_text() {
        let selected = select(
            r#"parseJson(string_value)["A_a"]"#,
            &json!({"A_a": 1, "B_b": [2]}),
        )
        .expect("selects");
        assert_eq!(selected, json!(1));
        let selected = select(
            r#"parseJson(string_value)["B_b"]"#,
            &json!(r#"{"B_b": [2, {"c": "d"}]}"#),
        )
        .expect("selects");
        assert_eq!(selected, json!([2, {"c": "d"}]));
    }

    #[test]
    fn what_cannot_be_evaluated_says_why() {
        let none = Map::new();
        for condition in ["1 +", "inputs.parameter_values['x'] == 1", "'text'", "nosuch(1)"] {
            let error = holds(condition, &none).expect_err(condition);
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("the expression `{condition}`")),
                "{error}"
            );
        }
    }
}
