//! Keeps the `/etc/hosts` of every Pod that lives here up to date.
//!
//! The file is mounted into containers, so it is always the same one: what changes is written into it, with one
//! write, never shorter than before.

use std::{
    collections::HashMap,
    fs, io,
    net::Ipv4Addr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    hosts::{machine_name, render},
    table::Table,
};

/// Names with a dot in a Pod's folder: containers are called without.
const HOSTS: &str = "etc.hosts";
const HOSTNAME: &str = "etc.hostname";
const NSSWITCH: &str = "etc.nsswitch.conf";

/// Where the C library reads whom to ask for names.
pub(crate) const SWITCH: &str = "/etc/nsswitch.conf";

/// The file of a Pod's folder that is its `/etc/hosts`.
pub(crate) fn hosts_file(folder: &Path) -> PathBuf {
    folder.join(HOSTS)
}

/// The file of a Pod's folder that is its `/etc/hostname`.
pub(crate) fn hostname_file(folder: &Path) -> PathBuf {
    folder.join(HOSTNAME)
}

/// The file of a Pod's folder that is its [`SWITCH`], if this machine's does not do.
pub(crate) fn switch_file(folder: &Path) -> PathBuf {
    folder.join(NSSWITCH)
}

/// The Pods and what their files say.
#[derive(Debug)]
pub(crate) struct Names {
    /// Nothing until all is known for the first time.
    table: watch::Receiver<Option<Arc<Table>>>,
    kept: Mutex<HashMap<String, Kept>>,
}

#[derive(Debug)]
struct Kept {
    pod: Arc<Pod>,
    address: Ipv4Addr,
    folder: PathBuf,
    /// What the file says.
    text: String,
}

impl Names {
    pub(crate) fn new(table: watch::Receiver<Option<Arc<Table>>>) -> Self {
        Self {
            table,
            kept: Mutex::default(),
        }
    }

    /// What is known of Services now.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.borrow().clone().unwrap_or_default()
    }

    /// Writes the Pod's files, and keeps them up to date from now on. Blocks.
    pub(crate) fn keep(&self, pod: &Arc<Pod>, address: Ipv4Addr, folder: PathBuf) -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        fs::write(hostname_file(&folder), format!("{}\n", machine_name(pod)))?;
        if let Some(text) = switch(fs::read_to_string(SWITCH).ok().as_deref()) {
            fs::write(switch_file(&folder), text)?;
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        // Locked from here on, so that no change comes in between.
        let mut all = self.kept.lock();
        let file = hosts_file(&folder);
        // A Pod that runs goes on with what it had until all is known.
        let text = if self.table.borrow().is_none() && file.exists() {
            String::new()
        } else {
            let text = render(pod, address, &self.table(), &of_host());
            write(&file, &text)?;
            text
        };
        let kept = Kept {
            pod: Arc::clone(pod),
            address,
            folder,
            text,
        };
        all.insert(uid, kept);
        Ok(())
    }

    /// The Pod is over.
    pub(crate) fn forget(&self, uid: &str) {
        self.kept.lock().remove(uid);
    }

    /// Writes every change into the files that it concerns.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut table = self.table.clone();
        while table.changed().await.is_ok() {
            table.mark_unchanged();
            let own = Arc::clone(&self);
            let written = tokio::task::spawn_blocking(move || own.update());
            if let Err(error) = written.await {
                tracing::error!(%error, "the names of Services were not written");
            }
        }
    }

    fn update(&self) {
        let mut all = self.kept.lock();
        let (table, host) = (self.table(), of_host());
        for kept in all.values_mut() {
            let text = render(&kept.pod, kept.address, &table, &host);
            if text == kept.text {
                continue;
            }
            let file = hosts_file(&kept.folder);
            match write(&file, &text) {
                Ok(()) => kept.text = text,
                Err(error) => {
                    tracing::warn!(%error, file = %file.display(), "the names of Services were not written");
                }
            }
        }
    }
}

/// This machine's own names.
fn of_host() -> String {
    fs::read_to_string("/etc/hosts").unwrap_or_default()
}

/// Whom to ask for names, with `/etc/hosts` first; nothing if that is so already. Some machines ask a service before,
/// which knows this machine's file only.
fn switch(host: Option<&str>) -> Option<String> {
    let Some(host) = host else {
        return Some("hosts: files dns\n".to_owned());
    };
    let mut is_changed = false;
    let lines = host.lines().map(|line| {
        let Some(asked) = line.trim_start().strip_prefix("hosts:") else {
            return line.to_owned();
        };
        if asked.split_ascii_whitespace().next() == Some("files") {
            return line.to_owned();
        }
        is_changed = true;
        let others = asked.split_ascii_whitespace().filter(|word| *word != "files");
        format!("hosts: files {}", others.collect::<Vec<_>>().join(" "))
    });
    let text = lines.map(|line| line + "\n").collect();
    is_changed.then_some(text)
}

/// Writes into the file, filling up with empty lines what it was longer before.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let open = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(file)?;
    let before = usize::try_from(open.metadata()?.len()).unwrap_or_default();
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().max(before), b'\n');
    open.write_all_at(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, time::Duration};

    use serde_json::json;

    use super::{super::table::tests::table, *};

    #[test]
    fn a_pods_own_names_are_asked_for_first() {
        assert_eq!(switch(Some("passwd: files\nhosts: files dns\n")), None);
        assert_eq!(switch(Some("passwd: files\n")), None);
        assert_eq!(
            switch(Some(
                "hosts:\tmymachines resolve [!UNAVAIL=return] files dns\ngroup: files\n"
            ))
            .as_deref(),
            Some("hosts: files mymachines resolve [!UNAVAIL=return] dns\ngroup: files\n")
        );
        assert_eq!(switch(None).as_deref(), Some("hosts: files dns\n"));
    }

    #[tokio::test]
    async fn changes_reach_the_same_file_while_a_pod_lives() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, receiver) = watch::channel(None);
        let names = Arc::new(Names::new(receiver));
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}})).unwrap();
        let address = Ipv4Addr::new(127, 20, 64, 9);
        let pod = Arc::new(pod);
        names.keep(&pod, address, folder.path().to_path_buf()).unwrap();
        let file = hosts_file(folder.path());
        let inode = fs::metadata(&file).unwrap().ino();
        assert!(fs::read_to_string(&file).unwrap().contains("127.20.64.9\tp\n"));
        tokio::spawn(Arc::clone(&names).run());
        let until = async |holds: &dyn Fn(&str) -> bool| {
            tokio::time::timeout(Duration::from_secs(20), async {
                while !holds(&fs::read_to_string(&file).unwrap()) {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .unwrap();
        };
        let service =
            json!([{"metadata": {"name": "web", "namespace": "n"}, "spec": {"clusterIP": "127.20.0.5"}}]);
        sender.send_replace(Some(Arc::new(table(service, json!([]), json!([])))));
        until(&|text| text.contains("127.20.0.5\tweb ")).await;
        let long = fs::metadata(&file).unwrap().len();
        sender.send_replace(Some(Arc::default()));
        until(&|text| !text.contains("web") && text.ends_with("\n\n\n")).await;
        let after = fs::metadata(&file).unwrap();
        assert_eq!((after.ino(), after.len()), (inode, long));
        // Another node that knows nothing yet leaves it as it is.
        let (_sender, receiver) = watch::channel(None);
        Names::new(receiver)
            .keep(&pod, address, folder.path().to_path_buf())
            .unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().modified().unwrap(),
            after.modified().unwrap()
        );
        names.forget("u");
        assert!(names.kept.lock().is_empty());
    }
}
