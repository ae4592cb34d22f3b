//! Who owns whom, and which namespaces are going, as far as events have told.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use coracle_store::resources::Key;
use serde_json::Value;

use crate::{
    kinds::{KindRef, NAMESPACES},
    object,
};

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// The owners that an object names.
pub(super) fn owners(object: &Value) -> Vec<Owner> {
    let owners = object::list(object, "/metadata/ownerReferences").iter();
    owners
        .map(|owner| {
            let field = |pointer: &str| object::text(owner, pointer).to_owned();
            Owner {
                api_version: field("/apiVersion"),
                kind: field("/kind"),
                name: field("/name"),
                uid: field("/uid"),
            }
        })
        .collect()
}

#[derive(Debug)]
struct Node {
    kind: KindRef,
    key: Key,
    owners: BTreeSet<String>,
    is_leaving: bool,
}

/// What is known, by uid.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, BTreeSet<String>>,
    /// By name: its uid.
    namespaces: HashMap<String, String>,
    /// By name: how many objects are in it.
    population: HashMap<String, usize>,
}

/// What an object that is gone was connected to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) owners: BTreeSet<String>,
    pub(super) dependents: BTreeSet<String>,
}

impl Graph {
    /// Takes note of the object. Returns whether it is new, or has other owners than before.
    pub(super) fn put(&mut self, kind: &KindRef, object: &Value) -> bool {
        let uid = object::uid(object).to_owned();
        let key = kind.key(object::namespace(object), object::name(object));
        let owners = owners(object)
            .into_iter()
            .map(|owner| owner.uid)
            .collect::<BTreeSet<_>>();
        if *kind == *NAMESPACES {
            self.namespaces.insert(key.name.clone(), uid.clone());
        }
        let before = self.nodes.get(&uid).map(|node| &node.owners);
        let is_news = before != Some(&owners);
        for owner in before
            .into_iter()
            .flatten()
            .filter(|owner| !owners.contains(*owner))
        {
            forget(&mut self.dependents, owner, &uid);
        }
        for owner in &owners {
            self.dependents
                .entry(owner.clone())
                .or_default()
                .insert(uid.clone());
        }
        if before.is_none() {
            *self.population.entry(key.namespace.clone()).or_default() += 1;
        }
        let is_leaving = object::is_terminating(object);
        self.nodes.insert(
            uid,
            Node {
                kind: Arc::clone(kind),
                key,
                owners,
                is_leaving,
            },
        );
        is_news
    }

    /// Forgets the object.
    pub(super) fn remove(&mut self, uid: &str) -> Removed {
        let dependents = self.dependents(uid);
        let Some(node) = self.nodes.remove(uid) else {
            return Removed {
                owners: BTreeSet::new(),
                dependents,
            };
        };
        for owner in &node.owners {
            forget(&mut self.dependents, owner, uid);
        }
        if node.kind == *NAMESPACES
            && self
                .namespaces
                .get(&node.key.name)
                .is_some_and(|known| known == uid)
        {
            self.namespaces.remove(&node.key.name);
        }
        if let Some(population) = self.population.get_mut(&node.key.namespace) {
            *population -= 1;
            if *population == 0 {
                self.population.remove(&node.key.namespace);
            }
        }
        Removed {
            owners: node.owners,
            dependents,
        }
    }

    /// Where the object is.
    pub(super) fn get(&self, uid: &str) -> Option<(KindRef, Key)> {
        self.nodes
            .get(uid)
            .map(|node| (Arc::clone(&node.kind), node.key.clone()))
    }

    /// The objects that name this one as an owner.
    pub(super) fn dependents(&self, uid: &str) -> BTreeSet<String> {
        self.dependents.get(uid).cloned().unwrap_or_default()
    }

    /// Whether the object is on its way out.
    pub(super) fn is_leaving(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.is_leaving)
    }

    /// The uid of the namespace, if it is on its way out.
    pub(super) fn leaving_namespace(&self, name: &str) -> Option<String> {
        self.namespaces
            .get(name)
            .filter(|uid| self.is_leaving(uid))
            .cloned()
    }

    /// Whether no object in the namespace is known.
    pub(super) fn is_empty(&self, namespace: &str) -> bool {
        !self.population.contains_key(namespace)
    }

    /// Whether the namespace is not known to stand.
    pub(super) fn leaving_or_unknown(&self, name: &str) -> bool {
        self.namespaces.get(name).is_none_or(|uid| self.is_leaving(uid))
    }
}

fn forget(dependents: &mut HashMap<String, BTreeSet<String>>, owner: &str, uid: &str) {
    if let Some(known) = dependents.get_mut(owner) {
        known.remove(uid);
        if known.is_empty() {
            dependents.remove(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::PODS;

    fn pod(uid: &str, owners: &[&str]) -> Value {
        let owners = owners
            .iter()
            .map(|uid| json!({"uid": uid, "kind": "Pod"}))
            .collect::<Value>();
        json!({"metadata": {"name": uid, "namespace": "d", "uid": uid, "ownerReferences": owners}})
    }

    fn set(uids: &[&str]) -> BTreeSet<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn dependents_are_known_before_and_after_their_owner() {
        let mut graph = Graph::default();
        assert!(graph.put(&PODS, &pod("child", &["parent"])));
        assert!(graph.put(&PODS, &pod("parent", &[])));
        assert!(!graph.put(&PODS, &pod("child", &["parent"])));
        assert_eq!(graph.dependents("parent"), set(&["child"]));
        let removed = graph.remove("parent");
        assert_eq!(
            removed,
            Removed {
                owners: set(&[]),
                dependents: set(&["child"])
            }
        );
        assert!(graph.put(&PODS, &pod("child", &[])));
        assert_eq!(graph.dependents("parent"), set(&[]));
        assert_eq!(graph.remove("child").owners, set(&[]));
    }

    #[test]
    fn namespaces_are_followed_by_name() {
        let mut graph = Graph::default();
        assert!(graph.leaving_or_unknown("n"));
        let mut namespace = json!({"metadata": {"name": "n", "uid": "1"}});
        graph.put(&NAMESPACES, &namespace);
        assert!(!graph.leaving_or_unknown("n"));
        namespace["metadata"]["deletionTimestamp"] = json!("2026-11-22T10:00:00Z");
        graph.put(&NAMESPACES, &namespace);
        assert_eq!(graph.leaving_namespace("n").as_deref(), Some("1"));
        graph.remove("1");
        assert!(graph.leaving_or_unknown("n"));
    }
}
