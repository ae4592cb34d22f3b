//! The launcher as a process: a server and a command on either side of it.

mod commands;
mod inputs;
mod outputs;
mod server;
mod signals;
mod task;
