//! What a DAG made: its tasks' outputs under its own names.

use coracle_api::ir::{DagOutputParameter, DagSpec};
use coracle_store::records::TaskIo;

/// The outputs of a DAG whose tasks have all ended. A task that did not succeed has no outputs;
/// of several candidates the first that ran is taken, and an output that nothing made is absent.
pub fn of_dag<'a>(dag: &DagSpec, outputs_of: impl Fn(&str) -> Option<&'a TaskIo>) -> TaskIo {
    let mut io = TaskIo::default();
    for (
        name,
        DagOutputParameter {
            value_from_parameter,
            value_from_oneof,
        },
    ) in &dag.outputs.parameters
    {
        let candidates = value_from_oneof
            .iter()
            .flat_map(|oneof| &oneof.parameter_selectors);
        let value = value_from_parameter
            .iter()
            .chain(candidates)
            .find_map(|selector| {
                outputs_of(&selector.producer_subtask)?
                    .parameters
                    .get(&selector.output_parameter_key)
            });
        if let Some(value) = value {
            io.parameters.insert(name.clone(), value.clone());
        }
    }
    for (name, output) in &dag.outputs.artifacts {
        let ids = output.artifact_selectors.iter().find_map(|selector| {
            outputs_of(&selector.producer_subtask)?
                .artifacts
                .get(&selector.output_artifact_key)
        });
        if let Some(ids) = ids {
            io.artifacts.insert(name.clone(), ids.clone());
        }
    }
    io
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_branch_that_ran_gives_the_output() {
        let dag: DagSpec = serde_json::from_value(json!({"outputs": {"parameters": {
            "chosen": {"valueFromOneof": {"parameterSelectors": [
                {"producerSubtask": "condition-2", "outputParameterKey": "Output"},
                {"producerSubtask": "condition-3", "outputParameterKey": "Output"}
            ]}},
            "absent": {"valueFromParameter": {"producerSubtask": "condition-2", "outputParameterKey": "Output"}}
        }}}))
        .expect("dag");
        let made = json!({"Output": "three"}).as_object().expect("object").clone();
        let ran = BTreeMap::from([(
            "condition-3",
            TaskIo {
                parameters: made,
                ..TaskIo::default()
            },
        )]);
        let io = of_dag(&dag, |task| ran.get(task));
        assert_eq!(
            serde_json::Value::Object(io.parameters),
            json!({"chosen": "three"})
        );
    }
}
