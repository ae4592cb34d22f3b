//! One task: what it is given, whether it runs, what it runs as. All of it pure.

pub mod claim;
pub mod container;
pub mod fingerprint;
pub mod inputs;
pub mod items;
pub mod outputs;
pub mod values;
