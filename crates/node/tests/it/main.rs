//! The node against the embedded Kubernetes API, with real processes and real sandboxes.
//!
//! What a kernel does not give (namespaces, control groups) is said in the test's output and left out there.

mod adoption;
mod ends;
mod isolation;
mod logs;
mod machine;
mod python;
mod scheduling;
mod status;
mod volumes;
