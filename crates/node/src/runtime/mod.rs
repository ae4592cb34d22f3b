//! How containers run. What is common to all ways is here.

pub(crate) mod process;
pub(crate) mod session;
