//! Recurring runs: what makes runs again and again.
//!
//! [`mod@plan`] decides, with no clock and no I/O, which times are due; [`mod@make`] turns one of them into
//! a run; [`scheduler`] is the service that knows when to ask. A run's id is a function of its
//! recurring run and its time, and progress is written in the transaction that makes the run:
//! nothing is made twice, whatever happens in between.

pub mod make;
pub mod plan;
pub mod scheduler;

pub use plan::{Decision, Due, plan};
pub use scheduler::{Options, Scheduler};
