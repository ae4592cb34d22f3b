//! A container's environment variables, as Kubernetes makes them, on top of a clean base.
//!
//! Pure. The base holds what programs need on this machine and nothing else of the environment that the server
//! was started in: that one may hold its user's secrets.

use std::collections::{BTreeMap, HashMap};

use coracle_api::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, EnvVarSource, Pod},
    apimachinery::pkg::api::resource::Quantity as Amount,
};

use super::{
    context::ADDRESS,
    objects::{Missing, Objects, Reference},
};

/// Why a container has no environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Something it refers to is not there.
    #[error("{0}")]
    Missing(Missing),
    /// A field or resource that does not exist, or is not offered.
    #[error("variable `{variable}` refers to `{field}`, which Pods do not offer to their containers")]
    UnknownField {
        /// The variable's name.
        variable: String,
        /// What it asks for.
        field: String,
    },
}

/// What the node knows and a container may ask for.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) node: &'a str,
    /// The Pod's address.
    pub(crate) address: &'a str,
    /// What `limits.cpu` and `limits.memory` mean for a container without limits.
    pub(crate) allocatable: &'a BTreeMap<String, Amount>,
}

/// Variables of the server that programs in Pods need as well: where the network and packages are.
pub(crate) fn is_passed_on(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "all_proxy",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "CURL_CA_BUNDLE",
        "LANG",
        "LANGUAGE",
        "NODE_EXTRA_CA_CERTS",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TZ",
        "UV_DEFAULT_INDEX",
        "UV_INDEX",
    ];
    const PREFIXES: [&str; 3] = ["LC_", "PIP_", "UV_INDEX_"];
    NAMES.contains(&name)
        || NAMES[..4].contains(&name.to_lowercase().as_str())
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The container's own variables after the base's, each name once, references expanded.
pub(crate) fn environment(
    base: Vec<(String, String)>,
    container: &Container,
    facts: &Facts<'_>,
    objects: &Objects,
) -> Result<Vec<(String, String)>, Error> {
    let mut variables = Variables::default();
    base.into_iter()
        .for_each(|(name, value)| variables.set(name, value));
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let references = [
            source
                .config_map_ref
                .as_ref()
                .map(|from| (Reference::ConfigMap(from.name.clone()), from.optional)),
            source
                .secret_ref
                .as_ref()
                .map(|from| (Reference::Secret(from.name.clone()), from.optional)),
        ];
        for (reference, optional) in references.into_iter().flatten() {
            match objects.values(&reference) {
                Ok(values) => {
                    for (key, value) in values {
                        variables.set(format!("{prefix}{key}"), text(value));
                    }
                }
                Err(_) if optional == Some(true) => {}
                Err(missing) => return Err(Error::Missing(missing)),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => from_source(&variable.name, source, container, facts, objects)?,
            (Some(value), None) => Some(expand(value, |name| variables.get(name))),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            variables.set(variable.name.clone(), value);
        }
    }
    Ok(variables.list)
}

/// `None` for an optional reference to nothing.
fn from_source(
    variable: &str,
    source: &EnvVarSource,
    container: &Container,
    facts: &Facts<'_>,
    objects: &Objects,
) -> Result<Option<String>, Error> {
    let unknown = |field: &str| Error::UnknownField {
        variable: variable.to_owned(),
        field: field.to_owned(),
    };
    let references = [
        source
            .config_map_key_ref
            .as_ref()
            .map(|from| (Reference::ConfigMap(from.name.clone()), &from.key, from.optional)),
        source
            .secret_key_ref
            .as_ref()
            .map(|from| (Reference::Secret(from.name.clone()), &from.key, from.optional)),
    ];
    if let Some((reference, key, optional)) = references.into_iter().flatten().next() {
        return match objects.value(&reference, key) {
            Ok(value) => Ok(Some(text(value))),
            Err(_) if optional == Some(true) => Ok(None),
            Err(missing) => Err(Error::Missing(missing)),
        };
    }
    if let Some(field) = &source.field_ref {
        let value = pod_field(&field.field_path, facts).ok_or_else(|| unknown(&field.field_path))?;
        return Ok(Some(value));
    }
    if let Some(resource) = &source.resource_field_ref {
        let divisor = resource
            .divisor
            .as_ref()
            .map_or("1", |divisor| divisor.0.as_str());
        let of = match &resource.container_name {
            Some(name) => facts
                .pod
                .spec
                .iter()
                .flat_map(|spec| &spec.containers)
                .find(|other| other.name == *name)
                .ok_or_else(|| unknown(&resource.resource))?,
            None => container,
        };
        let value = resource_field(&resource.resource, divisor, of, facts)
            .ok_or_else(|| unknown(&resource.resource))?;
        return Ok(Some(value));
    }
    Err(unknown("a source of this kind"))
}

/// A field that the downward API offers.
pub(crate) fn pod_field(path: &str, facts: &Facts<'_>) -> Option<String> {
    let metadata = &facts.pod.metadata;
    let of = |map: &Option<BTreeMap<String, String>>, key: &str| {
        let key = key.strip_suffix("']")?;
        Some(
            map.as_ref()
                .and_then(|map| map.get(key))
                .cloned()
                .unwrap_or_default(),
        )
    };
    let all = |map: &Option<BTreeMap<String, String>>| {
        let lines = map
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value:?}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    if let Some(key) = path.strip_prefix("metadata.labels['") {
        return of(&metadata.labels, key);
    }
    if let Some(key) = path.strip_prefix("metadata.annotations['") {
        return of(&metadata.annotations, key);
    }
    let account = facts
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.clone());
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => Some(all(&metadata.labels)),
        "metadata.annotations" => Some(all(&metadata.annotations)),
        "spec.nodeName" => Some(facts.node.to_owned()),
        "spec.serviceAccountName" => Some(account.unwrap_or_else(|| "default".to_owned())),
        "status.hostIP" | "status.hostIPs" => Some(ADDRESS.to_owned()),
        "status.podIP" | "status.podIPs" => Some(facts.address.to_owned()),
        _ => None,
    }
}

/// `limits.cpu` and the like, in units of `divisor`, rounded up.
pub(crate) fn resource_field(
    field: &str,
    divisor: &str,
    container: &Container,
    facts: &Facts<'_>,
) -> Option<String> {
    let (list, resource) = field.split_once('.')?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref()?.get(resource));
    let requests = resources.and_then(|resources| resources.requests.as_ref()?.get(resource));
    let amount = match list {
        "limits" => limits.or_else(|| facts.allocatable.get(resource)),
        "requests" => requests.or(limits),
        _ => return None,
    };
    let amount: Quantity = amount
        .map_or_else(|| Ok(Quantity::default()), |amount| amount.0.parse())
        .ok()?;
    let divisor: Quantity = divisor.parse().ok()?;
    let divisor = if divisor.milli() == 0 {
        1000
    } else {
        divisor.milli()
    };
    let (whole, rest) = (
        amount.milli().div_euclid(divisor),
        amount.milli().rem_euclid(divisor),
    );
    Some((whole + i128::from(rest > 0)).to_string())
}

/// `$(NAME)` becomes the value of a variable that exists, and stays as it is otherwise; `$$` is a dollar sign.
pub(crate) fn expand<'a>(text: &str, variable: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variable(name) {
                Some(value) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Variables in order, each name once; a later value takes an earlier one's place.
#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        if let Some(&place) = self.places.get(&name) {
            self.list[place].1 = value;
        } else {
            self.places.insert(name.clone(), self.list.len());
            self.list.push((name, value));
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|&place| self.list[place].1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(container: Value, expected: &str) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a/b": "c"}},
            "spec": {"containers": [], "serviceAccountName": "s"},
        }))
        .unwrap();
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).unwrap();
        let allocatable = BTreeMap::from([("cpu".to_owned(), Amount("4".to_owned()))]);
        let facts = Facts {
            pod: &pod,
            node: "here",
            address: "127.0.0.1",
            allocatable: &allocatable,
        };
        let objects = Objects::default()
            .with_config_map("cm", &[("one", "1"), ("two", "2")])
            .with_secret("sec", &[("key", "hidden")]);
        let base = vec![("PATH".to_owned(), "/bin".to_owned())];
        let found = match environment(base, &container, &facts, &objects) {
            Ok(variables) => variables
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn values_refer_to_what_stands_before_them() {
        check(
            json!({"env": [
                {"name": "A", "value": "x"},
                {"name": "B", "value": "$(A)-$(C)-$$(A)-$-$("},
                {"name": "C", "value": "late"},
                {"name": "PATH", "value": "/opt:$(PATH)"},
                {"name": "EMPTY"},
            ]}),
            "PATH=/opt:/bin A=x B=x-$(C)-$(A)-$-$( C=late EMPTY=",
        );
    }

    #[test]
    fn config_maps_and_secrets_give_values() {
        check(
            json!({
                "envFrom": [{"prefix": "CM_", "configMapRef": {"name": "cm"}}],
                "env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "key"}}}],
            }),
            "PATH=/bin CM_one=1 CM_two=2 S=hidden",
        );
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        check(
            json!({"envFrom": [{"secretRef": {"name": "none"}}]}),
            "Secret `none` does not exist",
        );
        check(
            json!({"env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "other"}}}]}),
            "Secret `sec` has no key `other`",
        );
        check(
            json!({
                "envFrom": [{"configMapRef": {"name": "none", "optional": true}}],
                "env": [{"name": "S", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x", "optional": true}}}],
            }),
            "PATH=/bin",
        );
    }

    #[test]
    fn the_downward_api_tells_a_container_about_its_pod() {
        let field =
            |path: &str| json!({"env": [{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]});
        check(field("metadata.name"), "PATH=/bin V=p");
        check(field("metadata.labels['a/b']"), "PATH=/bin V=c");
        check(field("metadata.annotations['x']"), "PATH=/bin V=");
        check(field("spec.nodeName"), "PATH=/bin V=here");
        check(field("status.podIP"), "PATH=/bin V=127.0.0.1");
        check(
            field("spec.volumes"),
            "variable `V` refers to `spec.volumes`, which Pods do not offer to their containers",
        );
    }

    #[test]
    fn resources_are_told_in_units_of_the_divisor() {
        let resource = |field: &str, divisor: &str| {
            json!({
                "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "250m"}},
                "env": [{"name": "V", "valueFrom": {"resourceFieldRef": {"resource": field, "divisor": divisor}}}],
            })
        };
        check(resource("limits.memory", "1Mi"), "PATH=/bin V=1024");
        check(resource("requests.memory", "0"), "PATH=/bin V=1073741824");
        check(resource("requests.cpu", "1m"), "PATH=/bin V=250");
        check(resource("requests.cpu", "1"), "PATH=/bin V=1");
        check(resource("limits.cpu", "1"), "PATH=/bin V=4");
    }

    #[test]
    fn only_the_network_and_packages_are_passed_on_from_the_server() {
        for name in [
            "HTTPS_PROXY",
            "no_proxy",
            "PIP_INDEX_URL",
            "SSL_CERT_FILE",
            "LC_ALL",
            "UV_INDEX_URL",
        ] {
            assert!(is_passed_on(name), "{name}");
        }
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "HOME",
            "GITHUB_TOKEN",
            "UV_PUBLISH_TOKEN",
            "VIRTUAL_ENV",
        ] {
            assert!(!is_passed_on(name), "{name}");
        }
    }
}
