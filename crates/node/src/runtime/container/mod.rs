//! Containers of an image, through the engine of this machine: Docker, or Podman, which speaks the same API.
//!
//! ```text
//! node ── Docker API over a Unix socket ──► engine ── runs ──► the container's command
//!   └─ keeper: one task per run; copies the engine's log into the run's folder, and records the end there
//! ```
//!
//! The engine is what outlives the node, so there is no helper process. A run's folder holds [`claim`], which names
//! the container before it is made: the next node finds there what an earlier one began. What a run leaves is the same
//! as a process's: `log`, `exit.json`, `termination-log`.
//!
//! Containers have the network of this machine: the launcher in a task reaches the server on loopback, and what listens
//! at all addresses answers at the Pod's own.

pub(crate) mod claim;
pub(crate) mod copy;
pub(crate) mod credentials;
pub(crate) mod engine;
pub(crate) mod image;
pub(crate) mod keeper;
pub(crate) mod loader;
pub(crate) mod progress;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod session;
