//! Which kinds there are at the moment: those of the table, and those of definitions that were
//! installed. Looking a kind up takes no lock for longer than that.

use std::sync::Arc;

use coracle_store::resources::GroupResource;
use tokio::sync::watch;

use super::{KindRef, table};
use crate::crd::Definitions;

/// The kinds that are served. Clones are the same catalogue.
#[derive(Debug, Clone)]
pub struct Catalogue {
    rows: Arc<watch::Sender<Arc<[KindRef]>>>,
    definitions: Definitions,
}

impl Default for Catalogue {
    /// The kinds that come with the server.
    fn default() -> Self {
        Self {
            rows: Arc::new(watch::Sender::new(table::built_in().into())),
            definitions: Definitions::default(),
        }
    }
}

impl Catalogue {
    /// Every version of every kind, in the order that discovery lists them.
    pub(crate) fn all(&self) -> Arc<[KindRef]> {
        Arc::clone(&self.rows.borrow())
    }

    /// The kind served at this path.
    pub(crate) fn at_path(&self, group: &str, version: &str, plural: &str) -> Option<KindRef> {
        let rows = self.rows.borrow();
        let found = rows
            .iter()
            .find(|kind| kind.plural == plural && kind.group == group && kind.version == version);
        found.cloned()
    }

    /// The kind that an object or an owner reference names.
    pub(crate) fn named(&self, api_version: &str, name: &str) -> Option<KindRef> {
        let rows = self.rows.borrow();
        let found = rows
            .iter()
            .find(|kind| kind.kind == name && kind.api_version() == api_version);
        found.cloned()
    }

    /// The kinds of one version of one group.
    pub(crate) fn of(&self, group: &str, version: &str) -> Vec<KindRef> {
        let rows = self.all();
        let of = rows
            .iter()
            .filter(|kind| kind.group == group && kind.version == version);
        of.cloned().collect()
    }

    /// One row for each kind whose objects are kept, whatever its versions.
    pub(crate) fn stored(&self) -> Vec<KindRef> {
        let mut stored: Vec<KindRef> = Vec::new();
        for kind in self.all().iter().filter(|kind| kind.is_stored()) {
            if !stored.iter().any(|known| known.resource() == kind.resource()) {
                stored.push(Arc::clone(kind));
            }
        }
        stored
    }

    /// A version of the kind that the store calls so.
    pub(crate) fn of_resource(&self, resource: &GroupResource) -> Option<KindRef> {
        let rows = self.all();
        let found = rows
            .iter()
            .find(|kind| kind.is_stored() && kind.resource() == *resource);
        found.cloned()
    }

    /// Every group but the core's, with its versions, the preferred one first.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for kind in self.all().iter().filter(|kind| !kind.group.is_empty()) {
            let version = || kind.version.clone().into_owned();
            match groups.iter_mut().find(|(group, _)| *group == kind.group) {
                Some((_, versions)) if versions.iter().any(|known| *known == kind.version) => {}
                Some((_, versions)) => versions.push(version()),
                None => groups.push((kind.group.clone().into_owned(), vec![version()])),
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        }
        groups
    }

    /// Serves these versions of the kind of this name, and no others.
    pub(crate) fn replace(&self, group: &str, plural: &str, versions: Vec<KindRef>) {
        self.rows.send_modify(|rows| {
            let is_other = |kind: &&KindRef| !(kind.group == group && kind.plural == plural);
            *rows = rows.iter().filter(is_other).cloned().chain(versions).collect();
        });
    }

    /// The definitions that it shows, for who keeps it at what they say.
    pub(crate) const fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// Tells of every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<[KindRef]>> {
        self.rows.subscribe()
    }
}

/// Where a version stands among others, as Kubernetes orders them: `v2`, `v1`, `v1beta2`,
/// `v1beta1`, `v1alpha1`, then whatever else there is, by name.
pub(crate) fn rank(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let split = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(split);
        let major = major.parse::<u64>().ok().filter(|major| *major > 0)?;
        if rest.is_empty() {
            return Some((3, major, 0));
        }
        let (stability, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (_, Some(minor)) => (1, minor),
            _ => return None,
        };
        let minor = minor.parse::<u64>().ok().filter(|minor| *minor > 0)?;
        Some((stability, major, minor))
    };
    let (stability, major, minor) = parse().unwrap_or_default();
    let name = if stability == 0 { version } else { "" };
    (stability, major, minor, std::cmp::Reverse(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kind;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let expected = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo1",
            "foo10",
        ];
        let mut versions = expected;
        versions.reverse();
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        assert_eq!(versions, expected);
    }

    #[test]
    fn kinds_come_and_go() {
        let catalogue = Catalogue::default();
        let kind = |version: &str| {
            let of = ("a.io".to_owned(), version.to_owned());
            Arc::new(Kind::new(of, "widgets", "widget", "Widget"))
        };
        let mut changes = catalogue.changes();
        catalogue.replace("a.io", "widgets", vec![kind("v1beta1"), kind("v1")]);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(catalogue.at_path("a.io", "v1", "widgets").is_some());
        assert!(catalogue.named("a.io/v1beta1", "Widget").is_some());
        let groups = catalogue.groups();
        assert_eq!(groups.last().unwrap().1, ["v1", "v1beta1"]);
        let stored = catalogue.stored().into_iter().filter(|kind| kind.group == "a.io");
        assert_eq!(stored.count(), 1);
        catalogue.replace("a.io", "widgets", Vec::new());
        assert_eq!(catalogue.at_path("a.io", "v1", "widgets"), None);
    }

    #[test]
    fn no_two_rows_of_the_table_are_served_at_one_path() {
        let rows = Catalogue::default().all();
        for (index, kind) in rows.iter().enumerate() {
            let same = |other: &&KindRef| {
                other.api_version() == kind.api_version()
                    && (other.plural == kind.plural || other.kind == kind.kind)
            };
            assert!(!rows[..index].iter().any(|other| same(&other)), "{}", kind.plural);
        }
    }
}
