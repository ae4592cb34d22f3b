//! `coracle retry`: lets a run that ended go on from what succeeded.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::json;

use crate::{arguments::Format, client::Client, output, runs};

/// `coracle retry`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coracle retry 0198c0de --follow")]
pub(crate) struct Retry {
    /// Id of the run, its first or last characters, or its name
    #[arg(value_name = "RUN")]
    run: String,
    /// Show what happens until the run ends; exit with 1 if it does not succeed
    #[arg(short, long)]
    follow: bool,
}

pub(super) fn retry(options: &Retry, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let id = runs::find(client, &options.run)?;
    client.post(&runs::path(&id, ":retry"), &json!({}))?;
    if options.follow {
        return super::run::follow(client, &id, format);
    }
    let run = client.get(&runs::path(&id, ""), &[])?;
    if !output::raw(&run, format)? {
        writeln!(io::stdout(), "{id} {}", output::field(&run, "state"))?;
    }
    Ok(ExitCode::SUCCESS)
}
