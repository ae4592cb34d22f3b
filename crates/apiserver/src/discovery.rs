//! Discovery: which groups, versions and resources there are, from the table of kinds.

use axum::{extract::Path, response::Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    kinds::{self, Kind, Subresource},
    negotiate::{self, DiscoveryForm},
    server::reply,
    status::Error,
};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Answers `/version`. The version is that of the Kubernetes API that is spoken.
pub(crate) async fn version() -> Response {
    let version = json!({
        "major": "1",
        "minor": "34",
        "gitVersion": concat!("v1.34.0+coracle.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    });
    reply(StatusCode::OK, &version, false)
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Answers `/api`.
pub(crate) async fn core(headers: HeaderMap) -> Result<Response, Error> {
    Ok(match negotiate::discovery_form(&headers)? {
        DiscoveryForm::Aggregated(version) => aggregated(version, &[("", vec!["v1"])]),
        DiscoveryForm::Plain => {
            let versions = json!({
                "kind": "APIVersions",
                "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
            });
            reply(StatusCode::OK, &versions, false)
        }
    })
}

/// Answers `/apis`.
pub(crate) async fn groups(headers: HeaderMap) -> Result<Response, Error> {
    let groups = kinds::groups();
    Ok(match negotiate::discovery_form(&headers)? {
        DiscoveryForm::Aggregated(version) => aggregated(version, &groups),
        DiscoveryForm::Plain => {
            let groups: Value = groups
                .iter()
                .map(|(name, versions)| describe(name, versions))
                .collect();
            let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups});
            reply(StatusCode::OK, &list, false)
        }
    })
}

/// Answers `/apis/{group}`.
pub(crate) async fn group(Path(name): Path<String>) -> Result<Response, Error> {
    let groups = kinds::groups();
    let (name, versions) = groups
        .iter()
        .find(|(group, _)| *group == name)
        .ok_or(Error::NoSuchPath)?;
    let mut group = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(group), Value::Object(described)) = (&mut group, describe(name, versions)) {
        group.extend(described);
    }
    Ok(reply(StatusCode::OK, &group, false))
}

/// Answers `/api/{version}`.
pub(crate) async fn core_resources(Path(version): Path<String>) -> Result<Response, Error> {
    resources("", &version)
}

/// Answers `/apis/{group}/{version}`.
pub(crate) async fn group_resources(
    Path((group, version)): Path<(String, String)>,
) -> Result<Response, Error> {
    resources(&group, &version)
}

fn describe(name: &str, versions: &[&str]) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(|one| version(one)).collect::<Value>(),
        "preferredVersion": versions.first().map(|first| version(first)),
    })
}

fn resources(group: &str, version: &str) -> Result<Response, Error> {
    let mut resources = Vec::new();
    for kind in kinds::of(group, version) {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.is_namespaced(),
            "kind": kind.kind,
            "verbs": verbs(kind),
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = kind.short_names.into();
        }
        if !kind.categories.is_empty() {
            resource["categories"] = kind.categories.into();
        }
        resources.push(resource);
        for part in kind.subresources {
            let shape = shape(kind, *part);
            let mut resource = json!({
                "name": format!("{}/{}", kind.plural, part.segment()),
                "singularName": "",
                "namespaced": kind.is_namespaced(),
                "kind": shape.kind,
                "verbs": shape.verbs,
            });
            if shape.group != kind.group {
                resource["group"] = shape.group.into();
                resource["version"] = "v1".into();
            }
            resources.push(resource);
        }
    }
    if resources.is_empty() {
        return Err(Error::NoSuchPath);
    }
    let name = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let list =
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources});
    Ok(reply(StatusCode::OK, &list, false))
}

/// A namespace is the one kind that is not deleted by the collection.
fn verbs(kind: &Kind) -> Value {
    let all = VERBS
        .iter()
        .filter(|verb| **verb != "deletecollection" || *kind != kinds::NAMESPACES);
    all.copied().collect()
}

/// What is exchanged at a subresource.
struct Shape {
    group: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

fn shape(kind: &Kind, part: Subresource) -> Shape {
    let of = |name, verbs| Shape {
        group: kind.group,
        kind: name,
        verbs,
    };
    match part {
        Subresource::Status => of(kind.kind, &["get", "patch", "update"]),
        Subresource::Log => of(kind.kind, &["get"]),
        Subresource::Finalize => of(kind.kind, &["update"]),
        Subresource::Binding => of("Binding", &["create"]),
        Subresource::Eviction => Shape {
            group: "policy",
            kind: "Eviction",
            verbs: &["create"],
        },
    }
}

fn aggregated(version: &'static str, groups: &[(&str, Vec<&str>)]) -> Response {
    let items = groups.iter().map(|(group, versions)| {
        let versions = versions.iter().map(|version| {
            let resources = kinds::of(group, version)
                .map(aggregated_resource)
                .collect::<Value>();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        });
        let versions: Value = versions.collect();
        let metadata = if group.is_empty() {
            json!({})
        } else {
            json!({"name": group})
        };
        json!({"metadata": metadata, "versions": versions})
    });
    let items: Value = items.collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let mut response = reply(StatusCode::OK, &list, false);
    let media = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media));
    response
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let exchanged = |group: &str, name: &str| json!({"group": group, "version": kind.version, "kind": name});
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": exchanged(kind.group, kind.kind),
        "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = kind.short_names.into();
    }
    if !kind.categories.is_empty() {
        resource["categories"] = kind.categories.into();
    }
    if !kind.subresources.is_empty() {
        let parts = kind.subresources.iter().map(|part| {
            let shape = shape(kind, *part);
            json!({
                "subresource": part.segment(),
                "responseKind": exchanged(shape.group, shape.kind),
                "verbs": shape.verbs,
            })
        });
        resource["subresources"] = parts.collect();
    }
    resource
}
