//! One task: what it is given, whether it runs, what it runs as. All of it pure.

pub mod condition;
pub mod container;
pub mod inputs;
pub mod outputs;
