//! One run: its pipeline, its task tree, what is observed, decided and done.

pub mod apply;
pub mod observe;
pub mod pipeline;
pub mod plan;
pub mod state;
