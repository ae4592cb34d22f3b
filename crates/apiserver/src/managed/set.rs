//! A set of places in an object, and its JSON form `FieldsV1`. Knows no objects.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};

use crate::structure::Structure;

/// One step into an object, as `FieldsV1` writes it: `f:name` into a field, `k:{…}` to the item of
/// a list that has these keys, `v:…` to the item that is this value, `i:0` to the item there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Step(String);

/// The place itself, in `FieldsV1`.
const SELF: &str = ".";

impl Step {
    pub(crate) fn field(name: &str) -> Self {
        Self(["f:", name].concat())
    }

    /// To the item with these keys.
    pub(crate) fn keys<'a>(keys: impl Iterator<Item = (&'a str, Value)>) -> Self {
        let sorted = keys.collect::<BTreeMap<_, _>>();
        let keys: Map<String, Value> = sorted
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Self(format!("k:{}", Value::Object(keys)))
    }

    pub(crate) fn value(value: &Value) -> Self {
        Self(format!("v:{value}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self(text.to_owned())),
            "i" => rest.parse::<i64>().ok().map(|_| Self(text.to_owned())),
            "v" => serde_json::from_str(rest).ok().map(|value| Self::value(&value)),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::keys(
                    keys.iter().map(|(key, value)| (key.as_str(), value.clone())),
                ))
            }
            _ => None,
        }
    }

    /// The field that it leads into.
    pub(crate) fn field_name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }
}

impl fmt::Display for Step {
    /// As conflicts name it: `.name`, `[name="x"]`, `[="x"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, rest) = self.0.split_once(':').unwrap_or_default();
        match kind {
            "f" => write!(f, ".{rest}"),
            "v" => write!(f, "[={rest}]"),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                let keys = keys.iter().map(|(key, value)| format!("{key}={value}"));
                write!(f, "[{}]", keys.collect::<Vec<_>>().join(","))
            }
            _ => write!(f, "[{rest}]"),
        }
    }
}

/// A place in an object.
pub(crate) type Path = [Step];

/// The place as conflicts name it.
pub(crate) fn show(path: &Path) -> String {
    path.iter().map(Step::to_string).collect()
}

/// A set of places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set(BTreeMap<Step, Branch>);

/// What is in the set at and below a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Branch {
    is_member: bool,
    below: Set,
}

impl Branch {
    /// A place, and what is in the set below it.
    pub(crate) const fn member(below: Set) -> Self {
        Self {
            is_member: true,
            below,
        }
    }

    fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl Set {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, path: &Path) {
        if let Some(branch) = self.branch(path) {
            branch.is_member = true;
        }
    }

    /// Puts in all of a branch at the place, where nothing is.
    pub(crate) fn graft(&mut self, path: &Path, branch: Branch) {
        if let Some(own) = self.branch(path) {
            *own = branch;
        }
    }

    /// The branch at the place, made when it is missing; none at the root.
    fn branch(&mut self, path: &Path) -> Option<&mut Branch> {
        let (first, rest) = path.split_first()?;
        if !self.0.contains_key(first) {
            self.0.insert(first.clone(), Branch::default());
        }
        let branch = self.0.get_mut(first)?;
        if rest.is_empty() {
            Some(branch)
        } else {
            branch.below.branch(rest)
        }
    }

    /// Whether the place one step away is in the set.
    pub(crate) fn has(&self, step: &Step) -> bool {
        self.0.get(step).is_some_and(|branch| branch.is_member)
    }

    /// What is in the set beyond the step.
    pub(crate) fn below(&self, step: &Step) -> Option<&Self> {
        let below = &self.0.get(step)?.below;
        (!below.is_empty()).then_some(below)
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.extend(other);
        union
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        for (step, branch) in &other.0 {
            let own = match self.0.get_mut(step) {
                Some(own) => own,
                None => self.0.entry(step.clone()).or_default(),
            };
            own.is_member |= branch.is_member;
            own.below.extend(&branch.below);
        }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.combine(|step, own| {
            let other = other.0.get(step)?;
            Some(Branch {
                is_member: own.is_member && other.is_member,
                below: own.below.intersection(&other.below),
            })
        })
    }

    /// What is in this set and not in the other. A place is not the places below it.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.combine(|step, own| {
            Some(match other.0.get(step) {
                None => own.clone(),
                Some(other) => Branch {
                    is_member: own.is_member && !other.is_member,
                    below: own.below.difference(&other.below),
                },
            })
        })
    }

    /// Takes what is in the other set out of this one. See [`Self::difference`].
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (step, other) in &other.0 {
            if let Some(own) = self.0.get_mut(step) {
                own.is_member &= !other.is_member;
                own.below.subtract(&other.below);
                if own.is_empty() {
                    self.0.remove(step);
                }
            }
        }
    }

    fn combine(&self, combine: impl Fn(&Step, &Branch) -> Option<Branch>) -> Self {
        let kept = self.0.iter().filter_map(|(step, own)| {
            let branch = combine(step, own)?;
            (!branch.is_empty()).then(|| (step.clone(), branch))
        });
        Self(kept.collect())
    }

    /// The set with each named field of a type that places in the set lie below.
    pub(crate) fn with_named(&self, structure: &Structure<'_>) -> Self {
        let branches = self.0.iter().map(|(step, branch)| {
            let (inner, is_named) = match step.field_name() {
                Some(name) => (structure.field(name), structure.is_named(name)),
                None => (structure.item(), false),
            };
            let branch = Branch {
                is_member: branch.is_member || is_named,
                below: branch.below.with_named(&inner),
            };
            (step.clone(), branch)
        });
        Self(branches.collect())
    }

    /// Every place in the set.
    pub(crate) fn paths(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, path: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
        for (step, branch) in &self.0 {
            path.push(step.clone());
            if branch.is_member {
                paths.push(path.clone());
            }
            branch.below.collect(path, paths);
            path.pop();
        }
    }

    /// As `FieldsV1`.
    pub(crate) fn to_json(&self) -> Value {
        Value::Object(self.json_fields())
    }

    fn json_fields(&self) -> Map<String, Value> {
        let mut fields = Map::with_capacity(self.0.len());
        for (Step(step), branch) in &self.0 {
            let mut inner = Map::new();
            if !branch.below.is_empty() {
                if branch.is_member {
                    inner.insert(SELF.to_owned(), Value::Object(Map::new()));
                }
                inner.extend(branch.below.json_fields());
            }
            fields.insert(step.clone(), Value::Object(inner));
        }
        fields
    }

    /// From `FieldsV1`, none when it is something else.
    pub(crate) fn from_json(fields: &Value) -> Option<Self> {
        let mut set = BTreeMap::new();
        for (step, inner) in fields.as_object()? {
            if step == SELF {
                continue;
            }
            let below = Self::from_json(inner)?;
            let is_member = below.is_empty() || inner.get(SELF).is_some();
            set.insert(Step::parse(step)?, Branch { is_member, below });
        }
        Some(Self(set))
    }
}

impl FromIterator<(Step, Branch)> for Set {
    fn from_iter<I: IntoIterator<Item = (Step, Branch)>>(branches: I) -> Self {
        Self(branches.into_iter().collect())
    }
}

impl FromIterator<Vec<Step>> for Set {
    fn from_iter<I: IntoIterator<Item = Vec<Step>>>(paths: I) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(fields: Value) -> Set {
        Set::from_json(&fields).unwrap()
    }

    #[test]
    fn sets_are_read_and_written() {
        let fields = json!({
            "f:data": {".": {}, "f:a": {}},
            "f:spec": {
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}},
                "f:tags": {"v:\"x\"": {}, "v:1": {}},
            },
        });
        assert_eq!(set(fields.clone()).to_json(), fields);
        let unsorted = json!({"f:p": {"k:{ \"b\": 1, \"a\": \"x\" }": {}}});
        assert_eq!(
            set(unsorted).to_json(),
            json!({"f:p": {"k:{\"a\":\"x\",\"b\":1}": {}}})
        );
        assert_eq!(Set::from_json(&json!({"x:a": {}})), None);
        assert_eq!(Set::from_json(&json!({"f:a": 1})), None);
    }

    #[test]
    fn places_are_told_as_kubernetes_tells_them() {
        let fields = json!({"f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {"f:name": {}}},
            "f:tags": {"v:\"x\"": {}}, "f:odd": {"i:3": {}}}});
        let shown: Vec<String> = set(fields).paths().iter().map(|path| show(path)).collect();
        assert_eq!(
            shown,
            [
                ".spec.odd[3]",
                ".spec.ports[containerPort=80,protocol=\"TCP\"].name",
                ".spec.tags[=\"x\"]"
            ]
        );
    }

    #[test]
    fn a_place_is_apart_from_those_below_it() {
        let all = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let only_a = set(json!({"f:a": {}}));
        assert_eq!(
            all.difference(&only_a),
            set(json!({"f:a": {"f:b": {}}, "f:c": {}}))
        );
        assert_eq!(all.intersection(&only_a), only_a);
        assert_eq!(only_a.union(&set(json!({"f:a": {"f:b": {}}, "f:c": {}}))), all);
        assert!(all.difference(&all).is_empty());
        for other in [&only_a, &all, &set(json!({"f:a": {"f:b": {}}})), &Set::default()] {
            let mut rest = all.clone();
            rest.subtract(other);
            assert_eq!(rest, all.difference(other));
        }
    }
}
