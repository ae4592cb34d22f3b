//! The commands, one module each.

pub(crate) mod backup;
pub(crate) mod cache;
pub(crate) mod debug;
mod describe;
mod doctor;
pub(crate) mod gc;
mod get;
pub(crate) mod kubeconfig;
pub(crate) mod lineage;
mod logs;
pub(crate) mod put_away;
pub(crate) mod retry;
mod run;
pub(crate) mod schedule;
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
    let format = global.output;
    let client = || Client::find(global);
    match &arguments.command {
        Command::Up(options) => {
            log_to_stderr();
            up::up(options, &data_dir(global)?)?;
        }
        Command::Down => up::down(&data_dir(global)?)?,
        Command::Run(options) => return run::run(options, global),
        Command::Retry(options) => return retry::retry(options, &client()?, format),
        Command::Schedule(options) => return schedule::schedule(options, &client()?, format),
        Command::Get(options) => get::get(options, &client()?, format)?,
        Command::Describe(options) => describe::describe(options, &client()?, format)?,
        Command::Logs(options) => logs::logs(options, &client()?)?,
        Command::Debug(options) => return debug::debug(options, &client()?, global),
        Command::Lineage(options) => return lineage::lineage(options, &client()?, format),
        Command::Terminate(options) => return terminate::terminate(options, &client()?, format),
        Command::Archive(options) => put_away::archive(options, &client()?, "archive")?,
        Command::Unarchive(options) => put_away::archive(options, &client()?, "unarchive")?,
        Command::Delete(options) => put_away::delete(options, &client()?)?,
        Command::Cache(options) => return cache::cache(options, &client()?, format),
        Command::Gc(options) => return gc::gc(options, &client()?, format),
        Command::Backup(options) => backup::backup(options, &data_dir(global)?)?,
        Command::Restore(options) => backup::restore(options, &data_dir(global)?)?,
        Command::Kubeconfig(options) => kubeconfig::kubeconfig(options, global)?,
        Command::Kubectl(options) => kubeconfig::kubectl(options, global)?,
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
