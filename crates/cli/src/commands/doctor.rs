//! `coracle doctor`: what this machine has and lacks for running tasks, and whether a server is up.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use coracle_node::doctor::{Check, Outcome};
use serde_json::{Value, json};

use crate::{
    arguments::{Format, Global},
    client::{Client, PIPELINES, data_dir},
    compile, output,
};

pub(super) fn doctor(global: &Global) -> anyhow::Result<ExitCode> {
    let data_dir = data_dir(global)?;
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start a thread")?;
    let mut findings: Vec<Finding> = runtime
        .block_on(coracle_node::doctor::checks(&binary, &data_dir))
        .iter()
        .map(Finding::from)
        .collect();
    findings.push(kfp());
    findings.push(server(global));
    findings.extend(cluster(&data_dir));
    let has_failed = findings.iter().any(|finding| finding.outcome == Outcome::Fail);
    let json: Value = findings.iter().map(Finding::json).collect();
    if !output::raw(&json!({"checks": json}), global.output)? {
        let out = io::stdout();
        let colour = output::has_colour(&out);
        write(&findings, colour, &mut out.lock())?;
    }
    Ok(if has_failed && global.output == Format::Text {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// One thing that was looked at.
struct Finding {
    name: String,
    outcome: Outcome,
    found: String,
    hint: Option<String>,
}

impl From<&Check> for Finding {
    fn from(check: &Check) -> Self {
        Self {
            name: check.name.to_owned(),
            outcome: check.outcome,
            found: check.finding.clone(),
            hint: check.remedy.clone(),
        }
    }
}

impl Finding {
    fn word(&self) -> &'static str {
        match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "fail",
        }
    }

    fn json(&self) -> Value {
        json!({"name": self.name, "outcome": self.word(), "finding": self.found, "hint": self.hint})
    }
}

/// Whether `coracle run FILE.py` can compile.
fn kfp() -> Finding {
    let (outcome, found, hint) = match compile::with_kfp() {
        Some(python) => (
            Outcome::Ok,
            format!("`coracle run` compiles with {}", python.display()),
            None,
        ),
        None => (
            Outcome::Warn,
            "no Python here has kfp, so `coracle run` takes compiled pipelines only".to_owned(),
            Some("`python3 -m venv .venv && .venv/bin/pip install kfp`".to_owned()),
        ),
    };
    Finding {
        name: "kfp".to_owned(),
        outcome,
        found,
        hint,
    }
}

fn server(global: &Global) -> Finding {
    let asked = Client::find(global).and_then(|client| {
        let health = client.get(&format!("{PIPELINES}/healthz"), &[])?;
        Ok(format!(
            "version {} is up at {}",
            output::field(&health, "tag_name"),
            client.url()
        ))
    });
    let (outcome, found, hint) = match asked {
        Ok(found) => (Outcome::Ok, found, None),
        Err(error) => (
            Outcome::Warn,
            format!("{error:#}"),
            Some("start one with `coracle up`".to_owned()),
        ),
    };
    Finding {
        name: "server".to_owned(),
        outcome,
        found,
        hint,
    }
}

/// Which cluster a running server uses instead of this machine.
fn cluster(data_dir: &Path) -> Option<Finding> {
    let cluster = super::up::alive(data_dir).ok()??.cluster?;
    Some(Finding {
        name: "cluster".to_owned(),
        outcome: Outcome::Ok,
        found: format!("tasks run on {cluster}"),
        hint: None,
    })
}

fn write(findings: &[Finding], colour: bool, out: &mut impl Write) -> io::Result<()> {
    let width = findings
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or(0);
    for finding in findings {
        let code = match finding.outcome {
            Outcome::Ok => 32,
            Outcome::Warn => 33,
            Outcome::Fail => 31,
        };
        let word = format!("{:<4}", finding.word());
        let word = if colour {
            format!("\x1b[{code}m{word}\x1b[0m")
        } else {
            word
        };
        writeln!(out, "{word}  {:<width$}  {}", finding.name, finding.found)?;
        if let Some(hint) = &finding.hint {
            writeln!(out, "{:width$}        hint: {hint}", "")?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_stand_in_columns_with_their_hints() {
        let finding = |name: &str, outcome, hint: Option<&str>| Finding {
            name: name.to_owned(),
            outcome,
            found: "found".to_owned(),
            hint: hint.map(str::to_owned),
        };
        let findings = [
            finding("uv", Outcome::Ok, None),
            finding("python", Outcome::Fail, Some("install one")),
        ];
        let mut text = Vec::new();
        write(&findings, false, &mut text).expect("written");
        let expected = "ok    uv      found\nfail  python  found\n              hint: install one\n";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
        assert_eq!(findings[1].json()["outcome"], "fail");
    }
}
