//! Where artifact bytes live: URIs, layout, digests, reads and writes.
//!
//! An artifact of this machine is a plain file or folder under one root, handed to tasks as an
//! absolute path, so nothing is copied between tasks. Rows about artifacts are the store's; what
//! is here knows bytes and paths only.
//!
//! - [`uri`]: [`ArtifactUri`], parsed once
//! - [`layout`]: which path a run, a task and an artifact have; no I/O
//! - [`local`]: [`Artifacts`], the root on this machine: confinement and async reads
//! - [`remote`]: [`Remote`], object stores and the web
//! - [`retention`]: what may go when space is wanted back
//! - [`content`]: blocking work on files and folders: digest, size, copy

pub mod content;
pub mod layout;
pub mod local;
pub mod remote;
pub mod retention;
pub mod uri;

pub use local::Artifacts;
pub use remote::Remote;
pub use uri::ArtifactUri;
