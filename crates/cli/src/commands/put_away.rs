//! `coracle archive`, `coracle unarchive` and `coracle delete`.

use std::io::{self, Write};

use serde_json::json;

use crate::{client::Client, kind::Kind, trouble::Trouble};

/// `coracle archive` and `coracle unarchive`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coracle archive run 0198c0de\n  coracle unarchive experiment tuning")]
pub(crate) struct Archive {
    /// `run` or `experiment`; an experiment takes its runs and schedules with it
    #[arg(value_name = "KIND")]
    kind: String,
    /// Ids, their first or last characters, or names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// `coracle delete`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coracle delete run 0198c0de\n  coracle delete pipeline my-pipeline --cascade

Artifacts of deleted runs stay until `coracle gc` has a limit to delete them by."
)]
pub(crate) struct Delete {
    /// `run`, `experiment`, `pipeline` or `schedule`
    #[arg(value_name = "KIND")]
    kind: String,
    /// Ids, their first or last characters, or names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// With a pipeline, delete its versions too
    #[arg(long)]
    cascade: bool,
}

pub(super) fn archive(options: &Archive, client: &Client, verb: &str) -> anyhow::Result<()> {
    let kind = of(&options.kind, &[Kind::RUN, Kind::EXPERIMENT], verb)?;
    for name in &options.names {
        let id = kind.find(client, name)?;
        client.post(&kind.of(&id, &format!(":{verb}")), &json!({}))?;
        writeln!(io::stdout(), "{id} {verb}d")?;
    }
    Ok(())
}

pub(super) fn delete(options: &Delete, client: &Client) -> anyhow::Result<()> {
    const KINDS: [Kind; 4] = [Kind::RUN, Kind::EXPERIMENT, Kind::PIPELINE, Kind::SCHEDULE];
    let kind = of(&options.kind, &KINDS, "delete")?;
    for name in &options.names {
        let id = kind.find(client, name)?;
        let query: &[(&str, &str)] = if options.cascade && kind == Kind::PIPELINE {
            &[("cascade", "true")]
        } else {
            &[]
        };
        client.delete(&kind.of(&id, ""), query)?;
        writeln!(io::stdout(), "{id} deleted")?;
    }
    Ok(())
}

fn of(word: &str, kinds: &[Kind], verb: &str) -> anyhow::Result<Kind> {
    Kind::named(word)
        .filter(|kind| kinds.contains(kind))
        .ok_or_else(|| {
            let words: Vec<&str> = kinds.iter().map(|kind| kind.word).collect();
            Trouble::error(
                format!("cannot {verb} a `{word}`"),
                format!("`coracle {verb}` takes {}", words.join(", ")),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certain_kinds_can_be_archived() {
        assert_eq!(of("runs", &[Kind::RUN], "archive").expect("a kind"), Kind::RUN);
        let error = of("pipeline", &[Kind::RUN], "archive").expect_err("refused");
        assert_eq!(error.to_string(), "cannot archive a `pipeline`");
    }
}
