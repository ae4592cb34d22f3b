//! Finding a task of a run by what people type, and an artifact by the output it was made as.

use serde_json::Value;

use crate::{client::Client, output::field, runs, trouble::Trouble};

/// The tasks of a run.
pub(crate) fn all(client: &Client, run: &str) -> anyhow::Result<Vec<Value>> {
    let listed = client.get(&runs::path(run, "/tasks"), &[])?;
    Ok(listed["tasks"].as_array().cloned().unwrap_or_default())
}

/// A task's path, the root left out.
pub(crate) fn path(task: &Value) -> &str {
    let path = field(task, "scope_path");
    path.strip_prefix("root.").unwrap_or(path)
}

/// The task that is meant: by its id, its path with or without `root`, its Pod, or its name, of
/// which an iteration may be chosen.
pub(crate) fn find<'a>(
    tasks: &'a [Value],
    run: &str,
    text: &str,
    iteration: Option<u64>,
) -> anyhow::Result<&'a Value> {
    let is_pod = |task: &Value| {
        let attempts = task["attempts"].as_array().into_iter().flatten();
        attempts
            .into_iter()
            .any(|attempt| field(attempt, "pod_name") == text)
    };
    let exact = tasks
        .iter()
        .find(|task| {
            field(task, "task_id") == text || field(task, "scope_path") == text || path(task) == text
        })
        .or_else(|| tasks.iter().find(|task| is_pod(task)));
    if let Some(task) = exact.filter(|_| iteration.is_none()) {
        return Ok(task);
    }
    let is_named = |task: &&Value| {
        // An exact task of a loop, when one of its iterations is asked for: what is below it.
        exact.is_some_and(|exact| field(task, "parent_task_id") == field(exact, "task_id"))
            || (exact.is_none() && (field(task, "name") == text || field(task, "display_name") == text))
    };
    let wanted = |task: &&Value| iteration.is_none() || iteration_of(tasks, task) == iteration;
    let found: Vec<&Value> = tasks.iter().filter(is_named).filter(wanted).collect();
    match found.as_slice() {
        [task] => Ok(task),
        [] => Err(Trouble::error(
            match iteration {
                None => format!("run {run} has no task `{text}`"),
                Some(number) => format!("run {run} has no task `{text}` in iteration {number}"),
            },
            format!("`coracle describe run {run}` shows the run's tasks"),
        )),
        several => {
            let paths: Vec<&str> = several.iter().take(4).map(|task| path(task)).collect();
            Err(Trouble::error(
                format!("{} tasks of run {run} are called `{text}`", several.len()),
                format!(
                    "choose one by its path, or with `--iteration`: {}",
                    paths.join(", ")
                ),
            ))
        }
    }
}

/// Which iteration of the innermost loop around it a task belongs to.
fn iteration_of(tasks: &[Value], task: &Value) -> Option<u64> {
    let mut task = task;
    loop {
        match &task["iteration_index"] {
            Value::String(text) => return text.parse().ok(),
            Value::Number(number) => return number.as_u64(),
            _ => {}
        }
        let parent = task["parent_task_id"].as_str()?;
        task = tasks.iter().find(|task| field(task, "task_id") == parent)?;
    }
}

/// The ids of the artifacts that a task made as an output.
pub(crate) fn outputs<'a>(task: &'a Value, output: &str) -> Vec<&'a str> {
    let list = &task["outputs"]["artifacts"][output]["artifact_ids"];
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run() -> Vec<Value> {
        let task = |id: &str, parent: &str, path: &str, name: &str, index: Value| {
            json!({"task_id": id, "parent_task_id": parent, "scope_path": path, "name": name, "display_name": name,
                "iteration_index": index, "attempts": [{"pod_name": format!("pod-{id}")}]})
        };
        vec![
            task("0", "", "root", "root", Value::Null),
            task("1", "0", "root.prep", "prep", Value::Null),
            task("2", "0", "root.loop", "loop", Value::Null),
            task("3", "2", "root.loop.0", "loop", json!("0")),
            task("4", "3", "root.loop.0.train", "train", Value::Null),
            task("5", "2", "root.loop.1", "loop", json!("1")),
            task("6", "5", "root.loop.1.train", "train", Value::Null),
        ]
    }

    #[test]
    fn a_task_is_found_by_whatever_names_only_it() {
        let tasks = run();
        for (text, iteration, id) in [
            ("1", None, "1"),
            ("prep", None, "1"),
            ("root.prep", None, "1"),
            ("pod-6", None, "6"),
            ("loop.1.train", None, "6"),
            ("train", Some(1), "6"),
            ("train", Some(0), "4"),
            ("loop", None, "2"),
            ("loop", Some(1), "5"),
        ] {
            let task = find(&tasks, "r", text, iteration).expect(text);
            assert_eq!(field(task, "task_id"), id, "{text} {iteration:?}");
        }
    }

    #[test]
    fn a_task_that_is_not_clear_is_asked_back() {
        let tasks = run();
        for (text, iteration, expected) in [
            ("train", None, "2 tasks of run r are called `train`"),
            ("train", Some(7), "run r has no task `train` in iteration 7"),
            ("eval", None, "run r has no task `eval`"),
        ] {
            let error = find(&tasks, "r", text, iteration).expect_err("refused");
            assert_eq!(error.to_string(), expected);
        }
    }
}
