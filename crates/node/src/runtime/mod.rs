//! How containers run. What is common to all ways is here.

pub(crate) mod log_writer;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod run_dir;
pub(crate) mod session;
