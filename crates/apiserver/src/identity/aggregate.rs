//! Aggregated ClusterRoles: whoever has an `aggregationRule` has the rules of every ClusterRole
//! that it selects, and shows them as its own.

use std::collections::BTreeMap;

use coracle_store::resources::{self, At, GroupResource, Object, Resources};
use serde_json::{Map, Value, json};

use super::{policy::GROUP, rbac::Rule};
use crate::object;

/// Fills in the rules of aggregated ClusterRoles, from the ClusterRoles as they are now.
pub(crate) async fn aggregate(resources: &Resources) -> resources::Result<()> {
    let kind = GroupResource::new(GROUP, "clusterroles");
    loop {
        let roles = resources.list(&kind, None, At::Latest, None, None).await?.objects;
        let due = changes(&roles);
        if due.is_empty() {
            return Ok(());
        }
        for (role, rules) in due {
            let mut body: Value = Value::clone(&role.body);
            object::as_map(&mut body).insert("rules".to_owned(), rules);
            match resources.update(role.key.clone(), body, role.revision).await {
                // Whoever was faster is looked at in the next round.
                Ok(_) | Err(resources::Error::Conflict { .. } | resources::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The roles whose rules are not what they select, with what they should be.
fn changes(roles: &[Object]) -> Vec<(&Object, Value)> {
    let mut rules: BTreeMap<&str, Vec<Rule>> = roles
        .iter()
        .map(|role| (role.key.name.as_str(), Rule::of_role(&role.body)))
        .collect();
    let aggregated: Vec<&Object> = roles
        .iter()
        .filter(|role| role.body.get("aggregationRule").is_some_and(Value::is_object))
        .collect();
    // One may select another: what flows through all of them is there after as many rounds.
    for _ in &aggregated {
        for role in &aggregated {
            let selected = roles
                .iter()
                .filter(|other| other.key != role.key && is_selected(&role.body, &other.body));
            let mut all: Vec<Rule> = Vec::new();
            for rule in selected
                .filter_map(|other| rules.get(other.key.name.as_str()))
                .flatten()
            {
                if !all.contains(rule) {
                    all.push(rule.clone());
                }
            }
            rules.insert(role.key.name.as_str(), all);
        }
    }
    let due = aggregated.into_iter().filter_map(|role| {
        let rules = rules.get(role.key.name.as_str())?;
        (Rule::of_role(&role.body) != *rules).then(|| (role, json!(rules)))
    });
    due.collect()
}

fn is_selected(aggregated: &Value, other: &Value) -> bool {
    let none = Map::new();
    let labels = other
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .unwrap_or(&none);
    object::list(aggregated, "/aggregationRule/clusterRoleSelectors")
        .iter()
        .any(|selector| selects(selector, labels))
}

/// Whether a LabelSelector selects what has the labels.
fn selects(selector: &Value, labels: &Map<String, Value>) -> bool {
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    let same = wanted
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let fits = |term: &Value| {
        let values = object::list(term, "/values");
        let value = labels.get(object::text(term, "/key"));
        match object::text(term, "/operator") {
            "In" => value.is_some_and(|value| values.contains(value)),
            "NotIn" => value.is_none_or(|value| !values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    same && object::list(selector, "/matchExpressions").iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_selects_by_labels_and_expressions() {
        let labels = json!({"a": "1", "b": "2"});
        let labels = labels.as_object().unwrap();
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"a": "1"}}), true),
            (json!({"matchLabels": {"a": "2"}}), false),
            (
                json!({"matchExpressions": [{"key": "b", "operator": "In", "values": ["2", "3"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["2"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "c", "operator": "Exists"}]}),
                false,
            ),
            (
                json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]}),
                true,
            ),
        ] {
            assert_eq!(selects(&selector, labels), expected, "{selector}");
        }
    }
}
