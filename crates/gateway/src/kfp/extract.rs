//! Reads requests so that whatever is wrong with one is told in KFP's shape.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::request::Parts,
};
use coracle_api::id::InvalidId;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};

use super::error::Error;

/// The most that a JSON body may hold: the size of the largest pipeline that can be uploaded.
pub(crate) const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// A JSON object as the body, whatever its content type says (KFP's clients do not agree on one).
pub(crate) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let bytes = Raw::<BODY_LIMIT>::from_request(request, state).await?.0;
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(Error::Invalid(
                "the request body cannot be used: expected a JSON object".to_owned(),
            ));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." {
                String::new()
            } else {
                format!(" at `{path}`")
            };
            Error::Invalid(format!(
                "the request body cannot be used{place}: {}",
                error.into_inner()
            ))
        })?;
        deserializer
            .end()
            .map_err(|error| Error::Invalid(format!("the request body goes on after its end: {error}")))?;
        Ok(Self(value))
    }
}

/// A body of at most `LIMIT` bytes, as it came.
pub(crate) struct Raw<const LIMIT: usize>(pub Bytes);

impl<S: Send + Sync, const LIMIT: usize> FromRequest<S> for Raw<LIMIT> {
    type Rejection = Error;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Error> {
        axum::extract::DefaultBodyLimit::max(LIMIT).apply(&mut request);
        Bytes::from_request(request, state)
            .await
            .map(Self)
            .map_err(|rejection| {
                if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                    Error::TooLarge(format!(
                        "the request body is larger than {} MiB",
                        LIMIT / (1024 * 1024)
                    ))
                } else {
                    Error::Invalid(format!(
                        "the request body did not arrive whole: {}",
                        rejection.body_text()
                    ))
                }
            })
    }
}

/// A flag of a query, in the words that KFP's server takes (Go's `strconv.ParseBool`): its SDK
/// writes Python's `True`.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(D::Error::custom(format!(
            "expected true or false, found `{other}`"
        ))),
    }
}

/// The query of the URL.
pub(crate) struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(params)| Self(params))
            .map_err(|rejection| {
                Error::Invalid(format!(
                    "the URL's query cannot be used: {}",
                    rejection.body_text()
                ))
            })
    }
}

/// The ids in the path. Text that is no id names nothing that exists.
pub(crate) struct Ids<T>(pub T);

impl<S: Send + Sync, T: FromPath> FromRequestParts<S> for Ids<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Path(segments) = Path::<Vec<String>>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| {
                Error::Invalid(format!("the path cannot be used: {}", rejection.body_text()))
            })?;
        T::from_path(&segments).map(Self)
    }
}

/// What [`Ids`] can hold.
pub(crate) trait FromPath: Sized {
    /// Reads the path's parameters, in order.
    fn from_path(segments: &[String]) -> Result<Self, Error>;
}

macro_rules! from_path {
    ($($id:ident),*) => {$(
        impl FromPath for coracle_api::id::$id {
            fn from_path(segments: &[String]) -> Result<Self, Error> {
                parse(segments, 0)
            }
        }
    )*};
}

from_path!(ArtifactId, ExperimentId, PipelineId, RecurringRunId, RunId);

impl<A, B> FromPath for (A, B)
where
    A: std::str::FromStr<Err = InvalidId>,
    B: std::str::FromStr<Err = InvalidId>,
{
    fn from_path(segments: &[String]) -> Result<Self, Error> {
        Ok((parse(segments, 0)?, parse(segments, 1)?))
    }
}

fn parse<T: std::str::FromStr<Err = InvalidId>>(segments: &[String], index: usize) -> Result<T, Error> {
    let text = segments.get(index).map_or("", String::as_str);
    Ok(text.parse()?)
}
