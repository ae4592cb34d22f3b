//! `coracle logs`: of one task as it is, of a whole run task by task.

use std::{
    collections::HashSet,
    io::{self, BufRead, BufReader, Read, Write},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver},
    },
    thread,
};

use anyhow::Context;
use serde_json::Value;

use crate::{
    arguments::Logs,
    client::{Client, is_not_found, segment},
    output::field,
    runs,
    tasks::{self, path},
    trouble::Trouble,
};

/// Logs of a run that are followed at the same time.
const AT_ONCE: usize = 32;
/// Bytes of a line that are shown as one.
const LONGEST: u64 = 1 << 20;

pub(super) fn logs(options: &Logs, client: &Client) -> anyhow::Result<()> {
    let run = runs::find(client, &options.run)?;
    match &options.task {
        Some(task) => {
            let tasks = tasks::all(client, &run)?;
            let task = tasks::find(&tasks, &run, task, options.iteration)?;
            one(client, &run, field(task, "task_id"), options)
        }
        None if options.follow => follow_all(client, &run),
        None => all(client, &run),
    }
}

fn open(
    client: &Client,
    run: &str,
    task: &str,
    follow: bool,
    attempt: Option<u32>,
) -> anyhow::Result<impl Read + use<>> {
    let attempt = attempt.map(|number| number.to_string());
    let mut query = Vec::new();
    if follow {
        query.push(("follow", "true"));
    }
    if let Some(attempt) = &attempt {
        query.push(("attempt", attempt.as_str()));
    }
    client.stream(
        &format!("/apis/v1alpha1/runs/{}/nodes/{}/log", segment(run), segment(task)),
        &query,
    )
}

fn one(client: &Client, run: &str, task: &str, options: &Logs) -> anyhow::Result<()> {
    let log = open(client, run, task, options.follow, options.attempt).map_err(|error| {
        if is_not_found(&error) {
            return Trouble::error(
                error.to_string(),
                format!("`coracle describe run {run}` shows the run's tasks"),
            );
        }
        error
    })?;
    pass_on(log)
}

fn pass_on(mut log: impl Read) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match log.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("the log broke off"),
        };
        // At once: somebody may be following.
        out.write_all(&buffer[..count])?;
        out.flush()?;
    }
}

/// The tasks that have processes, and so logs.
fn with_logs(client: &Client, run: &str) -> anyhow::Result<Vec<Value>> {
    Ok(tasks::all(client, run)?
        .into_iter()
        .filter(|task| task["attempts"].is_array())
        .collect())
}

fn all(client: &Client, run: &str) -> anyhow::Result<()> {
    let tasks = with_logs(client, run)?;
    if tasks.is_empty() {
        writeln!(io::stderr(), "no task of run {run} has started a process yet")?;
    }
    for task in &tasks {
        if tasks.len() > 1 {
            writeln!(io::stdout(), "==> {} <==", path(task))?;
        }
        match open(client, run, field(task, "task_id"), false, None) {
            Ok(log) => pass_on(log)?,
            Err(error) if is_not_found(&error) => writeln!(io::stderr(), "{error}")?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Follows every task as it starts, each line after its task's name, until the run ends.
fn follow_all(client: &Client, run: &str) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel::<(String, String)>();
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| scope.spawn(|| follow_each(client, run, &receiver)))
            .collect();
        let mut seen = HashSet::new();
        let start = |seen: &mut HashSet<String>| -> anyhow::Result<()> {
            for task in with_logs(client, run)? {
                let id = field(&task, "task_id").to_owned();
                if seen.insert(id.clone()) {
                    // Workers live as long as the sender.
                    let _ = sender.send((id, path(&task).to_owned()));
                }
            }
            Ok(())
        };
        let has_news = |event: &Value, seen: &HashSet<String>| {
            let tasks = event["run_details"]["task_details"].as_array();
            tasks
                .into_iter()
                .flatten()
                .any(|task| task["pod_name"].is_string() && !seen.contains(field(task, "task_id")))
        };
        let watched = super::run::watch(
            client,
            run,
            |event| {
                if has_news(event, &seen) {
                    start(&mut seen).map_err(io::Error::other)?;
                }
                Ok(())
            },
            || Ok(()),
        );
        drop(sender);
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => anyhow::bail!("a log could not be followed to its end"),
            }
        }
        watched.map(drop)
    })
}

fn follow_each(client: &Client, run: &str, tasks: &Mutex<Receiver<(String, String)>>) -> anyhow::Result<()> {
    loop {
        let next = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((id, name)) = next else { return Ok(()) };
        let log = match open(client, run, &id, true, None) {
            Ok(log) => log,
            Err(error) if is_not_found(&error) => continue,
            Err(error) => return Err(error),
        };
        told(log, &name, |lines| io::stdout().lock().write_all(lines)).context("the log broke off")?;
    }
}

/// Hands on lines, each after a name: all that came together at once, for other logs are shown in between.
fn told(log: impl Read, name: &str, mut show: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut lines = BufReader::with_capacity(64 * 1024, log);
    let mut ready = Vec::new();
    loop {
        let start = ready.len();
        write!(ready, "{name} | ")?;
        if lines.by_ref().take(LONGEST).read_until(b'\n', &mut ready)? == 0 {
            ready.truncate(start);
            return show(&ready);
        }
        if !ready.ends_with(b"\n") {
            ready.push(b'\n');
        }
        if !lines.buffer().contains(&b'\n') {
            show(&ready)?;
            ready.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(log: impl Read) -> Vec<String> {
        let mut shown = Vec::new();
        told(log, "a", |lines| {
            shown.push(String::from_utf8_lossy(lines).into_owned());
            Ok(())
        })
        .unwrap();
        shown
    }

    #[test]
    fn lines_are_shown_together_each_with_its_name_and_the_last_with_an_end() {
        assert_eq!(shown(&b"one\n\ntwo"[..]).concat(), "a | one\na | \na | two\n");
        assert_eq!(shown(&b"one\ntwo\n"[..]).first().unwrap(), "a | one\na | two\n");
        assert_eq!(shown(&b""[..]).concat(), "");
    }

    #[test]
    fn a_line_that_never_ends_is_shown_in_pieces() {
        let shown = shown(io::repeat(b'x').take(3 * LONGEST));
        assert_eq!(shown.len(), 4, "three pieces, and the end");
        assert!(shown[..3].iter().all(|piece| piece.len() as u64 == LONGEST + 5));
    }
}
