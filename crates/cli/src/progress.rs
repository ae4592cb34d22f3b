//! A run as it goes on: a line for each change of state, and on a terminal one line below them
//! that counts.

use std::{
    collections::HashMap,
    io::{self, Write},
    time::Instant,
};

use serde_json::Value;

use crate::{
    output::{self, field},
    runs::{self, Failure},
};

/// Shows a run's changes. Give it every event, whole or partial.
pub(crate) struct Progress<W> {
    out: W,
    started: Instant,
    /// Draws the counting line.
    is_live: bool,
    colour: bool,
    run_state: String,
    /// Why the run has yet to begin.
    wait: String,
    tasks: HashMap<String, Task>,
}

/// What is known of a task.
#[derive(Debug, Default)]
struct Task {
    name: String,
    parent: String,
    state: String,
    error: Value,
}

impl<W: Write> Progress<W> {
    pub(crate) fn new(out: W, is_live: bool, colour: bool) -> Self {
        Self {
            out,
            started: Instant::now(),
            is_live,
            colour,
            run_state: String::new(),
            wait: String::new(),
            tasks: HashMap::new(),
        }
    }

    /// Takes in a run, with all of its tasks or only some, and shows what is new.
    pub(crate) fn update(&mut self, run: &Value) -> io::Result<()> {
        let mut changed = Vec::new();
        for detail in run["run_details"]["task_details"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let task = self.tasks.entry(field(detail, "task_id").to_owned()).or_default();
            field(detail, "display_name").clone_into(&mut task.name);
            field(detail, "parent_task_id").clone_into(&mut task.parent);
            task.error = detail["error"].clone();
            let state = field(detail, "state");
            if task.state != state {
                state.clone_into(&mut task.state);
                changed.push((field(detail, "task_id").to_owned(), state.to_owned()));
            }
        }
        if self.is_live {
            write!(self.out, "\r\x1b[2K")?;
        }
        // What ends, ends before that which holds it.
        let state = field(run, "state");
        let is_over = runs::is_over(state);
        changed.sort_by_key(|(id, state)| {
            if runs::is_over(state) {
                usize::MAX - self.depth(id)
            } else {
                0
            }
        });
        if self.run_state != state && !is_over {
            self.line(state, "run")?;
        }
        let wait = Failure::of(&run["error"]).filter(|_| !is_over);
        if let Some(wait) = wait.filter(|wait| wait.message != self.wait) {
            let elapsed = self.elapsed();
            let Failure {
                reason,
                message,
                hint,
            } = wait;
            writeln!(self.out, "{elapsed:>7}  PENDING    run: {reason}: {message}")?;
            writeln!(self.out, "hint: {hint}")?;
            self.wait = message;
        }
        for (id, state) in changed {
            let name = self.path(&id);
            // The root is the run itself.
            if !name.is_empty() {
                self.line(&state, &name)?;
            }
        }
        if self.run_state != state && is_over {
            self.line(state, "run")?;
        }
        state.clone_into(&mut self.run_state);
        let counts = self.counts();
        if self.is_live && !is_over && !counts.is_empty() {
            write!(self.out, "{:>7}  {counts}", self.elapsed())?;
        }
        self.out.flush()
    }

    /// Ends the counting line, so that other text can follow.
    pub(crate) fn pause(&mut self) -> io::Result<()> {
        if self.is_live {
            write!(self.out, "\r\x1b[2K").and_then(|()| self.out.flush())
        } else {
            Ok(())
        }
    }

    /// The tasks that failed by themselves, by path, with the API's word why.
    pub(crate) fn failed(&self) -> Vec<(String, Value)> {
        let is_parent_of_failed = |id: &str| {
            self.tasks
                .values()
                .any(|task| task.parent == id && task.state == "FAILED")
        };
        let mut failed: Vec<_> = self
            .tasks
            .iter()
            .filter(|(id, task)| task.state == "FAILED" && !is_parent_of_failed(id))
            .map(|(id, task)| (self.path(id), task.error.clone()))
            .collect();
        failed.sort_by(|a, b| a.0.cmp(&b.0));
        failed
    }

    fn line(&mut self, state: &str, name: &str) -> io::Result<()> {
        // What waits is no news.
        if state == "PENDING" {
            return Ok(());
        }
        let elapsed = self.elapsed();
        // Padded by what is seen, not by the colour's own characters.
        let padding = " ".repeat(9_usize.saturating_sub(state.len()));
        writeln!(
            self.out,
            "{elapsed:>7}  {}{padding}  {name}",
            output::state(state, self.colour)
        )
    }

    fn elapsed(&self) -> String {
        output::duration(jiff::SignedDuration::try_from(self.started.elapsed()).unwrap_or_default())
    }

    /// Where a task is, from below the root: `for-loop-1 / 3 / train`.
    fn path(&self, id: &str) -> String {
        let mut names = Vec::new();
        let mut next = self.tasks.get(id);
        while let Some(task) = next.filter(|task| !task.parent.is_empty()) {
            names.push(task.name.as_str());
            next = self.tasks.get(&task.parent);
        }
        names.reverse();
        names.join(" / ")
    }

    fn depth(&self, id: &str) -> usize {
        std::iter::successors(self.tasks.get(id), |task| self.tasks.get(&task.parent)).count()
    }

    fn counts(&self) -> String {
        let count = |wanted: &str| {
            let tasks = self.tasks.values().filter(|task| !task.parent.is_empty());
            tasks.filter(|task| task.state == wanted).count()
        };
        let words = [
            ("RUNNING", "running"),
            ("PENDING", "waiting"),
            ("SUCCEEDED", "done"),
            ("SKIPPED", "skipped"),
            ("FAILED", "failed"),
        ];
        let counts: Vec<_> = words
            .into_iter()
            .map(|(state, word)| (count(state), word))
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        counts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(id: &str, parent: &str, name: &str, state: &str) -> Value {
        json!({"task_id": id, "parent_task_id": parent, "display_name": name, "state": state})
    }

    fn run(state: &str, tasks: &[Value]) -> Value {
        json!({"state": state, "run_details": {"task_details": tasks}})
    }

    fn shown(is_live: bool, updates: &[Value]) -> String {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, is_live, false);
        updates
            .iter()
            .for_each(|update| progress.update(update).expect("shown"));
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn each_change_is_a_line_and_what_waits_is_none() {
        let updates = [
            run(
                "RUNNING",
                &[
                    task("0", "", "root", "RUNNING"),
                    task("1", "0", "loop", "RUNNING"),
                    task("2", "1", "3", "PENDING"),
                ],
            ),
            run("RUNNING", &[task("2", "1", "3", "RUNNING")]),
            run("RUNNING", &[task("2", "1", "3", "RUNNING")]),
            run(
                "FAILED",
                &[task("1", "0", "loop", "FAILED"), task("2", "1", "3", "FAILED")],
            ),
        ];
        let text = shown(false, &updates);
        let lines: Vec<&str> = text.lines().map(|line| line[7..].trim_start()).collect();
        let expected = [
            "RUNNING    run",
            "RUNNING    loop",
            "RUNNING    loop / 3",
            "FAILED     loop / 3",
            "FAILED     loop",
            "FAILED     run",
        ];
        assert_eq!(lines, expected);
        assert!(!text.contains('\x1b'));

        let mut progress = Progress::new(Vec::new(), false, false);
        updates
            .iter()
            .for_each(|update| progress.update(update).expect("shown"));
        let failed: Vec<_> = progress.failed().into_iter().map(|(path, _)| path).collect();
        assert_eq!(failed, ["loop / 3"], "not what failed because of it");
    }

    #[test]
    fn why_a_run_waits_is_told_once() {
        let mut waits = run("PENDING", &[]);
        waits["error"] =
            json!({"message": "others are at work", "reason": "RunLimitReached", "hint": "wait"});
        let text = shown(false, &[waits.clone(), waits, run("RUNNING", &[])]);
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        assert!(
            lines[0].ends_with("PENDING    run: RunLimitReached: others are at work"),
            "{text}"
        );
        assert_eq!(lines[1], "hint: wait");
        assert!(lines[2].ends_with("RUNNING    run"), "{text}");
    }

    #[test]
    fn on_a_terminal_a_line_counts() {
        let tasks = [
            task("0", "", "root", "RUNNING"),
            task("1", "0", "a", "RUNNING"),
            task("2", "0", "b", "PENDING"),
        ];
        assert!(shown(true, &[run("RUNNING", &tasks)]).ends_with("1 running, 1 waiting"));
    }
}
