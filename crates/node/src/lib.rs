//! The local kubelet: registers this machine, binds Pods to it, and runs them as sandboxed processes.
//!
//! Node knows Pods, not pipelines. It speaks to the Kubernetes API through a [`kube::Client`] and cannot tell
//! whether that is embedded or a real cluster's. Only this crate may assume Linux.
//!
//! ```text
//! node, registration  how it starts, and this machine's Node object
//! pods                the one loop over the watch of Pods
//! schedule            which Pods fit, in which order, and what to say about those that do not
//! pod                 one worker per Pod: volumes, environment, containers, status
//! environments        from an image's name to what is on this machine; cached Python environments
//! warm                Python processes that have imported what tasks will
//! runtime             processes in sandboxes, and containers of images through Docker or Podman
//! network             Pods' addresses and names, and Services
//! logs, kubelet       the kubelet's own API: container logs
//! claims              binds volume claims to folders, and removes those
//! events, gpu         events about Pods; this machine's GPUs
//! doctor              what this machine lacks
//! ```

use std::{ffi::OsString, process::ExitCode};

mod claims;
pub mod doctor;
mod environments;
mod events;
mod gpu;
mod kubelet;
mod logs;
mod network;
mod node;
mod pod;
mod pods;
mod readiness;
mod registration;
mod runtime;
mod schedule;
mod warm;

pub use environments::environment;
pub use node::{Error, Isolation, Node, Options, Runtime};
pub use registration::machine_name;

/// The sandbox helper's whole life: the hidden subcommand `coracle sandbox <spec.json>`.
///
/// Call it before anything starts a thread, with the arguments after `sandbox`, and exit with what it returns.
pub fn sandbox_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    runtime::process::shim::main(arguments)
}
