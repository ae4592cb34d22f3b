//! The schemas of a document: of its kinds, and of everything that these refer to.

use std::{collections::BTreeMap, io::Read as _, sync::LazyLock};

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use crate::{
    kinds::{Kind, Subresource},
    object,
};

/// The schemas of Kubernetes' own types, as `scripts/kubernetes-schemas` wrote them. References name
/// their schema without saying where it is.
pub(super) static FILE: &[u8] = include_bytes!("kubernetes.json.gz");

/// What [`FILE`] holds, by name.
static BUILT_IN: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let mut text = String::new();
    let read = GzDecoder::new(FILE).read_to_string(&mut text).map(drop);
    let parsed = read
        .map_err(serde_json::Error::io)
        .and_then(|()| serde_json::from_str(&text));
    parsed.unwrap_or_else(|error| {
        tracing::error!(%error, "the schemas of Kubernetes' types cannot be read: nothing is explained");
        Map::new()
    })
});

/// The name of each kind's schema in [`BUILT_IN`].
static NAMES: LazyLock<BTreeMap<[String; 3], &'static str>> = LazyLock::new(|| {
    let kinds = BUILT_IN.iter().filter_map(|(name, schema)| {
        let of = schema.pointer("/x-kubernetes-group-version-kind/0")?;
        let part = |pointer: &str| object::text(of, pointer).to_owned();
        Some(([part("/group"), part("/version"), part("/kind")], name.as_str()))
    });
    kinds.collect()
});

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const REFERENCE: &str = "$ref";
const GVK: &str = "x-kubernetes-group-version-kind";

/// A reference to the schema of this name.
pub(super) fn reference(name: &str) -> Value {
    json!({REFERENCE: format!("#/components/schemas/{name}")})
}

/// Schemas that a document needs.
#[derive(Debug, Default)]
pub(super) struct Components(BTreeMap<String, Value>);

impl Components {
    /// Adds the schema of a kind and of its lists. Returns its name.
    pub(super) fn add_kind(&mut self, kind: &Kind) -> String {
        let key = [&kind.group, &kind.version, &kind.kind].map(|part| part.clone().into_owned());
        let name = match (kind.document(), NAMES.get(&key)) {
            (None, Some(name)) => {
                self.add(name);
                (*name).to_owned()
            }
            (schema, _) => {
                let name = custom_name(kind);
                let custom = self.custom(kind, schema);
                self.0.insert(name.clone(), custom);
                name
            }
        };
        if kind.is_stored() {
            let list = self.list(kind, &name);
            self.0.insert(list_name(&name), list);
        }
        name
    }

    /// Adds the schema of this name and all that it refers to.
    pub(super) fn add(&mut self, name: &str) {
        if self.0.contains_key(name) {
            return;
        }
        let Some(schema) = BUILT_IN.get(name) else {
            return;
        };
        let mut schema = schema.clone();
        let mut needed = Vec::new();
        resolve(&mut schema, &mut needed);
        self.0.insert(name.to_owned(), schema);
        for name in needed {
            self.add(&name);
        }
    }

    /// What is exchanged at a subresource, none when it is no object.
    pub(super) fn add_subresource(&mut self, kind: &str, part: Subresource) -> Option<String> {
        let name = match part {
            Subresource::Status | Subresource::Finalize => return Some(kind.to_owned()),
            Subresource::Scale => "io.k8s.api.autoscaling.v1.Scale",
            Subresource::Binding => "io.k8s.api.core.v1.Binding",
            Subresource::Eviction => "io.k8s.api.policy.v1.Eviction",
            Subresource::Token => "io.k8s.api.authentication.v1.TokenRequest",
            Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward => {
                return None;
            }
        };
        self.add(name);
        Some(name.to_owned())
    }

    /// The name of the schema of a `Status`.
    pub(super) fn add_status(&mut self) -> &'static str {
        self.add(STATUS);
        STATUS
    }

    /// The schema of a custom kind: what its definition says, and what all objects have.
    fn custom(&mut self, kind: &Kind, schema: Option<&Value>) -> Value {
        let metadata = format!("{META}.ObjectMeta");
        self.add(&metadata);
        let mut schema = schema
            .cloned()
            .unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
        let map = object::as_map(&mut schema);
        map.insert(GVK.to_owned(), json!([exchanged(kind)]));
        let properties = object::as_map(map.entry("properties").or_insert_with(|| json!({})));
        properties.extend(type_fields());
        let described = "Standard object's metadata. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
        properties.insert(
            "metadata".to_owned(),
            json!({"allOf": [reference(&metadata)], "description": described}),
        );
        schema
    }

    fn list(&mut self, kind: &Kind, name: &str) -> Value {
        let metadata = format!("{META}.ListMeta");
        self.add(&metadata);
        let mut properties = type_fields();
        let items = json!({
            "description": format!("List of {}.", kind.plural),
            "type": "array",
            "items": reference(name),
        });
        properties.insert("items".to_owned(), items);
        let described = json!({"allOf": [reference(&metadata)], "description": "Standard list metadata."});
        properties.insert("metadata".to_owned(), described);
        let mut of = exchanged(kind);
        of["kind"] = kind.list_kind.as_ref().into();
        json!({
            "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
            "type": "object",
            "required": ["items"],
            "properties": properties,
            GVK: [of],
        })
    }

    pub(super) fn finish(self) -> Value {
        self.0.into_iter().collect()
    }
}

/// The name of the schema of lists of a kind.
pub(super) fn list_name(name: &str) -> String {
    format!("{name}List")
}

/// Group, version and kind, as schemas and paths say it.
pub(super) fn exchanged(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// `dev.example.v1.Widget` of `example.dev`.
fn custom_name(kind: &Kind) -> String {
    let mut parts = kind
        .group
        .split('.')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>();
    parts.reverse();
    parts.extend([kind.version.as_ref(), kind.kind.as_ref()]);
    parts.join(".")
}

fn type_fields() -> Map<String, Value> {
    let described = [
        (
            "apiVersion",
            "APIVersion defines the versioned schema of this representation of an object. Servers should convert \
             recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
        ),
        (
            "kind",
            "Kind is a string value representing the REST resource this object represents. Servers may infer this \
             from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
        ),
    ];
    described
        .into_iter()
        .map(|(field, text)| (field.to_owned(), json!({"type": "string", "description": text})))
        .collect()
}

/// Makes references say where their schema is, and tells which these are.
fn resolve(schema: &mut Value, needed: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get_mut(REFERENCE) {
                needed.push(name.clone());
                *name = format!("#/components/schemas/{name}");
            }
            fields.values_mut().for_each(|field| resolve(field, needed));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, needed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{Catalogue, PODS};

    #[test]
    fn every_kind_that_comes_with_the_server_has_a_schema() {
        for kind in Catalogue::default().all().iter() {
            let key = [&kind.group, &kind.version, &kind.kind].map(|part| part.clone().into_owned());
            assert!(NAMES.contains_key(&key), "{key:?}");
        }
    }

    #[test]
    fn what_a_schema_refers_to_comes_with_it() {
        let mut components = Components::default();
        components.add_kind(&PODS);
        let schemas = components.finish();
        let container = &schemas["io.k8s.api.core.v1.Container"]["properties"];
        assert_eq!(
            container["ports"]["x-kubernetes-patch-merge-key"],
            "containerPort"
        );
        assert_eq!(
            container["ports"]["items"],
            reference("io.k8s.api.core.v1.ContainerPort")
        );
        assert_eq!(
            schemas["io.k8s.api.core.v1.PodList"]["required"],
            json!(["items"])
        );
        let mut missing = Vec::new();
        check_references(&schemas, &schemas, &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }

    fn check_references(schemas: &Value, part: &Value, missing: &mut Vec<String>) {
        match part {
            Value::Object(fields) => {
                if let Some(Value::String(to)) = fields.get(REFERENCE) {
                    let name = to.trim_start_matches("#/components/schemas/");
                    if schemas.get(name).is_none() {
                        missing.push(to.clone());
                    }
                }
                for field in fields.values() {
                    check_references(schemas, field, missing);
                }
            }
            Value::Array(items) => {
                for item in items {
                    check_references(schemas, item, missing);
                }
            }
            _ => {}
        }
    }
}
