//! `coracle lineage`: what an artifact was made from, and what was made from it, across runs.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    process::ExitCode,
};

use clap::ValueEnum;
use serde_json::Value;

use crate::{
    arguments::Format,
    client::Client,
    kind::Kind,
    output::{self, field},
    runs, tasks,
    trouble::Trouble,
};

/// `coracle lineage`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coracle lineage 0198c0de-0000-7000-8000-000000000001
  coracle lineage my-run/train/model --direction upstream --depth 3")]
pub(crate) struct Lineage {
    /// An artifact's id or name, or RUN/TASK/OUTPUT
    #[arg(value_name = "ARTIFACT")]
    artifact: String,
    /// Which way to look
    #[arg(long, value_enum, default_value_t = Direction::Both, hide_default_value = true)]
    direction: Direction,
    /// How many tasks to go
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    depth: u32,
}

/// Which way to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// What it was made from
    Upstream,
    /// What was made from it
    Downstream,
    /// Both
    Both,
}

pub(super) fn lineage(options: &Lineage, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let id = find(client, &options.artifact)?;
    let depth = options.depth.to_string();
    let direction = match options.direction {
        Direction::Upstream => "UPSTREAM",
        Direction::Downstream => "DOWNSTREAM",
        Direction::Both => "BOTH",
    };
    let query = [("direction", direction), ("depth", depth.as_str())];
    let graph = client.get(&Kind::ARTIFACT.of(&id, ":lineage"), &query)?;
    if output::raw(&graph, format)? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::stdout().lock();
    Graph::new(&graph).write(&mut out, &id, options.direction)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The artifact that is meant.
pub(super) fn find(client: &Client, text: &str) -> anyhow::Result<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let [run, task, output] = parts.as_slice() else {
        return Kind::ARTIFACT.find(client, text);
    };
    let run = runs::find(client, run)?;
    let all = tasks::all(client, &run)?;
    let task = tasks::find(&all, &run, task, None)?;
    match tasks::outputs(task, output).as_slice() {
        [id] => Ok((*id).to_owned()),
        [] => {
            let names = task["outputs"]["artifacts"].as_object();
            let names: Vec<&str> = names
                .into_iter()
                .flat_map(|names| names.keys().map(String::as_str))
                .collect();
            Err(Trouble::error(
                format!("task `{}` made no artifact `{output}`", tasks::path(task)),
                if names.is_empty() {
                    "it made none".to_owned()
                } else {
                    format!("it made {}", names.join(", "))
                },
            ))
        }
        several => Err(Trouble::error(
            format!("`{output}` is a list of {} artifacts", several.len()),
            format!("choose one by its id: {}", several.join(", ")),
        )),
    }
}

/// Whether a link says that a task made an artifact.
fn is_output(link: &Value) -> bool {
    matches!(
        field(link, "type"),
        "OUTPUT" | "ONE_OF_OUTPUT" | "ITERATOR_OUTPUT" | "TASK_FINAL_STATUS_OUTPUT"
    )
}

/// Links of one kind, from either end.
#[derive(Default)]
struct Links<'a> {
    by_artifact: HashMap<&'a str, Vec<&'a Value>>,
    by_task: HashMap<&'a str, Vec<&'a Value>>,
}

struct Graph<'a> {
    artifacts: HashMap<&'a str, &'a Value>,
    tasks: HashMap<&'a str, &'a Value>,
    runs: HashMap<&'a str, &'a Value>,
    made: Links<'a>,
    used: Links<'a>,
}

impl<'a> Graph<'a> {
    fn new(answer: &'a Value) -> Self {
        let by_id = |list: &str, id: &str| {
            let items = answer[list].as_array().into_iter().flatten();
            items.map(|item| (field(item, id), item)).collect()
        };
        let mut graph = Self {
            artifacts: by_id("artifacts", "artifact_id"),
            tasks: by_id("tasks", "task_id"),
            runs: by_id("runs", "run_id"),
            made: Links::default(),
            used: Links::default(),
        };
        for link in answer["links"].as_array().into_iter().flatten() {
            let (artifact, task) = (field(link, "artifact_id"), field(link, "task_id"));
            // What a DAG hands on is its tasks' own.
            let kind = graph.tasks.get(task).map_or("", |task| field(task, "type"));
            if matches!(kind, "ROOT" | "DAG" | "LOOP" | "ITERATION") || field(link, "type") == "EXECUTOR_LOG"
            {
                continue;
            }
            let links = if is_output(link) {
                &mut graph.made
            } else {
                &mut graph.used
            };
            links.by_artifact.entry(artifact).or_default().push(link);
            links.by_task.entry(task).or_default().push(link);
        }
        graph
    }

    fn write(&self, out: &mut impl Write, id: &str, direction: Direction) -> io::Result<()> {
        writeln!(out, "{}", self.artifact(id, ""))?;
        if direction != Direction::Downstream {
            writeln!(out, "\nmade from")?;
            let mut seen = HashSet::new();
            if !self.walk(out, (&self.made, &self.used), id, 1, &mut seen)? {
                writeln!(out, "  nothing that is known")?;
            }
        }
        if direction != Direction::Upstream {
            writeln!(out, "\nused by")?;
            let mut seen = HashSet::new();
            if !self.walk(out, (&self.used, &self.made), id, 1, &mut seen)? {
                writeln!(out, "  nothing that is known")?;
            }
        }
        Ok(())
    }

    /// The tasks that an artifact has a link of the first kind to, and below each the artifacts that
    /// it has a link of the second kind to.
    fn walk(
        &self,
        out: &mut impl Write,
        (near, far): (&Links<'a>, &Links<'a>),
        artifact: &str,
        depth: usize,
        seen: &mut HashSet<&'a str>,
    ) -> io::Result<bool> {
        let mut is_any = false;
        for link in near.by_artifact.get(artifact).into_iter().flatten() {
            let task = field(link, "task_id");
            is_any = true;
            let again = if seen.insert(task) { "" } else { " (above)" };
            writeln!(out, "{}{}{again}", "  ".repeat(depth), self.task(link))?;
            if !again.is_empty() {
                continue;
            }
            for next in far.by_task.get(task).into_iter().flatten() {
                let id = field(next, "artifact_id");
                let shown = self.artifact(id, field(next, "key"));
                writeln!(out, "{}{shown}", "  ".repeat(depth + 1))?;
                self.walk(out, (near, far), id, depth + 2, seen)?;
            }
        }
        Ok(is_any)
    }

    fn artifact(&self, id: &str, key: &str) -> String {
        let Some(artifact) = self.artifacts.get(id) else {
            return format!("{key} {id} (deleted)").trim_start().to_owned();
        };
        let name = if key.is_empty() {
            field(artifact, "name")
        } else {
            key
        };
        let mut text = format!("{name}  {}", field(artifact, "type"));
        if let Ok(size) = field(artifact, "size").parse() {
            text.push_str(&format!("  {}", output::bytes(size)));
        }
        text.push_str(&format!("  {}  {id}", field(artifact, "uri")));
        text
    }

    fn task(&self, link: &Value) -> String {
        let run = field(link, "run_id");
        let name = self.tasks.get(field(link, "task_id")).map_or_else(
            || field(link, "task_id").to_owned(),
            |task| tasks::path(task).to_owned(),
        );
        match self.runs.get(run) {
            Some(found) => format!("{name} of run `{}` {run}", field(found, "display_name")),
            None => format!("{name} of run {run}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lineage_is_a_tree_both_ways() {
        let artifact = |id: &str, name: &str| json!({"artifact_id": id, "name": name, "type": "system.Artifact", "uri": format!("/{name}"), "size": "3"});
        let task = |id: &str, run: &str, kind: &str| json!({"task_id": id, "run_id": run, "scope_path": format!("root.{id}"), "type": kind});
        let link = |artifact: &str, task: &str, run: &str, io: &str, key: &str| json!({"artifact_id": artifact, "task_id": task, "run_id": run, "type": io, "key": key});
        let answer = json!({
            "artifacts": [artifact("a1", "raw"), artifact("a2", "model"), artifact("a3", "report")],
            "tasks": [task("prep", "r1", "CONTAINER"), task("train", "r1", "CONTAINER"),
                task("eval", "r2", "CONTAINER"), task("root", "r1", "ROOT")],
            "runs": [{"run_id": "r1", "display_name": "first"}],
            "links": [
                link("a1", "prep", "r1", "OUTPUT", "raw"),
                link("a1", "train", "r1", "TASK_OUTPUT_INPUT", "data"),
                link("a2", "train", "r1", "OUTPUT", "model"),
                link("a2", "root", "r1", "OUTPUT", "model"),
                link("a2", "eval", "r2", "COMPONENT_INPUT", "model"),
                link("a3", "eval", "r2", "OUTPUT", "report"),
                link("a4", "eval", "r2", "COMPONENT_INPUT", "extra"),
            ],
        });
        let shown = |id: &str, direction| {
            let mut text = Vec::new();
            Graph::new(&answer)
                .write(&mut text, id, direction)
                .expect("written");
            String::from_utf8(text).expect("text")
        };
        let expected = "\
model  system.Artifact  3 B  /model  a2

made from
  train of run `first` r1
    data  system.Artifact  3 B  /raw  a1
      prep of run `first` r1

used by
  eval of run r2
    report  system.Artifact  3 B  /report  a3
";
        assert_eq!(shown("a2", Direction::Both), expected);
        let expected = "\
report  system.Artifact  3 B  /report  a3

made from
  eval of run r2
    model  system.Artifact  3 B  /model  a2
      train of run `first` r1
        data  system.Artifact  3 B  /raw  a1
          prep of run `first` r1
    extra a4 (deleted)
";
        assert_eq!(shown("a3", Direction::Upstream), expected);
        assert!(shown("a3", Direction::Downstream).ends_with("used by\n  nothing that is known\n"));
    }
}
