//! What holds for the repository as a whole: layers, tidiness, and docs that name what the code names.
//!
//! Nothing here starts a server. Each check is an ordinary test, so that nothing is found only in CI.

mod docs;
mod engine;
mod layers;
mod source;
mod tidy;
