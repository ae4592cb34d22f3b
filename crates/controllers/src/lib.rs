//! What runs workloads: Jobs, CronJobs, Deployments, ReplicaSets and StatefulSets become Pods, Services get their
//! endpoints, namespaces what each of them has. A client of the Kubernetes API and nothing else.
//!
//! One watch per kind feeds one cache, one queue holds what is to be looked at, and nothing is polled. Every decision
//! is a pure function of what the cache shows and of the time (`<kind>/plan.rs`); doing it may be repeated
//! (`<kind>/apply.rs`): names of Pods and counts of ended ones survive a crash between any two requests.
//!
//! - [`Controllers`]: the service
//! - [`clock`]: what tells the time
//!
//! One process writes here at a time: no leader is elected.

pub mod clock;

mod budget;
mod cache;
mod context;
mod cron_job;
mod deployment;
mod endpoints;
mod event;
mod job;
mod namespace;
mod ownership;
mod pods;
mod queue;
mod quota;
mod replica_set;
mod selection;
mod service;
mod stateful_set;
mod template;
mod triggers;
mod volume;
mod world;

#[cfg(test)]
mod samples;

pub use service::{Controllers, Options};
