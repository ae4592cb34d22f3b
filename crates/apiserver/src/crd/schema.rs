//! The schema of a version of a custom resource, read once from its definition: what
//! [`super::check`], [`super::shape`] and [`super::rules`] go by.
//!
//! Reading is lenient: whether a definition may be installed is for [`super::structural`].

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use regex::Regex;
use serde_json::Value;

use super::rules::Rule;

/// What a value is, as schemas name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListType<'a> {
    /// They are not: the list is one value.
    Atomic,
    /// By what they are.
    Set,
    /// By these of their fields.
    Map(&'a [String]),
}

/// What a value must be, beside having its type.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) required: Vec<String>,
    pub(super) one_of: Option<Vec<Value>>,
    /// As written, and as it is matched; none when it cannot be.
    pub(super) pattern: Option<(String, Option<Regex>)>,
    pub(super) format: Option<String>,
    /// The bound, and whether it is outside itself.
    pub(super) minimum: Option<(Value, bool)>,
    pub(super) maximum: Option<(Value, bool)>,
    pub(super) multiple_of: Option<f64>,
    pub(super) length: (Option<usize>, Option<usize>),
    pub(super) items: (Option<usize>, Option<usize>),
    pub(super) properties: (Option<usize>, Option<usize>),
    pub(super) unique_items: bool,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(super) kind: Option<Type>,
    pub(super) nullable: bool,
    pub(super) int_or_string: bool,
    pub(super) preserves_unknown: bool,
    pub(super) is_embedded: bool,
    pub(super) properties: BTreeMap<String, Self>,
    /// The schema of fields without one of their own.
    pub(super) additional: Option<Box<Self>>,
    /// Whether fields without a schema of their own are data, whatever they are.
    pub(super) additional_anything: bool,
    pub(super) items: Option<Box<Self>>,
    list_type: String,
    list_keys: Vec<String>,
    pub(super) default: Option<Value>,
    pub(super) limits: Limits,
    pub(super) all_of: Vec<Self>,
    pub(super) any_of: Vec<Self>,
    pub(super) exactly_one_of: Vec<Self>,
    pub(super) not: Option<Box<Self>>,
    pub(super) rules: Vec<Rule>,
    /// Whether there are rules here or below.
    has_rules: bool,
    /// As it was written, at the root only.
    document: Option<Value>,
    /// Another one when the document is, at the root only.
    digest: u64,
}

impl Schema {
    /// The schema as written in `openAPIV3Schema`.
    pub(crate) fn parse(document: &Value) -> Self {
        let mut hasher = DefaultHasher::new();
        document.to_string().hash(&mut hasher);
        Self {
            document: Some(document.clone()),
            digest: hasher.finish(),
            ..Self::node(document)
        }
    }

    fn node(document: &Value) -> Self {
        let flag = |field: &str| document.get(field) == Some(&Value::Bool(true));
        let text = |field: &str| document.get(field).and_then(Value::as_str);
        let list = |field: &str| {
            document
                .get(field)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let nodes = |field: &str| list(field).map(Self::node).collect();
        let boxed = |field: &str| {
            document
                .get(field)
                .filter(|node| node.is_object())
                .map(|node| Box::new(Self::node(node)))
        };
        let properties = document
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let additional = document.get("additionalProperties");
        let node = Self {
            has_rules: false,
            kind: text("type").and_then(Type::parse),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserves_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            is_embedded: flag("x-kubernetes-embedded-resource"),
            properties: properties
                .map(|(name, node)| (name.clone(), Self::node(node)))
                .collect(),
            additional: boxed("additionalProperties"),
            additional_anything: additional == Some(&Value::Bool(true)),
            items: boxed("items"),
            list_type: text("x-kubernetes-list-type").unwrap_or_default().to_owned(),
            list_keys: list("x-kubernetes-list-map-keys")
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            default: document.get("default").cloned(),
            limits: Limits::parse(document),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            exactly_one_of: nodes("oneOf"),
            not: boxed("not"),
            rules: list("x-kubernetes-validations")
                .filter_map(|rule| Rule::parse(rule).ok())
                .collect(),
            document: None,
            digest: 0,
        };
        let below = node
            .properties
            .values()
            .chain(node.additional.as_deref())
            .chain(node.items.as_deref());
        let has_rules = !node.rules.is_empty() || below.into_iter().any(Self::has_rules);
        Self { has_rules, ..node }
    }

    /// Whether there are CEL rules here or below.
    pub(super) const fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// As it was written, when this is the root.
    pub(crate) const fn document(&self) -> Option<&Value> {
        self.document.as_ref()
    }

    /// Another one when the schema is.
    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    /// The schema of a field: its own, or that of fields without one.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// Whether the field has a schema of its own.
    pub(crate) fn has_property(&self, name: &str) -> bool {
        self.properties.contains_key(name)
    }

    /// The schema of the items of a list.
    pub(crate) fn items(&self) -> Option<&Self> {
        self.items.as_deref()
    }

    /// How the items of a list are told apart.
    pub(crate) fn list_type(&self) -> ListType<'_> {
        match self.list_type.as_str() {
            "set" => ListType::Set,
            "map" => ListType::Map(&self.list_keys),
            _ => ListType::Atomic,
        }
    }

    /// The item of a list that this one was before, when items are told apart by their keys.
    pub(super) fn counterpart<'a>(&self, item: &Value, old: &'a Value) -> Option<&'a Value> {
        let ListType::Map(keys) = self.list_type() else {
            return None;
        };
        let is_same = |other: &&Value| keys.iter().all(|key| item.get(key) == other.get(key));
        old.as_array()?.iter().find(is_same)
    }
}

impl Limits {
    fn parse(document: &Value) -> Self {
        let number = |field: &str| usize::try_from(document.get(field)?.as_u64()?).ok();
        let bound = |field: &str, exclusive: &str| {
            let bound = document.get(field).filter(|bound| bound.is_number())?;
            Some((bound.clone(), document.get(exclusive) == Some(&Value::Bool(true))))
        };
        let pattern = document.get("pattern").and_then(Value::as_str);
        let required = document
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        Self {
            required: required.filter_map(Value::as_str).map(str::to_owned).collect(),
            one_of: document.get("enum").and_then(Value::as_array).cloned(),
            pattern: pattern.map(|pattern| (pattern.to_owned(), Regex::new(pattern).ok())),
            format: document.get("format").and_then(Value::as_str).map(str::to_owned),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: document.get("multipleOf").and_then(Value::as_f64),
            length: (number("minLength"), number("maxLength")),
            items: (number("minItems"), number("maxItems")),
            properties: (number("minProperties"), number("maxProperties")),
            unique_items: document.get("uniqueItems") == Some(&Value::Bool(true)),
        }
    }
}
