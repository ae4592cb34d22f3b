//! Server-side apply against a model of it that knows no paths and no sets: a few labels and
//! containers, and for each of them who has it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value, json};

use super::{
    fields::{Entry, Operation},
    set::Set,
    update::{apply, record},
};
use crate::{object, structure::Structure};

/// What an object can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Label(u8),
    Container(u8),
    Image(u8),
}

/// An object: its parts with their values. A container's value is that it is there.
type Parts = BTreeMap<Part, u8>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Manager(u8, Operation);

#[derive(Debug, Clone)]
enum Write {
    Apply {
        manager: u8,
        wanted: Parts,
        is_forced: bool,
    },
    /// By a client that writes the whole object.
    Update { manager: u8, new: Parts },
}

/// The model.
#[derive(Debug, Clone, Default)]
struct Model {
    object: Parts,
    owners: BTreeMap<Part, BTreeSet<Manager>>,
    applied: BTreeMap<u8, BTreeSet<Part>>,
}

impl Model {
    fn has_others(&self, part: Part, me: &Manager) -> bool {
        self.owners
            .get(&part)
            .is_some_and(|owners| owners.iter().any(|one| one != me))
    }

    fn drop(&mut self, part: Part) {
        self.object.remove(&part);
        self.owners.remove(&part);
        for applied in self.applied.values_mut() {
            applied.remove(&part);
        }
        if let Part::Container(name) = part {
            self.drop(Part::Image(name));
        }
    }

    fn disown(&mut self, part: Part, from: &Manager) {
        if let Some(owners) = self.owners.get_mut(&part) {
            owners.remove(from);
        }
    }

    /// Whether it went through.
    fn apply(&mut self, manager: u8, wanted: &Parts, is_forced: bool) -> bool {
        let me = Manager(manager, Operation::Apply);
        let changed: Vec<Part> = wanted
            .iter()
            .filter(|(part, value)| self.object.get(part) != Some(value))
            .map(|(part, _)| *part)
            .collect();
        if !is_forced && changed.iter().any(|part| self.has_others(*part, &me)) {
            return false;
        }
        for part in changed {
            self.owners.remove(&part);
            for applied in self.applied.values_mut() {
                applied.remove(&part);
            }
        }
        let before = self.applied.remove(&manager).unwrap_or_default();
        for (part, value) in wanted {
            self.object.insert(*part, *value);
            self.owners.entry(*part).or_default().insert(me.clone());
        }
        for part in before {
            if wanted.contains_key(&part) {
                continue;
            }
            self.disown(part, &me);
            if !self.has_others(part, &me) {
                self.drop(part);
            }
        }
        self.applied.insert(manager, wanted.keys().copied().collect());
        true
    }

    fn update(&mut self, manager: u8, new: &Parts) {
        let me = Manager(manager, Operation::Update);
        let gone: Vec<Part> = self
            .object
            .keys()
            .filter(|part| !new.contains_key(part))
            .copied()
            .collect();
        gone.into_iter().for_each(|part| self.drop(part));
        for (part, value) in new {
            if self.object.insert(*part, *value) != Some(*value) {
                self.owners.insert(*part, BTreeSet::from([me.clone()]));
                for applied in self.applied.values_mut() {
                    applied.remove(part);
                }
            }
        }
    }
}

/// The object that the parts are.
fn object(parts: &Parts) -> Value {
    let mut labels = Map::new();
    let mut containers = Vec::new();
    for (part, value) in parts {
        match part {
            Part::Label(name) => {
                labels.insert(format!("l{name}"), value.to_string().into());
            }
            Part::Container(name) => {
                let mut container = json!({"name": format!("c{name}")});
                if let Some(image) = parts.get(&Part::Image(*name)) {
                    container["image"] = image.to_string().into();
                }
                containers.push(container);
            }
            Part::Image(_) => {}
        }
    }
    let mut object = json!({});
    if !labels.is_empty() {
        object["metadata"] = json!({"labels": labels});
    }
    if !containers.is_empty() {
        object["spec"] = json!({"template": {"spec": {"containers": containers}}});
    }
    object
}

/// The parts that the object is.
fn parts(object: &Value) -> Parts {
    let mut parts = Parts::new();
    let number = |text: &str| text.trim_start_matches(['l', 'c']).parse().unwrap();
    if let Some(Value::Object(labels)) = object.pointer("/metadata/labels") {
        for (name, value) in labels {
            parts.insert(Part::Label(number(name)), number(value.as_str().unwrap()));
        }
    }
    for container in object::list(object, "/spec/template/spec/containers") {
        let name = number(object::name(&json!({"metadata": container})));
        parts.insert(Part::Container(name), 0);
        if let Some(image) = container.get("image").and_then(Value::as_str) {
            parts.insert(Part::Image(name), number(image));
        }
    }
    parts
}

/// The real thing.
struct Real {
    object: Value,
    entries: Vec<Entry>,
}

impl Real {
    fn entry(manager: u8, operation: Operation) -> Entry {
        Entry {
            manager: format!("m{manager}"),
            operation,
            api_version: "apps/v1".to_owned(),
            subresource: String::new(),
            time: None,
            set: Set::default(),
        }
    }

    fn structure() -> Structure<'static> {
        Structure::of("apps", "Deployment", None)
    }

    fn apply(&mut self, manager: u8, wanted: &Parts, is_forced: bool) -> bool {
        let applier = Self::entry(manager, Operation::Apply);
        let entries = self.entries.clone();
        let applied = apply(
            entries,
            &self.object,
            &object(wanted),
            &Self::structure(),
            &applier,
            is_forced,
        );
        let Ok((mut new, entries)) = applied else {
            return false;
        };
        object::prune_nulls(&mut new);
        (self.object, self.entries) = (new, entries);
        true
    }

    fn update(&mut self, manager: u8, new: &Parts) {
        let new = object(new);
        let writer = Self::entry(manager, Operation::Update);
        let entries = std::mem::take(&mut self.entries);
        self.entries = record(entries, &self.object, &new, &Self::structure(), &writer);
        self.object = new;
    }
}

fn wanted() -> impl Strategy<Value = Parts> {
    let label = (0..3_u8, 0..2_u8).prop_map(|(name, value)| vec![(Part::Label(name), value)]);
    let container = (0..3_u8, proptest::option::of(0..2_u8)).prop_map(|(name, image)| {
        let mut parts = vec![(Part::Container(name), 0)];
        parts.extend(image.map(|image| (Part::Image(name), image)));
        parts
    });
    vec(prop_oneof![label, container], 0..5).prop_map(|parts| parts.into_iter().flatten().collect())
}

fn write() -> impl Strategy<Value = Write> {
    let apply = (0..3_u8, wanted(), any::<bool>()).prop_map(|(manager, wanted, is_forced)| Write::Apply {
        manager,
        wanted,
        is_forced,
    });
    let update = (0..2_u8, wanted()).prop_map(|(manager, new)| Write::Update { manager, new });
    prop_oneof![3 => apply, 1 => update]
}

proptest! {
    #[test]
    fn merges_equal_the_model(writes in vec(write(), 1..12)) {
        let mut model = Model::default();
        let mut real = Real { object: json!({}), entries: Vec::new() };
        for write in writes {
            match &write {
                Write::Apply { manager, wanted, is_forced } => {
                    let went = model.apply(*manager, wanted, *is_forced);
                    prop_assert_eq!(real.apply(*manager, wanted, *is_forced), went, "{:?}", write);
                    prop_assert!(went || !is_forced);
                }
                Write::Update { manager, new } => {
                    model.update(*manager, new);
                    real.update(*manager, new);
                }
            }
            prop_assert_eq!(&parts(&real.object), &model.object, "{:?}", write);
        }
    }

    #[test]
    fn applying_again_changes_nothing(writes in vec(write(), 0..8), last in wanted()) {
        let mut real = Real { object: json!({}), entries: Vec::new() };
        for write in writes {
            match write {
                Write::Apply { manager, wanted, is_forced } => {
                    real.apply(manager, &wanted, is_forced);
                }
                Write::Update { manager, new } => real.update(manager, &new),
            }
        }
        prop_assert!(real.apply(0, &last, true), "what is forced goes through");
        let once = (real.object.clone(), real.entries.clone());
        prop_assert!(real.apply(0, &last, false), "nobody contests it any more");
        prop_assert_eq!((real.object, real.entries), once);
    }

    #[test]
    fn sets_are_what_is_written_of_them(wanted in wanted()) {
        let places = super::merge::places(&object(&wanted), &Real::structure());
        prop_assert_eq!(Set::from_json(&places.to_json()), Some(places));
    }
}

#[test]
fn whoever_made_a_list_has_it_no_more_once_it_was_emptied() {
    let containers = |names: &[u8]| names.iter().map(|name| (Part::Container(*name), 0)).collect();
    let mut real = Real {
        object: json!({}),
        entries: Vec::new(),
    };
    real.update(0, &containers(&[1]));
    assert!(real.apply(2, &containers(&[0]), false));
    real.update(0, &containers(&[0]));
    assert!(real.apply(2, &Parts::new(), false));
    assert!(real.apply(0, &containers(&[0]), false), "nobody contests it");
}
