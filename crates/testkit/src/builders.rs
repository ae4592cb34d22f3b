//! Pipelines in few words.

use serde_json::{Map, Value, json};

/// A pipeline of tasks that each make an integer `n` and take the sum of none: `after` names the
/// tasks that each waits for.
#[must_use]
pub fn tasks(tasks: &[(&str, &[&str])]) -> Value {
    let dag: Map<String, Value> = tasks
        .iter()
        .map(|(name, after)| {
            (
                (*name).to_owned(),
                json!({"componentRef": {"name": "step"}, "dependentTasks": after}),
            )
        })
        .collect();
    json!({
        "pipelineInfo": {"name": "test"},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": dag}},
        "components": {"step": {
            "executorLabel": "exec",
            "outputDefinitions": {"parameters": {"n": {"parameterType": "NUMBER_INTEGER"}}}
        }},
        "deploymentSpec": {"executors": {"exec": {"container": {"image": "alpine", "command": ["true"]}}}}
    })
}
