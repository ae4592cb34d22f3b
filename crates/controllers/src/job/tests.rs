//! Decisions about made-up states.
