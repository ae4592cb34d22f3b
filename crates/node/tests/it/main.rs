//! The node against the embedded Kubernetes API, with real processes and real sandboxes.
//!
//! What a kernel does not give (namespaces, control groups) is said in the test's output and left out there.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![expect(
    clippy::print_stderr,
    reason = "what is left out, and what is measured, is said there"
)]

mod adoption;
mod claims;
mod doctor;
mod ends;
mod isolation;
mod logs;
mod machine;
mod network;
mod overhead;
mod probes;
mod python;
mod scheduling;
mod settings;
mod status;
mod streams;
mod volumes;
