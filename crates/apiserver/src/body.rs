//! Bodies of requests: read up to the limit, decoded to JSON.

use std::fmt;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_saphyr::DuplicateKeyPolicy;

use crate::{
    negotiate::{self, Encoding},
    protobuf,
    status::Error,
};

/// The largest body that is read, as in Kubernetes.
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;

/// The bytes of the body.
pub(crate) async fn read(body: Body) -> Result<Bytes, Error> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLarge { limit: LIMIT }),
        Err(error) => Err(Error::bad_request(format!(
            "the body of the request could not be read: {error}"
        ))),
    }
}

/// The value in the body, none when it is empty.
pub(crate) fn decode_optional(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<Value>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let value = match negotiate::encoding(headers)? {
        Encoding::Json => parse(bytes)?,
        Encoding::Yaml => yaml(bytes)?,
        Encoding::Protobuf => protobuf::decode(bytes).map_err(|error| match error {
            protobuf::Error::UnknownKind(_) => Error::UnsupportedMediaType(error.to_string()),
            _ => Error::BadRequest(error.to_string()),
        })?,
    };
    Ok(Some(value))
}

/// The object in the body.
pub(crate) fn decode_object(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Error> {
    let value = decode_optional(headers, bytes)?;
    value.filter(Value::is_object).ok_or_else(|| {
        Error::bad_request("the body of the request must be an object of the kind that the path names")
    })
}

/// The object in the body, and what is to be said of fields that it has twice.
pub(crate) fn decode_checked(headers: &HeaderMap, bytes: &[u8]) -> Result<(Value, Vec<String>), Error> {
    let (value, complaints) = match negotiate::encoding(headers)? {
        Encoding::Json if !bytes.is_empty() => json_checked(bytes)?,
        Encoding::Yaml if !bytes.is_empty() => yaml_checked(bytes)?,
        _ => return decode_object(headers, bytes).map(|value| (value, Vec::new())),
    };
    if value.is_object() {
        return Ok((value, complaints));
    }
    Err(Error::bad_request(
        "the body of the request must be an object of the kind that the path names",
    ))
}

/// JSON, with a message that says where it breaks.
fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::bad_request(format!("couldn't parse the body as JSON: {error}")))
}

/// JSON, and what is to be said of fields that it has twice.
pub(crate) fn json_checked(bytes: &[u8]) -> Result<(Value, Vec<String>), Error> {
    let Checked { value, repeated } = parse(bytes)?;
    let complaints = repeated.iter().map(|path| format!("duplicate field \"{path}\""));
    Ok((value, complaints.collect()))
}

/// YAML, and what is to be said of keys that it has twice.
pub(crate) fn yaml_checked(bytes: &[u8]) -> Result<(Value, Vec<String>), Error> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
    };
    let parsed: Result<Checked, _> = serde_saphyr::from_slice_with_options(bytes, options);
    let Checked { value, repeated } = parsed.map_err(|error| {
        Error::bad_request(format!(
            "couldn't parse the body as YAML: error decoding YAML: {error}"
        ))
    })?;
    let keys = repeated.iter().map(|path| {
        let key = path.rsplit('.').next().unwrap_or(path);
        format!("key \"{key}\" already set in map")
    });
    Ok((value, keys.collect()))
}

fn yaml(bytes: &[u8]) -> Result<Value, Error> {
    yaml_checked(bytes).map(|(value, _)| value)
}

/// A value, of which is known what fields it had twice. The last one counts.
struct Checked {
    value: Value,
    /// Their paths.
    repeated: Vec<String>,
}

impl From<Value> for Checked {
    fn from(value: Value) -> Self {
        Self {
            value,
            repeated: Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckedVisitor)
    }
}

struct CheckedVisitor;

impl<'de> Visitor<'de> for CheckedVisitor {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Checked, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Checked, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Checked, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Checked, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Checked, E> {
        Ok(Value::from(value).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Checked, E> {
        Ok(Value::from(value).into())
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Value::Null.into())
    }

    fn visit_none<E>(self) -> Result<Checked, E> {
        Ok(Value::Null.into())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Checked, D::Error> {
        Checked::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        let (mut values, mut repeated) = (Vec::new(), Vec::new());
        while let Some(item) = items.next_element::<Checked>()? {
            let at = values.len();
            repeated.extend(item.repeated.iter().map(|path| join(&format!("[{at}]"), path)));
            values.push(item.value);
        }
        Ok(Checked {
            value: Value::Array(values),
            repeated,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Checked, A::Error> {
        let (mut values, mut repeated) = (Map::new(), Vec::new());
        while let Some((key, entry)) = entries.next_entry::<String, Checked>()? {
            repeated.extend(entry.repeated.iter().map(|path| join(&key, path)));
            if values.contains_key(&key) {
                repeated.push(key.clone());
            }
            values.insert(key, entry.value);
        }
        Ok(Checked {
            value: Value::Object(values),
            repeated,
        })
    }
}

fn join(step: &str, path: &str) -> String {
    let separator = if path.starts_with('[') { "" } else { "." };
    format!("{step}{separator}{path}")
}

#[cfg(test)]
mod tests {
    use http::header;
    use serde_json::json;

    use super::*;

    fn decode(media: &str, text: &str) -> (Value, Vec<String>) {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media.parse().unwrap())]);
        decode_checked(&headers, text.as_bytes()).unwrap()
    }

    #[test]
    fn fields_given_twice_are_named_and_the_last_one_counts() {
        let text = r#"{"spec": {"a": 1, "list": [{"x": 1}, {"x": 1, "x": null}], "a": 2.5}}"#;
        let (value, complaints) = decode("application/json", text);
        assert_eq!(
            value,
            json!({"spec": {"a": 2.5, "list": [{"x": 1}, {"x": null}]}})
        );
        assert_eq!(
            complaints,
            ["duplicate field \"spec.list[1].x\"", "duplicate field \"spec.a\""]
        );
        let (value, complaints) = decode("application/yaml", "a: 1\nb: {c: 'on', c: yes, n: ~}\n");
        assert_eq!(value, json!({"a": 1, "b": {"c": "yes", "n": null}}));
        assert_eq!(complaints, ["key \"c\" already set in map"]);
    }
}
