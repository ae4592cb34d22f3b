//! The façades, driven as clients do: requests into the router, over a store in memory.

#![allow(clippy::unwrap_used, reason = "a case that cannot go on fails by panicking")]

mod experiments;
mod launch;
mod logs;
mod openapi;
mod pipelines;
mod runs;
mod server;
mod uploads;
mod watch;
