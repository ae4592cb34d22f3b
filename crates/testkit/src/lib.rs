//! The platform in-process for tests
