//! Containers as processes: one shim per container, and inside it a first process that makes the sandbox.
//!
//! ```text
//! node ── spawns ──► shim (host's view; logs, exit record; survives the node)
//!                      └─► init (PID 1 of its namespaces; mounts, reaps, passes signals on)
//!                            └─► the container's command
//! ```
//!
//! [`launch`], [`session`] and [`folders`] are the node's side; [`shim`], [`watch`], [`visits`], [`enter`], [`init`] and [`mounts`]
//! run in the helper process, which has one thread and no async runtime. The two sides share [`spec`], [`control`] and
//! files in the run's directory, nothing else.

pub(crate) mod cgroup;
pub(crate) mod control;
pub(crate) mod enter;
pub(crate) mod exec;
pub(crate) mod filter;
pub(crate) mod folders;
pub(crate) mod init;
pub(crate) mod launch;
pub(crate) mod mediate;
pub(crate) mod mountinfo;
pub(crate) mod mounts;
pub(crate) mod place;
pub(crate) mod probe;
pub(crate) mod session;
pub(crate) mod shim;
pub(crate) mod sockets;
pub(crate) mod spec;
pub(crate) mod visits;
pub(crate) mod watch;
