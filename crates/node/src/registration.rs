//! This machine's Node object: what it has, and that it is ready.
//!
//! Written when the node starts and then once in a while; nothing happens in between.

use std::{collections::BTreeMap, path::Path, time::Duration};

use coracle_api::quantity::Quantity as Amount;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo},
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};

use crate::{
    gpu::{self, Gpus},
    pod::context::ADDRESS,
    schedule::fit::{Amounts, PODS},
};

/// How often the object says that this machine still lives.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(300);

/// What this machine has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    pub(crate) capacity: BTreeMap<String, Quantity>,
    gpu_name: Option<String>,
}

impl Machine {
    /// Counts cores, memory, disk and GPUs. Blocks.
    pub(crate) fn measure(data_dir: &Path, gpus: &Gpus, max_pods: Option<u32>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pods = max_pods.map_or_else(|| default_pods(cores), |pods| pods as usize);
        let mut capacity = BTreeMap::from([
            ("cpu".to_owned(), Quantity(cores.to_string())),
            (PODS.to_owned(), Quantity(pods.to_string())),
        ]);
        if let Some(kibibytes) = memory() {
            capacity.insert("memory".to_owned(), Quantity(format!("{kibibytes}Ki")));
        }
        if let Ok(disk) = nix::sys::statvfs::statvfs(data_dir) {
            let kibibytes = disk.blocks() * disk.fragment_size() / 1024;
            capacity.insert("ephemeral-storage".to_owned(), Quantity(format!("{kibibytes}Ki")));
        }
        if !gpus.all().is_empty() {
            capacity.insert(gpu::RESOURCE.to_owned(), Quantity(gpus.all().len().to_string()));
        }
        Self {
            capacity,
            gpu_name: gpus.all().first().map(|gpu| gpu.name.clone()),
        }
    }

    /// Bytes of memory; 0 if nobody can tell.
    pub(crate) fn memory(&self) -> u64 {
        let amount = self.capacity.get("memory");
        let amount = amount.and_then(|amount| amount.0.parse::<Amount>().ok());
        amount
            .and_then(|amount| u64::try_from(amount.units()).ok())
            .unwrap_or(0)
    }

    /// The same for the scheduler.
    pub(crate) fn amounts(&self) -> Amounts {
        let amounts = self.capacity.iter();
        amounts
            .map(|(name, amount)| (name.clone(), amount.0.parse::<Amount>().unwrap_or_default()))
            .collect()
    }

    fn node(&self, name: &str) -> Node {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut labels = BTreeMap::from([
            label("kubernetes.io/hostname", name),
            label("kubernetes.io/os", "linux"),
            label("kubernetes.io/arch", architecture()),
        ]);
        if let Some(gpu) = &self.gpu_name {
            let value: String = gpu
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || c == '.' {
                        c
                    } else {
                        '-'
                    }
                })
                .take(63)
                .collect();
            labels.insert(
                "nvidia.com/gpu.product".to_owned(),
                value.trim_matches(['-', '.']).to_owned(),
            );
        }
        Node {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            ..Node::default()
        }
    }

    fn status(&self, name: &str, since: Timestamp, now: Timestamp) -> NodeStatus {
        let condition = |kind: &str, holds: bool, reason: &str, message: &str| NodeCondition {
            type_: kind.to_owned(),
            status: if holds { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(Time(since)),
        };
        let address = |kind: &str, address: &str| NodeAddress {
            type_: kind.to_owned(),
            address: address.to_owned(),
        };
        NodeStatus {
            capacity: Some(self.capacity.clone()),
            allocatable: Some(self.capacity.clone()),
            conditions: Some(vec![
                condition(
                    "Ready",
                    true,
                    "KubeletReady",
                    "Pods run as processes of this machine",
                ),
                condition(
                    "MemoryPressure",
                    false,
                    "KubeletHasSufficientMemory",
                    "memory is available",
                ),
                condition(
                    "DiskPressure",
                    false,
                    "KubeletHasNoDiskPressure",
                    "disk is available",
                ),
                condition(
                    "PIDPressure",
                    false,
                    "KubeletHasSufficientPID",
                    "processes are available",
                ),
            ]),
            addresses: Some(vec![address("InternalIP", ADDRESS), address("Hostname", name)]),
            daemon_endpoints: Some(NodeDaemonEndpoints::default()),
            node_info: Some(system()),
            ..NodeStatus::default()
        }
    }
}

/// Pods that ask for nothing still take memory and time, so not every number of them may run at once.
fn default_pods(cores: usize) -> usize {
    (cores * 8).clamp(32, 512)
}

/// Kibibytes of this machine, or of the container that we run in.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let all = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let all: u64 = all.trim().trim_end_matches("kB").trim().parse().ok()?;
    let limit = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
    .min();
    Some(limit.map_or(all, |bytes| all.min(bytes / 1024)))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn system() -> NodeSystemInfo {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let release = read("/etc/os-release");
    let os_image = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("Linux", |name| name.trim_matches('"'));
    let version = concat!("coracle/", env!("CARGO_PKG_VERSION"));
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: concat!("process://", env!("CARGO_PKG_VERSION")).to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: version.to_owned(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image: os_image.to_owned(),
        ..NodeSystemInfo::default()
    }
}

/// The pauses between attempts to register.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The same, tried again for as long as the API does not answer or cannot write: a node that gave up would run
/// nothing until the next start.
pub(crate) async fn register_at_last(
    client: &Client,
    name: &str,
    machine: &Machine,
) -> Result<BTreeMap<String, String>, kube::Error> {
    let mut pause = FIRST_PAUSE;
    loop {
        match register(client, name, machine).await {
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                return Err(kube::Error::Api(status));
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot register this machine as a node: trying again");
            }
            registered => return registered,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Makes the Node object, or brings it up to date.
/// Gives back its labels.
async fn register(
    client: &Client,
    name: &str,
    machine: &Machine,
) -> Result<BTreeMap<String, String>, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let node = machine.node(name);
    if api.get_opt(name).await?.is_none() {
        match api.create(&PostParams::default(), &node).await {
            Ok(_) => {}
            Err(kube::Error::Api(error)) if error.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
    // It may have labels of its user's too.
    let labels = serde_json::json!({ "metadata": { "labels": node.metadata.labels } });
    let node = api
        .patch(name, &PatchParams::default(), &Patch::Merge(&labels))
        .await?;
    let now = Timestamp::now();
    report(client, name, machine, now, now).await?;
    Ok(node.metadata.labels.unwrap_or_default())
}

/// Says that this machine is ready, since `since`.
pub(crate) async fn report(
    client: &Client,
    name: &str,
    machine: &Machine,
    since: Timestamp,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let status = serde_json::json!({ "status": machine.status(name, since, now) });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .map(drop)
}

/// This machine's name as a Kubernetes name: its host name, or `localhost`.
pub fn machine_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name_from(&host)
}

fn name_from(host: &str) -> String {
    let name: String = host
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_gives_a_kubernetes_name() {
        for (host, expected) in [
            ("Dell-XPS\n", "dell-xps"),
            ("a.b.local", "a.b.local"),
            ("my_box", "my-box"),
            ("--", "localhost"),
            ("", "localhost"),
        ] {
            assert_eq!(name_from(host), expected);
        }
    }

    #[test]
    fn the_machine_has_cores_memory_disk_and_places() {
        let machine = Machine::measure(Path::new("/"), &Gpus::default(), Some(7));
        for resource in ["cpu", "memory", "ephemeral-storage"] {
            assert!(machine.amounts().get(resource) > Amount::default(), "{resource}");
        }
        assert_eq!(machine.amounts().get(PODS), Amount::from_units(7));
        assert_eq!(machine.amounts().get(gpu::RESOURCE), Amount::default());
    }
}
