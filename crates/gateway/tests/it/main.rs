//! The façades, driven as clients do: requests into the router, over a store in memory.

#![allow(clippy::unwrap_used, reason = "a case that cannot go on fails by panicking")]

mod cache;
mod changes;
mod experiments;
mod launch;
mod lineage;
mod logs;
mod openapi;
mod others;
mod pipelines;
mod read;
mod recurring;
mod runs;
mod server;
mod storage;
mod tasks;
mod uploads;
mod watch;
