//! What can be chosen about a server. Everything has a default; no configuration must work.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

pub use coracle_apiserver::identity::audit::Mode as Audit;
pub use coracle_node::Runtime;
use jiff::SignedDuration;

pub use crate::cluster::Cluster;

/// The port that a server listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 4242;

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept. Made, with access for this user only, if it is not there.
    pub data_dir: PathBuf,
    /// The address to listen on: a loopback one.
    pub host: IpAddr,
    /// The port to listen on; 0 for any free one.
    pub port: u16,
    /// The executable that Pods start as their launcher: this one.
    pub binary: PathBuf,
    /// Whether results are reused; if so, for how long at most, or for as long as they are there.
    pub cache: Option<Option<SignedDuration>>,
    /// Which artifacts are deleted by themselves.
    pub retention: Retention,
    /// What runs the containers of Pods.
    pub runtime: Runtime,
    /// Whether Python components may run in processes that have imported what they need.
    pub warm_python: bool,
    /// Pods that are at work on this machine at once; absent for as many as its cores allow.
    pub max_pods: Option<u32>,
    /// Runs that are at work at once; absent for [`coracle_pipelines::MAX_RUNS`].
    pub max_runs: Option<usize>,
    /// Where the container engine listens; absent for where it usually does.
    pub container_socket: Option<PathBuf>,
    /// Folders of this machine that Pods may write to as hostPath volumes.
    pub host_paths: Vec<PathBuf>,
    /// The cluster to use instead of this machine.
    pub cluster: Option<Cluster>,
    /// Which requests to the Kubernetes API are written down in `audit.log`.
    pub audit: Audit,
}

/// Whose artifacts are deleted by themselves. With no limit, nobody's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Those of runs that ended longer ago.
    pub age: Option<SignedDuration>,
    /// Never those of so many runs that ended last; alone, those of all others.
    pub runs: Option<u32>,
    /// Those of the oldest runs, until all are no larger together, in bytes.
    pub size: Option<u64>,
}

impl Config {
    /// A server with the default address.
    #[must_use]
    pub const fn new(data_dir: PathBuf, binary: PathBuf) -> Self {
        Self {
            data_dir,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: DEFAULT_PORT,
            binary,
            cache: Some(None),
            retention: Retention {
                age: None,
                runs: None,
                size: None,
            },
            runtime: Runtime::Auto,
            warm_python: true,
            max_pods: None,
            max_runs: None,
            container_socket: None,
            host_paths: Vec::new(),
            cluster: None,
            audit: Audit::Writes,
        }
    }
}
