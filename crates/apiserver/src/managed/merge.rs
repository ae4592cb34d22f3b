//! Objects seen as places: which there are, which differ, what one object laid over another gives,
//! and what is left without some of them. After kubernetes-sigs/structured-merge-diff `typed`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::set::{Branch, Set, Step};
use crate::structure::{Relation, Structure};

/// What was wrong with an object, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) path: Vec<Step>,
    pub(crate) why: String,
}

/// How a value takes part in a merge.
enum Shape<'a> {
    /// As one piece.
    Leaf,
    Map(&'a Map<String, Value>),
    /// Items with identities of their own.
    Items(&'a [Value]),
}

fn shape<'a>(value: &'a Value, structure: &Structure<'_>) -> Shape<'a> {
    match (value, structure.relation) {
        (_, Relation::Atomic) => Shape::Leaf,
        (Value::Object(map), _) => Shape::Map(map),
        (Value::Array(items), Relation::Set | Relation::Keyed(_)) => Shape::Items(items),
        _ => Shape::Leaf,
    }
}

/// The step to the item of the list. What a list should not hold is known by its value.
fn identity(item: &Value, list: &Structure<'_>) -> Step {
    let Relation::Keyed(keys) = list.relation else {
        return Step::value(item);
    };
    let values = keys.iter().map(|key| {
        let value = item.get(key).cloned().or_else(|| list.default_key(key));
        value.map(|value| (key, value))
    });
    match values.collect::<Option<Vec<_>>>() {
        Some(values) => Step::keys(values.into_iter()),
        None => Step::value(item),
    }
}

/// What keeps the object from being laid over another one: items of lists without identity, or
/// with the same one.
pub(crate) fn check(object: &Value, structure: &Structure<'_>) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    check_at(object, structure, &mut Vec::new(), &mut misfits);
    misfits
}

fn check_at(value: &Value, structure: &Structure<'_>, path: &mut Vec<Step>, misfits: &mut Vec<Misfit>) {
    match shape(value, structure) {
        Shape::Leaf => {}
        Shape::Map(map) => {
            for (name, value) in map {
                path.push(Step::field(name));
                check_at(value, &structure.field(name), path, misfits);
                path.pop();
            }
        }
        Shape::Items(items) => {
            let mut seen = HashMap::new();
            for (index, item) in items.iter().enumerate() {
                if let Relation::Keyed(keys) = structure.relation {
                    let mut fail = |why: String| {
                        let path = path.clone();
                        misfits.push(Misfit { path, why });
                    };
                    if !item.is_object() {
                        fail(format!(
                            "element {index}: associative list with keys may not contain non-map"
                        ));
                        continue;
                    }
                    let missing = keys
                        .iter()
                        .find(|key| item.get(*key).is_none() && structure.default_key(key).is_none());
                    if let Some(key) = missing {
                        fail(format!(
                            "element {index}: associative list with keys has an element that omits key field \
                             \"{key}\" (and doesn't have default value)"
                        ));
                        continue;
                    }
                }
                let step = identity(item, structure);
                let times = seen.entry(step.clone()).or_insert(0_u32);
                *times += 1;
                if *times == 2 {
                    let path = path.clone();
                    let why = format!("duplicate entries for key {step}");
                    misfits.push(Misfit { path, why });
                }
                path.push(step);
                check_at(item, &structure.item(), path, misfits);
                path.pop();
            }
        }
    }
}

/// Every place of the object: its leaves, the items of its lists and the entries of its maps.
pub(crate) fn places(object: &Value, structure: &Structure<'_>) -> Set {
    let mut places = Set::default();
    collect(object, structure, &mut Vec::new(), &mut places);
    places
}

fn collect(value: &Value, structure: &Structure<'_>, path: &mut Vec<Step>, places: &mut Set) {
    match shape(value, structure) {
        Shape::Leaf => {
            // An empty list of items, or null in its place, has no place of its own.
            if !matches!(value, Value::Array(items) if items.is_empty())
                || !matches!(structure.relation, Relation::Set | Relation::Keyed(_))
            {
                places.insert(path);
            }
        }
        Shape::Map(map) => {
            for (name, value) in map {
                path.push(Step::field(name));
                collect(value, &structure.field(name), path, places);
                let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if is_empty || !structure.is_named(name) {
                    places.insert(path);
                }
                path.pop();
            }
        }
        Shape::Items(items) => {
            for (step, group) in groups(items, structure) {
                path.push(step);
                if let [item] = group.as_slice() {
                    collect(item, &structure.item(), path, places);
                }
                places.insert(path);
                path.pop();
            }
        }
    }
}

/// The items by identity, in order of first appearance.
fn groups<'a>(items: &'a [Value], list: &Structure<'_>) -> Vec<(Step, Vec<&'a Value>)> {
    let mut at = HashMap::with_capacity(items.len());
    let mut groups: Vec<(Step, Vec<&Value>)> = Vec::with_capacity(items.len());
    for item in items {
        let step = identity(item, list);
        match at.get(&step) {
            Some(index) => {
                let (_, group): &mut (Step, Vec<&Value>) = &mut groups[*index];
                group.push(item);
            }
            None => {
                at.insert(step.clone(), groups.len());
                groups.push((step, vec![item]));
            }
        }
    }
    groups
}

/// How one object differs from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) added: Set,
    pub(crate) modified: Set,
    pub(crate) removed: Set,
}

/// How `new` differs from `old`.
pub(crate) fn compare(old: &Value, new: &Value, structure: &Structure<'_>) -> Comparison {
    let mut comparison = Comparison::default();
    compare_at(Some(old), Some(new), structure, &mut Vec::new(), &mut comparison);
    comparison
}

/// What two values are merged as, where either may be missing.
enum Pair<'a> {
    Leaf,
    Maps(Option<&'a Map<String, Value>>, Option<&'a Map<String, Value>>),
    Lists(&'a [Value], &'a [Value]),
}

fn pair<'a>(old: Option<&'a Value>, new: Option<&'a Value>, structure: &Structure<'_>) -> Pair<'a> {
    let shape = |value: Option<&'a Value>| {
        // Null takes the form of what it stands against.
        value
            .filter(|value| !value.is_null())
            .map(|value| shape(value, structure))
    };
    match (shape(old), shape(new)) {
        (Some(Shape::Map(old)), Some(Shape::Map(new))) if !(old.is_empty() && new.is_empty()) => {
            Pair::Maps(Some(old), Some(new))
        }
        (Some(Shape::Map(old)), None) if !old.is_empty() => Pair::Maps(Some(old), None),
        (None, Some(Shape::Map(new))) if !new.is_empty() => Pair::Maps(None, Some(new)),
        (Some(Shape::Items(old)), Some(Shape::Items(new))) if !(old.is_empty() && new.is_empty()) => {
            Pair::Lists(old, new)
        }
        (Some(Shape::Items(old)), None) if !old.is_empty() => Pair::Lists(old, &[]),
        (None, Some(Shape::Items(new))) if !new.is_empty() => Pair::Lists(&[], new),
        _ => Pair::Leaf,
    }
}

fn compare_at(
    old: Option<&Value>,
    new: Option<&Value>,
    structure: &Structure<'_>,
    path: &mut Vec<Step>,
    found: &mut Comparison,
) {
    if let (None, Some(new)) = (old, new) {
        found.added.graft(path, whole_branch(new, structure));
        return;
    }
    match pair(old, new, structure) {
        Pair::Leaf => match (old, new) {
            (None, _) => found.added.insert(path),
            (_, None) => found.removed.insert(path),
            (Some(old), Some(new)) if old != new => found.modified.insert(path),
            _ => {}
        },
        Pair::Maps(old_map, new_map) => {
            let empty = Map::new();
            let (old_map, new_map) = (old_map.unwrap_or(&empty), new_map.unwrap_or(&empty));
            for (name, before) in old_map {
                let after = new_map.get(name);
                if after != Some(before) {
                    path.push(Step::field(name));
                    compare_at(Some(before), after, &structure.field(name), path, found);
                    path.pop();
                }
            }
            for (name, after) in new_map.iter().filter(|(name, _)| !old_map.contains_key(*name)) {
                path.push(Step::field(name));
                compare_at(None, Some(after), &structure.field(name), path, found);
                path.pop();
            }
            whole(old, new, path, found);
        }
        Pair::Lists(old_items, new_items) => {
            compare_items(old_items, new_items, structure, path, found);
            whole(old, new, path, found);
        }
    }
}

/// The places of a value that came: itself and all that is in it.
fn whole_branch(new: &Value, structure: &Structure<'_>) -> Branch {
    let below = match shape(new, structure) {
        Shape::Leaf => Set::default(),
        Shape::Map(map) => {
            let below = map.iter();
            below
                .map(|(name, value)| (Step::field(name), whole_branch(value, &structure.field(name))))
                .collect()
        }
        Shape::Items(items) => {
            let groups = groups(items, structure).into_iter();
            groups
                .map(|(step, group)| match group.as_slice() {
                    [item] => (step, whole_branch(item, &structure.item())),
                    // Items with one identity are one piece.
                    _ => (step, Branch::member(Set::default())),
                })
                .collect()
        }
    };
    Branch::member(below)
}

/// A value that came or went is a place too, beside what is in it.
fn whole(old: Option<&Value>, new: Option<&Value>, path: &[Step], found: &mut Comparison) {
    if old.is_none() {
        found.added.insert(path);
    } else if new.is_none() {
        found.removed.insert(path);
    }
}

fn compare_items(
    old: &[Value],
    new: &[Value],
    list: &Structure<'_>,
    path: &mut Vec<Step>,
    found: &mut Comparison,
) {
    let (old, new) = (groups(old, list), groups(new, list));
    let after: HashMap<&Step, &Vec<&Value>> = new.iter().map(|(step, group)| (step, group)).collect();
    let before: HashMap<&Step, &Vec<&Value>> = old.iter().map(|(step, group)| (step, group)).collect();
    let added = new.iter().filter(|(step, _)| !before.contains_key(step));
    for (step, old) in old
        .iter()
        .map(|(step, old)| (step, Some(old)))
        .chain(added.map(|(step, _)| (step, None)))
    {
        let new = after.get(step).copied();
        path.push(step.clone());
        match (old.map(Vec::as_slice), new.map(Vec::as_slice)) {
            (old @ (None | Some([_])), new @ (None | Some([_]))) => {
                let old = old.and_then(|group| group.first().copied());
                let new = new.and_then(|group| group.first().copied());
                compare_at(old, new, &list.item(), path, found);
            }
            // Items with one identity are one piece.
            (None, _) => found.added.insert(path),
            (_, None) => found.removed.insert(path),
            (old, new) if old != new => found.modified.insert(path),
            _ => {}
        }
        path.pop();
    }
}

/// `over` laid over `under`: what it says is so, what it does not mention stays.
pub(crate) fn merge(under: &Value, over: &Value, structure: &Structure<'_>) -> Value {
    match pair(Some(under), Some(over), structure) {
        Pair::Leaf => over.clone(),
        Pair::Maps(under, over) => {
            let empty = Map::new();
            let (under, over) = (under.unwrap_or(&empty), over.unwrap_or(&empty));
            let mut merged = Map::with_capacity(under.len() + over.len());
            for (name, below) in under {
                let value = match over.get(name) {
                    Some(above) => merge(below, above, &structure.field(name)),
                    None => below.clone(),
                };
                merged.insert(name.clone(), value);
            }
            for (name, above) in over {
                if !under.contains_key(name) {
                    merged.insert(name.clone(), above.clone());
                }
            }
            Value::Object(merged)
        }
        Pair::Lists(under, over) => Value::Array(merge_items(under, over, structure)),
    }
}

/// The items of both lists. Those of `over` are in its order; those of `under` alone stay behind
/// the item of both that they are behind, before what is new in `over`.
fn merge_items(under: &[Value], over: &[Value], list: &Structure<'_>) -> Vec<Value> {
    let item = list.item();
    let under: Vec<(Step, &Value)> = under.iter().map(|value| (identity(value, list), value)).collect();
    let over = groups(over, list);
    // Where an item that is there once is; several with one identity are left out of the merge.
    let mut single: HashMap<&Step, Option<&Value>> = HashMap::with_capacity(under.len());
    for (step, value) in &under {
        single
            .entry(step)
            .and_modify(|one| *one = None)
            .or_insert(Some(*value));
    }
    let wanted: HashSet<&Step> = over.iter().map(|(step, _)| step).collect();
    let mut merged = Vec::with_capacity(under.len() + over.len());
    let mut below = under.iter().peekable();
    let mut rest = over.iter().peekable();
    // Items of both lists, in the order of `over`, that are still to come.
    let mut shared = over
        .iter()
        .map(|(step, _)| step)
        .filter(|step| single.contains_key(step))
        .peekable();
    let lay = |step: &Step, above: &[&Value]| -> Vec<Value> {
        let base = single.get(step).copied().flatten();
        above
            .iter()
            .map(|above| base.map_or_else(|| (*above).clone(), |base| merge(base, above, &item)))
            .collect()
    };
    loop {
        match (below.peek(), rest.peek()) {
            (None, None) => return merged,
            // Alone: it comes before what the other list has here.
            (Some((step, value)), _) if !wanted.contains(step) => {
                merged.push((*value).clone());
                below.next();
            }
            (Some((step, _)), Some((next, above))) if step == next => {
                merged.extend(lay(next, above));
                below.next();
                rest.next();
                shared.next();
            }
            // An item of both whose turn is another one: the other list says when.
            (Some((step, _)), Some(_)) if shared.peek().is_some_and(|turn| *turn != step) => {
                below.next();
            }
            (_, Some((next, above))) => {
                merged.extend(lay(next, above));
                rest.next();
                if shared.peek() == Some(&next) {
                    shared.next();
                }
            }
            // Merged already.
            (Some(_), None) => {
                below.next();
            }
        }
    }
}

/// The value without the places. What is left empty by that is null.
pub(crate) fn remove(value: &Value, places: &Set, structure: &Structure<'_>) -> Value {
    match shape(value, structure) {
        Shape::Leaf => value.clone(),
        Shape::Map(map) => {
            let mut kept = Map::new();
            for (name, value) in map {
                let step = Step::field(name);
                if !places.has(&step) {
                    let left = match places.below(&step) {
                        Some(below) => remove(value, below, &structure.field(name)),
                        None => value.clone(),
                    };
                    // What was emptied went, and whoever had it has it no more.
                    if !left.is_null() || value.is_null() {
                        kept.insert(name.clone(), left);
                    }
                }
            }
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        Shape::Items(items) => {
            let kept = items.iter().filter_map(|value| {
                let step = identity(value, structure);
                (!places.has(&step)).then(|| match places.below(&step) {
                    Some(below) => remove(value, below, &structure.item()),
                    None => value.clone(),
                })
            });
            let kept: Vec<Value> = kept.collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Structure<'static> {
        Structure::of("", "Pod", None)
    }

    fn names(list: &Value) -> Vec<&str> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap())
            .collect()
    }

    fn containers(names: &[&str]) -> Value {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"containers": containers}})
    }

    #[test]
    fn places_are_leaves_items_and_entries() {
        let object = json!({
            "metadata": {"labels": {"a": "1"}, "annotations": {}},
            "spec": {
                "nodeSelector": {"x": "y"},
                "tolerations": [{"key": "k"}],
                "containers": [{"name": "c", "ports": [{"containerPort": 80}]}],
            },
        });
        let expected = json!({
            "f:metadata": {"f:annotations": {}, "f:labels": {"f:a": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                }},
                "f:nodeSelector": {},
                "f:tolerations": {},
            },
        });
        assert_eq!(places(&object, &pod()).to_json(), expected);
    }

    #[test]
    fn what_came_changed_and_went_is_told_apart() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "1"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
        let new = json!({"metadata": {"labels": {"a": "2"}, "annotations": {"n": "1"}},
            "spec": {"containers": [{"name": "c", "image": "x"}, {"name": "d"}]}});
        let found = compare(&old, &new, &pod());
        assert_eq!(
            found.modified.to_json(),
            json!({"f:metadata": {"f:labels": {"f:a": {}}}})
        );
        assert_eq!(
            found.removed.to_json(),
            json!({"f:metadata": {"f:labels": {"f:b": {}}}})
        );
        assert_eq!(
            found.added.to_json(),
            json!({
                "f:metadata": {"f:annotations": {".": {}, "f:n": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"d\"}": {".": {}, "f:name": {}}}},
            })
        );
        assert_eq!(compare(&old, &old, &pod()), Comparison::default());
    }

    #[test]
    fn merged_items_keep_the_order_of_what_is_laid_over() {
        for (under, over, expected) in [
            (&["a", "b", "c"][..], &["b"][..], &["a", "b", "c"][..]),
            (&["a", "b"], &["c"], &["a", "b", "c"]),
            (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
            (&["a", "b"], &["b", "a"], &["b", "a"]),
            (&["a", "x", "b"], &["a", "n", "b"], &["a", "x", "n", "b"]),
            (&[], &["a"], &["a"]),
        ] {
            let merged = merge(&containers(under), &containers(over), &pod());
            assert_eq!(
                names(&merged["spec"]["containers"]),
                expected,
                "{under:?} {over:?}"
            );
        }
    }

    #[test]
    fn what_is_removed_leaves_the_rest() {
        let object = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c"}, {"name": "d", "image": "x"}]}});
        let places = Set::from_json(&json!({
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {}, "k:{\"name\":\"d\"}": {"f:image": {}}}},
        }));
        assert_eq!(
            remove(&object, &places.unwrap(), &pod()),
            json!({"spec": {"containers": [{"name": "d"}]}})
        );
    }

    #[test]
    fn items_without_identity_are_misfits() {
        let misfits = |object: Value| {
            let misfits = check(&object, &pod()).into_iter();
            misfits
                .map(|misfit| format!("{}: {}", super::super::set::show(&misfit.path), misfit.why))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            misfits(containers(&["a", "b", "a", "a"])),
            [".spec.containers: duplicate entries for key [name=\"a\"]"]
        );
        assert_eq!(
            misfits(json!({"spec": {"containers": [{"image": "x"}]}})),
            [
                ".spec.containers: element 0: associative list with keys has an element that omits key field \"name\" \
              (and doesn't have default value)"
            ]
        );
        assert!(misfits(containers(&["a", "b"])).is_empty());
    }
}
