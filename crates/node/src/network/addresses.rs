//! Which Pod has which address.
//!
//! A Pod's address follows from its UID. Only where another living Pod holds that one it gets the next, which is
//! then written into the Pod's folder, so that a node that starts later knows it.

use std::{
    collections::HashMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use coracle_api::network::Range;
use parking_lot::Mutex;

/// The file in a Pod's folder that holds its address, if it is not the first that its UID asks for.
const FILE: &str = "address";

/// The addresses of the Pods that live here.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: Range,
    /// By the Pod's UID.
    held: Mutex<HashMap<String, Ipv4Addr>>,
}

impl Addresses {
    /// Takes up what the Pods hold whose folders are in `pods`. Blocks.
    pub(crate) fn take_up(range: Range, pods: &Path) -> Self {
        let folders = fs::read_dir(pods).into_iter().flatten().flatten();
        let held = folders
            .filter_map(|folder| {
                let uid = folder.file_name().into_string().ok()?;
                if uid.starts_with('.') {
                    return None;
                }
                let address = written(&folder.path()).or_else(|| range.from_seed(&uid).next())?;
                Some((uid, address))
            })
            .collect();
        Self {
            range,
            held: Mutex::new(held),
        }
    }

    /// The Pod's address. `known` is the one that its status tells: its processes already use it.
    /// `None` when all addresses are taken.
    pub(crate) fn assign(&self, uid: &str, known: Option<Ipv4Addr>, folder: &Path) -> Option<Ipv4Addr> {
        let mut held = self.held.lock();
        let (address, is_first) = choose(self.range, &held, uid, known)?;
        held.insert(uid.to_owned(), address);
        drop(held);
        if !is_first && known != Some(address) && written(folder) != Some(address) {
            note(folder, address);
        }
        Some(address)
    }

    /// The Pod is over: others may have its address.
    pub(crate) fn release(&self, uid: &str) {
        self.held.lock().remove(uid);
    }
}

/// The address to give, and whether it is the first that the UID asks for.
fn choose(
    range: Range,
    held: &HashMap<String, Ipv4Addr>,
    uid: &str,
    known: Option<Ipv4Addr>,
) -> Option<(Ipv4Addr, bool)> {
    let known = known.filter(|address| range.contains(*address));
    let first = range.from_seed(uid).next();
    if let Some(address) = known.or_else(|| held.get(uid).copied()) {
        return Some((address, Some(address) == first));
    }
    let is_held = |address: &Ipv4Addr| held.values().any(|other| other == address);
    let address = range.from_seed(uid).find(|address| !is_held(address))?;
    Some((address, Some(address) == first))
}

fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

fn written(folder: &Path) -> Option<Ipv4Addr> {
    fs::read_to_string(file(folder)).ok()?.trim().parse().ok()
}

fn note(folder: &Path, address: Ipv4Addr) {
    let result = fs::create_dir_all(folder).and_then(|()| fs::write(file(folder), address.to_string()));
    if let Err(error) = result {
        tracing::warn!(%error, folder = %folder.display(), "a Pod's address was not written down");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use coracle_api::network::Block;

    use super::*;

    #[test]
    fn living_pods_never_share_an_address_and_keep_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let range = Block::new(30).pods();
        let addresses = Addresses::take_up(range, folder.path());
        // So many that many want the same.
        let uids: Vec<String> = (0..2000).map(|number| format!("uid-{number}")).collect();
        let pod = |uid: &str| folder.path().join(uid);
        let mut given = HashMap::new();
        for uid in &uids {
            fs::create_dir_all(pod(uid)).unwrap();
            let address = addresses.assign(uid, None, &pod(uid)).unwrap();
            assert!(range.contains(address));
            assert_eq!(addresses.assign(uid, None, &pod(uid)), Some(address));
            given.insert(uid.clone(), address);
        }
        assert_eq!(given.values().collect::<HashSet<_>>().len(), uids.len());
        // Another node, in another order, without any status.
        let later = Addresses::take_up(range, folder.path());
        for uid in uids.iter().rev() {
            assert_eq!(later.assign(uid, None, &pod(uid)), given.get(uid).copied());
        }
    }

    #[test]
    fn what_a_status_says_is_kept_unless_it_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let range = Block::new(30).pods();
        let addresses = Addresses::take_up(range, folder.path());
        let known = Ipv4Addr::new(127, 30, 200, 9);
        assert_eq!(addresses.assign("a", Some(known), folder.path()), Some(known));
        assert_eq!(addresses.assign("a", None, folder.path()), Some(known));
        let foreign = Ipv4Addr::new(10, 0, 0, 1);
        let own = addresses.assign("b", Some(foreign), folder.path()).unwrap();
        assert!(range.contains(own));
    }

    #[test]
    fn an_address_is_free_again_when_its_pod_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let range = Block::new(30).pods();
        let addresses = Addresses::take_up(range, folder.path());
        let first = range.from_seed("x").next().unwrap();
        addresses.assign("other", Some(first), folder.path());
        assert_ne!(addresses.assign("x", None, folder.path()), Some(first));
        addresses.release("x");
        addresses.release("other");
        fs::remove_file(file(folder.path())).unwrap();
        assert_eq!(addresses.assign("x", None, folder.path()), Some(first));
    }
}
