//! Finding a run by what people type, and telling why one failed.

use std::io::{self, Write};

use serde_json::Value;

use crate::{
    client::{Client, PIPELINES, segment},
    kind::Kind,
};

/// The path of a run, or of something below it.
pub(crate) fn path(run_id: &str, rest: &str) -> String {
    format!("{PIPELINES}/runs/{}{rest}", segment(run_id))
}

/// The id of the run that is meant: by its id, the first or last characters of it, or its name.
pub(crate) fn find(client: &Client, text: &str) -> anyhow::Result<String> {
    Kind::RUN.find(client, text)
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
    use serde_json::json;

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
}
