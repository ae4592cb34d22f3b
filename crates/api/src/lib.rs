//! Pure types of Coracle: what crosses a boundary between crates, processes or machines.
//!
//! No I/O, no clock, no async runtime: everything here can be tested by calling it.
//!
//! - [`id`]: typed identifiers, and task ids as a function of run and path
//! - [`state`]: the states of runs and tasks, in KFP's words
//! - [`reason`]: the stable names of everything that can go wrong, with what to do about it
//! - [`ir`]: the pipeline intermediate representation: parse, validate, coerce, placeholders
//! - [`launch`]: the contract between the engine and the launcher beside user code
//! - [`labels`]: the labels and annotations that Coracle puts on Kubernetes objects
//! - [`network`]: the loopback addresses of Services and Pods
//! - [`quantity`]: Kubernetes resource quantities
//! - [`quota`]: what objects use of what a ResourceQuota limits
//! - [`schedule`]: when recurring runs are due, and the macros in their parameters

pub mod id;
pub mod ir;
pub mod labels;
pub mod launch;
pub mod network;
pub mod quantity;
pub mod quota;
pub mod reason;
pub mod schedule;
pub mod state;
