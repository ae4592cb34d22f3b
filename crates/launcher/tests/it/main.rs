//! The launcher as a process: a server and a command on either side of it.

mod bounds;
mod commands;
mod elsewhere;
mod exceptions;
mod inputs;
mod outputs;
#[allow(dead_code, reason = "another crate's tests use all of it")]
#[path = "../../../artifacts/tests/it/s3.rs"]
mod s3;
mod server;
mod signals;
mod task;
mod values;
mod workspace;
