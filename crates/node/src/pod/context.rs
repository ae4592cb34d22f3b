//! What every Pod on this machine shares.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;

use crate::{
    environments::python::Environments,
    events::Recorder,
    gpu::Gpus,
    network::{self, addresses::Addresses, names::Names},
    node::Runtime,
    runtime::{
        container::engine::Engines,
        process::{cgroup::Cgroups, spec::Mode},
    },
    warm::Workers,
};

/// The address of this machine.
pub(crate) const ADDRESS: &str = "127.0.0.1";

/// Made once, when the node starts.
pub(crate) struct Context {
    pub(crate) client: Client,
    /// This machine's name in the API.
    pub(crate) node: String,
    pub(crate) data_dir: PathBuf,
    /// A folder in memory for what Pods keep there, made when one does.
    pub(crate) memory: PathBuf,
    /// Our own executable.
    pub(crate) binary: PathBuf,
    /// Host folders that every container may write to, at the same path.
    pub(crate) writable: Vec<PathBuf>,
    /// What `hostPath` volumes may show for writing.
    pub(crate) host_paths: Vec<PathBuf>,
    pub(crate) mode: Mode,
    /// What runs containers, unless their Pod says so.
    pub(crate) runtime: Runtime,
    pub(crate) engines: Engines,
    pub(crate) addresses: Addresses,
    pub(crate) names: Arc<Names>,
    /// Whether Pods' servers are moved to their own addresses.
    pub(crate) moves_servers: bool,
    pub(crate) cgroups: Cgroups,
    pub(crate) environments: Environments,
    pub(crate) workers: Workers,
    pub(crate) events: Recorder,
    pub(crate) gpus: Gpus,
    pub(crate) allocatable: BTreeMap<String, Quantity>,
    /// How large one file of a container's log may get.
    pub(crate) log_bytes: u64,
    /// The server's variables that are passed on, and its PATH.
    pub(crate) base: Vec<(String, String)>,
}

impl Context {
    /// The Pod's own folder.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        pods(&self.data_dir).join(uid)
    }

    /// The Pod's own folder in memory.
    pub(crate) fn memory_dir(&self, uid: &str) -> PathBuf {
        self.memory.join(uid)
    }

    /// The Pod's address, given to it now if it has none.
    pub(crate) fn address(&self, pod: &Pod) -> Ipv4Addr {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if network::is_on_host(pod) {
            return network::HOST;
        }
        let status = pod.status.as_ref();
        let known = status.and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        let assigned = self.addresses.assign(uid, known, &self.pod_dir(uid));
        // There are more addresses than Pods that a machine can run.
        assigned.unwrap_or(network::HOST)
    }
}

/// Where the Pods' folders are.
pub(crate) fn pods(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("pods")
}
