//! The commands, one module each.

mod describe;
mod doctor;
mod get;
mod logs;
mod run;
mod terminate;
pub(crate) mod up;

use std::{io, process::ExitCode};

use tracing_subscriber::EnvFilter;

use crate::{
    arguments::{Arguments, Command},
    client::{Client, data_dir},
};

/// Does what was asked for.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Up(options) => {
            log_to_stderr();
            up::up(options, &data_dir(global)?)?;
        }
        Command::Down => up::down(&data_dir(global)?)?,
        Command::Run(options) => return run::run(options, global),
        Command::Get(options) => get::get(options, &Client::find(global)?, global.output)?,
        Command::Describe(options) => describe::describe(options, &Client::find(global)?, global.output)?,
        Command::Logs(options) => logs::logs(options, &Client::find(global)?)?,
        Command::Terminate(options) => {
            return terminate::terminate(options, &Client::find(global)?, global.output);
        }
        Command::Doctor => return doctor::doctor(global),
    }
    Ok(ExitCode::SUCCESS)
}

/// The server's own log. `CORACLE_LOG` chooses what is in it, e.g. `coracle_node=debug,info`.
fn log_to_stderr() {
    let filter =
        EnvFilter::try_from_env("CORACLE_LOG").unwrap_or_else(|_| EnvFilter::new("warn,coracle=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(crate::output::has_colour(&io::stderr()))
        .init();
}
