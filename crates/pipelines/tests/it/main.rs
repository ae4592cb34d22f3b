//! The planner from outside: pipelines go in, Pods and rows come out. No clock, no store, no API.

mod plan;
mod world;
