//! `coracle describe`: one thing in full. Of a run: its tasks, why they failed, what they took and
//! made.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::get::Resource;
use crate::{
    arguments::{Describe, Format},
    client::{Client, PIPELINES},
    kind::Kind,
    output::{self, Table, field},
    runs::{self, Failure},
    tasks::path,
};

pub(super) fn describe(options: &Describe, client: &Client, format: Format) -> anyhow::Result<()> {
    let kind = Kind::named(&options.kind);
    match kind {
        Some(Kind::RUN) => return run(client, &runs::find(client, &options.name)?, options.all, format),
        Some(Kind::SCHEDULE) => {
            let id = Kind::SCHEDULE.find(client, &options.name)?;
            return super::schedule::describe(client, &id, format);
        }
        _ => {}
    }
    let object = match kind {
        Some(Kind::ARTIFACT) => {
            let id = super::lineage::find(client, &options.name)?;
            client.get(&Kind::ARTIFACT.of(&id, ""), &[])?
        }
        Some(kind) => client.get(&kind.of(&kind.find(client, &options.name)?, ""), &[])?,
        None => {
            let resource = Resource::find(client, &options.kind)?;
            client.get(&resource.path(Some(&options.namespace), Some(&options.name)), &[])?
        }
    };
    // An object in full is best read as it is.
    let format = if format == Format::Text {
        Format::Yaml
    } else {
        format
    };
    output::raw(&object, format).map(drop)
}

fn run(client: &Client, id: &str, all: bool, format: Format) -> anyhow::Result<()> {
    let run = client.get(&runs::path(id, ""), &[])?;
    let tasks = client.get(&runs::path(id, "/tasks"), &[])?;
    let artifacts = client.get(&format!("{PIPELINES}/artifacts"), &[("run_id", id)])?;
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let (tasks, artifacts) = (list(&tasks, "tasks"), list(&artifacts, "artifacts"));
    let whole = json!({"run": run, "tasks": tasks, "artifacts": artifacts});
    if output::raw(&whole, format)? {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let description = Description {
        run: &run,
        tasks: &tasks,
        artifacts: artifacts
            .iter()
            .map(|artifact| (field(artifact, "artifact_id"), artifact))
            .collect(),
        now: Timestamp::now(),
        colour: output::has_colour(&out),
        all,
    };
    description.write(&mut out)?;
    out.flush()?;
    Ok(())
}

/// Iterations of a loop that are all shown.
const FEW: usize = 10;

struct Description<'a> {
    run: &'a Value,
    tasks: &'a [Value],
    artifacts: HashMap<&'a str, &'a Value>,
    now: Timestamp,
    colour: bool,
    /// Whether every iteration of a loop is shown.
    all: bool,
}

impl Description<'_> {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let run = self.run;
        let state = field(run, "state");
        writeln!(out, "run         {}", field(run, "run_id"))?;
        writeln!(out, "name        {}", field(run, "display_name"))?;
        writeln!(out, "state       {}", output::state(state, self.colour))?;
        writeln!(out, "experiment  {}", field(run, "experiment_id"))?;
        if let Some(schedule) = run["recurring_run_id"].as_str() {
            writeln!(out, "schedule    {schedule}, due {}", field(run, "scheduled_at"))?;
        }
        let created = field(run, "created_at");
        writeln!(
            out,
            "created     {created} ({} ago)",
            output::age(created, self.now)
        )?;
        writeln!(
            out,
            "duration    {}",
            output::between(created, field(run, "finished_at"), self.now)
        )?;
        if let Some(parameters) = run["runtime_config"]["parameters"].as_object() {
            writeln!(out, "parameters  {}", values(parameters))?;
        }
        for warning in run["warnings"].as_array().into_iter().flatten() {
            writeln!(out, "warning     {}", warning.as_str().unwrap_or_default())?;
        }
        self.write_tree(out)?;
        self.write_failures(out)?;
        self.write_values(out)?;
        self.write_artifacts(out)
    }

    /// The tasks below the root, each under its parent, with their depth.
    fn tree(&self) -> Vec<(usize, &Value)> {
        let mut children: HashMap<&str, Vec<&Value>> = HashMap::new();
        let mut roots = Vec::new();
        for task in self.tasks {
            match task["parent_task_id"].as_str() {
                Some(parent) => children.entry(parent).or_default().push(task),
                None => roots.push(task),
            }
        }
        // Children in the order they started; those that have not yet come last.
        for below in children.values_mut() {
            below.sort_by_key(|task| {
                let start = output::moment(field(task, "start_time"));
                (start.is_none(), start)
            });
        }
        let mut tree = Vec::new();
        let mut stack: Vec<(usize, &Value)> = roots.into_iter().rev().map(|root| (0, root)).collect();
        while let Some((depth, task)) = stack.pop() {
            if depth > 0 {
                tree.push((depth - 1, task));
            }
            let below = children.remove(field(task, "task_id")).unwrap_or_default();
            let below = if self.all {
                below
            } else {
                Self::notable(task, below)
            };
            stack.extend(below.into_iter().rev().map(|child| (depth + 1, child)));
        }
        tree
    }

    /// Of many iterations, those that are at work or did not succeed, and not too many of them.
    fn notable<'b>(task: &Value, mut below: Vec<&'b Value>) -> Vec<&'b Value> {
        if field(task, "type") == "LOOP" && below.len() > FEW {
            below.retain(|task| {
                !matches!(
                    field(task, "state"),
                    "SUCCEEDED" | "SKIPPED" | "CACHED" | "PENDING"
                )
            });
            below.truncate(FEW);
        }
        below
    }

    /// What is to say about a task beside its state.
    fn note(&self, task: &Value) -> String {
        let mut notes = Vec::new();
        if let Some(run) = task["cached_from"]["run_id"].as_str() {
            notes.push(format!("cached from run {run}"));
        }
        let retries = task["retries"].as_u64().unwrap_or(0);
        if retries > 0 {
            notes.push(if retries == 1 {
                "1 retry".to_owned()
            } else {
                format!("{retries} retries")
            });
        }
        if let Some(next) = output::moment(field(task, "retry_at")).filter(|next| *next > self.now) {
            notes.push(format!(
                "tried again in {}",
                output::duration(next.duration_since(self.now))
            ));
        }
        if field(task, "type") == "LOOP" {
            let id = field(task, "task_id");
            let iterations: Vec<&Value> = self
                .tasks
                .iter()
                .filter(|task| field(task, "parent_task_id") == id)
                .collect();
            let good = iterations
                .iter()
                .filter(|task| field(task, "state") == "SUCCEEDED")
                .count();
            notes.push(format!("{good} of {} succeeded", iterations.len()));
        }
        notes.join(", ")
    }

    fn write_tree(&self, out: &mut impl Write) -> io::Result<()> {
        let mut table = Table::new(["task", "state", "duration", "attempts", "pod", "note"]);
        for (depth, task) in self.tree() {
            let attempts = task["attempts"].as_array().map_or(&[][..], Vec::as_slice);
            let pod = attempts.last().map_or("", |attempt| field(attempt, "pod_name"));
            table.row([
                format!("{}{}", "  ".repeat(depth), label(task)),
                field(task, "state").to_owned(),
                output::between(field(task, "start_time"), field(task, "end_time"), self.now),
                if attempts.is_empty() {
                    String::new()
                } else {
                    attempts.len().to_string()
                },
                pod.to_owned(),
                self.note(task),
            ]);
        }
        if table.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        table.lines().iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    fn write_failures(&self, out: &mut impl Write) -> io::Result<()> {
        let tree = self.tree();
        let has_failed = |id: &str| {
            tree.iter()
                .any(|(_, task)| field(task, "parent_task_id") == id && task["error"].is_object())
        };
        let mut is_told = false;
        for (_, task) in &tree {
            if let Some(failure) = Failure::of(&task["error"]).filter(|_| !has_failed(field(task, "task_id")))
            {
                writeln!(out)?;
                failure.write(out, &format!("task `{}`: ", path(task)))?;
                is_told = true;
            }
        }
        match Failure::of(&self.run["error"]) {
            Some(failure) if !is_told => {
                writeln!(out)?;
                failure.write(out, "")
            }
            _ => Ok(()),
        }
    }

    fn write_values(&self, out: &mut impl Write) -> io::Result<()> {
        let mut is_first = true;
        for (_, task) in self.tree() {
            let side = |name: &str| {
                task[name]["parameters"]
                    .as_object()
                    .filter(|values| !values.is_empty())
            };
            for (direction, given) in [("in", side("inputs")), ("out", side("outputs"))] {
                let Some(given) = given else { continue };
                if is_first {
                    writeln!(out, "\nVALUES")?;
                    is_first = false;
                }
                writeln!(out, "{} {direction}: {}", path(task), values(given))?;
            }
        }
        Ok(())
    }

    fn write_artifacts(&self, out: &mut impl Write) -> io::Result<()> {
        let mut table = Table::new(["artifact", "type", "size", "uri", "metadata"]);
        for (_, task) in self.tree() {
            // What a DAG passes on is its tasks' own.
            let is_leaf = matches!(field(task, "type"), "CONTAINER" | "IMPORTER");
            let made = task["outputs"]["artifacts"].as_object().filter(|_| is_leaf);
            for (name, list) in made.into_iter().flatten() {
                let ids = list["artifact_ids"].as_array().into_iter().flatten();
                for artifact in ids.filter_map(|id| self.artifacts.get(id.as_str()?)) {
                    let size = field(artifact, "size")
                        .parse()
                        .map(output::bytes)
                        .unwrap_or_default();
                    table.row([
                        format!("{}.{name}", path(task)),
                        field(artifact, "type").to_owned(),
                        size,
                        field(artifact, "uri").to_owned(),
                        artifact["metadata"].as_object().map(values).unwrap_or_default(),
                    ]);
                }
            }
        }
        if table.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        table.lines().iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}

/// What a task is called among its siblings.
fn label(task: &Value) -> String {
    match task["iteration_index"].as_str() {
        Some(index) => format!("[{index}]"),
        None => field(task, "display_name").to_owned(),
    }
}

fn values(values: &Map<String, Value>) -> String {
    let shown = values
        .iter()
        .map(|(name, value)| format!("{name}={}", output::short(value, 80)));
    shown.collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_from_its_tree_to_its_artifacts() {
        let run = json!({"run_id": "r1", "display_name": "my run", "state": "FAILED", "experiment_id": "e1",
            "created_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:01:05Z",
            "runtime_config": {"parameters": {"rate": 0.5}},
            "error": {"message": "a task failed", "details": []}});
        let tasks = [
            json!({"task_id": "0", "scope_path": "root", "display_name": "root", "state": "FAILED", "type": "ROOT",
                "error": {"reason": "UpstreamFailed", "message": "x", "hint": "y"}}),
            json!({"task_id": "1", "parent_task_id": "0", "scope_path": "root.loop", "display_name": "loop",
                "state": "FAILED", "type": "LOOP", "error": {"reason": "UpstreamFailed", "message": "x", "hint": "y"}}),
            json!({"task_id": "2", "parent_task_id": "1", "scope_path": "root.loop.3", "display_name": "3",
                "iteration_index": "3", "state": "FAILED", "type": "CONTAINER",
                "error": {"reason": "CommandFailed", "message": "exit code 1", "hint": "read the log"},
                "start_time": "2026-01-01T00:00:01Z", "end_time": "2026-01-01T00:00:03Z",
                "attempts": [{"pod_name": "p-1"}, {"pod_name": "p-2"}], "retries": 1,
                "inputs": {"parameters": {"n": 3, "text": "hello"}},
                "outputs": {"artifacts": {"metrics": {"artifact_ids": ["a1"]}}}}),
        ];
        let artifact = json!({"artifact_id": "a1", "type": "system.Metrics", "uri": "/store/m", "size": "2048",
            "metadata": {"loss": 0.25}});
        let description = Description {
            run: &run,
            tasks: &tasks,
            artifacts: HashMap::from([("a1", &artifact)]),
            now: "2026-01-01T00:02:00Z".parse().expect("a moment"),
            colour: false,
            all: false,
        };
        let mut text = Vec::new();
        description.write(&mut text).expect("written");
        let expected = "\
run         r1
name        my run
state       FAILED
experiment  e1
created     2026-01-01T00:00:00Z (2m00s ago)
duration    1m05s
parameters  rate=0.5

TASK   STATE   DURATION  ATTEMPTS  POD  NOTE
loop   FAILED                           0 of 1 succeeded
  [3]  FAILED  2.0s      2         p-2  1 retry

error: task `loop.3`: CommandFailed: exit code 1
hint: read the log

VALUES
loop.3 in: n=3  text=hello

ARTIFACT        TYPE            SIZE     URI       METADATA
loop.3.metrics  system.Metrics  2.0 KiB  /store/m  loss=0.25
";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
    }

    #[test]
    fn iterations_that_succeeded_are_counted_and_not_listed() {
        let mut tasks = vec![
            json!({"task_id": "0", "scope_path": "root", "state": "RUNNING", "type": "ROOT"}),
            json!({"task_id": "l", "parent_task_id": "0", "scope_path": "root.l", "display_name": "l",
                "state": "RUNNING", "type": "LOOP"}),
        ];
        for index in 0..100 {
            let state = if index == 7 { "FAILED" } else { "SUCCEEDED" };
            tasks.push(json!({"task_id": format!("i{index}"), "parent_task_id": "l", "type": "ITERATION",
                "scope_path": format!("root.l.{index}"), "iteration_index": index.to_string(), "state": state}));
        }
        let run = json!({"run_id": "r1"});
        let mut description = Description {
            run: &run,
            tasks: &tasks,
            artifacts: HashMap::new(),
            now: Timestamp::UNIX_EPOCH,
            colour: false,
            all: false,
        };
        let tree = |description: &Description<'_>| {
            let mut text = Vec::new();
            description.write_tree(&mut text).expect("written");
            String::from_utf8(text).expect("text")
        };
        let text = tree(&description);
        assert!(text.contains("99 of 100 succeeded"), "{text}");
        assert!(text.contains("[7]") && !text.contains("[8]"), "{text}");
        description.all = true;
        assert!(tree(&description).contains("[8]"));
    }
}
