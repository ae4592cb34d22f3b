//! The one binary, `coracle`: a thin layer of commands over the libraries and the server's API.
//!
//! Two hidden subcommands come first and alone: `sandbox` and `launch` are the first processes
//! around user code, and must start before any thread, runtime or argument parser.
//!
//! - [`arguments`]: what can be asked for
//! - [`commands`]: one module each
//! - [`client`], [`events`]: the server's API over HTTP
//! - [`kind`], [`runs`], [`tasks`]: finding things by what people type
//! - [`source`], [`compile`], [`parameters`], [`amounts`]: from a Python file, `k=v`, `30d` to what the API takes
//! - [`output`], [`progress`]: what is shown: data on stdout, all else on stderr

mod amounts;
mod arguments;
mod client;
mod commands;
mod compile;
mod events;
mod kind;
mod output;
mod parameters;
mod progress;
mod runs;
mod source;
mod tasks;
mod trouble;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match words.next().as_ref().and_then(|word| word.to_str()) {
        Some("sandbox") => return coracle_node::sandbox_main(words),
        Some("launch") => return coracle_launcher::launch::run(),
        _ => {}
    }
    match commands::run(&arguments::Arguments::parse_from(arguments::kept_for_kubectl(
        std::env::args_os(),
    ))) {
        Ok(code) => code,
        Err(error) => trouble::show(&error),
    }
}
