//! Which Pods run here now, in which order, and what to say about those that do not.
//!
//! Pure: no clock, no API. The node's loop feeds it and carries out what it decides.

pub(crate) mod fit;
pub(crate) mod placement;
pub(crate) mod queue;
