//! What it takes to do by hand what a task did: for `coracle debug`. Coracle's own path.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path as UrlPath, State},
};
use coracle_api::{
    id::RunId,
    labels::{PYTHON_REQUIREMENTS, REQUIREMENTS_MET_ENV, SERVER_ENV, TOKEN_ENV},
    state::RuntimeState,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{Options, error::Error, extract::Params, wire::text};
use crate::node;

/// Which attempt.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct DebugParams {
    /// From 1; the last when absent.
    attempt: Option<u32>,
}

/// One attempt at a task, as it was started.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskDebug {
    run_id: String,
    task_id: String,
    /// The task's place in its run.
    scope_path: String,
    /// From 1.
    attempt: u32,
    #[schema(value_type = String)]
    state: RuntimeState,
    namespace: String,
    pod_name: String,
    /// The container's image, placeholders replaced.
    image: String,
    /// Command as in the pipeline, placeholders included: `executor_input` and `context` say what they stand for.
    command: Vec<String>,
    /// Arguments, in the same way.
    args: Vec<String>,
    /// The container's variables, as in its Pod; without what only the launcher uses.
    #[schema(value_type = Vec<Object>)]
    env: Vec<Value>,
    /// What user code was given: KFP's `ExecutorInput`.
    #[schema(value_type = Object)]
    executor_input: Value,
    /// The input parameters that the component declares, with their types and defaults.
    #[schema(value_type = Object)]
    input_parameters: Value,
    /// What the placeholders about the run itself stand for.
    #[schema(value_type = Object)]
    context: Value,
    /// The Python packages that the container installs first: `[{options, no_deps, packages}]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    requirements: Option<Value>,
    /// Requests and limits, as in the Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    resources: Option<Value>,
    /// Where the log is.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_uri: Option<String>,
}

/// Shows how a task was started: by its id, its path or its name.
#[utoipa::path(get, path = "/runs/{run_id}/tasks/{task_id}/:debug", tag = "tasks",
    params(("run_id" = String, Path), ("task_id" = String, Path), DebugParams),
    responses((status = 200, body = TaskDebug)))]
pub(super) async fn show(
    State(options): State<Arc<Options>>,
    UrlPath((run_id, task)): UrlPath<(String, String)>,
    Params(params): Params<DebugParams>,
) -> Result<Json<TaskDebug>, Error> {
    let run_id: RunId = run_id.parse()?;
    options.records.run(run_id).await?;
    let (task, attempt) = node::find(&options.records, run_id, &task, params.attempt).await?;
    let Some(attempt) = attempt else {
        return Err(Error::FailedPrecondition(format!(
            "task `{}` is {} and has started no process: there is nothing to debug",
            task.path, task.state
        )));
    };
    let spec = options.records.attempt_spec(task.id, attempt.number).await?;
    let unreadable = |error: serde_json::Error| Error::internal("reading what the attempt was given", error);
    let mut launch: Value = serde_json::from_str(&spec.launch).map_err(unreadable)?;
    let mut pod: Value = serde_json::from_str(&spec.pod).map_err(unreadable)?;
    let container = |pod: &mut Value, field: &str| {
        pod.pointer_mut(&format!("/spec/containers/0/{field}"))
            .map(Value::take)
            .filter(|value| !value.is_null())
    };
    let env = container(&mut pod, "env")
        .and_then(|env| match env {
            Value::Array(env) => Some(env),
            _ => None,
        })
        .unwrap_or_default();
    let requirements = pod
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(PYTHON_REQUIREMENTS)?.as_str())
        .and_then(|text| serde_json::from_str(text).ok());
    Ok(Json(TaskDebug {
        run_id: run_id.to_string(),
        task_id: task.id.to_string(),
        scope_path: task.path,
        attempt: attempt.number,
        state: attempt.state,
        namespace: attempt.namespace,
        pod_name: attempt.pod_name,
        image: container(&mut pod, "image")
            .and_then(|image| image.as_str().map(str::to_owned))
            .unwrap_or_default(),
        command: texts(&launch["command"]),
        args: texts(&launch["args"]),
        env: env.into_iter().filter(is_for_user_code).collect(),
        executor_input: launch["executorInput"].take(),
        input_parameters: launch["inputParameters"].take(),
        context: launch["context"].take(),
        requirements,
        resources: container(&mut pod, "resources"),
        log_uri: text(&attempt.log_uri),
    }))
}

/// The launcher's own variables admit to the server: they are not shown.
fn is_for_user_code(variable: &Value) -> bool {
    let name = variable["name"].as_str().unwrap_or_default();
    ![TOKEN_ENV, SERVER_ENV, REQUIREMENTS_MET_ENV].contains(&name)
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}
