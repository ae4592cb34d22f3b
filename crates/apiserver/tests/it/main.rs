//! The API as its clients see it: requests through the router, over a store in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod crd;
mod deletion;
mod discovery;
mod garbage;
mod harness;
mod identity;
mod interleavings;
mod kube_client;
mod kube_runtime;
mod listing;
mod logs;
mod reserving;
mod watching;
mod wire;
mod writing;
