//! A Pod's volumes, as folders on this machine.
//!
//! Files of ConfigMaps, Secrets and the downward API are written into the Pod's own folder, which only the
//! server's user can enter and which is removed with the Pod. They are not updated while the Pod runs. Claims are
//! folders of the data directory that outlive Pods.

mod files;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use self::files::{Files, join};
pub(crate) use self::files::{mode_of, replace};
use super::{
    env::{self, Facts},
    objects::{Missing, Objects, Reference, ephemeral_claim},
};
use crate::runtime::mount::{Memory, Mount, MountKind};
/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something it refers to is not there. It may come.
    #[error("volume `{volume}`: {missing}")]
    Missing {
        /// The volume's name.
        volume: String,
        /// What is missing.
        missing: Missing,
    },
    /// It asks for what is not done here.
    #[error("volume `{volume}` {problem}")]
    Refused {
        /// The volume's name.
        volume: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of it cannot be written.
    #[error("volume `{volume}`: cannot write `{path}`")]
    Write {
        /// The volume's name.
        volume: String,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where volumes lie on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Places<'a> {
    /// The Pod's own folder.
    pub(crate) pod: &'a Path,
    /// The Pod's own folder in memory, on a machine that has such a thing.
    pub(crate) memory: &'a Path,
    /// Claims, by namespace and name.
    pub(crate) claims: &'a Path,
    /// What `hostPath` volumes may show for writing.
    pub(crate) host_paths: &'a [PathBuf],
    /// What `hostPath` volumes may not show at all: our own folder.
    pub(crate) hidden: &'a Path,
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    source: PathBuf,
    read_only: bool,
    medium: Medium,
    /// How many bytes it may take.
    limit: Option<u64>,
}

/// What an emptyDir volume is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// Where it lies, which may be in memory.
    Folder,
    /// Memory of one run of one container: nothing is written to its folder.
    Own,
    /// A folder on disk, although it is to be in memory.
    DiskInstead,
}

impl Ready {
    fn at(source: PathBuf, read_only: bool) -> Self {
        Self {
            source,
            read_only,
            medium: Medium::Folder,
            limit: None,
        }
    }

    /// What it is made of.
    pub(crate) const fn medium(&self) -> Medium {
        self.medium
    }

    /// As memory of one run, if it is that.
    pub(crate) fn memory(&self) -> Option<Memory> {
        (self.medium == Medium::Own).then(|| Memory {
            folder: self.source.clone(),
            bytes: self.limit,
        })
    }

    /// Its folder on disk and how many bytes it may take, if there is a limit.
    pub(crate) fn limited(&self) -> Option<(PathBuf, u64)> {
        Some((self.source.clone(), self.limit?))
    }
}

/// Where a volume's own files are, in a Pod's folder.
pub(crate) fn own_folder(pod: &Path, volume: &str) -> PathBuf {
    pod.join("volumes").join(volume)
}

/// Lays out every volume of a Pod. May be repeated.
pub(crate) fn lay_out(
    pod: &Pod,
    places: &Places<'_>,
    facts: &Facts<'_>,
    objects: &Objects,
) -> Result<BTreeMap<String, Ready>, Error> {
    let mut ready = BTreeMap::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        ready.insert(volume.name.clone(), one(volume, pod, places, facts, objects)?);
    }
    Ok(ready)
}

fn one(
    volume: &Volume,
    pod: &Pod,
    places: &Places<'_>,
    facts: &Facts<'_>,
    objects: &Objects,
) -> Result<Ready, Error> {
    let refused = |problem: String| Error::Refused {
        volume: volume.name.clone(),
        problem,
    };
    let own = own_folder(places.pod, &volume.name);
    let files = Files {
        volume: &volume.name,
        folder: &own,
    };
    let written = |read_only| Ready::at(own.clone(), read_only);
    if let Some(wanted) = &volume.empty_dir {
        let in_memory = match wanted.medium.as_deref() {
            None | Some("") => false,
            Some("Memory") => true,
            Some(other) => {
                return Err(refused(format!(
                    "is to be of `{other}`, which this machine does not offer"
                )));
            }
        };
        let limit = wanted
            .size_limit
            .as_ref()
            .map(|limit| limit.0.parse::<Quantity>())
            .transpose()
            .map_err(|error| refused(format!("has a limit that is no amount: {error}")))?;
        let (folder, medium) = if !in_memory {
            (own.clone(), Medium::Folder)
        } else if is_of_one_run(pod) {
            (own.clone(), Medium::Own)
        } else if is_made(places.memory) {
            (places.memory.join(&volume.name), Medium::Folder)
        } else {
            (own.clone(), Medium::DiskInstead)
        };
        let files = Files {
            volume: &volume.name,
            folder: &folder,
        };
        files.make_folder(0o777)?;
        return Ok(Ready {
            medium,
            limit: limit.and_then(|limit| u64::try_from(limit.units()).ok()),
            ..Ready::at(folder, false)
        });
    }
    if let Some(from) = &volume.config_map {
        files.make_folder(0o755)?;
        let reference = Reference::ConfigMap(from.name.clone());
        files.write_keys(
            objects,
            &reference,
            from.items.as_deref(),
            from.default_mode,
            from.optional,
        )?;
        return Ok(written(true));
    }
    if let Some(from) = &volume.secret {
        files.make_folder(0o755)?;
        let reference = Reference::Secret(from.secret_name.clone().unwrap_or_default());
        files.write_keys(
            objects,
            &reference,
            from.items.as_deref(),
            from.default_mode,
            from.optional,
        )?;
        return Ok(written(true));
    }
    if let Some(from) = &volume.downward_api {
        files.make_folder(0o755)?;
        for file in from.items.iter().flatten() {
            let mode = file.mode.or(from.default_mode);
            files.write(
                &file.path,
                downward(file, pod, facts).unwrap_or_default().as_bytes(),
                mode,
            )?;
        }
        return Ok(written(true));
    }
    if let Some(projected) = &volume.projected {
        files.make_folder(0o755)?;
        for source in projected.sources.iter().flatten() {
            let mode = projected.default_mode;
            if let Some(from) = &source.config_map {
                let reference = Reference::ConfigMap(from.name.clone());
                files.write_keys(objects, &reference, from.items.as_deref(), mode, from.optional)?;
            } else if let Some(from) = &source.secret {
                let reference = Reference::Secret(from.name.clone());
                files.write_keys(objects, &reference, from.items.as_deref(), mode, from.optional)?;
            } else if let Some(from) = &source.downward_api {
                for file in from.items.iter().flatten() {
                    let text = downward(file, pod, facts).unwrap_or_default();
                    files.write(&file.path, text.as_bytes(), file.mode.or(mode))?;
                }
            } else if let Some(from) = &source.service_account_token {
                let token = objects.token(&volume.name, &from.path).unwrap_or_default();
                files.write(&from.path, token.as_bytes(), mode)?;
            } else {
                return Err(refused(
                    "projects a source that this machine does not offer (it offers configMap, secret, downwardAPI \
                     and serviceAccountToken)"
                        .to_owned(),
                ));
            }
        }
        return Ok(written(true));
    }
    let named = volume.persistent_volume_claim.as_ref();
    let named = named.map(|from| (from.claim_name.clone(), from.read_only == Some(true)));
    let ephemeral = || ephemeral_claim(pod, volume).map(|name| (name, false));
    if let Some((name, read_only)) = named.or_else(ephemeral) {
        let claim = objects.claim(&name).map_err(|missing| Error::Missing {
            volume: volume.name.clone(),
            missing,
        })?;
        let mut owners = claim.metadata.owner_references.iter().flatten();
        let mut is_own = || owners.any(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
        if volume.ephemeral.is_some() && !is_own() {
            return Err(refused(format!(
                "needs the claim `{name}` for itself, which is somebody else's: delete it, or rename the volume"
            )));
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let folder = places.claims.join(namespace).join(&name);
        let files = Files {
            volume: &volume.name,
            folder: &folder,
        };
        files.make_folder(0o777)?;
        return Ok(Ready::at(folder, read_only));
    }
    if let Some(from) = &volume.host_path {
        return host_path(&from.path, from.type_.as_deref(), places).map_err(refused);
    }
    Err(refused(
        "is of a kind that this machine does not offer (it offers emptyDir, configMap, secret, downwardAPI, \
         projected, persistentVolumeClaim, ephemeral and hostPath)"
            .to_owned(),
    ))
}

/// Makes a Pod's folder in memory, in one that nobody else can enter; `false` if there is no such thing.
fn is_made(memory: &Path) -> bool {
    let Some(ours) = memory
        .parent()
        .filter(|ours| ours.parent().is_some_and(Path::is_dir))
    else {
        return false;
    };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(memory);
    // Somebody else's folder of that name, or a link, is none of ours.
    let is_ours = fs::symlink_metadata(ours)
        .is_ok_and(|found| found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw());
    made.is_ok() && is_ours
}

/// Whether nothing but one run of one container sees the Pod's volumes.
fn is_of_one_run(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        let is_alone = spec.containers.len() == 1 && spec.init_containers.as_ref().is_none_or(Vec::is_empty);
        is_alone && spec.restart_policy.as_deref() == Some("Never")
    })
}

fn downward(
    file: &k8s_openapi::api::core::v1::DownwardAPIVolumeFile,
    pod: &Pod,
    facts: &Facts<'_>,
) -> Option<String> {
    if let Some(field) = &file.field_ref {
        return env::pod_field(&field.field_path, facts);
    }
    let resource = file.resource_field_ref.as_ref()?;
    let name = resource.container_name.as_deref()?;
    let container = pod
        .spec
        .as_ref()?
        .containers
        .iter()
        .find(|container| container.name == name)?;
    let divisor = resource
        .divisor
        .as_ref()
        .map_or("1", |divisor| divisor.0.as_str());
    env::resource_field(&resource.resource, divisor, container, facts)
}

/// A path of this machine. Read-only, unless it is allowed for writing: processes see this machine's files
/// anyway, but for what their sandbox covers, such as /tmp.
fn host_path(path: &str, kind: Option<&str>, places: &Places<'_>) -> Result<Ready, String> {
    let wanted = Path::new(path);
    let source = match wanted.canonicalize() {
        Ok(source) => source,
        Err(error) if kind == Some("DirectoryOrCreate") => {
            let parent = wanted.parent().and_then(|parent| parent.canonicalize().ok());
            let name = wanted.file_name();
            let (Some(parent), Some(name)) = (parent, name) else {
                return Err(format!("shows `{path}`: {error}"));
            };
            parent.join(name)
        }
        Err(error) => return Err(format!("shows `{path}`: {error}")),
    };
    let is_writable = places
        .host_paths
        .iter()
        .any(|allowed| source.starts_with(allowed));
    if !is_writable && source.starts_with(places.hidden) {
        return Err(format!(
            "shows `{path}`, which is the server's own: Pods may not see it"
        ));
    }
    if kind == Some("DirectoryOrCreate") && !source.exists() {
        if !is_writable {
            return Err(format!(
                "would make `{path}` on this machine, where Pods may only read: make the folder first, or use a \
                 persistentVolumeClaim"
            ));
        }
        fs::create_dir_all(&source).map_err(|error| format!("cannot make `{path}`: {error}"))?;
    }
    Ok(Ready::at(source, !is_writable))
}

/// What a container is to see of the volumes. `variable` is for `subPathExpr`.
pub(crate) fn mounts<'a>(
    container: &Container,
    volumes: &BTreeMap<String, Ready>,
    variable: impl Fn(&str) -> Option<&'a str>,
) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let refused = |problem: String| Error::Refused {
            volume: wanted.name.clone(),
            problem,
        };
        let volume = volumes.get(&wanted.name).ok_or_else(|| {
            refused(format!(
                "is mounted by `{}`, and the Pod has none",
                container.name
            ))
        })?;
        let below = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) => env::expand(path, &variable),
            (None, None) => String::new(),
        };
        // A volume may be a file, which has nothing below it.
        let source = match below.as_str() {
            "" => Some(volume.source.clone()),
            below => join(&volume.source, below),
        };
        let source = source.ok_or_else(|| {
            refused(format!(
                "is mounted with subPath `{below}`, which leads out of it"
            ))
        })?;
        if fs::symlink_metadata(&source).is_err() {
            fs::create_dir_all(&source).map_err(|error| Error::Write {
                volume: wanted.name.clone(),
                path: source.clone(),
                source: error,
            })?;
        }
        // A link that a container left in the volume must not show another part of this machine.
        let inside = source.canonicalize().ok().zip(volume.source.canonicalize().ok());
        if !inside.is_some_and(|(source, volume)| source.starts_with(volume)) {
            return Err(refused(format!(
                "is mounted with subPath `{below}`, which leads out of it"
            )));
        }
        let is_read_only = volume.read_only || wanted.read_only == Some(true);
        mounts.push(Mount {
            source,
            target: Path::new("/").join(&wanted.mount_path),
            kind: if is_read_only {
                MountKind::ReadOnly
            } else {
                MountKind::ReadWrite
            },
        });
    }
    // What is mounted inside another mount comes after it.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

/// Bytes on disk of a folder and what is in it.
pub(crate) fn used(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let own = metadata.blocks() * 512;
            let below = if metadata.is_dir() { used(&entry.path()) } else { 0 };
            Some(own + below)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::{Value, json};

    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
        pod: Pod,
    }

    impl Fixture {
        fn new(volume: Value) -> Self {
            let mut volume = volume;
            volume["name"] = json!("v");
            let pod = json!({
                "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
                "spec": {"containers": [], "volumes": [volume]},
            });
            Self {
                folder: tempfile::tempdir().unwrap(),
                pod: serde_json::from_value(pod).unwrap(),
            }
        }

        fn lay_out(&self) -> Result<Ready, String> {
            let objects = Objects::default()
                .with_secret("s", &[("user", "me"), ("password", "x")])
                .with_config_map("c", &[("app.ini", "[a]")]);
            let allocatable = BTreeMap::new();
            let facts = Facts {
                pod: &self.pod,
                node: "here",
                address: "127.0.0.1",
                allocatable: &allocatable,
            };
            let (pod, claims) = (self.folder.path().join("pod"), self.folder.path().join("claims"));
            let allowed = [self.folder.path().canonicalize().unwrap().join("allowed")];
            let places = Places {
                pod: &pod,
                memory: &self.folder.path().join("memory"),
                claims: &claims,
                host_paths: &allowed,
                hidden: &self.folder.path().canonicalize().unwrap().join("server"),
            };
            let ready = lay_out(&self.pod, &places, &facts, &objects).map_err(|error| error.to_string())?;
            Ok(ready["v"].clone())
        }

        /// The volume's files with their modes, or why there are none.
        fn files(&self) -> String {
            let source = match self.lay_out() {
                Ok(ready) => ready.source,
                Err(error) => return error,
            };
            let mut found = Vec::new();
            let mut folders = vec![source.clone()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                        let name = path.strip_prefix(&source).unwrap().display().to_string();
                        found.push(format!("{name}:{mode:o}:{}", fs::read_to_string(&path).unwrap()));
                    }
                }
            }
            found.sort();
            found.join(" ")
        }
    }

    #[test]
    fn memory_is_of_one_run_or_a_folder_that_all_share() {
        let mut fixture = Fixture::new(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Ki"}}));
        let shared = fixture.lay_out().unwrap();
        let folder = fixture.folder.path().join("memory/v");
        assert_eq!((shared.medium(), shared.memory()), (Medium::Folder, None));
        assert_eq!(shared.limited(), Some((folder, 1024)));
        let alone = json!({"containers": [{"name": "c"}], "restartPolicy": "Never", "volumes": [
            {"name": "v", "emptyDir": {"medium": "Memory"}},
        ]});
        fixture.pod.spec = serde_json::from_value(alone).unwrap();
        let own = fixture.lay_out().unwrap();
        assert_eq!(own.medium(), Medium::Own);
        assert!(own.memory().is_some());
    }

    fn check(volume: Value, expected: &str) {
        let fixture = Fixture::new(volume);
        assert_eq!(fixture.files(), expected);
        assert_eq!(fixture.files(), expected, "laid out again");
    }

    #[test]
    fn keys_become_files_with_their_modes() {
        check(
            json!({"secret": {"secretName": "s"}}),
            "password:644:x user:644:me",
        );
        check(
            json!({"secret": {"secretName": "s", "defaultMode": 0o400,
                "items": [{"key": "user", "path": "deep/name", "mode": 0o440}, {"key": "password", "path": "p"}]}}),
            "deep/name:440:me p:400:x",
        );
        check(json!({"configMap": {"name": "c"}}), "app.ini:644:[a]");
        check(
            json!({"projected": {"sources": [
                {"configMap": {"name": "c"}},
                {"secret": {"name": "s", "items": [{"key": "user", "path": "u"}]}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            ]}}),
            "app.ini:644:[a] labels:644:a=\"b\" u:644:me",
        );
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        check(
            json!({"secret": {"secretName": "none"}}),
            "volume `v`: Secret `none` does not exist",
        );
        check(
            json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}),
            "volume `v`: ConfigMap `c` has no key `k`",
        );
        check(json!({"configMap": {"name": "none", "optional": true}}), "");
        check(
            json!({"persistentVolumeClaim": {"claimName": "data"}}),
            "volume `v`: PersistentVolumeClaim `data` does not exist",
        );
    }

    #[test]
    fn nothing_leads_out_of_a_volume() {
        let refused =
            Fixture::new(json!({"secret": {"secretName": "s", "items": [{"key": "user", "path": "../x"}]}}));
        assert!(refused.files().contains("leads out of it"));
        let fixture = Fixture::new(json!({"emptyDir": {}}));
        let ready = fixture.lay_out().unwrap();
        std::os::unix::fs::symlink("/etc", ready.source.join("link")).unwrap();
        let volumes = BTreeMap::from([("v".to_owned(), ready)]);
        for path in ["../x", "/etc", "link"] {
            let container: Container = serde_json::from_value(json!({
                "name": "c", "volumeMounts": [{"name": "v", "mountPath": "/m", "subPath": path}],
            }))
            .unwrap();
            let error = mounts(&container, &volumes, |_| None).unwrap_err().to_string();
            assert!(error.contains("leads out of it"), "{error}");
        }
    }

    #[test]
    fn a_path_of_the_host_is_read_only_unless_it_is_allowed_and_the_server_s_own_is_hidden() {
        let shown = Fixture::new(json!({"hostPath": {"path": "/etc"}}))
            .lay_out()
            .unwrap();
        assert!(shown.read_only);
        let mut fixture = Fixture::new(json!({"emptyDir": {}}));
        let own = fixture.folder.path().join("server");
        fs::create_dir(&own).unwrap();
        let volume = json!({"name": "v", "hostPath": {"path": own}});
        fixture.pod.spec.as_mut().unwrap().volumes = Some(vec![serde_json::from_value(volume).unwrap()]);
        assert!(fixture.files().contains("may not see"));
        let mut fixture = Fixture::new(json!({"emptyDir": {}}));
        let allowed = fixture.folder.path().join("allowed");
        fs::create_dir(&allowed).unwrap();
        let volume =
            json!({"name": "v", "hostPath": {"path": allowed.join("new"), "type": "DirectoryOrCreate"}});
        fixture.pod.spec.as_mut().unwrap().volumes = Some(vec![serde_json::from_value(volume).unwrap()]);
        assert_eq!(fixture.files(), "");
        assert!(allowed.join("new").is_dir());
    }

    #[test]
    fn mounts_come_outermost_first() {
        let fixture = Fixture::new(json!({"emptyDir": {}}));
        let volumes = BTreeMap::from([("v".to_owned(), fixture.lay_out().unwrap())]);
        let folder = volumes["v"].source.clone();
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "volumeMounts": [
                {"name": "v", "mountPath": "/a/b", "subPathExpr": "$(X)/y", "readOnly": true},
                {"name": "v", "mountPath": "/a"},
            ],
        }))
        .unwrap();
        let found = mounts(&container, &volumes, |name| (name == "X").then_some("x")).unwrap();
        assert_eq!(found[0].target, Path::new("/a"));
        assert_eq!(found[1].source, folder.join("x/y"));
        assert_eq!(found[1].kind, MountKind::ReadOnly);
    }
}
