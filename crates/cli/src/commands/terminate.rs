//! `coracle terminate`: asks a run to stop.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::{Value, json};

use crate::{
    arguments::{Format, Terminate},
    client::Client,
    output, runs,
};

pub(super) fn terminate(options: &Terminate, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let id = runs::find(client, &options.run)?;
    client.post(&runs::path(&id, ":terminate"), &json!({}))?;
    if options.follow {
        super::run::watch(client, &id, |_: &Value| Ok(()), || Ok(()))?;
    }
    let run = client.get(&runs::path(&id, ""), &[])?;
    if !output::raw(&run, format)? {
        writeln!(io::stdout(), "{id} {}", output::field(&run, "state"))?;
    }
    Ok(ExitCode::SUCCESS)
}
