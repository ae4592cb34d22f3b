//! Which machine is wanted: labels, tolerated taints, affinities.

use coracle_api::{
    ir::platform::{
        KubernetesExecutorConfig, NodeAffinityTerm, PodAffinityTerm, SelectorRequirement, Toleration,
    },
    launch::Failure,
};
use serde_json::{Map, Value, json};

use super::{Sources, invalid};

pub(super) fn node_selector(
    config: &KubernetesExecutorConfig,
    sources: &Sources<'_>,
) -> Result<Option<Map<String, Value>>, Failure> {
    let Some(selector) = &config.node_selector else {
        return Ok(None);
    };
    let setting = "nodeSelector.nodeSelectorJson";
    let Some(source) = &selector.node_selector_json else {
        let labels = selector.labels.iter();
        return Ok(Some(
            labels.map(|(key, value)| (key.clone(), json!(value))).collect(),
        ));
    };
    match sources.json(setting, source)? {
        None => Ok(None),
        Some(Value::Object(labels)) if labels.values().all(Value::is_string) => Ok(Some(labels)),
        Some(other) => Err(invalid(
            setting,
            &format!("must be labels with text as values, and is {other}"),
        )),
    }
}

pub(super) fn tolerations(
    config: &KubernetesExecutorConfig,
    sources: &Sources<'_>,
) -> Result<Vec<Value>, Failure> {
    let mut tolerations = Vec::new();
    for (index, toleration) in config.tolerations.iter().enumerate() {
        let Some(source) = &toleration.toleration_json else {
            tolerations.push(plain_toleration(toleration));
            continue;
        };
        let setting = format!("tolerations[{index}].tolerationJson");
        let found = match sources.json(&setting, source)? {
            None => Vec::new(),
            Some(Value::Array(all)) => all,
            Some(one) => vec![one],
        };
        for toleration in found {
            match toleration {
                Value::Object(fields) if fields.is_empty() => {}
                Value::Object(mut fields) => {
                    if let Some(seconds) = fields.remove("toleration_seconds") {
                        fields.insert("tolerationSeconds".to_owned(), seconds);
                    }
                    // A double of the pipeline's, an integer of Kubernetes'.
                    if let Some(seconds) = fields.get_mut("tolerationSeconds")
                        && let Some(whole) = whole(seconds)
                    {
                        *seconds = json!(whole);
                    }
                    tolerations.push(Value::Object(fields));
                }
                other => {
                    let why = format!("must be a toleration or a list of them, and holds {other}");
                    return Err(invalid(&setting, &why));
                }
            }
        }
    }
    Ok(tolerations)
}

/// A number that a pipeline's JSON may hold as a double, as an integer.
fn whole(value: &Value) -> Option<i64> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
    format!("{number:.0}").parse().ok()
}

fn plain_toleration(toleration: &Toleration) -> Value {
    let mut fields = Map::new();
    for (name, text) in [
        ("key", &toleration.key),
        ("operator", &toleration.operator),
        ("value", &toleration.value),
        ("effect", &toleration.effect),
    ] {
        if !text.is_empty() {
            fields.insert(name.to_owned(), json!(text));
        }
    }
    if let Some(seconds) = toleration.toleration_seconds {
        fields.insert("tolerationSeconds".to_owned(), json!(seconds));
    }
    Value::Object(fields)
}

pub(super) fn affinity(
    config: &KubernetesExecutorConfig,
    sources: &Sources<'_>,
) -> Result<Option<Value>, Failure> {
    let mut affinity = Map::new();
    if let Some(nodes) = node_affinity(&config.node_affinity, sources)? {
        affinity.insert("nodeAffinity".to_owned(), nodes);
    }
    for (name, anti) in [("podAffinity", false), ("podAntiAffinity", true)] {
        let terms = config.pod_affinity.iter();
        if let Some(pods) = pod_affinity(terms.filter(|term| term.anti.unwrap_or_default() == anti)) {
            affinity.insert(name.to_owned(), pods);
        }
    }
    Ok((!affinity.is_empty()).then_some(Value::Object(affinity)))
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn node_affinity(terms: &[NodeAffinityTerm], sources: &Sources<'_>) -> Result<Option<Value>, Failure> {
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    for (index, term) in terms.iter().enumerate() {
        if let Some(source) = &term.node_affinity_json {
            let setting = format!("nodeAffinity[{index}].nodeAffinityJson");
            match sources.json(&setting, source)? {
                None => {}
                Some(Value::Object(mut whole)) => {
                    let terms = whole
                        .get_mut(REQUIRED)
                        .and_then(|required| required.get_mut("nodeSelectorTerms"));
                    required.extend(terms.map(taken).unwrap_or_default());
                    preferred.extend(whole.get_mut(PREFERRED).map(taken).unwrap_or_default());
                }
                Some(other) => {
                    return Err(invalid(
                        &setting,
                        &format!("must be a nodeAffinity, and is {other}"),
                    ));
                }
            }
            continue;
        }
        let mut fields = Map::new();
        for (name, list) in [
            ("matchExpressions", &term.match_expressions),
            ("matchFields", &term.match_fields),
        ] {
            if !list.is_empty() {
                fields.insert(name.to_owned(), requirements(list));
            }
        }
        match term.weight {
            _ if fields.is_empty() => {}
            Some(weight) => preferred.push(json!({"weight": weight, "preference": fields})),
            None => required.push(Value::Object(fields)),
        }
    }
    let mut affinity = Map::new();
    if !required.is_empty() {
        affinity.insert(REQUIRED.to_owned(), json!({"nodeSelectorTerms": required}));
    }
    if !preferred.is_empty() {
        affinity.insert(PREFERRED.to_owned(), json!(preferred));
    }
    Ok((!affinity.is_empty()).then_some(Value::Object(affinity)))
}

fn taken(list: &mut Value) -> Vec<Value> {
    list.as_array_mut().map(std::mem::take).unwrap_or_default()
}

fn requirements(list: &[SelectorRequirement]) -> Value {
    let one = |requirement: &SelectorRequirement| {
        let mut fields = json!({"key": requirement.key, "operator": requirement.operator});
        if !requirement.values.is_empty() {
            fields["values"] = json!(requirement.values);
        }
        fields
    };
    list.iter().map(one).collect()
}

fn pod_affinity<'a>(terms: impl Iterator<Item = &'a PodAffinityTerm>) -> Option<Value> {
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    for term in terms {
        let mut fields = Map::new();
        fields.insert("topologyKey".to_owned(), json!(term.topology_key));
        if let Some(selector) = selector(&term.match_pod_expressions, &term.match_pod_labels) {
            fields.insert("labelSelector".to_owned(), selector);
        }
        if let Some(selector) = selector(&term.match_namespace_expressions, &term.match_namespace_labels) {
            fields.insert("namespaceSelector".to_owned(), selector);
        }
        if !term.namespaces.is_empty() {
            fields.insert("namespaces".to_owned(), json!(term.namespaces));
        }
        match term.weight {
            Some(weight) => preferred.push(json!({"weight": weight, "podAffinityTerm": fields})),
            None => required.push(Value::Object(fields)),
        }
    }
    let mut affinity = Map::new();
    if !required.is_empty() {
        affinity.insert(REQUIRED.to_owned(), json!(required));
    }
    if !preferred.is_empty() {
        affinity.insert(PREFERRED.to_owned(), json!(preferred));
    }
    (!affinity.is_empty()).then_some(Value::Object(affinity))
}

fn selector(
    expressions: &[SelectorRequirement],
    labels: &std::collections::BTreeMap<String, String>,
) -> Option<Value> {
    let mut fields = Map::new();
    if !expressions.is_empty() {
        fields.insert("matchExpressions".to_owned(), requirements(expressions));
    }
    if !labels.is_empty() {
        fields.insert("matchLabels".to_owned(), json!(labels));
    }
    (!fields.is_empty()).then_some(Value::Object(fields))
}
