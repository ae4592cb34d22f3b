//! The controllers against the embedded API, with a kubelet that does as the test says.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and says what there was"
)]

mod cron_jobs;
mod deployments;
mod harness;
mod jobs;
mod restarts;
mod services;
mod stateful_sets;
