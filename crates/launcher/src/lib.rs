//! What runs beside user code: resolves inputs, runs the command, publishes outputs.
//!
//! It is the first process of a task's container. It knows a server's URL and a token, nothing of
//! Kubernetes or of pipelines, and decides nothing about what runs next. Everything here blocks,
//! so that starting it costs next to nothing; only what comes from or goes to another machine has a
//! runtime, on a thread, for as long as that takes.
//!
//! - [`launch`]: the sequence, from the first request to the exit code
//! - `server`: the two requests, and patience with a server that is away
//! - `inputs`: what must be in place before the command starts
//! - `arguments`: those that are too long for the system
//! - `command`: starting the command, its streams, signals, its end
//! - `warm`: a Python component without a command
//! - `log`: one copy of the output for whoever watches, one that is kept
//! - `outputs`: what the command left behind
//! - `boundary`: what of that is the task's own
//! - `values`: parameter values that are too large for rows
//! - `workspace`: an importer's copy into the run's workspace
//! - `transfers`: bytes from and to other machines

mod arguments;
mod boundary;
mod command;
mod inputs;
pub mod launch;
mod log;
mod outputs;
mod server;
mod signals;
mod transfers;
mod values;
mod warm;
mod workspace;
