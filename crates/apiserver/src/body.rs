//! Bodies of requests: read up to the limit, decoded to JSON.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

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
        Encoding::Json => json(bytes)?,
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

/// JSON, with a message that says where it breaks.
pub(crate) fn json(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::bad_request(format!("couldn't parse the body as JSON: {error}")))
}

fn yaml(bytes: &[u8]) -> Result<Value, Error> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_slice_with_options(bytes, options)
        .map_err(|error| Error::bad_request(format!("couldn't parse the body as YAML: {error}")))
}
