//! The only SQL of Coracle: Kubernetes objects and platform records.

pub mod records;
