//! What the engine is asked to make. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount as EngineMount,
    MountTmpfsOptions, MountType,
};

use crate::runtime::{
    mount::{Memory, Mount, MountKind},
    run_dir::RunDir,
};

/// Whose container it is, for `docker ps --filter label=…` and for us after a crash.
pub(crate) const POD_UID: &str = "coracle.dev/pod-uid";

/// One run of one container of an image.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) dir: RunDir,
    /// The container's name in the engine; nothing else has it.
    pub(crate) name: String,
    pub(crate) image: String,
    /// As the image says where it is empty.
    pub(crate) entrypoint: Vec<String>,
    /// As the image says where this and `entrypoint` are empty.
    pub(crate) arguments: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
    /// `user` or `user:group`, in numbers; absent for the image's own.
    pub(crate) user: Option<String>,
    pub(crate) groups: Vec<i64>,
    pub(crate) mounts: Vec<Mount>,
    /// Mounts of these folders are in memory instead.
    pub(crate) memory: Vec<Memory>,
    pub(crate) hostname: Option<String>,
    pub(crate) labels: HashMap<String, String>,
    /// Bytes.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) cpu_milli: Option<u64>,
    /// GPUs by their UUID.
    pub(crate) gpus: Vec<String>,
    pub(crate) dropped_capabilities: Vec<String>,
    pub(crate) added_capabilities: Vec<String>,
    pub(crate) may_gain_privileges: bool,
    pub(crate) read_only_root: bool,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    pub(crate) stop_signal: Option<String>,
    pub(crate) log_bytes: u64,
}

impl Spec {
    pub(crate) fn body(&self) -> ContainerCreateBody {
        let words = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
        ContainerCreateBody {
            hostname: self.hostname.clone(),
            user: self.user.clone(),
            tty: Some(self.tty),
            open_stdin: Some(self.stdin),
            stdin_once: Some(self.stdin_once),
            env: Some(
                self.env
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
            ),
            image: Some(self.image.clone()),
            working_dir: self.workdir.clone(),
            entrypoint: words(&self.entrypoint),
            cmd: words(&self.arguments),
            labels: Some(self.labels.clone()),
            host_config: Some(self.host()),
            ..ContainerCreateBody::default()
        }
    }

    fn host(&self) -> HostConfig {
        let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let memory = self.memory_limit.map(signed);
        // Files of the server's user are shown, which the machine's own rules for containers may not let them see.
        let mut security = vec!["label=disable".to_owned()];
        if !self.may_gain_privileges {
            security.push("no-new-privileges".to_owned());
        }
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        HostConfig {
            network_mode: Some("host".to_owned()),
            memory,
            // As much as the memory: a container that swaps is not within its limit.
            memory_swap: memory,
            nano_cpus: self
                .cpu_milli
                .map(|milli| signed(milli.saturating_mul(1_000_000))),
            mounts: Some(self.mounts.iter().map(|mount| self.mount(mount)).collect()),
            device_requests: (!self.gpus.is_empty()).then(|| {
                vec![DeviceRequest {
                    device_ids: Some(self.gpus.clone()),
                    capabilities: Some(vec![vec!["gpu".to_owned()]]),
                    ..DeviceRequest::default()
                }]
            }),
            cap_add: some(&self.added_capabilities),
            cap_drop: some(&self.dropped_capabilities),
            group_add: (!self.groups.is_empty())
                .then(|| self.groups.iter().map(ToString::to_string).collect()),
            readonly_rootfs: Some(self.read_only_root),
            security_opt: Some(security),
            // The only log that every engine can be asked to read back.
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: None,
            }),
            ..HostConfig::default()
        }
    }

    fn mount(&self, mount: &Mount) -> EngineMount {
        let target = Some(mount.target.display().to_string());
        let memory = self.memory.iter().find(|memory| memory.folder == mount.source);
        if let Some(memory) = memory {
            return EngineMount {
                target,
                typ: Some(MountType::TMPFS),
                tmpfs_options: Some(MountTmpfsOptions {
                    size_bytes: memory.bytes.and_then(|bytes| i64::try_from(bytes).ok()),
                    mode: Some(0o1777),
                    ..MountTmpfsOptions::default()
                }),
                ..EngineMount::default()
            };
        }
        EngineMount {
            target,
            source: Some(mount.source.display().to_string()),
            typ: Some(MountType::BIND),
            read_only: Some(mount.kind != MountKind::ReadWrite),
            ..EngineMount::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec() -> Spec {
        Spec {
            dir: RunDir("/run/0".into()),
            name: "n".to_owned(),
            image: "busybox:1".to_owned(),
            entrypoint: Vec::new(),
            arguments: Vec::new(),
            env: vec![("A".to_owned(), "b=c".to_owned())],
            workdir: None,
            user: None,
            groups: Vec::new(),
            mounts: vec![Mount {
                source: "/pods/1/volumes/v".into(),
                target: "/v".into(),
                kind: MountKind::ReadOnly,
            }],
            memory: Vec::new(),
            hostname: Some("p".to_owned()),
            labels: HashMap::from([(POD_UID.to_owned(), "1".to_owned())]),
            memory_limit: None,
            cpu_milli: None,
            gpus: Vec::new(),
            dropped_capabilities: Vec::new(),
            added_capabilities: Vec::new(),
            may_gain_privileges: true,
            read_only_root: false,
            stdin: false,
            stdin_once: false,
            tty: false,
            stop_signal: None,
            log_bytes: 1,
        }
    }

    fn body(spec: &Spec) -> Value {
        serde_json::to_value(spec.body()).unwrap()
    }

    #[test]
    fn what_a_pod_does_not_say_is_left_to_the_image() {
        let body = body(&spec());
        for left in ["Entrypoint", "Cmd", "User", "WorkingDir"] {
            assert_eq!(body.get(left), None, "{left}");
        }
        assert_eq!(body["Env"], json!(["A=b=c"]));
        assert_eq!(body["HostConfig"]["NetworkMode"], "host");
        let mount =
            json!([{"Target": "/v", "Source": "/pods/1/volumes/v", "Type": "bind", "ReadOnly": true}]);
        assert_eq!(body["HostConfig"]["Mounts"], mount);
        assert_eq!(body["HostConfig"].get("Memory"), None);
    }

    #[test]
    fn limits_are_hard() {
        let limited = Spec {
            memory_limit: Some(64 << 20),
            cpu_milli: Some(1500),
            gpus: vec!["GPU-1".to_owned()],
            ..spec()
        };
        let host = &body(&limited)["HostConfig"];
        assert_eq!(host["Memory"], 64 << 20);
        assert_eq!(host["MemorySwap"], 64 << 20);
        assert_eq!(host["NanoCpus"], 1_500_000_000);
        assert_eq!(
            host["DeviceRequests"],
            json!([{"DeviceIDs": ["GPU-1"], "Capabilities": [["gpu"]]}])
        );
    }

    #[test]
    fn a_volume_in_memory_is_no_folder_of_this_machine() {
        let in_memory = Spec {
            memory: vec![Memory {
                folder: "/pods/1/volumes/v".into(),
                bytes: Some(5),
            }],
            ..spec()
        };
        let mounts = &body(&in_memory)["HostConfig"]["Mounts"];
        let expected =
            json!([{"Target": "/v", "Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o1777}}]);
        assert_eq!(*mounts, expected);
    }

    #[test]
    fn a_container_gains_no_privileges_where_the_pod_says_so() {
        let strict = Spec {
            may_gain_privileges: false,
            read_only_root: true,
            dropped_capabilities: vec!["ALL".to_owned()],
            user: Some("5:6".to_owned()),
            ..spec()
        };
        let body = body(&strict);
        assert_eq!(body["User"], "5:6");
        let host = &body["HostConfig"];
        assert_eq!(host["SecurityOpt"], json!(["label=disable", "no-new-privileges"]));
        assert_eq!(host["CapDrop"], json!(["ALL"]));
        assert_eq!(host["ReadonlyRootfs"], true);
    }
}
