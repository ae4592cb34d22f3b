//! The pipeline engine: from the rows of a run to the Pods of its tasks.
//!
//! Data flows one way. [`engine`] hears that something changed (a row, a Pod) and wakes the run
//! it concerns; [`run::observe`] says what is so; [`run::plan`] decides, with no clock and no I/O;
//! [`run::apply`] writes the rows in one transaction and then creates and deletes Pods. Every
//! effect may be repeated: ids and Pod names are functions of run, task and attempt.
//!
//! - [`engine`]: the service
//! - [`run`]: one run: its task tree and what happens to it
//! - [`schedule`]: recurring runs: what makes runs again and again
//! - [`task`]: one task: inputs, condition, Pod

pub mod engine;
pub mod run;
pub mod schedule;
pub mod task;

use std::sync::Arc;

use jiff::Timestamp;

pub use engine::{Engine, MAX_RUNS, Options};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
