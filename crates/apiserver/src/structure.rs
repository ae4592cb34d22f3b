//! How the values inside objects of a kind are merged: which lists have items of their own and by
//! what these are known, and which values are one piece. Says nothing of what is valid.

pub(crate) mod builtin;

use serde_json::Value;

pub(crate) use self::builtin::Type;
use crate::kinds::Kind;

/// How a value is merged with another one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Relation<'a> {
    /// Objects field by field, lists as a whole.
    Granular,
    /// As a whole.
    Atomic,
    /// A list of values each of which is there once.
    Set,
    /// A list of objects that these fields identify.
    Keyed(Keys<'a>),
}

/// The names of the fields that identify an item of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys<'a> {
    Fixed(&'static [&'static str]),
    Listed(&'a [Value]),
}

impl<'a> Keys<'a> {
    pub(crate) fn iter(self) -> impl Iterator<Item = &'a str> {
        let (fixed, listed) = match self {
            Self::Fixed(fixed) => (fixed, &[][..]),
            Self::Listed(listed) => (&[][..], listed),
        };
        fixed
            .iter()
            .copied()
            .chain(listed.iter().filter_map(Value::as_str))
    }
}

/// A field of a type that is not merged by the rule.
#[derive(Debug)]
pub(crate) struct Field {
    name: &'static str,
    relation: Relation<'static>,
    /// The key of its items in a strategic merge patch, empty for a set; none when such a patch
    /// replaces the list.
    patch: Option<&'static str>,
    of: &'static Type,
}

impl Field {
    /// See [`Field::patch`].
    pub(crate) const fn patch_key(&self) -> Option<&'static str> {
        self.patch
    }

    /// The type of the field, or of its items.
    pub(crate) const fn of(&self) -> &'static Type {
        self.of
    }
}

/// Where the structure of a value is told.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// A type of Kubernetes' own.
    BuiltIn(&'static Type),
    /// An OpenAPI v3 schema with the extensions of CustomResourceDefinitions.
    Schema(&'a Value),
    /// Nowhere.
    Unknown,
}

/// The structure of one value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Structure<'a> {
    source: Source<'a>,
    pub(crate) relation: Relation<'a>,
    is_root: bool,
}

impl<'a> Structure<'a> {
    /// That of the objects of a kind. A custom resource has a schema.
    pub(crate) fn of(group: &str, kind: &str, schema: Option<&'a Value>) -> Self {
        let source = match schema {
            Some(schema) => Source::Schema(schema),
            None => Source::BuiltIn(builtin::of(group, kind)),
        };
        Self {
            source,
            relation: Relation::Granular,
            is_root: true,
        }
    }

    /// See [`Self::of`].
    pub(crate) fn of_kind(kind: &'a Kind) -> Self {
        Self::of(&kind.group, &kind.kind, kind.document())
    }

    const UNKNOWN: Self = Self {
        source: Source::Unknown,
        relation: Relation::Granular,
        is_root: false,
    };

    const fn built_in(of: &'static Type, relation: Relation<'static>) -> Self {
        Self {
            source: Source::BuiltIn(of),
            relation,
            is_root: false,
        }
    }

    fn schema(schema: &'a Value) -> Self {
        let text = |name: &str| schema.get(name).and_then(Value::as_str);
        let keys = || schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let relation = match (text("x-kubernetes-list-type"), text("x-kubernetes-map-type")) {
            (Some("set"), _) => Relation::Set,
            (Some("map"), _) => keys().map_or(Relation::Granular, |keys| Relation::Keyed(Keys::Listed(keys))),
            (_, Some("atomic")) => Relation::Atomic,
            _ => Relation::Granular,
        };
        Self {
            source: Source::Schema(schema),
            relation,
            is_root: false,
        }
    }

    /// That of a field of the object.
    pub(crate) fn field(&self, name: &str) -> Self {
        match self.source {
            Source::BuiltIn(of) => of.field(name).map_or_else(
                || Self::built_in(&builtin::LEAF, Relation::Granular),
                |field| Self::built_in(field.of, field.relation),
            ),
            Source::Schema(schema) => {
                let is_object = self.is_root || is_set(schema, "x-kubernetes-embedded-resource");
                if is_object && name == "metadata" {
                    return Self::built_in(&builtin::OBJECT_META, Relation::Granular);
                }
                property(schema, name)
                    .or_else(|| schema.get("additionalProperties").filter(|of| of.is_object()))
                    .map_or(Self::UNKNOWN, Self::schema)
            }
            Source::Unknown => Self::UNKNOWN,
        }
    }

    /// That of the items of the list.
    pub(crate) fn item(&self) -> Self {
        match self.source {
            Source::BuiltIn(of) => Self::built_in(of, Relation::Granular),
            Source::Schema(schema) => schema.get("items").map_or(Self::UNKNOWN, Self::schema),
            Source::Unknown => Self::UNKNOWN,
        }
    }

    /// Whether the field is one of the type, rather than an entry of a map.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        match self.source {
            Source::BuiltIn(_) => true,
            Source::Schema(schema) => {
                property(schema, name).is_some()
                    || (self.is_root && matches!(name, "apiVersion" | "kind" | "metadata"))
            }
            Source::Unknown => false,
        }
    }

    /// What the key of an item of this list is when the item does not say.
    pub(crate) fn default_key(&self, key: &str) -> Option<Value> {
        match self.source {
            // Of ports, which are all that have it in their key.
            Source::BuiltIn(_) => (key == "protocol").then(|| "TCP".into()),
            Source::Schema(schema) => property(schema.get("items")?, key)?.get("default").cloned(),
            Source::Unknown => None,
        }
    }
}

fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(name)
}

fn is_set(schema: &Value, extension: &str) -> bool {
    schema.get(extension) == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(structure: Structure<'_>) -> Vec<String> {
        match structure.relation {
            Relation::Keyed(keys) => keys.iter().map(str::to_owned).collect(),
            other => panic!("not keyed: {other:?}"),
        }
    }

    #[test]
    fn lists_of_built_in_kinds_have_their_keys_wherever_they_are() {
        let pod = Structure::of("batch", "CronJob", None)
            .field("spec")
            .field("jobTemplate")
            .field("spec")
            .field("template")
            .field("spec");
        let containers = pod.field("containers");
        assert_eq!(keys(containers), ["name"]);
        assert_eq!(
            keys(containers.item().field("ports")),
            ["containerPort", "protocol"]
        );
        assert_eq!(
            containers.item().field("ports").default_key("protocol"),
            Some(json!("TCP"))
        );
        assert!(matches!(pod.field("tolerations").relation, Relation::Granular));
        assert!(matches!(pod.field("nodeSelector").relation, Relation::Atomic));
        let service = Structure::of("", "Service", None).field("spec");
        assert_eq!(keys(service.field("ports")), ["port", "protocol"]);
        let metadata = Structure::of("", "ConfigMap", None).field("metadata");
        assert_eq!(keys(metadata.field("ownerReferences")), ["uid"]);
        assert!(matches!(metadata.field("finalizers").relation, Relation::Set));
    }

    #[test]
    fn custom_resources_tell_their_structure() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "side"],
                "items": {"type": "object", "properties": {"side": {"type": "string", "default": "left"}}}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic"},
            "free": {"x-kubernetes-preserve-unknown-fields": true},
            "map": {"type": "object", "additionalProperties": {"type": "object", "x-kubernetes-map-type": "atomic"}},
        }}}});
        let root = Structure::of("example.com", "Widget", Some(&schema));
        let spec = root.field("spec");
        assert_eq!(keys(spec.field("parts")), ["name", "side"]);
        assert_eq!(spec.field("parts").default_key("side"), Some(json!("left")));
        assert!(matches!(spec.field("tags").relation, Relation::Set));
        assert!(matches!(spec.field("whole").relation, Relation::Atomic));
        assert!(matches!(
            spec.field("free").field("any").relation,
            Relation::Granular
        ));
        assert!(matches!(
            spec.field("map").field("any").relation,
            Relation::Atomic
        ));
        assert!(spec.is_named("map") && !spec.field("map").is_named("any"));
        assert!(matches!(
            root.field("metadata").field("finalizers").relation,
            Relation::Set
        ));
    }
}
