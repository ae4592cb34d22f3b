//! The planner from outside: pipelines go in, Pods and rows come out. No clock, no store, no API.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a panic is a failure that says where"
)]

mod plan;
mod world;
