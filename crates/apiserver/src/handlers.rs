//! The verbs, one module for each way of touching the store.

pub(crate) mod delete;
pub(crate) mod log;
pub(crate) mod pod;
pub(crate) mod read;
pub(crate) mod scale;
pub(crate) mod stream;
pub(crate) mod watch;
pub(crate) mod write;
