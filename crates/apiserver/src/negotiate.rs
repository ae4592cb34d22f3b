//! Which representation a client accepts, and how its body is encoded. JSON is what is spoken;
//! YAML is read as well, and protobuf of some kinds; as an answer, protobuf is refused in the way
//! that makes clients fall back to JSON.

use http::{HeaderMap, header};

use crate::status::Error;

/// How an object is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Object,
    /// Its metadata only.
    Metadata,
    /// As rows of a table.
    Table,
}

/// How discovery is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiscoveryForm {
    /// One document for each group and version.
    Plain,
    /// All groups in one document, of this version.
    Aggregated(&'static str),
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// One clause of an Accept header.
struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }

    fn is_json(&self) -> bool {
        matches!(self.media, "application/json" | "application/*" | "*/*")
    }
}

fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let accepts = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    accepts
        .flat_map(|accept| accept.split(','))
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            Clause {
                media,
                parameters: parts.filter_map(|part| part.split_once('=')).collect(),
            }
        })
        .collect()
}

/// The first representation in the client's order that there is.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Error> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Form::Object);
    }
    let of_meta = |clause: &Clause<'_>| {
        clause.parameter("g") == Some("meta.k8s.io") && clause.parameter("v").is_none_or(|v| v == "v1")
    };
    clauses
        .iter()
        .filter(|clause| clause.is_json())
        .find_map(|clause| match clause.parameter("as") {
            None => Some(Form::Object),
            Some("Table") if of_meta(clause) => Some(Form::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if of_meta(clause) => {
                Some(Form::Metadata)
            }
            Some(_) => None,
        })
        .ok_or(Error::NotAcceptable("application/json"))
}

/// The form of discovery.
pub(crate) fn discovery_form(headers: &HeaderMap) -> Result<DiscoveryForm, Error> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(DiscoveryForm::Plain);
    }
    clauses
        .iter()
        .filter(|clause| clause.is_json())
        .find_map(|clause| match (clause.parameter("as"), clause.parameter("v")) {
            (None, _) => Some(DiscoveryForm::Plain),
            (Some("APIGroupDiscoveryList"), Some("v2")) => Some(DiscoveryForm::Aggregated("v2")),
            (Some("APIGroupDiscoveryList"), Some("v2beta1")) => Some(DiscoveryForm::Aggregated("v2beta1")),
            _ => None,
        })
        .ok_or(Error::NotAcceptable("application/json"))
}

/// Whether the client takes plain JSON, for documents that come in no other form.
pub(crate) fn json_only(headers: &HeaderMap) -> Result<(), Error> {
    let clauses = clauses(headers);
    if clauses.is_empty() || clauses.iter().any(Clause::is_json) {
        return Ok(());
    }
    Err(Error::NotAcceptable("application/json"))
}

/// The media type of the body, without its parameters; empty when none is given.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The encoding of an object in a body.
pub(crate) fn encoding(headers: &HeaderMap) -> Result<Encoding, Error> {
    match media_type(headers) {
        "" | "application/json" | "*/*" => Ok(Encoding::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        _ => Err(Error::UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())])
    }

    #[test]
    fn the_first_form_that_exists_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (value, expected) in [
            (table, Form::Table),
            ("application/json", Form::Object),
            ("*/*", Form::Object),
            ("application/vnd.kubernetes.protobuf, */*", Form::Object),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Form::Metadata,
            ),
            (
                "application/json;as=Nonsense;g=x;v=v1, application/json",
                Form::Object,
            ),
        ] {
            assert_eq!(form(&accept(value)).unwrap(), expected, "{value}");
        }
        assert_eq!(form(&HeaderMap::new()).unwrap(), Form::Object);
    }

    #[test]
    fn what_is_not_json_is_not_acceptable() {
        let protobuf = accept("application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
        assert!(matches!(json_only(&protobuf), Err(Error::NotAcceptable(_))));
        assert!(matches!(form(&protobuf), Err(Error::NotAcceptable(_))));
    }

    #[test]
    fn discovery_is_aggregated_on_request() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(
            discovery_form(&accept(kubectl)).unwrap(),
            DiscoveryForm::Aggregated("v2")
        );
        assert_eq!(
            discovery_form(&accept("application/json")).unwrap(),
            DiscoveryForm::Plain
        );
    }
}
