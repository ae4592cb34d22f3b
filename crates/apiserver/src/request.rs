//! What a request names: the object or collection in its path, and the parameters of its query.

use axum::extract::Query;
use http::Uri;

use crate::{
    kinds::{Catalogue, KindRef, NAMESPACES, Subresource},
    status::Error,
    validation::Problems,
};

/// What a path names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) kind: KindRef,
    /// Empty for cluster-scoped kinds, and for all namespaces.
    pub(crate) namespace: String,
    /// Empty for a collection.
    pub(crate) name: String,
    pub(crate) subresource: Option<Subresource>,
}

impl Target {
    /// From the path of a request, percent-encoded as it came.
    pub(crate) fn parse(catalogue: &Catalogue, path: &str) -> Result<Self, Error> {
        let segments = path
            .trim_matches('/')
            .split('/')
            .map(decode)
            .collect::<Option<Vec<_>>>();
        let segments = segments.ok_or(Error::NoSuchPath)?;
        let segments = segments.iter().map(String::as_str).collect::<Vec<_>>();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !group.is_empty() => (*group, *version, rest),
            _ => return Err(Error::NoSuchPath),
        };
        let find = |plural: &str| catalogue.at_path(group, version, plural).ok_or(Error::NoSuchPath);
        let (kind, namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if !is_part_of_namespace(group, plural) => {
                let kind = find(plural)?;
                if !kind.is_namespaced() {
                    return Err(Error::NoSuchPath);
                }
                (kind, *namespace, rest)
            }
            [plural, rest @ ..] => (find(plural)?, "", rest),
            [] => return Err(Error::NoSuchPath),
        };
        let (name, subresource) = match rest {
            [] => ("", None),
            [name] => (*name, None),
            [name, segment] => {
                let part = kind
                    .subresources
                    .iter()
                    .copied()
                    .find(|part| part.segment() == *segment);
                (*name, Some(part.ok_or(Error::NoSuchPath)?))
            }
            _ => return Err(Error::NoSuchPath),
        };
        // An object of a namespaced kind cannot be named without its namespace.
        if (!rest.is_empty() && name.is_empty())
            || (kind.is_namespaced() && namespace.is_empty() && !name.is_empty())
        {
            return Err(Error::NoSuchPath);
        }
        Ok(Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource,
        })
    }

    pub(crate) const fn is_collection(&self) -> bool {
        self.name.is_empty()
    }

    /// The namespace to list, none for all.
    pub(crate) fn scope(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }
}

/// `namespaces/x/status` is a part of the namespace `x`, not a kind in it.
fn is_part_of_namespace(group: &str, segment: &str) -> bool {
    group.is_empty()
        && NAMESPACES
            .subresources
            .iter()
            .any(|part| part.segment() == segment)
}

pub(crate) fn decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The parameters of a query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(crate) fn parse(uri: &Uri) -> Result<Self, Error> {
        let Query(pairs) = Query::try_from_uri(uri)
            .map_err(|error| Error::bad_request(format!("the query cannot be read: {error}")))?;
        Ok(Self(pairs))
    }

    /// The value of the parameter, empty when it is not there.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }

    /// The value of the parameter, when it is there and not empty.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of the parameter.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the parameter is set: to anything but `false` or `0`, as Kubernetes reads it.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.optional_flag(name) == Some(true)
    }

    /// As [`Self::flag`], telling what is unset from what is false.
    pub(crate) fn optional_flag(&self, name: &str) -> Option<bool> {
        let value = self.all(name).next()?;
        Some(!value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// The number that the parameter gives.
    pub(crate) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Error> {
        let Some(text) = self.given(name) else {
            return Ok(None);
        };
        let number = text.parse();
        number.map(Some).map_err(|_| {
            Error::bad_request(format!(
                "invalid query parameter {name}: \"{text}\" is not a number in range"
            ))
        })
    }

    /// The revision that the parameter gives.
    pub(crate) fn revision(&self) -> Result<Option<u64>, Error> {
        self.number("resourceVersion")
    }

    /// Whether nothing is to be stored. `options` names the options for the message.
    pub(crate) fn dry_run(&self, options: &'static str) -> Result<bool, Error> {
        check_dry_run(options, self.all("dryRun"))
    }
}

/// Whether nothing is to be stored, by the values given: `All` is the only one there is.
pub(crate) fn check_dry_run<'a>(
    options: &'static str,
    values: impl Iterator<Item = &'a str>,
) -> Result<bool, Error> {
    let mut is_dry = false;
    let mut problems = Problems::default();
    for value in values {
        is_dry = true;
        if value != "All" {
            problems.unsupported("dryRun", value, &["All"]);
        }
    }
    invalid_options(options, problems)?;
    Ok(is_dry)
}

/// An error when there are problems with the options.
pub(crate) fn invalid_options(options: &'static str, problems: Problems) -> Result<(), Error> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::InvalidOptions { options, problems })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(String, String, String, Option<Subresource>)> {
        let target = Target::parse(&Catalogue::default(), path).ok()?;
        Some((
            target.kind.plural.clone().into_owned(),
            target.namespace,
            target.name,
            target.subresource,
        ))
    }

    #[test]
    fn paths_name_collections_objects_and_their_parts() {
        let status = Some(Subresource::Status);
        for (path, plural, namespace, name, subresource) in [
            ("/api/v1/pods", "pods", "", "", None),
            ("/api/v1/namespaces", "namespaces", "", "", None),
            ("/api/v1/namespaces/a", "namespaces", "", "a", None),
            ("/api/v1/namespaces/a/status", "namespaces", "", "a", status),
            ("/api/v1/namespaces/a/pods", "pods", "a", "", None),
            ("/api/v1/namespaces/a/pods/p", "pods", "a", "p", None),
            (
                "/api/v1/namespaces/a/pods/p/log",
                "pods",
                "a",
                "p",
                Some(Subresource::Log),
            ),
            ("/api/v1/namespaces/a/pods/p%2Eq", "pods", "a", "p.q", None),
            ("/api/v1/nodes/n/status", "nodes", "", "n", status),
            (
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/l",
                "leases",
                "a",
                "l",
                None,
            ),
        ] {
            let expected = (
                plural.to_owned(),
                namespace.to_owned(),
                name.to_owned(),
                subresource,
            );
            assert_eq!(parse(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn other_paths_name_nothing() {
        for path in [
            "/api/v1",
            "/api/v2/pods",
            "/api/v1/pods/p",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/pods/p/scale",
            "/api/v1/namespaces/a/pods/p/log/x",
            "/api/v1/namespaces/a/widgets",
            "/api/v1/nodes/%zz",
            "/apis/apps/v1beta1/deployments",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn flags_are_read_as_kubernetes_reads_them() {
        let parameters = Parameters::parse(&"/x?follow=True&a=false&b=0&c=&d=1".parse().unwrap()).unwrap();
        assert!(parameters.flag("follow") && parameters.flag("c") && parameters.flag("d"));
        assert!(!parameters.flag("a") && !parameters.flag("b") && !parameters.flag("gone"));
    }
}
