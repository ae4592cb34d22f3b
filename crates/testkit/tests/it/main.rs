//! What holds for the repository as a whole: layers, tidiness, and docs that name what the code names.
//!
//! Nothing here starts a server. Each check is an ordinary test, so that nothing is found only in CI.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a panic is a failure that says where"
)]

mod breakpoints;
mod docs;
mod engine;
mod layers;
mod source;
mod tidy;
