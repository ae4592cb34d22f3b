//! Volume claims of this machine: each is a folder, bound as soon as it is there, and removed with its claim.
//!
//! A claim with another claim as its source begins as a copy of that one's folder. Storage classes and volume names
//! change nothing: there is one kind of storage, and its size is not limited.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim as Claim, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        wait::await_condition,
        watcher::{self, watcher},
    },
};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::{events::Kind, pod::context::Context, pod::objects::ephemeral_claim, runtime::process::folders};

/// The pause between attempts to write to the API.
const PAUSE: Duration = Duration::from_secs(5);
/// Where folders go whose claims are gone, until no Pod uses them any more.
const LEAVING: &str = ".leaving";

/// A claim that cannot be given its folder.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot {action} `{path}`")]
    Folder {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the copy of claim `{claim}` failed: {why}")]
    Copy { claim: String, why: String },
    #[error("cannot begin as a copy of {0}: this machine copies PersistentVolumeClaims only")]
    Source(String),
    #[error("cannot watch claim `{claim}`, which this one is to be a copy of")]
    Watch {
        claim: String,
        #[source]
        source: kube::runtime::wait::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Folder { action, path, source }
}

/// Where claims lie.
pub(crate) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("volumes")
}

pub(crate) fn is_bound(claim: &Claim) -> bool {
    claim
        .status
        .as_ref()
        .is_some_and(|status| status.phase.as_deref() == Some("Bound"))
}

/// Binds claims and removes their folders, for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let root = folder(&context.data_dir);
    let api: Api<Claim> = Api::all(context.client.clone());
    let changes = watcher(api, watcher::Config::default()).default_backoff();
    let mut changes = pin!(changes);
    let mut work = Work::default();
    let mut listed: Option<HashSet<PathBuf>> = None;
    loop {
        tokio::select! {
            Some(change) = changes.next() => match change {
                Ok(watcher::Event::Init) => listed = Some(HashSet::new()),
                Ok(watcher::Event::InitApply(claim)) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(place(&root, &claim));
                    }
                    work.bind(&context, &root, claim);
                }
                Ok(watcher::Event::InitDone) => {
                    if let Some(listed) = listed.take() {
                        // Before the next claim comes, whose folder this must not take for one that is left.
                        let root = root.clone();
                        let swept = tokio::task::spawn_blocking(move || remove_unlisted(&root, &listed));
                        if swept.await.is_err() {
                            tracing::debug!("folders of claims that are gone are left for the next start");
                        }
                    }
                }
                Ok(watcher::Event::Apply(claim)) => work.bind(&context, &root, claim),
                Ok(watcher::Event::Delete(claim)) => work.leave(&context, &root, claim).await,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the watch of claims was interrupted: starting over"
                ),
            },
            Some(done) = work.tasks.join_next_with_id() => work.forget(done),
            else => return,
        }
    }
}

fn place(root: &Path, claim: &Claim) -> PathBuf {
    root.join(claim.namespace().as_deref().unwrap_or("default"))
        .join(claim.name_any())
}

/// What is being done about claims. The folder of a claim belongs to one of them at a time: what is done for a claim
/// that is gone ends before its folder is taken away, and that before the next claim of the name is looked at.
#[derive(Default)]
struct Work {
    tasks: JoinSet<()>,
    binding: HashMap<PathBuf, AbortHandle>,
}

impl Work {
    fn forget(&mut self, done: Result<(Id, ()), JoinError>) {
        let id = done.map_or_else(|error| error.id(), |(id, ())| id);
        self.binding.retain(|_, task| task.id() != id);
    }

    fn bind(&mut self, context: &Arc<Context>, root: &Path, claim: Claim) {
        let path = place(root, &claim);
        let is_leaving = claim.metadata.deletion_timestamp.is_some();
        if is_bound(&claim) || is_leaving || self.binding.contains_key(&path) {
            return;
        }
        let context = Arc::clone(context);
        let place = path.clone();
        let task = self
            .tasks
            .spawn(async move { settle(&context, &path, &claim).await });
        self.binding.insert(place, task);
    }

    async fn leave(&mut self, context: &Arc<Context>, root: &Path, claim: Claim) {
        if let Some(task) = self.binding.remove(&place(root, &claim)) {
            let id = task.id();
            task.abort();
            while let Some(done) = self.tasks.join_next_with_id().await {
                let ended = done.as_ref().map_or_else(|error| error.id(), |(id, ())| *id);
                self.forget(done);
                if ended == id {
                    break;
                }
            }
        }
        if let Some(moved) = set_aside(root, &claim).await {
            self.tasks
                .spawn(remove_unused(context.client.clone(), moved, claim));
        }
    }
}

/// Gives a claim its folder and says that it is bound. What fails is said, and tried again.
async fn settle(context: &Context, path: &Path, claim: &Claim) {
    loop {
        let error = match provide(&context.client, path, claim).await {
            Ok(()) => return bind(&context.client, claim).await,
            Err(error) => error,
        };
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            name: claim.metadata.name.clone(),
            namespace: claim.metadata.namespace.clone(),
            uid: claim.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        let message = coracle_api::reason::chain(&error);
        context
            .events
            .object(about, Kind::Warning, "ProvisioningFailed", message);
        if matches!(error, Error::Source(_)) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Makes the claim's folder, with its first content.
async fn provide(client: &Client, path: &Path, claim: &Claim) -> Result<(), Error> {
    let spec = claim.spec.as_ref();
    let named = spec.and_then(|spec| {
        let by_reference = spec
            .data_source_ref
            .as_ref()
            .map(|source| (&source.kind, &source.name));
        let plain = spec
            .data_source
            .as_ref()
            .map(|source| (&source.kind, &source.name));
        plain.or(by_reference)
    });
    let source = match named {
        Some((kind, name)) if kind == "PersistentVolumeClaim" => Some(name.clone()),
        Some((kind, name)) => return Err(Error::Source(format!("{kind} `{name}`"))),
        None => None,
    };
    let parent = path.parent().unwrap_or(path).to_path_buf();
    tokio::fs::create_dir_all(&parent)
        .await
        .map_err(failed("make the folder", &parent))?;
    if let Some(source) = source.filter(|_| !path.exists()) {
        let namespace = claim.namespace().unwrap_or_else(|| "default".to_owned());
        let api: Api<Claim> = Api::namespaced(client.clone(), &namespace);
        await_condition(api, &source, |claim: Option<&Claim>| claim.is_some_and(is_bound))
            .await
            .map_err(|error| Error::Watch {
                claim: source.clone(),
                source: error,
            })?;
        copy(&parent.join(&source), path, &source).await?;
    }
    let made = tokio::fs::create_dir_all(path).await;
    made.map_err(failed("make the folder", path))?;
    tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
        .await
        .map_err(failed("open", path))
}

/// Copies a folder, all or nothing; without copying a byte where the file system can share them.
async fn copy(from: &Path, to: &Path, claim: &str) -> Result<(), Error> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let draft = to.with_file_name(format!(".copy-{name}"));
    folders::remove_tree(&draft).map_err(failed("remove", &draft))?;
    let copied = tokio::process::Command::new("cp")
        .args(["-a", "--reflink=auto", "--"])
        .kill_on_drop(true)
        .args([from, &draft])
        .output()
        .await
        .map_err(failed("copy", from))?;
    if !copied.status.success() {
        return Err(Error::Copy {
            claim: claim.to_owned(),
            why: String::from_utf8_lossy(&copied.stderr).trim().to_owned(),
        });
    }
    tokio::fs::rename(&draft, to).await.map_err(failed("make", to))
}

/// Writes that the claim is bound, unless it is gone.
async fn bind(client: &Client, claim: &Claim) {
    let spec = claim.spec.as_ref();
    let capacity = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let patch = serde_json::json!({
        "metadata": {"uid": claim.metadata.uid},
        "status": {
            "phase": "Bound",
            "accessModes": spec.and_then(|spec| spec.access_modes.as_ref()),
            "capacity": capacity,
        },
    });
    let namespace = claim.namespace().unwrap_or_else(|| "default".to_owned());
    let api: Api<Claim> = Api::namespaced(client.clone(), &namespace);
    loop {
        let name = claim.name_any();
        let written = api
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        match written {
            Ok(_) => return,
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => return,
            Err(error) => tracing::warn!(
                claim = name,
                error = &error as &dyn std::error::Error,
                "a claim was not marked as bound: trying again"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes the folder of a claim that is gone out of the way, and says where to.
async fn set_aside(root: &Path, claim: &Claim) -> Option<PathBuf> {
    let path = place(root, claim);
    let leaving = root.join(LEAVING);
    let moved = leaving.join(claim.metadata.uid.as_deref().unwrap_or("unknown"));
    let renamed = tokio::fs::create_dir_all(&leaving).await;
    match renamed.and(tokio::fs::rename(&path, &moved).await) {
        Ok(()) => Some(moved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, folder = %path.display(), "the folder of a claim that is gone was not removed");
            None
        }
    }
}

/// Removes what was set aside when no Pod uses it any more.
async fn remove_unused(client: Client, moved: PathBuf, claim: Claim) {
    // What is mounted stays mounted, whatever its name is now.
    let namespace = claim.namespace().unwrap_or_else(|| "default".to_owned());
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let name = claim.name_any();
    let users = match pods.list(&ListParams::default()).await {
        Ok(pods) => pods.items,
        Err(error) => {
            tracing::debug!(%error, "cannot tell who uses a claim that is gone");
            Vec::new()
        }
    };
    for pod in users.iter().filter(|pod| is_used_by(pod, &name)) {
        let uid = pod.uid();
        let is_over = |now: Option<&Pod>| now.is_none_or(|now| now.uid() != uid || !is_used_by(now, &name));
        if let Err(error) = await_condition(pods.clone(), &pod.name_any(), is_over).await {
            tracing::debug!(%error, "cannot wait for the end of a Pod that uses a claim");
        }
    }
    let removed = tokio::task::spawn_blocking(move || remove(&moved)).await;
    if removed.is_err() {
        tracing::debug!("the folder of a claim is left for the next start");
    }
}

fn is_used_by(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let spec = pod.spec.as_ref().filter(|spec| spec.node_name.is_some());
    let volumes = spec.and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    !matches!(phase, Some("Succeeded" | "Failed"))
        && volumes.iter().any(|volume| {
            let named = volume.persistent_volume_claim.as_ref();
            named.is_some_and(|named| named.claim_name == claim)
                || ephemeral_claim(pod, volume).as_deref() == Some(claim)
        })
}

/// Claims that went while no node was there.
fn remove_unlisted(root: &Path, listed: &HashSet<PathBuf>) {
    let entries = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    for namespace in entries(root) {
        let is_leaving = namespace.file_name().is_some_and(|name| name == LEAVING);
        for claim in entries(&namespace) {
            let is_draft = claim
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if is_leaving || !(is_draft || listed.contains(&claim)) {
                remove(&claim);
            }
        }
    }
}

fn remove(folder: &Path) {
    if let Err(error) = folders::remove_tree(folder) {
        tracing::warn!(%error, folder = %folder.display(), "the folder of a claim that is gone was not removed");
    }
}
