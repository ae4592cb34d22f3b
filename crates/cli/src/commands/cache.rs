//! `coracle cache`: outputs that later runs of the same pipeline take over.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::get;
use crate::{
    amounts::Span,
    arguments::Format,
    client::{Client, PIPELINES},
    output::{self, Table, field},
};

/// `coracle cache`.
#[derive(Debug, clap::Args)]
pub(crate) struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List cached outputs, the newest first
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Forget cached outputs: the next run makes them again
    Rm(Rm),
}

/// Which entries.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Which {
    /// Only of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only of tasks with this name
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
}

/// `coracle cache ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coracle cache ls --pipeline train-model --task train")]
struct Ls {
    #[command(flatten)]
    which: Which,
    /// Show at most this many
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: u32,
}

/// `coracle cache rm`.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("chosen").required(true).multiple(true)
        .args(["pipeline", "task", "key", "older_than", "all"])),
    after_help = "Examples:\n  coracle cache rm --pipeline train-model --task train\n  coracle cache rm --older-than 30d"
)]
struct Rm {
    #[command(flatten)]
    which: Which,
    /// Only the entry with this key, or whose key begins so
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only what is older: `30d`, `12h`
    #[arg(long, value_name = "DURATION")]
    older_than: Option<Span>,
    /// Everything
    #[arg(long, conflicts_with_all = ["pipeline", "task", "key", "older_than"])]
    all: bool,
}

pub(super) fn cache(options: &Cache, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match &options.command {
        Command::Ls(options) => list(client, &options.which, options.limit, format)?,
        Command::Rm(options) => remove(options, client, format)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the entries that match.
pub(super) fn list(client: &Client, which: &Which, limit: u32, format: Format) -> anyhow::Result<()> {
    let mut query = vec![("sort_by", "created_at desc")];
    if let Some(pipeline) = &which.pipeline {
        query.push(("pipeline_name", pipeline.as_str()));
    }
    if let Some(task) = &which.task {
        query.push(("task_name", task.as_str()));
    }
    let listed = get::pages(client, "cache_entries", "cache_entries", &query, limit)?;
    if output::raw(&listed, format)? {
        return Ok(());
    }
    let now = Timestamp::now();
    let mut table = Table::new(["key", "pipeline", "task", "run", "age"]);
    for entry in listed["cache_entries"].as_array().into_iter().flatten() {
        let key = field(entry, "key");
        table.row([
            key.get(..16).unwrap_or(key).to_owned(),
            field(entry, "pipeline_name").to_owned(),
            field(entry, "task_name").to_owned(),
            field(entry, "run_id").to_owned(),
            output::age(field(entry, "created_at"), now),
        ]);
    }
    if table.is_empty() {
        writeln!(io::stderr(), "nothing is cached")?;
        return Ok(());
    }
    table.print()?;
    get::say_more(&listed, "cache_entries")
}

fn remove(options: &Rm, client: &Client, format: Format) -> anyhow::Result<()> {
    let mut body = json!({});
    if let Some(pipeline) = &options.which.pipeline {
        body["pipeline_name"] = json!(pipeline);
    }
    if let Some(task) = &options.which.task {
        body["task_name"] = json!(task);
    }
    if let Some(key) = &options.key {
        body["key"] = json!(whole_key(client, &options.which, key)?);
    }
    if let Some(age) = options.older_than {
        body["older_than"] = json!(age.0);
    }
    let answer = client.post(&format!("{PIPELINES}/cache_entries:invalidate"), &body)?;
    if output::raw(&answer, format)? {
        return Ok(());
    }
    let count = match &answer["deleted"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    writeln!(io::stdout(), "{count} removed")?;
    Ok(())
}

/// The key that begins so: what `ls` shows is cut.
fn whole_key(client: &Client, which: &Which, begin: &str) -> anyhow::Result<String> {
    if begin.len() >= 64 {
        return Ok(begin.to_owned());
    }
    let mut query = Vec::new();
    if let Some(pipeline) = &which.pipeline {
        query.push(("pipeline_name", pipeline.as_str()));
    }
    let listed = get::pages(client, "cache_entries", "cache_entries", &query, u32::MAX)?;
    let mut keys: Vec<&str> = listed["cache_entries"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| field(entry, "key"))
        .filter(|key| key.starts_with(begin))
        .collect();
    keys.dedup();
    match keys.as_slice() {
        [key] => Ok((*key).to_owned()),
        [] => anyhow::bail!("no cached outputs have a key that begins with `{begin}`"),
        several => anyhow::bail!("{} keys begin with `{begin}`: give more of it", several.len()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn nothing_is_removed_by_default() {
        let parse = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.command);
        assert!(parse("x rm").is_err());
        assert!(parse("x rm --all --pipeline p").is_err());
        let Ok(Command::Rm(rm)) = parse("x rm --pipeline p --older-than 1d") else {
            panic!("refused")
        };
        assert_eq!(
            (rm.which.pipeline.as_deref(), rm.older_than),
            (Some("p"), Some(Span(86_400)))
        );
    }
}
