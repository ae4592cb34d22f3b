//! Whether a CustomResourceDefinition may be installed: its names, its versions, and that their
//! schemas are structural, in the words of Kubernetes' validation. Pure.

use serde_json::{Map, Value, json};

use super::{check, path::Path, rules::Rule, schema::Schema, shape};
use crate::{
    object,
    validation::{self, Problems},
};

/// What is filled in where it was left out.
pub(crate) fn default(definition: &mut Value) {
    let kind = object::text(definition, "/spec/names/kind").to_owned();
    let spec = object::section(definition, "spec");
    object::default(spec, "conversion", json!({"strategy": "None"}));
    if !kind.is_empty() {
        let names = object::as_map(spec.entry("names").or_insert_with(|| json!({})));
        object::default(names, "singular", kind.to_lowercase());
        object::default(names, "listKind", format!("{kind}List"));
    }
}

/// The status of a new definition: nothing is accepted yet.
pub(crate) fn initial_status(definition: &Value) -> Value {
    let stored = object::list(definition, "/spec/versions").iter();
    let stored = stored.filter(|version| version.get("storage") == Some(&Value::Bool(true)));
    let stored = stored.map(|version| version.get("name").cloned().unwrap_or_default());
    json!({
        "conditions": [],
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": stored.collect::<Value>(),
    })
}

/// What is wrong with a definition.
pub(crate) fn check(definition: &Value, problems: &mut Problems) {
    let text = |pointer: &str| object::text(definition, pointer);
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    let name = object::name(definition);
    if name != format!("{plural}.{group}") {
        problems.invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        );
    }
    if group.is_empty() {
        problems.required("spec.group", "");
    } else if !validation::is_subdomain(group) {
        problems.invalid("spec.group", group, validation::SUBDOMAIN);
    } else if !group.contains('.') {
        problems.invalid("spec.group", group, "should be a domain with at least one dot");
    }
    match text("/spec/scope") {
        "" => problems.required("spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        other => problems.unsupported("spec.scope", other, &["Cluster", "Namespaced"]),
    }
    names(definition, problems);
    if definition.pointer("/spec/preserveUnknownFields") == Some(&Value::Bool(true)) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
             spec.versions[*].schema instead";
        problems.invalid("spec.preserveUnknownFields", true, detail);
    }
    match text("/spec/conversion/strategy") {
        "" | "None" => {}
        "Webhook" => problems.invalid(
            "spec.conversion.strategy",
            "Webhook",
            "this server calls no webhooks: versions can only be converted by rewriting apiVersion (None)",
        ),
        other => problems.unsupported("spec.conversion.strategy", other, &["None", "Webhook"]),
    }
    versions(definition, problems);
}

/// What is wrong with a change of a definition.
pub(crate) fn check_change(old: &Value, new: &Value, problems: &mut Problems) {
    let is_established = object::list(old, "/status/conditions")
        .iter()
        .any(|one| object::text(one, "/type") == "Established" && object::text(one, "/status") == "True");
    let mut fixed = vec!["/spec/group", "/spec/names/plural"];
    if is_established {
        fixed.extend(["/spec/scope", "/spec/names/kind"]);
    }
    for pointer in fixed {
        if old.pointer(pointer) != new.pointer(pointer) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            problems.invalid(field, object::text(new, pointer), "field is immutable");
        }
    }
    let versions = object::list(new, "/spec/versions");
    for (index, stored) in object::list(old, "/status/storedVersions").iter().enumerate() {
        if !versions.iter().any(|version| version.get("name") == Some(stored)) {
            let field = format!("status.storedVersions[{index}]");
            problems.invalid(field, stored.clone(), "missing from spec.versions; must update or remove this version from status.storedVersions after migrating its objects");
        }
    }
}

const DNS_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with \
     an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123')";

fn is_dns_label(text: &str) -> bool {
    validation::is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

fn names(definition: &Value, problems: &mut Problems) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = object::text(definition, &format!("/spec/names/{field}"));
        let path = format!("spec.names.{field}");
        let is_kind = matches!(field, "kind" | "listKind");
        if name.is_empty() {
            if field == "plural" || field == "kind" {
                problems.required(path, "");
            }
        } else if is_kind && !is_dns_label(&name.to_lowercase()) {
            let detail = format!("may have mixed case, but should otherwise match: {DNS_LABEL}");
            problems.invalid(path, name, &detail);
        } else if !is_kind && !is_dns_label(name) {
            problems.invalid(path, name, DNS_LABEL);
        }
    }
    for field in ["shortNames", "categories"] {
        let names = object::list(definition, &format!("/spec/names/{field}"));
        for (index, name) in names.iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            if !is_dns_label(name) {
                problems.invalid(format!("spec.names.{field}[{index}]"), name, DNS_LABEL);
            }
        }
    }
    let (kind, list_kind) = (
        object::text(definition, "/spec/names/kind"),
        object::text(definition, "/spec/names/listKind"),
    );
    if !kind.is_empty() && kind == list_kind {
        let detail = "kind and listKind may not be the same";
        problems.invalid("spec.names.listKind", list_kind, detail);
    }
}

fn versions(definition: &Value, problems: &mut Problems) {
    let versions = object::list(definition, "/spec/versions");
    let flags = |field: &str| {
        let set = versions
            .iter()
            .filter(|version| version.get(field) == Some(&Value::Bool(true)));
        set.count()
    };
    if flags("storage") != 1 {
        let detail = "must have exactly one version marked as storage version";
        problems.invalid("spec.versions", names_of(versions), detail);
    }
    let name = |version: &Value| object::text(version, "/name").to_owned();
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = name(version);
        if !is_dns_label(&name) {
            problems.invalid(format!("{path}.name"), name.as_str(), DNS_LABEL);
        }
        if versions[..index]
            .iter()
            .any(|earlier| object::text(earlier, "/name") == name)
        {
            problems.invalid(
                "spec.versions",
                names_of(versions),
                "must contain unique version names",
            );
        }
        self::version(version, &path, problems);
    }
}

fn names_of(versions: &[Value]) -> Value {
    versions
        .iter()
        .map(|version| version.get("name").cloned().unwrap_or_default())
        .collect()
}

fn version(version: &Value, path: &str, problems: &mut Problems) {
    let schema_path = format!("{path}.schema.openAPIV3Schema");
    match version.pointer("/schema/openAPIV3Schema") {
        Some(schema) => root(schema, &schema_path, problems),
        None => problems.required(schema_path, "schemas are required"),
    }
    for (index, column) in object::list(version, "/additionalPrinterColumns")
        .iter()
        .enumerate()
    {
        let path = format!("{path}.additionalPrinterColumns[{index}]");
        if object::text(column, "/name").is_empty() {
            problems.required(format!("{path}.name"), "");
        }
        match object::text(column, "/type") {
            "" => problems.required(
                format!("{path}.type"),
                "must be one of boolean,date,integer,number,string",
            ),
            "boolean" | "date" | "integer" | "number" | "string" => {}
            other => problems.invalid(
                format!("{path}.type"),
                other,
                "must be one of boolean,date,integer,number,string",
            ),
        }
        json_path(column, "jsonPath", &path, false, problems);
    }
    for (index, field) in object::list(version, "/selectableFields").iter().enumerate() {
        json_path(
            field,
            "jsonPath",
            &format!("{path}.selectableFields[{index}]"),
            true,
            problems,
        );
    }
    if let Some(scale) = version.pointer("/subresources/scale") {
        let path = format!("{path}.subresources.scale");
        for (field, below) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
            json_path(scale, field, &path, true, problems);
            let given = object::text(scale, &format!("/{field}"));
            if !given.is_empty() && !given.starts_with(below) {
                let detail = format!("should be a json path under {}", below.trim_end_matches('.'));
                problems.invalid(format!("{path}.{field}"), given, &detail);
            }
        }
    }
}

/// A path must be there, and readable; one that is written to names fields only.
fn json_path(of: &Value, field: &str, path: &str, is_simple: bool, problems: &mut Problems) {
    let given = object::text(of, &format!("/{field}"));
    let path = format!("{path}.{field}");
    match Path::parse(given) {
        _ if given.is_empty() => problems.required(path, ""),
        Err(why) => problems.invalid(path, given, &format!("is an invalid jsonpath: {why}")),
        Ok(_) if !given.starts_with('.') => {
            problems.invalid(path, given, "must be a simple json path starting with .");
        }
        Ok(read) if is_simple && read.pointer().is_none() => {
            problems.invalid(path, given, "must be a simple json path with dot notation");
        }
        Ok(_) => {}
    }
}

fn root(schema: &Value, path: &str, problems: &mut Problems) {
    match object::text(schema, "/type") {
        "object" => {}
        "" => problems.required(format!("{path}.type"), "must not be empty at the root"),
        other => problems.invalid(format!("{path}.type"), other, "must be object at the root"),
    }
    if schema.get("nullable") == Some(&Value::Bool(true)) {
        problems.forbidden(format!("{path}.nullable"), "nullable cannot be true at the root");
    }
    if let Some(metadata) = schema.pointer("/properties/metadata") {
        let path = format!("{path}.properties[metadata]");
        let known = |field: &str| matches!(field, "type" | "properties" | "description");
        let has_others = metadata
            .as_object()
            .into_iter()
            .flatten()
            .any(|(field, _)| !known(field));
        let mut named = metadata
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        if has_others || named.any(|(field, _)| !matches!(field.as_str(), "name" | "generateName")) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly \
                 specified";
            problems.forbidden(path, detail);
        }
    }
    node(schema, path, Place::Root, problems);
}

/// Where a node of a schema stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    /// Within `allOf`, `anyOf`, `oneOf` or `not`, which only say more of what is said outside.
    Alternative,
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

fn node(schema: &Value, path: &str, place: Place, problems: &mut Problems) {
    let empty = Map::new();
    let fields = schema.as_object().unwrap_or(&empty);
    let flag = |field: &str| fields.get(field) == Some(&Value::Bool(true));
    if place == Place::Alternative {
        let only_outside = [
            "type",
            "description",
            "title",
            "default",
            "nullable",
            "additionalProperties",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-map-type",
            "x-kubernetes-validations",
        ];
        // An int-or-string says its two types so, and no other schema may.
        let is_allowed = |field: &str| field == "type" && path.contains("anyOf[");
        for field in only_outside
            .into_iter()
            .filter(|field| fields.contains_key(*field))
        {
            if !is_allowed(field) {
                problems.forbidden(format!("{path}.{field}"), "must be empty to be structural");
            }
        }
    } else {
        kind(fields, path, place, problems);
        lists(schema, fields, path, problems);
        default_value(schema, fields, path, place, problems);
        rules(fields, path, problems);
    }
    if fields.contains_key("$ref") {
        problems.forbidden(format!("{path}.$ref"), "$ref is not supported");
    }
    if flag("uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        problems.forbidden(format!("{path}.uniqueItems"), detail);
    }
    if let Some(pattern) = fields.get("pattern").and_then(Value::as_str)
        && let Err(error) = regex::Regex::new(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        problems.invalid(format!("{path}.pattern"), pattern, &detail);
    }
    let has_properties = fields
        .get("properties")
        .and_then(Value::as_object)
        .is_some_and(|some| !some.is_empty());
    match fields.get("additionalProperties") {
        Some(Value::Bool(false)) => problems.forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties cannot be set to false",
        ),
        Some(_) if has_properties => problems.forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ),
        Some(below) if below.is_object() => {
            node(
                below,
                &format!("{path}.additionalProperties"),
                Place::Field,
                problems,
            );
        }
        _ => {}
    }
    below(fields, path, place, problems);
}

fn below(fields: &Map<String, Value>, path: &str, place: Place, problems: &mut Problems) {
    let within = |of: Place| if place == Place::Alternative { place } else { of };
    for (name, below) in fields
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        // What metadata says of names is not a schema of its own.
        if !(place == Place::Root && name == "metadata") {
            node(
                below,
                &format!("{path}.properties[{name}]"),
                within(Place::Field),
                problems,
            );
        }
    }
    match fields.get("items") {
        Some(Value::Array(_)) => problems.forbidden(
            format!("{path}.items"),
            "items must be a schema object and not an array",
        ),
        Some(items) => node(items, &format!("{path}.items"), within(Place::Item), problems),
        None => {}
    }
    for word in ["allOf", "anyOf", "oneOf"] {
        for (index, below) in fields
            .get(word)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            node(
                below,
                &format!("{path}.{word}[{index}]"),
                Place::Alternative,
                problems,
            );
        }
    }
    if let Some(not) = fields.get("not") {
        node(not, &format!("{path}.not"), Place::Alternative, problems);
    }
}

fn kind(fields: &Map<String, Value>, path: &str, place: Place, problems: &mut Problems) {
    let flag = |field: &str| fields.get(field) == Some(&Value::Bool(true));
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    let at = format!("{path}.type");
    if flag("x-kubernetes-int-or-string") {
        if !kind.is_empty() {
            problems.forbidden(at, "must be empty if x-kubernetes-int-or-string is true");
        }
    } else if kind.is_empty() {
        // An array is not asked what it is; the root has been.
        if !flag("x-kubernetes-preserve-unknown-fields") {
            match place {
                Place::Field => problems.required(at, "must not be empty for specified object fields"),
                Place::Item => problems.required(at, "must not be empty for specified array items"),
                Place::Root | Place::Alternative => {}
            }
        }
    } else if !TYPES.contains(&kind) {
        problems.unsupported(at, kind, &TYPES);
    }
    if kind == "array" && !fields.contains_key("items") && !flag("x-kubernetes-preserve-unknown-fields") {
        problems.required(format!("{path}.items"), "must be specified");
    }
    if flag("x-kubernetes-embedded-resource") {
        if kind != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            problems.invalid(format!("{path}.type"), kind, detail);
        }
        if !fields.contains_key("properties") && !flag("x-kubernetes-preserve-unknown-fields") {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                 x-kubernetes-preserve-unknown-fields";
            problems.required(format!("{path}.properties"), detail);
        }
    }
}

fn lists(schema: &Value, fields: &Map<String, Value>, path: &str, problems: &mut Problems) {
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    let list_type = fields.get("x-kubernetes-list-type").and_then(Value::as_str);
    let keys = object::list(schema, "/x-kubernetes-list-map-keys");
    let keys_path = format!("{path}.x-kubernetes-list-map-keys");
    let type_path = format!("{path}.x-kubernetes-list-type");
    match list_type {
        None | Some("atomic" | "set" | "map") => {}
        Some(other) => problems.unsupported(type_path.as_str(), other, &["atomic", "map", "set"]),
    }
    if list_type.is_some() && kind != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        problems.invalid(format!("{path}.type"), kind, detail);
    }
    if list_type != Some("map") {
        if !keys.is_empty() {
            problems.invalid(
                type_path,
                list_type.unwrap_or_default(),
                "must be map if x-kubernetes-list-map-keys is non-empty",
            );
        }
    } else if keys.is_empty() {
        problems.required(keys_path, "must not be empty if x-kubernetes-list-type is map");
    } else {
        let required = object::list(schema, "/items/required");
        for (index, key) in keys.iter().enumerate() {
            let name = key.as_str().unwrap_or_default();
            let field = schema
                .pointer("/items/properties")
                .and_then(|fields| fields.get(name));
            match field {
                None => problems.invalid(
                    format!("{keys_path}[{index}]"),
                    name,
                    "entries must all be names of item properties",
                ),
                Some(field) if field.get("default").is_none() && !required.contains(key) => problems.required(
                    format!("{path}.items.properties[{name}].default"),
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                ),
                Some(_) => {}
            }
        }
    }
    match fields.get("x-kubernetes-map-type").and_then(Value::as_str) {
        None | Some("granular" | "atomic") => {}
        Some(other) => {
            problems.unsupported(
                format!("{path}.x-kubernetes-map-type"),
                other,
                &["atomic", "granular"],
            );
        }
    }
}

/// A default must itself be what the schema asks for.
fn default_value(
    schema: &Value,
    fields: &Map<String, Value>,
    path: &str,
    place: Place,
    problems: &mut Problems,
) {
    let Some(default) = fields.get("default") else {
        return;
    };
    let path = format!("{path}.default");
    if place == Place::Root {
        return problems.forbidden(path, "must not be set at the root");
    }
    // The schema is read without what says of the value that it is a whole one.
    let schema = Schema::parse(schema);
    let mut filled = default.clone();
    shape::default(&schema, &mut filled);
    let mut pruned = filled.clone();
    if shape::prune_value(&schema, &mut pruned).is_ok_and(|dropped| !dropped.is_empty()) {
        return problems.invalid(path, default.clone(), "must not have unknown fields");
    }
    let mut found = Problems::default();
    check::check(&schema, &filled, None, &mut found);
    if !found.is_empty() {
        problems.invalid(path, default.clone(), &found.to_string());
    }
}

fn rules(fields: &Map<String, Value>, path: &str, problems: &mut Problems) {
    let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let path = format!("{path}.x-kubernetes-validations[{index}]");
        let text = |field: &str| object::text(rule, &format!("/{field}"));
        match Rule::parse(rule) {
            _ if text("rule").trim().is_empty() => {
                problems.required(format!("{path}.rule"), "rule is not specified")
            }
            Err(why) => problems.invalid(format!("{path}.rule"), text("rule"), &why),
            Ok(read) => {
                if rule.get("optionalOldSelf").is_some() && !read.is_transition() {
                    let detail = "may not be set if oldSelf is not used in rule";
                    problems.invalid(format!("{path}.optionalOldSelf"), true, detail);
                }
            }
        }
        let message = text("message");
        if message.contains('\n') {
            problems.invalid(
                format!("{path}.message"),
                message,
                "message must not contain line breaks",
            );
        }
        let reasons = [
            "FieldValueRequired",
            "FieldValueInvalid",
            "FieldValueForbidden",
            "FieldValueDuplicate",
        ];
        let reason = text("reason");
        if !(reason.is_empty() || reasons.contains(&reason)) {
            problems.unsupported(format!("{path}.reason"), reason, &reasons);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        let mut definition = json!({
            "metadata": {"name": "widgets.a.io"},
            "spec": {
                "group": "a.io",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{
                    "name": "v1",
                    "served": true,
                    "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                    }}},
                }],
            },
        });
        default(&mut definition);
        definition
    }

    fn problems(definition: &Value) -> String {
        let mut problems = Problems::default();
        check(definition, &mut problems);
        problems.to_string()
    }

    #[test]
    fn a_sound_definition_is_completed() {
        let definition = definition();
        assert_eq!(problems(&definition), "[]");
        assert_eq!(definition["spec"]["names"]["singular"], "widget");
        assert_eq!(definition["spec"]["names"]["listKind"], "WidgetList");
        assert_eq!(definition["spec"]["conversion"]["strategy"], "None");
        assert_eq!(initial_status(&definition)["storedVersions"], json!(["v1"]));
    }

    #[test]
    fn what_is_wrong_with_a_definition_is_named() {
        for (pointer, value, expected) in [
            (
                "/metadata/name",
                json!("w"),
                "metadata.name: Invalid value: \"w\": must be spec.names.plural+\".\"+spec.group",
            ),
            (
                "/spec/scope",
                json!("Planet"),
                "spec.scope: Unsupported value: \"Planet\"",
            ),
            (
                "/spec/names/kind",
                json!("Wid get"),
                "spec.names.kind: Invalid value: \"Wid get\": may have mixed case",
            ),
            (
                "/spec/versions/0/storage",
                json!(false),
                "must have exactly one version marked as storage version",
            ),
            (
                "/spec/versions/0/schema",
                json!({}),
                "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
            ),
            (
                "/spec/conversion/strategy",
                json!("Webhook"),
                "this server calls no webhooks",
            ),
        ] {
            let mut definition = definition();
            *definition.pointer_mut(pointer).unwrap() = value;
            let found = problems(&definition);
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn schemas_must_be_structural() {
        let at = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
        for (spec, expected) in [
            (
                json!({}),
                ".type: Required value: must not be empty for specified object fields",
            ),
            (json!({"type": "thing"}), ".type: Unsupported value: \"thing\""),
            (
                json!({"type": "array"}),
                ".items: Required value: must be specified",
            ),
            (
                json!({"type": "array", "items": {}}),
                ".items.type: Required value: must not be empty for specified array items",
            ),
            (
                json!({"type": "object", "oneOf": [{"type": "object"}]}),
                ".oneOf[0].type: Forbidden: must be empty to be structural",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"a": {"type": "string"}}}),
                ".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ),
            (
                json!({"type": "object", "additionalProperties": false}),
                ".additionalProperties: Forbidden: additionalProperties cannot be set to false",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
                ".uniqueItems: Forbidden: uniqueItems cannot be set to true",
            ),
            (
                json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
                ".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ),
            (
                json!({"type": "string", "pattern": "("}),
                ".pattern: Invalid value: \"(\": must be a valid regular",
            ),
            (
                json!({"type": "integer", "default": "x"}),
                ".default: Invalid value: \"x\": <nil>: Invalid value: \"string\":  in body must be of type integer",
            ),
            (
                json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.a =="}]}),
                ".x-kubernetes-validations[0].rule: Invalid value: \"self.a ==\": compilation failed",
            ),
            (
                json!({"type": "object", "x-kubernetes-validations": [{"rule": "true", "optionalOldSelf": true}]}),
                ".x-kubernetes-validations[0].optionalOldSelf: Invalid value: true",
            ),
        ] {
            let mut definition = definition();
            *definition
                .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
                .unwrap() = spec;
            let found = problems(&definition);
            assert!(found.contains(&format!("{at}{expected}")), "{found}");
        }
    }

    #[test]
    fn what_is_established_stays() {
        let old = {
            let mut old = definition();
            old["status"] = json!({
                "conditions": [{"type": "Established", "status": "True"}],
                "storedVersions": ["v1"],
            });
            old
        };
        let mut new = old.clone();
        new["spec"]["scope"] = json!("Cluster");
        new["spec"]["versions"][0]["name"] = json!("v2");
        let mut problems = Problems::default();
        check_change(&old, &new, &mut problems);
        let found = problems.to_string();
        assert!(
            found.contains("spec.scope: Invalid value: \"Cluster\": field is immutable"),
            "{found}"
        );
        assert!(
            found.contains("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions"),
            "{found}"
        );
    }
}
