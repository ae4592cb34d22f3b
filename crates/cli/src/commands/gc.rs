//! `coracle gc`: deletes artifacts that nothing needs any more.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    amounts::{Size, Span},
    arguments::Format,
    client::{Client, PIPELINES},
    output::{self, Table, field},
};

/// `coracle gc`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coracle gc --dry-run --older-than 30d
  coracle gc --keep-last 20 --max-size 10Gi

Without a limit nothing goes. What no run holds any more goes first, then artifacts of ended runs, the
oldest first, their logs too; what a kept run uses stays. Runs keep their states and parameters.
`coracle up --retain-days 30` does the same again and again.")]
pub(crate) struct Gc {
    /// Show what would go, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Artifacts of runs that ended longer ago: `30d`, `12h`
    #[arg(long, value_name = "DURATION")]
    older_than: Option<Span>,
    /// Never those of so many runs that ended last; alone: those of all others
    #[arg(long, value_name = "COUNT")]
    keep_last: Option<u32>,
    /// Artifacts of the oldest runs, until all of them together are no larger: `10Gi`
    #[arg(long, value_name = "BYTES")]
    max_size: Option<Size>,
}

pub(super) fn gc(options: &Gc, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let answer = client.post(&format!("{PIPELINES}/storage:collect"), &body(options))?;
    if !output::raw(&answer, format)? {
        let mut out = io::stdout().lock();
        write(&mut out, &answer, options.dry_run, Timestamp::now())?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn body(options: &Gc) -> Value {
    let mut body = json!({"dry_run": options.dry_run});
    if let Some(age) = options.older_than {
        body["older_than_seconds"] = json!(age.0);
    }
    if let Some(count) = options.keep_last {
        body["keep_last"] = json!(count);
    }
    if let Some(size) = options.max_size {
        body["max_bytes"] = json!(size.0);
    }
    body
}

/// An integer that may be written as text.
fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.parse().unwrap_or(0),
        other => other.as_u64().unwrap_or(0),
    }
}

fn write(out: &mut impl Write, answer: &Value, is_dry: bool, now: Timestamp) -> io::Result<()> {
    let artifacts = answer["artifacts"].as_array().map_or(&[][..], Vec::as_slice);
    let mut table = Table::new(["artifact", "size", "age", "uri"]);
    for artifact in artifacts {
        table.row([
            field(artifact, "name").to_owned(),
            output::bytes(number(&artifact["size"])),
            output::age(field(artifact, "created_at"), now),
            field(artifact, "uri").to_owned(),
        ]);
    }
    if !table.is_empty() {
        table
            .lines()
            .iter()
            .try_for_each(|line| writeln!(out, "{line}"))?;
    }
    let bytes = match &answer["bytes"] {
        Value::Null => artifacts.iter().map(|artifact| number(&artifact["size"])).sum(),
        bytes => number(bytes),
    };
    let verb = if is_dry { "would be freed" } else { "freed" };
    let count = artifacts.len();
    let plural = if count == 1 { "artifact" } else { "artifacts" };
    writeln!(out, "{} {verb}, of {count} {plural}", output::bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_chosen_is_asked_for() {
        let options = Gc {
            dry_run: true,
            older_than: Some(Span(86_400)),
            keep_last: None,
            max_size: Some(Size(1024)),
        };
        let expected = json!({"dry_run": true, "older_than_seconds": 86_400, "max_bytes": 1024});
        assert_eq!(body(&options), expected);
    }

    #[test]
    fn what_goes_is_listed_and_summed() {
        let answer = json!({"artifacts": [
            {"name": "model", "size": "2048", "created_at": "2026-01-01T00:00:00Z", "uri": "/a/model"},
            {"name": "data", "size": "1024", "created_at": "2026-01-01T00:00:00Z", "uri": "/a/data"}]});
        let now = "2026-01-03T00:00:00Z".parse().expect("a moment");
        let mut text = Vec::new();
        write(&mut text, &answer, true, now).expect("written");
        let expected = "\
ARTIFACT  SIZE     AGE    URI
model     2.0 KiB  2d00h  /a/model
data      1.0 KiB  2d00h  /a/data
3.0 KiB would be freed, of 2 artifacts
";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
        let mut text = Vec::new();
        write(&mut text, &json!({"bytes": "0"}), false, now).expect("written");
        assert_eq!(
            String::from_utf8(text).expect("text"),
            "0 B freed, of 0 artifacts\n"
        );
    }
}
