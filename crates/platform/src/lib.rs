//! The composition root: the one place that knows all parts, and the order they start and stop in.
//!
//! Start: take the data directory, bind the port, open the store, serve the API, then node and
//! engine. Stop is the reverse. A start that fails says one clear sentence and leaves everything
//! as it was. Whether the Kubernetes API is embedded or a cluster is decided here and nowhere else.
//!
//! - [`backup`]: a data directory as one file, and back
//! - [`cluster`]: a cluster in the place of the embedded API and the node
//! - [`config`]: what can be chosen
//! - [`data_dir`]: the data directory: made, locked, described
//! - `embedded`: the embedded Kubernetes API, and this machine as its node
//! - [`housekeeping`]: keeps what is only history from growing
//! - [`guard`]: which HTTP requests are let in
//! - [`room`]: how much of what clients write may be in memory at once
//! - [`pki`], [`tls`]: the keys of the server, and its door for Pods
//! - [`server`]: start, serve, stop

pub mod backup;
pub mod cluster;
pub mod config;
pub mod data_dir;
mod embedded;
pub mod guard;
pub mod housekeeping;
pub mod pki;
pub mod room;
pub mod server;
pub mod tls;

pub use config::{Cluster, Config};
pub use server::{Error, Server};
