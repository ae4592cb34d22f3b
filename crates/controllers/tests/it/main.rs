//! The controllers against the embedded API, with a kubelet that does as the test says.

mod cron_jobs;
mod deployments;
mod harness;
mod jobs;
mod restarts;
mod services;
mod stateful_sets;
