//! The planner from outside: pipelines go in, Pods and rows come out. No clock, no store, no API; but for the
//! scheduler of recurring runs, which has a store in memory and a clock that stands still.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a panic is a failure that says where"
)]

mod again;
mod loops;
mod plan;
mod properties;
mod schedule;
mod schedule_plan;
mod simulation;
mod world;
