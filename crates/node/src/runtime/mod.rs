//! How a container runs on this machine. Today: as a process ([`process`]).

pub(crate) mod process;
