//! Discovery: which groups, versions and resources there are, from the catalogue of kinds.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    kinds::{Catalogue, Kind, Subresource, Text, api_version},
    negotiate::{self, DiscoveryForm},
    server::{Options, reply},
    status::Error,
};

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

type Server = State<Arc<Options>>;

/// Answers `/api`.
pub(crate) async fn core(State(server): Server, headers: HeaderMap) -> Result<Response, Error> {
    Ok(match negotiate::discovery_form(&headers)? {
        DiscoveryForm::Aggregated(version) => aggregated(
            version,
            &server.catalogue,
            &[(String::new(), vec!["v1".to_owned()])],
        ),
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
pub(crate) async fn groups(State(server): Server, headers: HeaderMap) -> Result<Response, Error> {
    let groups = server.catalogue.groups();
    Ok(match negotiate::discovery_form(&headers)? {
        DiscoveryForm::Aggregated(version) => aggregated(version, &server.catalogue, &groups),
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
pub(crate) async fn group(State(server): Server, Path(name): Path<String>) -> Result<Response, Error> {
    let groups = server.catalogue.groups();
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
pub(crate) async fn core_resources(
    State(server): Server,
    Path(version): Path<String>,
) -> Result<Response, Error> {
    resources(&server.catalogue, "", &version)
}

/// Answers `/apis/{group}/{version}`.
pub(crate) async fn group_resources(
    State(server): Server,
    Path((group, version)): Path<(String, String)>,
) -> Result<Response, Error> {
    resources(&server.catalogue, &group, &version)
}

fn describe(name: &str, versions: &[String]) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(|one| version(one)).collect::<Value>(),
        "preferredVersion": versions.first().map(|first| version(first)),
    })
}

fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Result<Response, Error> {
    let mut resources = Vec::new();
    for kind in catalogue.of(group, version) {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.is_namespaced(),
            "kind": kind.kind,
            "verbs": kind.verbs(),
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = texts(&kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = texts(&kind.categories);
        }
        resources.push(resource);
        for part in &kind.subresources {
            let shape = shape(&kind, *part);
            let mut resource = json!({
                "name": format!("{}/{}", kind.plural, part.segment()),
                "singularName": "",
                "namespaced": kind.is_namespaced(),
                "kind": shape.kind,
                "verbs": shape.verbs,
            });
            if shape.group != kind.group {
                resource["group"] = shape.group.into();
                resource["version"] = shape.version.into();
            }
            resources.push(resource);
        }
    }
    if resources.is_empty() {
        return Err(Error::NoSuchPath);
    }
    let list = json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version(group, version),
        "resources": resources,
    });
    Ok(reply(StatusCode::OK, &list, false))
}

/// What is exchanged at a subresource.
struct Shape<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    verbs: &'static [&'static str],
}

const READ_AND_WRITE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];

fn shape(kind: &Kind, part: Subresource) -> Shape<'_> {
    let own = |verbs| Shape {
        group: &kind.group,
        version: &kind.version,
        kind: &kind.kind,
        verbs,
    };
    let foreign = |group, version, kind, verbs| Shape {
        group,
        version,
        kind,
        verbs,
    };
    match part {
        Subresource::Status => own(READ_AND_WRITE),
        Subresource::Log => own(&["get"]),
        Subresource::Finalize => own(&["update"]),
        Subresource::Binding => foreign("", "v1", "Binding", &["create"]),
        Subresource::Eviction => foreign("policy", "v1", "Eviction", &["create"]),
        Subresource::Scale => foreign("autoscaling", "v1", "Scale", READ_AND_WRITE),
        Subresource::Exec => foreign("", "v1", "PodExecOptions", CONNECT),
        Subresource::Attach => foreign("", "v1", "PodAttachOptions", CONNECT),
        Subresource::PortForward => foreign("", "v1", "PodPortForwardOptions", CONNECT),
        Subresource::Token => foreign("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
    }
}

fn texts(texts: &[Text]) -> Value {
    texts.iter().map(AsRef::as_ref).collect()
}

fn aggregated(version: &'static str, catalogue: &Catalogue, groups: &[(String, Vec<String>)]) -> Response {
    let items = groups.iter().map(|(group, versions)| {
        let versions = versions.iter().map(|version| {
            let kinds = catalogue.of(group, version);
            let resources = kinds
                .iter()
                .map(|kind| aggregated_resource(kind))
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

fn aggregated_resource(kind: &Kind) -> Value {
    let exchanged =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": exchanged(&kind.group, &kind.version, &kind.kind),
        "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs(),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = texts(&kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = texts(&kind.categories);
    }
    if !kind.subresources.is_empty() {
        let parts = kind.subresources.iter().map(|part| {
            let shape = shape(kind, *part);
            json!({
                "subresource": part.segment(),
                "responseKind": exchanged(shape.group, shape.version, shape.kind),
                "verbs": shape.verbs,
            })
        });
        resource["subresources"] = parts.collect();
    }
    resource
}
