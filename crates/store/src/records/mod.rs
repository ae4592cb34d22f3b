//! Rows that grow without bound: runs, tasks, artifacts and lineage.

mod model;

pub use model::*;
