//! `-p name=value`: text that becomes a value of the type that the pipeline declares.

use std::str::FromStr;

use coracle_api::ir::{ParameterType, PipelineSpec};
use serde_json::{Map, Value};

/// One `name=value`, as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl FromStr for Parameter {
    type Err = String;

    fn from_str(pair: &str) -> Result<Self, String> {
        match pair.split_once('=') {
            Some((name, text)) if !name.trim().is_empty() => Ok(Self {
                name: name.trim().to_owned(),
                text: text.to_owned(),
            }),
            _ => Err("expected NAME=VALUE".to_owned()),
        }
    }
}

/// The values of a run's parameters. Whether they fit is checked afterwards, for all clients alike.
pub(crate) fn values(given: &[Parameter], spec: &PipelineSpec) -> Map<String, Value> {
    let declared = &spec.root.input_definitions.parameters;
    given
        .iter()
        .map(|parameter| {
            let declared = declared.get(&parameter.name).map(|input| input.parameter_type);
            (
                parameter.name.clone(),
                value(&parameter.text, declared.unwrap_or_default()),
            )
        })
        .collect()
}

fn value(text: &str, declared: ParameterType) -> Value {
    let as_text = || Value::String(text.to_owned());
    match declared {
        ParameterType::String => as_text(),
        ParameterType::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => as_text(),
        },
        ParameterType::ParameterTypeEnumUnspecified
        | ParameterType::NumberDouble
        | ParameterType::NumberInteger
        | ParameterType::List
        | ParameterType::Struct
        | ParameterType::TaskFinalStatus
        | ParameterType::TaskConfig => serde_json::from_str(text).unwrap_or_else(|_| as_text()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_becomes_a_value_of_the_declared_type() {
        use ParameterType::{
            Boolean, List, NumberDouble, NumberInteger, ParameterTypeEnumUnspecified as Unknown, String,
            Struct,
        };
        for (text, declared, expected) in [
            ("3", NumberInteger, json!(3)),
            ("0.5", NumberDouble, json!(0.5)),
            ("often", NumberInteger, json!("often")),
            ("3", String, json!("3")),
            ("true", String, json!("true")),
            ("[1]", String, json!("[1]")),
            ("True", Boolean, json!(true)),
            ("false", Boolean, json!(false)),
            ("yes", Boolean, json!("yes")),
            ("[1, \"a\"]", List, json!([1, "a"])),
            ("{\"a\": null}", Struct, json!({"a": null})),
            ("3", Unknown, json!(3)),
            ("abc", Unknown, json!("abc")),
            ("", Unknown, json!("")),
        ] {
            assert_eq!(value(text, declared), expected, "{text} as {declared}");
        }
    }

    #[test]
    fn a_pair_is_split_at_its_first_sign() {
        let parameter: Parameter = "a = b=c".parse().expect("a pair");
        assert_eq!((parameter.name.as_str(), parameter.text.as_str()), ("a", " b=c"));
        assert!("a".parse::<Parameter>().is_err());
        assert!("=a".parse::<Parameter>().is_err());
    }
}
