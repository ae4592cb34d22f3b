//! Finding a run by what people type, and telling why one failed.

use std::io::{self, Write};

use coracle_api::id::RunId;
use serde_json::{Value, json};

use crate::{
    client::{Client, PIPELINES, is_not_found, segment},
    output::field,
    trouble::Trouble,
};

/// The path of a run, or of something below it.
pub(crate) fn path(run_id: &str, rest: &str) -> String {
    format!("{PIPELINES}/runs/{}{rest}", segment(run_id))
}

/// The id of the run that is meant: by its id, the first or last characters of it, or its name.
pub(crate) fn find(client: &Client, text: &str) -> anyhow::Result<String> {
    if text.parse::<RunId>().is_ok() {
        return match client.get(&path(text, ""), &[]) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) if is_not_found(&error) => Err(none(text)),
            Err(error) => Err(error),
        };
    }
    let id_part = text.to_ascii_lowercase();
    let is_id_part = id_part
        .chars()
        .all(|char| char.is_ascii_hexdigit() || char == '-');
    if is_id_part && id_part.len() >= 4 {
        let found = search(client, "IS_SUBSTRING", "run_id", &id_part)?;
        let ids: Vec<&str> = found
            .iter()
            .map(|run| field(run, "run_id"))
            .filter(|id| id.starts_with(&id_part) || id.ends_with(&id_part))
            .collect();
        if let Some(id) = only(text, &ids)? {
            return Ok(id);
        }
    }
    let found = search(client, "EQUALS", "display_name", text)?;
    let ids: Vec<&str> = found.iter().map(|run| field(run, "run_id")).collect();
    only(text, &ids)?.ok_or_else(|| none(text))
}

fn search(client: &Client, operation: &str, key: &str, value: &str) -> anyhow::Result<Vec<Value>> {
    let filter = json!({"predicates": [{"operation": operation, "key": key, "string_value": value}]});
    let query = [("filter", filter.to_string()), ("page_size", "200".to_owned())];
    let query: Vec<(&str, &str)> = query
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let page = client.get(&format!("{PIPELINES}/runs"), &query)?;
    Ok(page["runs"].as_array().cloned().unwrap_or_default())
}

fn only(text: &str, ids: &[&str]) -> anyhow::Result<Option<String>> {
    match ids {
        [] => Ok(None),
        [id] => Ok(Some((*id).to_owned())),
        several => Err(Trouble::error(
            format!("{} runs match `{text}`", several.len()),
            format!(
                "give more of the id: {}",
                several[..several.len().min(4)].join(", ")
            ),
        )),
    }
}

fn none(text: &str) -> anyhow::Error {
    Trouble::error(
        format!("no run matches `{text}`"),
        "`coracle get runs` lists them",
    )
}

/// Why something failed, as the API tells it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Failure {
    /// From `error` of a run or task, in either of the API's two shapes.
    pub(crate) fn of(error: &Value) -> Option<Self> {
        let message = error["message"].as_str()?.to_owned();
        let info = error["details"]
            .as_array()
            .and_then(|details| details.iter().find(|detail| detail["reason"].is_string()));
        let (reason, hint) = match info {
            Some(info) => (&info["reason"], &info["metadata"]["hint"]),
            None => (&error["reason"], &error["hint"]),
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(Self {
            reason: text(reason),
            message,
            hint: text(hint),
        })
    }

    /// Writes `error: …` and `hint: …`.
    pub(crate) fn write(&self, out: &mut impl Write, subject: &str) -> io::Result<()> {
        let mut lines = self.message.lines();
        let first = lines.next().unwrap_or_default();
        let reason = if self.reason.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.reason)
        };
        writeln!(out, "error: {subject}{reason}{first}")?;
        lines.try_for_each(|line| writeln!(out, "  {line}"))?;
        if self.hint.is_empty() {
            Ok(())
        } else {
            writeln!(out, "hint: {}", self.hint)
        }
    }
}

/// Whether a state is a last one.
pub(crate) fn is_over(state: &str) -> bool {
    matches!(state, "SUCCEEDED" | "FAILED" | "SKIPPED" | "CANCELED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_in_both_shapes_and_told_in_one() {
        let run = json!({"code": 2, "message": "exit code 1: x\n  more", "details": [
            {"@type": "…/google.rpc.Status"}, {"reason": "CommandFailed", "metadata": {"hint": "read"}}]});
        let task = json!({"reason": "CommandFailed", "message": "exit code 1: x\n  more", "hint": "read"});
        let failure = Failure::of(&run).expect("a failure");
        assert_eq!(Failure::of(&task), Some(failure));
        assert_eq!(Failure::of(&Value::Null), None);
        let mut told = Vec::new();
        Failure::of(&run)
            .expect("a failure")
            .write(&mut told, "task `a`: ")
            .expect("written");
        let told = String::from_utf8(told).expect("text");
        assert_eq!(
            told,
            "error: task `a`: CommandFailed: exit code 1: x\n    more\nhint: read\n"
        );
    }

    #[test]
    fn a_part_of_an_id_must_be_of_one_run() {
        assert_eq!(only("a", &[]).expect("none"), None);
        assert_eq!(only("a", &["ab"]).expect("one"), Some("ab".to_owned()));
        let error = only("a", &["ab", "ac"]).expect_err("two").to_string();
        assert_eq!(error, "2 runs match `a`");
    }
}
