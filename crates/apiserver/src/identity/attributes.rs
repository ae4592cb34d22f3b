//! What a request wants to do, in the terms that roles are written in. Read from method and URL
//! alone: it is decided before anybody asks whether there is such a kind. Pure.

use http::Method;

use crate::request::{Parameters, decode};

/// Parts of a namespace that have a path of their own; any other segment there is a resource.
const OF_NAMESPACE: [&str; 2] = ["status", "finalize"];

/// What a request wants to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `get`, `list`, `deletecollection`, …; for what is no resource, the method in small letters.
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) version: String,
    /// The plural; empty for what is no resource.
    pub(crate) resource: String,
    pub(crate) subresource: String,
    /// Empty for cluster-scoped objects, and for all namespaces.
    pub(crate) namespace: String,
    /// Empty for a collection.
    pub(crate) name: String,
    /// Where, for what is no resource.
    pub(crate) path: String,
}

impl Attributes {
    /// Of a request.
    pub(crate) fn of(method: &Method, path: &str, parameters: &Parameters) -> Self {
        let elsewhere = || Self {
            verb: method.as_str().to_ascii_lowercase(),
            path: path.to_owned(),
            ..Self::default()
        };
        // What cannot be read is no name; the handler refuses it, or serves nothing there.
        let segments = path.trim_matches('/').split('/').map(decode);
        let Some(segments) = segments.collect::<Option<Vec<_>>>() else {
            return elsewhere();
        };
        let segments = segments.iter().map(String::as_str).collect::<Vec<_>>();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return elsewhere(),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, resource, tail @ ..] if !OF_NAMESPACE.contains(resource) => {
                (*namespace, [&[*resource], tail].concat())
            }
            ["namespaces", namespace, ..] => (*namespace, rest.to_vec()),
            _ => ("", rest.to_vec()),
        };
        let at = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        let mut name = at(1);
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD if !name.is_empty() => "get",
            Method::GET | Method::HEAD if parameters.flag("watch") => "watch",
            Method::GET | Method::HEAD => "list",
            _ => "",
        };
        // Who may see one object may list with a selector that leaves but that one.
        if matches!(verb, "list" | "watch") {
            name = only_name(parameters.text("fieldSelector"));
        }
        Self {
            verb: verb.to_owned(),
            group: group.to_owned(),
            version: version.to_owned(),
            resource: at(0),
            subresource: at(2),
            namespace: namespace.to_owned(),
            name,
            path: String::new(),
        }
    }

    pub(crate) const fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }

    /// `pods`, `pods/log`.
    pub(crate) fn combined_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// Whether the request changes something, or runs something.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
            || matches!(self.subresource.as_str(), "exec" | "attach" | "portforward")
    }

    /// Who may not do it, and what, in Kubernetes' words.
    pub(crate) fn refusal(&self, user: &str) -> String {
        if !self.is_resource() {
            return format!("User {user:?} cannot {} path {:?}", self.verb, self.path);
        }
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", self.namespace)
        };
        format!(
            "User {user:?} cannot {} resource {:?} in API group {:?} {place}",
            self.verb,
            self.combined_resource(),
            self.group
        )
    }
}

/// The name that a field selector demands, if it demands one.
fn only_name(selector: &str) -> String {
    let mut terms = selector.split(',').map(str::trim);
    let name = terms.find_map(|term| {
        let value = term.strip_prefix("metadata.name")?.strip_prefix('=')?;
        Some(value.strip_prefix('=').unwrap_or(value))
    });
    name.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(method: &str, uri: &str) -> Attributes {
        let uri: http::Uri = uri.parse().unwrap();
        let method = method.parse().unwrap();
        Attributes::of(&method, uri.path(), &Parameters::parse(&uri).unwrap())
    }

    #[test]
    fn a_request_is_read_as_what_it_wants_to_do() {
        for (request, expected) in [
            ("GET /api/v1/namespaces/a/pods", "list  pods a -"),
            ("GET /api/v1/pods?watch=1", "watch  pods - -"),
            ("GET /api/v1/namespaces/a/pods/p", "get  pods a p"),
            ("GET /api/v1/namespaces/a/pods/p/log", "get  pods/log a p"),
            (
                "GET /api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp",
                "list  pods a p",
            ),
            ("POST /api/v1/namespaces/a/pods/p/exec", "create  pods/exec a p"),
            ("DELETE /api/v1/namespaces/a/pods", "deletecollection  pods a -"),
            ("DELETE /api/v1/namespaces/a", "delete  namespaces a a"),
            (
                "PUT /api/v1/namespaces/a/finalize",
                "update  namespaces/finalize a a",
            ),
            (
                "PATCH /apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch apps deployments/scale a d",
            ),
            ("GET /api/v1/nodes/n", "get  nodes - n"),
        ] {
            let (method, uri) = request.split_once(' ').unwrap();
            let is = attributes(method, uri);
            let dash = |text: &str| {
                if text.is_empty() {
                    "-".to_owned()
                } else {
                    text.to_owned()
                }
            };
            let is = format!(
                "{} {} {} {} {}",
                is.verb,
                is.group,
                is.combined_resource(),
                dash(&is.namespace),
                dash(&is.name)
            );
            assert_eq!(is, expected, "{request}");
        }
    }

    #[test]
    fn what_is_no_resource_is_its_path() {
        for path in [
            "/version",
            "/api",
            "/api/v1",
            "/apis/apps/v1",
            "/healthz",
            "/openapi/v3",
        ] {
            let is = attributes("GET", path);
            assert!(!is.is_resource(), "{path}");
            assert_eq!((is.verb.as_str(), is.path.as_str()), ("get", path));
        }
        let refusal = attributes("GET", "/metrics").refusal("a");
        assert_eq!(refusal, "User \"a\" cannot get path \"/metrics\"");
    }

    #[test]
    fn a_refusal_says_who_what_and_where() {
        let refusal = |method, uri| attributes(method, uri).refusal("system:serviceaccount:a:b");
        assert_eq!(
            refusal("GET", "/api/v1/namespaces/default/pods"),
            "User \"system:serviceaccount:a:b\" cannot list resource \"pods\" in API group \"\" in the \
             namespace \"default\""
        );
        assert_eq!(
            refusal("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
            "User \"system:serviceaccount:a:b\" cannot create resource \"clusterroles\" in API group \
             \"rbac.authorization.k8s.io\" at the cluster scope"
        );
    }
}
