//! Strategic merge patch for the kinds that Kubernetes itself defines: lists whose items have a
//! key are merged item by item. Which lists do, and by which key, is the `patchMergeKey` of
//! kubernetes' types; a list not in the table is replaced whole, as there.

use serde_json::{Map, Value};

use crate::{
    object,
    status::Error,
    structure::builtin::{self, Type},
};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// The patch's list takes its place.
    Replace,
    /// Items with the same value under the key are merged.
    ByKey(&'static str),
    /// Values of the patch that are not there are appended.
    Set,
}

fn strategy(of: &Type, field: &str) -> Strategy {
    match of.field(field).and_then(|field| field.patch_key()) {
        None => Strategy::Replace,
        Some("") => Strategy::Set,
        Some(key) => Strategy::ByKey(key),
    }
}

/// The type of the field, or of its items.
fn inner(of: &Type, field: &str) -> &'static Type {
    of.field(field).map_or(&builtin::LEAF, |field| field.of())
}

/// Applies the patch to an object of the type.
pub(super) fn apply(target: &mut Value, patch: &Value, of: &Type) -> Result<(), Error> {
    let Value::Object(patch) = patch else {
        return Err(malformed("invalid JSON document"));
    };
    merge_map(object::as_map(target), patch, of)
}

fn malformed(why: impl Into<String>) -> Error {
    Error::BadRequest(why.into())
}

fn merge_map(target: &mut Map<String, Value>, patch: &Map<String, Value>, of: &Type) -> Result<(), Error> {
    match patch.get(PATCH).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            target.clear();
            let kept = patch.iter().filter(|(field, _)| *field != PATCH);
            target.extend(kept.map(|(field, value)| (field.clone(), value.clone())));
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some(other) => return Err(malformed(format!("Unknown patch type found: {other}"))),
    }
    retain(target, patch)?;
    for (field, change) in patch.iter().filter(|(field, _)| !field.starts_with('$')) {
        match change {
            Value::Null => {
                target.shift_remove(field);
            }
            Value::Object(change) => {
                let current = target.entry(field.as_str()).or_insert(Value::Null);
                merge_map(object::as_map(current), change, inner(of, field))?;
            }
            Value::Array(changes) => {
                let current = target
                    .entry(field.as_str())
                    .or_insert_with(|| Value::Array(Vec::new()));
                merge_list(current, changes, strategy(of, field), inner(of, field))?;
            }
            scalar => {
                target.insert(field.clone(), scalar.clone());
            }
        }
    }
    for (directive, values) in patch {
        if let Some(field) = directive.strip_prefix(DELETE_FROM) {
            let Value::Array(values) = values else {
                return Err(malformed("invalid patch format of primitive list"));
            };
            if let Some(Value::Array(items)) = target.get_mut(field) {
                items.retain(|item| !values.contains(item));
            }
        } else if let Some(field) = directive.strip_prefix(ORDER) {
            let Value::Array(values) = values else {
                return Err(malformed("invalid patch format of setElementOrder list"));
            };
            if let Some(Value::Array(items)) = target.get_mut(field) {
                order(items, values, strategy(of, field));
            }
        }
    }
    Ok(())
}

/// Drops the fields that `$retainKeys` does not name.
fn retain(target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), Error> {
    let Some(kept) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let kept = kept.as_array().filter(|kept| {
        let mut fields = patch.keys().filter(|field| !field.starts_with('$'));
        fields.all(|field| patch[field].is_null() || kept.iter().any(|kept| kept == field))
    });
    let kept = kept.ok_or_else(|| malformed("invalid patch format of retainKeys"))?;
    target.retain(|field, _| kept.iter().any(|kept| kept == field));
    Ok(())
}

fn merge_list(
    target: &mut Value,
    changes: &[Value],
    strategy: Strategy,
    of: &'static Type,
) -> Result<(), Error> {
    let is_replacement = |change: &Value| change.get(PATCH).and_then(Value::as_str) == Some("replace");
    let items = match target {
        Value::Array(items) if strategy != Strategy::Replace && !changes.iter().any(is_replacement) => items,
        _ => {
            let kept = changes
                .iter()
                .filter(|change| change.get(PATCH).is_none())
                .cloned();
            *target = Value::Array(kept.collect());
            return Ok(());
        }
    };
    let Strategy::ByKey(key) = strategy else {
        for change in changes {
            if !items.contains(change) {
                items.push(change.clone());
            }
        }
        return Ok(());
    };
    for change in changes {
        let Value::Object(change) = change else {
            return Err(malformed("invalid JSON document"));
        };
        let Some(id) = change.get(key) else {
            return Err(Error::Unexplained(format!(
                "map: {} does not contain declared merge key: {key}",
                Value::Object(change.clone())
            )));
        };
        if change.get(PATCH).and_then(Value::as_str) == Some("delete") {
            items.retain(|item| item.get(key) != Some(id));
            continue;
        }
        let at = items
            .iter()
            .position(|item| item.get(key) == Some(id))
            .unwrap_or_else(|| {
                items.push(Value::Null);
                items.len() - 1
            });
        merge_map(object::as_map(&mut items[at]), change, of)?;
    }
    Ok(())
}

/// Puts the items that `order` names in its order. Each other item stays behind the one that it
/// was behind.
fn order(items: &mut Vec<Value>, order: &[Value], strategy: Strategy) {
    let identity = |item: &Value| match strategy {
        Strategy::ByKey(key) => item.get(key).cloned().unwrap_or_default(),
        Strategy::Set | Strategy::Replace => item.clone(),
    };
    let order = order.iter().map(identity).collect::<Vec<_>>();
    let before = std::mem::take(items);
    let identities = before.iter().map(identity).collect::<Vec<_>>();
    let mut placed: Vec<usize> = order
        .iter()
        .filter_map(|wanted| identities.iter().position(|identity| identity == wanted))
        .collect();
    for (at, identity) in identities.iter().enumerate() {
        if !order.contains(identity) {
            let behind = (0..at)
                .rev()
                .find_map(|earlier| placed.iter().position(|placed| *placed == earlier));
            placed.insert(behind.map_or(0, |behind| behind + 1), at);
        }
    }
    let mut before = before.into_iter().map(Some).collect::<Vec<_>>();
    items.extend(placed.into_iter().filter_map(|at| before[at].take()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(mut target: Value, patch: &Value, expected: &Value) {
        apply(&mut target, patch, builtin::of("", "Pod")).unwrap();
        assert_eq!(target, *expected, "{patch}");
    }

    #[test]
    fn keyed_lists_are_merged_item_by_item() {
        let pod = json!({"spec": {"containers": [
            {"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}], "ports": [{"containerPort": 80}]},
            {"name": "b", "image": "y"},
        ]}});
        check(
            pod.clone(),
            &json!({"spec": {"containers": [{"name": "a", "env": [{"name": "L", "value": "2"}]}]}}),
            &json!({"spec": {"containers": [
                {"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}],
                 "ports": [{"containerPort": 80}]},
                {"name": "b", "image": "y"},
            ]}}),
        );
        check(
            pod,
            &json!({"spec": {"containers": [
                {"name": "b", "$patch": "delete"},
                {"name": "a", "env": [{"name": "K", "$patch": "delete"}], "ports": [{"containerPort": 80, "name": "w"}]},
            ]}}),
            &json!({"spec": {"containers": [
                {"name": "a", "image": "x", "env": [], "ports": [{"containerPort": 80, "name": "w"}]},
            ]}}),
        );
    }

    #[test]
    fn conditions_are_merged_by_type() {
        check(
            json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "x"}]}}),
            &json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "New", "status": "True"}]}}),
            &json!({"status": {"conditions": [
                {"type": "Ready", "status": "True", "reason": "x"}, {"type": "New", "status": "True"},
            ]}}),
        );
    }

    #[test]
    fn lists_without_a_key_are_replaced() {
        check(
            json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "c", "args": ["1", "2"]}]}}),
            &json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "c", "args": ["3"]}]}}),
            &json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "c", "args": ["3"]}]}}),
        );
    }

    #[test]
    fn finalizers_are_a_set() {
        let object = json!({"metadata": {"finalizers": ["a", "b"]}});
        check(
            object.clone(),
            &json!({"metadata": {"finalizers": ["b", "c"]}}),
            &json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        );
        check(
            object,
            &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
            &json!({"metadata": {"finalizers": ["b"]}}),
        );
    }

    #[test]
    fn a_null_takes_the_field_away() {
        check(
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            &json!({"metadata": {"labels": {"a": null, "c": "3"}, "annotations": {"gone": null}}}),
            &json!({"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {}}}),
        );
    }

    #[test]
    fn directives_replace_retain_and_order() {
        check(
            json!({"data": {"a": "1"}}),
            &json!({"data": {"$patch": "replace", "b": "2"}}),
            &json!({"data": {"b": "2"}}),
        );
        check(
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            &json!({"spec": {"volumes": [
                {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}},
            ]}}),
            &json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
        );
        check(
            json!({"spec": {"containers": [{"name": "a"}, {"name": "mine"}, {"name": "b"}]}}),
            &json!({"spec": {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}],
                "containers": [{"name": "c", "image": "x"}],
            }}),
            &json!({"spec": {"containers": [
                {"name": "b"}, {"name": "c", "image": "x"}, {"name": "a"}, {"name": "mine"},
            ]}}),
        );
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        let patch = json!({"spec": {"containers": [{"image": "x"}]}});
        let problem = apply(&mut pod, &patch, builtin::of("", "Pod")).unwrap_err();
        assert!(
            problem
                .to_string()
                .ends_with("does not contain declared merge key: name")
        );
        assert_eq!(problem.code().0, 500);
    }

    #[test]
    fn every_built_in_kind_has_its_keys() {
        let check = |(group, kind): (&str, &str), mut target: Value, patch: Value, expected: Value| {
            apply(&mut target, &patch, builtin::of(group, kind)).unwrap();
            assert_eq!(target, expected, "{kind}");
        };
        check(
            ("", "Service"),
            json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81}]}}),
            json!({"spec": {"ports": [{"port": 80, "nodePort": 1}]}}),
            json!({"spec": {"ports": [{"port": 80, "name": "a", "nodePort": 1}, {"port": 81}]}}),
        );
        let template =
            |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
        check(
            ("apps", "Deployment"),
            template(json!([{"name": "a", "image": "x"}])),
            template(json!([{"name": "b"}, {"name": "a", "image": "y"}])),
            template(json!([{"name": "a", "image": "y"}, {"name": "b"}])),
        );
        check(
            ("", "ServiceAccount"),
            json!({"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "p"}]}),
            json!({"secrets": [{"name": "b"}], "imagePullSecrets": [{"name": "q"}]}),
            json!({"secrets": [{"name": "a"}, {"name": "b"}], "imagePullSecrets": [{"name": "q"}]}),
        );
        check(
            ("rbac.authorization.k8s.io", "RoleBinding"),
            json!({"subjects": [{"name": "a"}]}),
            json!({"subjects": [{"name": "b"}]}),
            json!({"subjects": [{"name": "b"}]}),
        );
    }

    #[test]
    fn malformed_directives_are_refused() {
        for patch in [
            json!({"spec": {"$patch": "burn"}}),
            json!({"spec": {"$retainKeys": ["a"], "b": 1}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}}),
            json!({"spec": {"$setElementOrder/containers": {}}}),
        ] {
            let refused = apply(&mut json!({}), &patch, builtin::of("", "Pod")).unwrap_err();
            assert_eq!(refused.code().0, 400, "{patch}");
        }
    }
}
