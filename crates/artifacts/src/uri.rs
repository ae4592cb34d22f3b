//! Artifact URIs: what is written down about where an artifact is, parsed once.
//!
//! A URI's text is kept exactly as it came, for user code and lineage compare texts.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Where an artifact is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactUri {
    text: String,
    place: Place,
}

/// The kind of place that a URI names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A file or folder of this machine.
    Local(PathBuf),
    /// An `http://` or `https://` address: it can be read.
    Http,
    /// Something in an object store.
    Object(Object),
    /// A scheme that is known, and that this version neither reads nor writes.
    Unsupported {
        /// E.g. `oci`.
        scheme: String,
    },
}

/// Something in an object store: an object, or all that has its key and a slash before its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Object {
    /// Whose protocol the store speaks.
    pub provider: Provider,
    /// The bucket; Azure says container.
    pub bucket: String,
    /// The account, where the URI names it (Azure alone).
    pub account: Option<String>,
    /// The key, without slashes at either end.
    pub key: String,
}

/// The protocol of an object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// `s3://`
    S3,
    /// `minio://`: S3 at an address that the settings must name.
    Minio,
    /// `gs://`
    Google,
    /// `az://`, `abfs://`, `abfss://`
    Azure,
}

/// The text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{uri}` is not an artifact URI: {why}; use an absolute path such as /data/model, file:///data/model, s3://bucket/key, or an http(s) address"
)]
pub struct InvalidUri {
    /// The text.
    pub uri: String,
    /// What is wrong with it.
    pub why: String,
}

/// The place exists for others, and not for Coracle ([`coracle_api::reason::Reason::NotSupported`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{uri}` is in a place that this version of Coracle cannot use ({scheme}://); \
     use a path of this machine, s3://, gs://, az://, or an http(s) address"
)]
pub struct NotSupported {
    /// The whole URI.
    pub uri: String,
    /// Its scheme.
    pub scheme: String,
}

/// The artifact is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{uri}` is not on this machine ({scheme}://); it has no path here")]
pub struct NotLocal {
    /// The whole URI.
    pub uri: String,
    /// Its scheme.
    pub scheme: String,
}

impl ArtifactUri {
    /// The text, as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The place that the text names.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The path of a local artifact.
    ///
    /// # Errors
    /// [`NotLocal`] when the artifact is elsewhere.
    pub fn local(&self) -> Result<&Path, NotLocal> {
        match &self.place {
            Place::Local(path) => Ok(path),
            _ => Err(NotLocal {
                uri: self.text.clone(),
                scheme: self.scheme().to_owned(),
            }),
        }
    }

    /// The scheme as written; `file` of a plain path.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.text.split_once("://").map_or("file", |(scheme, _)| scheme)
    }

    /// What is below: `relative` is one or more names with slashes between. Below a local folder it
    /// is a plain path.
    #[must_use]
    pub fn join(&self, relative: &str) -> Self {
        let mut joined = self.clone();
        match &mut joined.place {
            Place::Local(path) => return Self::from(&*path.join(relative)),
            Place::Object(object) if object.key.is_empty() => relative.clone_into(&mut object.key),
            Place::Object(object) => object.key = format!("{}/{relative}", object.key),
            Place::Http | Place::Unsupported { .. } => {}
        }
        joined.text = format!("{}/{relative}", self.text.trim_end_matches('/'));
        joined
    }
}

impl From<&Path> for ArtifactUri {
    /// The URI of an absolute path is the path itself.
    fn from(path: &Path) -> Self {
        Self {
            text: path.to_string_lossy().into_owned(),
            place: Place::Local(path.to_owned()),
        }
    }
}

impl FromStr for ArtifactUri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let invalid = |why: &str| InvalidUri {
            uri: text.to_owned(),
            why: why.to_owned(),
        };
        if text.starts_with('/') {
            return Ok(Self {
                text: text.to_owned(),
                place: Place::Local(PathBuf::from(text)),
            });
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(invalid("it has no scheme and is no absolute path"));
        };
        let is_scheme = scheme.starts_with(|char: char| char.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char));
        if !is_scheme {
            return Err(invalid("its scheme is malformed"));
        }
        let place = match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let url = url::Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
                let path = url
                    .to_file_path()
                    .map_err(|()| invalid("it names a file of another machine"))?;
                Place::Local(path)
            }
            "http" | "https" => {
                url::Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
                Place::Http
            }
            _ if rest.is_empty() => return Err(invalid("nothing follows its scheme")),
            "s3" | "s3a" => object(Provider::S3, rest).map_err(invalid)?,
            "minio" => object(Provider::Minio, rest).map_err(invalid)?,
            "gs" => object(Provider::Google, rest).map_err(invalid)?,
            "az" | "abfs" | "abfss" => object(Provider::Azure, rest).map_err(invalid)?,
            other => Place::Unsupported {
                scheme: other.to_owned(),
            },
        };
        Ok(Self {
            text: text.to_owned(),
            place,
        })
    }
}

/// `bucket/key`; for Azure also `container@account.host/key`.
fn object(provider: Provider, rest: &str) -> Result<Place, &'static str> {
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let (bucket, account) = match bucket.split_once('@') {
        Some((container, host)) if provider == Provider::Azure => {
            let account = host.split('.').next().filter(|account| !account.is_empty());
            (
                container,
                Some(account.ok_or("nothing follows its `@`")?.to_owned()),
            )
        }
        Some(_) => return Err("credentials do not belong in it: set them as `docs/operations.md` says"),
        None => (bucket, None),
    };
    if bucket.is_empty() {
        return Err("it names no bucket");
    }
    let key = key.trim_matches('/');
    if key.split('/').any(|name| matches!(name, "." | "..")) {
        return Err("`.` and `..` mean nothing in an object store");
    }
    if !key.is_empty() && key.split('/').any(str::is_empty) {
        return Err("two slashes follow each other in its key");
    }
    Ok(Place::Object(Object {
        provider,
        bucket: bucket.to_owned(),
        account,
        key: key.to_owned(),
    }))
}

impl TryFrom<String> for ArtifactUri {
    type Error = InvalidUri;

    fn try_from(text: String) -> Result<Self, InvalidUri> {
        text.parse()
    }
}

impl From<ArtifactUri> for String {
    fn from(uri: ArtifactUri) -> Self {
        uri.text
    }
}

impl fmt::Display for ArtifactUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let unsupported = |scheme: &str| Place::Unsupported {
            scheme: scheme.to_owned(),
        };
        let stored = |provider, bucket: &str, account: Option<&str>, key: &str| {
            Place::Object(Object {
                provider,
                bucket: bucket.to_owned(),
                account: account.map(str::to_owned),
                key: key.to_owned(),
            })
        };
        for (text, place) in [
            ("/a/b c", Place::Local("/a/b c".into())),
            ("file:///a/b%20c", Place::Local("/a/b c".into())),
            ("file://localhost/a", Place::Local("/a".into())),
            ("https://h/x?y=1", Place::Http),
            ("HTTP://h", Place::Http),
            ("s3://b/k/l", stored(Provider::S3, "b", None, "k/l")),
            ("s3://b", stored(Provider::S3, "b", None, "")),
            ("gs://b/k/", stored(Provider::Google, "b", None, "k")),
            ("minio://b/k", stored(Provider::Minio, "b", None, "k")),
            ("az://c/k", stored(Provider::Azure, "c", None, "k")),
            (
                "abfss://c@a.dfs.core.windows.net/k",
                stored(Provider::Azure, "c", Some("a"), "k"),
            ),
            ("oci://r/i:t", unsupported("oci")),
        ] {
            let uri: ArtifactUri = text.parse().expect(text);
            assert_eq!(uri.place(), &place, "{text}");
            assert_eq!(uri.to_string(), text);
        }
    }

    #[test]
    fn joined_texts_name_what_is_below() {
        for (root, expected) in [
            ("/a", "/a/p/x"),
            ("file:///a%20b/", "/a b/p/x"),
            ("s3://b", "s3://b/p/x"),
            ("gs://b/k/", "gs://b/k/p/x"),
        ] {
            let joined = root.parse::<ArtifactUri>().expect(root).join("p/x");
            assert_eq!(joined.as_str(), expected);
            assert_eq!(expected.parse::<ArtifactUri>().as_ref(), Ok(&joined));
        }
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for text in [
            "",
            "model",
            "./model",
            "file://elsewhere/a",
            "1x://b",
            "s3://",
            "s3:///k",
            "s3://b/../c",
            "s3://b/a//c",
            "s3://key:secret@b/c",
            "az://c@/k",
            "http://",
        ] {
            let error = text.parse::<ArtifactUri>().expect_err(text);
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("`{text}` is not an artifact URI: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn only_local_artifacts_have_a_path() {
        let path = |text: &str| {
            text.parse::<ArtifactUri>()
                .expect(text)
                .local()
                .map(Path::to_owned)
        };
        assert_eq!(path("file:///a"), Ok(PathBuf::from("/a")));
        let error = path("s3://b/k").expect_err("not local").to_string();
        assert!(
            error.contains("`s3://b/k`") && error.contains("(s3://)"),
            "{error}"
        );
        assert!(path("https://h/x").is_err());
    }
}
