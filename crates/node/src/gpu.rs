//! This machine's NVIDIA GPUs: which there are, and which Pod has which.
//!
//! The driver's library is loaded when it is there; a machine without it has no GPUs, which is no error.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nvml_wrapper::Nvml;

/// The resource's name in Kubernetes.
pub(crate) const RESOURCE: &str = "nvidia.com/gpu";
/// The file in a Pod's folder that says which GPUs it has, for a node that starts later.
const RECORD: &str = "gpus.json";

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    pub(crate) uuid: String,
    pub(crate) name: String,
    device: PathBuf,
}

/// A container's GPUs: names of containers to UUIDs.
type Assignment = BTreeMap<String, Vec<String>>;

/// All of them, and who has them.
#[derive(Debug, Default)]
pub(crate) struct Gpus {
    all: Vec<Gpu>,
    assigned: Mutex<BTreeMap<String, Assignment>>,
}

impl Gpus {
    /// Asks the driver. Blocks.
    pub(crate) fn detect() -> Self {
        Self::of(list().unwrap_or_default())
    }

    fn of(all: Vec<Gpu>) -> Self {
        Self {
            all,
            assigned: Mutex::default(),
        }
    }

    pub(crate) fn all(&self) -> &[Gpu] {
        &self.all
    }

    fn assigned(&self) -> MutexGuard<'_, BTreeMap<String, Assignment>> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what an earlier node gave to a Pod.
    pub(crate) fn adopt(&self, uid: &str, pod_dir: &Path) {
        let record = std::fs::read(pod_dir.join(RECORD)).ok();
        let assignment = record.and_then(|text| serde_json::from_slice::<Assignment>(&text).ok());
        if let Some(assignment) = assignment {
            self.assigned().entry(uid.to_owned()).or_insert(assignment);
        }
    }

    /// Gives `count` GPUs to a container, the same ones if it has some already. Fewer if there are not enough,
    /// which the scheduler's accounting excludes.
    pub(crate) fn assign(&self, uid: &str, pod_dir: &Path, container: &str, count: usize) -> Vec<Gpu> {
        if count == 0 {
            return Vec::new();
        }
        let mut assigned = self.assigned();
        let has = assigned.get(uid).and_then(|pod| pod.get(container));
        let uuids = has.cloned().unwrap_or_else(|| {
            let taken: Vec<&String> = assigned.values().flat_map(BTreeMap::values).flatten().collect();
            self.all
                .iter()
                .map(|gpu| &gpu.uuid)
                .filter(|uuid| !taken.contains(uuid))
                .take(count)
                .cloned()
                .collect()
        });
        let pod = assigned.entry(uid.to_owned()).or_default();
        pod.insert(container.to_owned(), uuids.clone());
        if let Ok(text) = serde_json::to_vec(pod) {
            // Without it a later node would count, but not know which.
            let _ = std::fs::write(pod_dir.join(RECORD), text);
        }
        drop(assigned);
        self.all
            .iter()
            .filter(|gpu| uuids.contains(&gpu.uuid))
            .cloned()
            .collect()
    }

    /// Takes back everything a Pod has.
    pub(crate) fn release(&self, uid: &str) {
        self.assigned().remove(uid);
    }
}

/// The device nodes that a container with these GPUs needs.
pub(crate) fn devices(gpus: &[Gpu]) -> Vec<PathBuf> {
    const SHARED: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];
    if gpus.is_empty() {
        return Vec::new();
    }
    let capabilities = std::fs::read_dir("/dev/nvidia-caps")
        .into_iter()
        .flatten()
        .flatten();
    let shared = SHARED.iter().map(|name| Path::new("/dev").join(name));
    shared
        .filter(|path| path.exists())
        .chain(capabilities.map(|entry| entry.path()))
        .chain(gpus.iter().map(|gpu| gpu.device.clone()))
        .collect()
}

fn list() -> Option<Vec<Gpu>> {
    let nvml = Nvml::init().ok()?;
    let count = nvml.device_count().ok()?;
    let describe = |index| {
        let device = nvml.device_by_index(index).ok()?;
        let minor = device.minor_number().unwrap_or(index);
        Some(Gpu {
            uuid: device.uuid().ok()?,
            name: device.name().unwrap_or_else(|_| "NVIDIA GPU".to_owned()),
            device: Path::new("/dev").join(format!("nvidia{minor}")),
        })
    };
    Some((0..count).filter_map(describe).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(count: usize) -> Gpus {
        let gpu = |index| Gpu {
            uuid: format!("GPU-{index}"),
            name: "a".to_owned(),
            device: format!("/dev/nvidia{index}").into(),
        };
        Gpus::of((0..count).map(gpu).collect())
    }

    fn uuids(gpus: &[Gpu]) -> Vec<&str> {
        gpus.iter().map(|gpu| gpu.uuid.as_str()).collect()
    }

    #[test]
    fn no_gpu_has_two_owners_and_a_container_keeps_its_own() {
        let (gpus, folder) = (gpus(3), tempfile::tempdir().unwrap());
        assert_eq!(uuids(&gpus.assign("a", folder.path(), "c", 1)), ["GPU-0"]);
        assert_eq!(
            uuids(&gpus.assign("b", folder.path(), "c", 2)),
            ["GPU-1", "GPU-2"]
        );
        assert_eq!(uuids(&gpus.assign("a", folder.path(), "c", 1)), ["GPU-0"]);
        gpus.release("a");
        assert_eq!(uuids(&gpus.assign("d", folder.path(), "c", 1)), ["GPU-0"]);
    }

    #[test]
    fn a_later_node_knows_what_an_earlier_one_gave() {
        let folder = tempfile::tempdir().unwrap();
        gpus(2).assign("a", folder.path(), "c", 1);
        let later = gpus(2);
        later.adopt("a", folder.path());
        assert_eq!(uuids(&later.assign("b", folder.path(), "c", 1)), ["GPU-1"]);
    }
}
