//! Everything that can be refused before anything starts.

/// What is wrong with a document or a parameter, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {message}")]
pub struct Problem {
    /// The place, e.g. `root.dag.tasks.train.inputs.parameters.rate`.
    pub path: String,
    /// What is wrong there, and what would be right.
    pub message: String,
}
