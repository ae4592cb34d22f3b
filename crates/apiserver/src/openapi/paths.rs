//! The paths of a document: what can be done to the objects of a kind, and with what parameters.

use serde_json::{Map, Value, json};

use super::schemas::{Components, exchanged, list_name, reference};
use crate::kinds::{Kind, Subresource};

const JSON: &[&str] = &["application/json", "application/yaml"];
/// No strategic merge patch: clients that see it here merge by these schemas instead of by what they are built with.
const PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
];

/// Parameters of every operation that writes.
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "orphanDependents",
    "propagationPolicy",
];

/// Adds the paths of a kind, below the path of its document.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    document: &str,
    kind: &Kind,
    schema: &str,
    components: &mut Components,
) {
    let builder = Builder {
        kind,
        schema,
        status: components.add_status(),
    };
    let scope = if kind.is_namespaced() {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let collection = format!("/{document}/{scope}{}", kind.plural);
    let item = format!("{collection}/{{name}}");
    let mut of_collection = Map::new();
    let mut of_item = Map::new();
    for verb in kind.verbs() {
        let (at, method, operation) = match *verb {
            "create" => (&mut of_collection, "post", builder.write("post", WRITE, JSON)),
            "list" => (&mut of_collection, "get", builder.list()),
            "deletecollection" => {
                let parameters = [LIST, DELETE].concat();
                let operation = builder.delete("deletecollection", &parameters);
                (&mut of_collection, "delete", operation)
            }
            "get" => (&mut of_item, "get", builder.read("get")),
            "update" => (&mut of_item, "put", builder.write("put", WRITE, JSON)),
            "patch" => (&mut of_item, "patch", builder.patch()),
            "delete" => (&mut of_item, "delete", builder.delete("delete", DELETE)),
            _ => continue,
        };
        at.insert(method.to_owned(), operation);
    }
    let mut put = |path: String, operations: Map<String, Value>, has_name: bool| {
        if operations.is_empty() {
            return;
        }
        let mut operations = operations;
        let mut parameters = Vec::new();
        if has_name {
            parameters.push(in_path("name", &format!("name of the {}", kind.kind)));
        }
        if kind.is_namespaced() && path.contains("{namespace}") {
            parameters.push(in_path(
                "namespace",
                "object name and auth scope, such as for teams and projects",
            ));
        }
        parameters.push(in_query("pretty"));
        operations.insert("parameters".to_owned(), parameters.into());
        paths.insert(path, Value::Object(operations));
    };
    put(collection, of_collection, false);
    put(item.clone(), of_item, true);
    if kind.is_namespaced() && kind.is_stored() {
        let everywhere = Map::from_iter([("get".to_owned(), builder.list())]);
        put(format!("/{document}/{}", kind.plural), everywhere, false);
    }
    for part in &kind.subresources {
        let Some(schema) = components.add_subresource(schema, *part) else {
            continue;
        };
        let builder = Builder {
            schema: &schema,
            ..builder
        };
        let operations = match part {
            Subresource::Status | Subresource::Scale => vec![
                ("get", builder.read("get")),
                ("put", builder.write("put", WRITE, JSON)),
                ("patch", builder.patch()),
            ],
            Subresource::Finalize => vec![("put", builder.write("put", WRITE, JSON))],
            _ => vec![("post", builder.write("post", WRITE, JSON))],
        };
        let operations = operations
            .into_iter()
            .map(|(method, operation)| (method.to_owned(), operation));
        put(format!("{item}/{}", part.segment()), operations.collect(), true);
    }
}

#[derive(Clone, Copy)]
struct Builder<'a> {
    kind: &'a Kind,
    schema: &'a str,
    status: &'a str,
}

impl Builder<'_> {
    fn operation(&self, action: &str, parameters: &[&str], response: &str) -> Value {
        let parameters = parameters.iter().map(|name| in_query(name)).collect::<Value>();
        let content = json!({"application/json": {"schema": reference(response)}});
        json!({
            "description": describe(action, &self.kind.kind),
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": exchanged(self.kind),
        })
    }

    fn read(&self, action: &str) -> Value {
        self.operation(action, &[], self.schema)
    }

    fn list(&self) -> Value {
        self.operation("list", LIST, &list_name(self.schema))
    }

    fn delete(&self, action: &str, parameters: &[&str]) -> Value {
        let response = if self.kind.returns_deleted && action == "delete" {
            self.schema
        } else {
            self.status
        };
        self.operation(action, parameters, response)
    }

    fn write(&self, action: &str, parameters: &[&str], media: &[&str]) -> Value {
        let mut operation = self.operation(action, parameters, self.schema);
        let content = media
            .iter()
            .map(|media| ((*media).to_owned(), json!({"schema": reference(self.schema)})));
        operation["requestBody"] = json!({"content": content.collect::<Map<_, _>>(), "required": true});
        operation
    }

    fn patch(&self) -> Value {
        let mut operation = self.operation("patch", &[WRITE, &["force"]].concat(), self.schema);
        let content = PATCHES.iter().map(|media| {
            let schema = json!({"schema": {"type": "object"}});
            ((*media).to_owned(), schema)
        });
        operation["requestBody"] = json!({"content": content.collect::<Map<_, _>>(), "required": true});
        operation
    }
}

fn describe(action: &str, kind: &str) -> String {
    match action {
        "post" => format!("create a {kind}"),
        "list" => format!("list or watch objects of kind {kind}"),
        "get" => format!("read the specified {kind}"),
        "put" => format!("replace the specified {kind}"),
        "patch" => format!("partially update the specified {kind}"),
        "deletecollection" => format!("delete collection of {kind}"),
        _ => format!("delete a {kind}"),
    }
}

fn in_path(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "description": description,
        "required": true,
        "schema": {"type": "string", "uniqueItems": true},
    })
}

fn in_query(name: &str) -> Value {
    let kind = match name {
        "allowWatchBookmarks" | "force" | "orphanDependents" | "sendInitialEvents" | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}
