//! From a container's image to what is on this machine.
//!
//! [`table`] is pure: which image means which kind of environment. [`interpreters`] finds Python on this machine,
//! [`python`] makes and keeps virtual environments, [`pip`] reads where packages come from.

pub(crate) mod interpreters;
pub(crate) mod pip;
pub(crate) mod python;
pub(crate) mod table;
