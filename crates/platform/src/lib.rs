//! The composition root: the one place that knows all parts, and the order they start and stop in.
//!
//! Start: take the data directory, bind the port, open the store, serve the API, then node and
//! engine. Stop is the reverse. A start that fails says one clear sentence and leaves everything
//! as it was. Whether the Kubernetes API is embedded or a cluster is decided here and nowhere else.
//!
//! - [`config`]: what can be chosen
//! - [`data_dir`]: the data directory: made, locked, described
//! - [`housekeeping`]: keeps what is only history from growing
//! - [`guard`]: which HTTP requests are let in
//! - [`server`]: start, serve, stop

pub mod config;
pub mod data_dir;
pub mod guard;
pub mod housekeeping;
pub mod server;

pub use config::Config;
pub use server::{Error, Server};
