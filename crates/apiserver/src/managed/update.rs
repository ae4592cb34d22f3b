//! What a write makes of the managers' fields. After kubernetes-sigs/structured-merge-diff `merge`
//! and kubernetes/apimachinery `managedfields`.

use std::sync::LazyLock;

use serde_json::Value;

use super::{
    fields::{Entry, Operation},
    merge::{self, Comparison},
    set::{Set, Step},
};
use crate::{object, structure::Structure};

/// Fields that nobody manages: they say which object it is, or are the server's.
const UNMANAGED: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

static NOBODYS: LazyLock<Set> = LazyLock::new(|| {
    let path = |path: &&[&str]| path.iter().map(|name| Step::field(name)).collect::<Vec<_>>();
    UNMANAGED.iter().map(path).collect()
});

/// Fields that an applier wants to be other than their managers do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conflicts(pub(crate) Vec<(Entry, Set)>);

/// Takes from the others what changed, and tells what was taken.
fn contest(entries: &mut [Entry], writer: &Entry, changed: &Set, removed: &Set) -> Vec<(Entry, Set)> {
    let mut contested = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !entry.is_of(writer)) {
        let conflict = entry.set.intersection(changed);
        if !conflict.is_empty() {
            contested.push((entry.clone(), conflict.clone()));
        }
        entry.set.subtract(&conflict);
        entry.set.subtract(removed);
    }
    contested
}

fn strip(entries: &mut Vec<Entry>) {
    for entry in entries.iter_mut() {
        entry.set.subtract(&NOBODYS);
    }
    entries.retain(|entry| !entry.set.is_empty());
}

/// Gives what changed from `old` to `new` to the writer, an entry without fields.
pub(crate) fn record(
    mut entries: Vec<Entry>,
    old: &Value,
    new: &Value,
    structure: &Structure<'_>,
    writer: &Entry,
) -> Vec<Entry> {
    let Comparison {
        mut added,
        modified,
        removed,
    } = merge::compare(old, new, structure);
    added.extend(&modified);
    contest(&mut entries, writer, &added, &removed);
    added.subtract(&NOBODYS);
    let taken = added;
    match entries.iter_mut().find(|entry| entry.is_of(writer)) {
        Some(own) => {
            own.set.subtract(&removed);
            if !taken.is_empty() {
                own.set.extend(&taken);
                own.time = writer.time;
            }
        }
        None => entries.push(Entry {
            set: taken,
            ..writer.clone()
        }),
    }
    strip(&mut entries);
    entries
}

/// The live object as the applier, an entry without fields, wants it, and who manages what then.
pub(crate) fn apply(
    mut entries: Vec<Entry>,
    live: &Value,
    wanted: &Value,
    structure: &Structure<'_>,
    applier: &Entry,
    is_forced: bool,
) -> Result<(Value, Vec<Entry>), Conflicts> {
    debug_assert_eq!(applier.operation, Operation::Apply, "only appliers apply");
    let merged = merge::merge(live, wanted, structure);
    let set = merge::places(wanted, structure);
    let last = match entries.iter_mut().find(|entry| entry.is_of(applier)) {
        Some(own) => {
            own.api_version.clone_from(&applier.api_version);
            std::mem::replace(&mut own.set, set)
        }
        None => {
            entries.push(Entry {
                set,
                ..applier.clone()
            });
            Set::default()
        }
    };
    let mut new = prune(merged, &entries, &last, structure);
    object::as_map(&mut new);
    let found = merge::compare(live, &new, structure);
    let changed = found.modified.union(&found.added);
    let contested = contest(&mut entries, applier, &changed, &found.removed);
    if !is_forced && !contested.is_empty() {
        return Err(Conflicts(contested));
    }
    if new != *live {
        for own in entries.iter_mut().filter(|entry| entry.is_of(applier)) {
            own.time = applier.time;
        }
    }
    strip(&mut entries);
    Ok((new, entries))
}

/// Takes away what the applier wanted before, wants no more, and nobody else manages.
fn prune(merged: Value, entries: &[Entry], last: &Set, structure: &Structure<'_>) -> Value {
    if last.is_empty() {
        return merged;
    }
    let named = |set: &Set| set.with_named(structure);
    let places = |object: &Value| named(&merge::places(object, structure));
    let last = named(last);
    let all = places(&merged);
    let bare = merge::remove(&merged, &last, structure);
    // What goes with an item or map that goes may be managed by itself.
    let mut kept = places(&bare);
    for entry in entries {
        kept.extend(&named(&entry.set));
    }
    let owned = merge::remove(&merged, &all.difference(&kept), structure);
    // And only what the applier had goes.
    let gone = all.difference(&places(&owned)).intersection(&last);
    merge::remove(&merged, &gone, structure)
}

/// The contested fields that are, in the live object, as the applier's own client-side apply left
/// them: those may be taken.
pub(crate) fn left_by_client(live: &Value, last_applied: &Value, structure: &Structure<'_>) -> Set {
    let found = merge::compare(last_applied, live, structure);
    merge::places(last_applied, structure)
        .difference(&found.modified)
        .difference(&found.added)
        .difference(&found.removed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn structure() -> Structure<'static> {
        Structure::of("apps", "Deployment", None)
    }

    fn entry(manager: &str, operation: Operation) -> Entry {
        Entry {
            manager: manager.to_owned(),
            operation,
            api_version: "apps/v1".to_owned(),
            subresource: String::new(),
            time: None,
            set: Set::default(),
        }
    }

    /// An object and its managers, written to by turns.
    #[derive(Default)]
    struct World {
        object: Value,
        entries: Vec<Entry>,
    }

    impl World {
        fn new() -> Self {
            Self {
                object: json!({}),
                entries: Vec::new(),
            }
        }

        fn try_apply(&mut self, manager: &str, wanted: &Value, is_forced: bool) -> Result<(), Vec<String>> {
            let applier = entry(manager, Operation::Apply);
            let applied = apply(
                self.entries.clone(),
                &self.object,
                wanted,
                &structure(),
                &applier,
                is_forced,
            );
            let (mut object, entries) = applied.map_err(|Conflicts(conflicts)| {
                let paths = conflicts.iter().flat_map(|(entry, set)| {
                    let title = entry.title();
                    set.paths()
                        .into_iter()
                        .map(move |path| format!("{title} {}", super::super::set::show(&path)))
                });
                paths.collect::<Vec<_>>()
            })?;
            object::prune_nulls(&mut object);
            (self.object, self.entries) = (object, entries);
            Ok(())
        }

        fn apply(&mut self, manager: &str, wanted: &Value) {
            self.try_apply(manager, wanted, false).unwrap();
        }

        fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
            let mut new = self.object.clone();
            change(&mut new);
            let writer = entry(manager, Operation::Update);
            self.entries = record(
                std::mem::take(&mut self.entries),
                &self.object,
                &new,
                &structure(),
                &writer,
            );
            self.object = new;
        }

        fn managed(&self, manager: &str) -> Value {
            let of = self.entries.iter().find(|entry| entry.manager == manager);
            of.map_or(Value::Null, |entry| entry.set.to_json())
        }
    }

    fn replicas(replicas: u32) -> Value {
        json!({"spec": {"replicas": replicas}})
    }

    fn labels(labels: Value) -> Value {
        json!({"metadata": {"name": "d", "labels": labels}})
    }

    #[test]
    fn an_applied_field_changes_when_its_applier_says_so() {
        let mut world = World::new();
        world.apply("a", &replicas(1));
        world.apply("a", &replicas(2));
        assert_eq!(world.object, replicas(2));
        assert_eq!(world.managed("a"), json!({"f:spec": {"f:replicas": {}}}));
    }

    #[test]
    fn another_value_for_a_managed_field_is_a_conflict_unless_forced() {
        let mut world = World::new();
        world.apply("a", &replicas(1));
        assert_eq!(
            world.try_apply("b", &replicas(2), false),
            Err(vec!["\"a\" .spec.replicas".to_owned()])
        );
        assert_eq!(world.object, replicas(1));
        world.try_apply("b", &replicas(2), true).unwrap();
        assert_eq!(world.object, replicas(2));
        assert_eq!(
            (world.managed("a"), world.managed("b")),
            (Value::Null, json!({"f:spec": {"f:replicas": {}}}))
        );
    }

    #[test]
    fn the_same_value_is_shared() {
        let mut world = World::new();
        world.apply("a", &replicas(1));
        world.apply("b", &replicas(1));
        world.apply("a", &json!({"spec": {}}));
        assert_eq!(world.object, replicas(1));
        world.apply("b", &json!({"spec": {}}));
        assert_eq!(world.object.pointer("/spec/replicas"), None);
    }

    #[test]
    fn what_an_applier_drops_goes_when_nobody_else_has_it() {
        let mut world = World::new();
        world.apply("a", &labels(json!({"x": "1", "y": "1"})));
        world.update("u", |object| object["metadata"]["labels"]["z"] = json!("1"));
        world.apply("b", &labels(json!({"y": "1"})));
        world.apply("a", &labels(json!({})));
        assert_eq!(world.object["metadata"]["labels"], json!({"y": "1", "z": "1"}));
    }

    #[test]
    fn an_update_takes_what_it_changes() {
        let mut world = World::new();
        world.apply("a", &replicas(1));
        world.update("hpa", |object| object["spec"]["replicas"] = json!(5));
        assert_eq!(world.managed("a"), Value::Null);
        assert_eq!(
            world.try_apply("a", &replicas(1), false),
            Err(vec!["\"hpa\" using apps/v1 .spec.replicas".to_owned()])
        );
        // Who does not mention the field leaves it alone.
        world.apply("a", &labels(json!({"x": "1"})));
        assert_eq!(world.object["spec"]["replicas"], 5);
        world.update("hpa", |object| object["metadata"]["labels"] = json!(null));
        assert_eq!(world.managed("a"), Value::Null);
    }

    #[test]
    fn items_of_lists_come_and_go_with_their_appliers() {
        let containers = |list: Value| json!({"spec": {"template": {"spec": {"containers": list}}}});
        let mut world = World::new();
        world.apply("a", &containers(json!([{"name": "main", "image": "x"}])));
        world.apply("mesh", &containers(json!([{"name": "proxy", "image": "p"}])));
        world.apply("a", &containers(json!([{"name": "main", "image": "y"}])));
        assert_eq!(
            world.object,
            containers(json!([{"name": "main", "image": "y"}, {"name": "proxy", "image": "p"}]))
        );
        world.apply("mesh", &json!({}));
        assert_eq!(world.object, containers(json!([{"name": "main", "image": "y"}])));
    }

    #[test]
    fn nobody_manages_what_says_which_object_it_is() {
        let mut world = World::new();
        world.apply("a", &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}}));
        assert!(world.entries.is_empty());
        world.update("u", |object| object["metadata"]["uid"] = json!("u"));
        assert!(world.entries.is_empty());
    }
}
