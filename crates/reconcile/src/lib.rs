//! Controller kit: what every reconciler needs and none should write again.
//!
//! - [`retry`]: the error policy: what may pass is tried again, with growing pauses

pub mod retry;
