//! What a CustomResourceDefinition says: its names, and a row of the catalogue for each version
//! that it serves.

use std::sync::Arc;

use serde_json::Value;

use super::{columns, path::Path, schema::Schema};
use crate::{
    columns::Columns,
    kinds::{Field, Handling, Kind, KindRef, Scale, ScaleSelector, Scope, Storage, Subresource, Text},
    object,
};

/// The names of a definition, as it wants them or as it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) group: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) kind: String,
    pub(super) list_kind: String,
    pub(super) short_names: Vec<String>,
    categories: Vec<String>,
}

impl Names {
    pub(super) fn of(definition: &Value) -> Self {
        let text = |field: &str| object::text(definition, &format!("/spec/names/{field}")).to_owned();
        let texts = |field: &str| {
            let list = object::list(definition, &format!("/spec/names/{field}"));
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            group: object::text(definition, "/spec/group").to_owned(),
            plural: text("plural"),
            singular: text("singular"),
            kind: text("kind"),
            list_kind: text("listKind"),
            short_names: texts("shortNames"),
            categories: texts("categories"),
        }
    }

    /// What is in the way of these names, when something is: another kind of the group that has
    /// one of them. Reason and message are those of the condition that says so.
    pub(super) fn conflict(&self, served: &[KindRef]) -> Option<(&'static str, String)> {
        let others = served
            .iter()
            .filter(|kind| kind.group == self.group && kind.plural != self.plural && kind.is_stored());
        let (mut resources, mut kinds) = (Vec::new(), Vec::new());
        for other in others {
            resources.extend([&other.plural, &other.singular].map(AsRef::<str>::as_ref));
            resources.extend(other.short_names.iter().map(AsRef::<str>::as_ref));
            kinds.extend([&other.kind, &other.list_kind].map(AsRef::<str>::as_ref));
        }
        let is_taken = |taken: &[&str], name: &String| !name.is_empty() && taken.contains(&name.as_str());
        let in_use = |name: &str| format!("\"{name}\" is already in use");
        let of_resources = [
            ("PluralConflict", &self.plural),
            ("SingularConflict", &self.singular),
        ];
        let of_resources = of_resources
            .into_iter()
            .chain(self.short_names.iter().map(|name| ("ShortNamesConflict", name)));
        let of_kinds = [
            ("KindConflict", &self.kind),
            ("ListKindConflict", &self.list_kind),
        ];
        of_resources
            .map(|(reason, name)| (reason, name, &resources))
            .chain(of_kinds.map(|(reason, name)| (reason, name, &kinds)))
            .find(|(_, name, taken)| is_taken(taken, name))
            .map(|(reason, name, _)| (reason, in_use(name)))
    }
}

/// The versions that a definition serves, as rows of the catalogue.
pub(super) fn rows(definition: &Value) -> Vec<KindRef> {
    let names = Names::of(definition);
    let versions = object::list(definition, "/spec/versions");
    let flag = |version: &Value, field: &str| version.get(field) == Some(&Value::Bool(true));
    let stored = versions.iter().find(|version| flag(version, "storage"));
    let stored = stored.map_or("", |version| object::text(version, "/name"));
    let served = versions.iter().filter(|version| flag(version, "served"));
    let rows = served.map(|version| Arc::new(row(definition, &names, version, stored)));
    rows.collect()
}

fn row(definition: &Value, names: &Names, version: &Value, stored: &str) -> Kind {
    let texts = |texts: &[String]| texts.iter().cloned().map(Text::Owned).collect();
    let name = object::text(version, "/name").to_owned();
    let has_status = version.pointer("/subresources/status").is_some();
    let scale = version.pointer("/subresources/scale").and_then(scale);
    let subresources = [
        has_status.then_some(Subresource::Status),
        scale.is_some().then_some(Subresource::Scale),
    ];
    let fields = object::list(version, "/selectableFields")
        .iter()
        .filter_map(|field| {
            let path = object::text(field, "/jsonPath");
            Some(Field {
                name: path.trim_start_matches('.').to_owned().into(),
                pointer: Path::parse(path).ok()?.pointer()?.into(),
                absent: "",
            })
        });
    let schema = version.pointer("/schema/openAPIV3Schema");
    Kind {
        list_kind: names.list_kind.clone().into(),
        short_names: texts(&names.short_names),
        categories: texts(&names.categories),
        scope: match object::text(definition, "/spec/scope") {
            "Cluster" => Scope::Cluster,
            _ => Scope::Namespaced,
        },
        handling: if object::is_terminating(definition) {
            Handling::Leaving
        } else {
            Handling::Stored
        },
        subresources: subresources.into_iter().flatten().collect(),
        columns: Columns::Custom(columns::of(version)),
        fields: fields.collect(),
        has_generation: true,
        scale,
        deprecation: deprecation(names, version),
        schema: Some(Arc::new(schema.map(Schema::parse).unwrap_or_default())),
        storage: Some(Storage {
            group: names.group.clone().into(),
            api_version: format!("{}/{stored}", names.group),
            read: |_| {},
            write: |_| {},
        }),
        ..Kind::new(
            (names.group.clone(), name),
            names.plural.clone(),
            names.singular.clone(),
            names.kind.clone(),
        )
    }
}

fn deprecation(names: &Names, version: &Value) -> Option<String> {
    if version.get("deprecated") != Some(&Value::Bool(true)) {
        return None;
    }
    let warning = version
        .get("deprecationWarning")
        .and_then(Value::as_str)
        .map(str::to_owned);
    warning.or_else(|| {
        let (group, name, kind) = (&names.group, object::text(version, "/name"), &names.kind);
        Some(format!("{group}/{name} {kind} is deprecated"))
    })
}

fn scale(declared: &Value) -> Option<Scale> {
    let pointer = |field: &str| Path::parse(object::text(declared, field)).ok()?.pointer();
    Some(Scale {
        replicas: pointer("/specReplicasPath")?.into(),
        current: pointer("/statusReplicasPath")?.into(),
        selector: pointer("/labelSelectorPath")
            .filter(|pointer| !pointer.is_empty())
            .map(|pointer| ScaleSelector::Text(pointer.into())),
    })
}
