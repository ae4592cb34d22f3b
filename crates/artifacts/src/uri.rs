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
    /// An `http://` or `https://` address.
    Http,
    /// A scheme that is known, and that this version neither reads nor writes.
    Unsupported {
        /// E.g. `s3`.
        scheme: String,
    },
}

/// The text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{uri}` is not an artifact URI: {why}; use an absolute path such as /data/model, file:///data/model, or an http(s) address"
)]
pub struct InvalidUri {
    /// The text.
    pub uri: String,
    /// What is wrong with it.
    pub why: String,
}

/// The place exists for others, and not yet for Coracle ([`coracle_api::reason::Reason::NotSupported`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{uri}` is in a place that this version of Coracle cannot use ({scheme}://); \
     use a path of this machine or an http(s) address"
)]
pub struct NotSupported {
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
    /// [`NotSupported`] when the artifact is not local.
    pub fn local(&self) -> Result<&Path, NotSupported> {
        let scheme = match &self.place {
            Place::Local(path) => return Ok(path),
            Place::Http => self.text.split(':').next().unwrap_or_default(),
            Place::Unsupported { scheme } => scheme,
        };
        Err(NotSupported {
            uri: self.text.clone(),
            scheme: scheme.to_owned(),
        })
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
        for (text, place) in [
            ("/a/b c", Place::Local("/a/b c".into())),
            ("file:///a/b%20c", Place::Local("/a/b c".into())),
            ("file://localhost/a", Place::Local("/a".into())),
            ("https://h/x?y=1", Place::Http),
            ("HTTP://h", Place::Http),
            ("s3://b/k", unsupported("s3")),
            ("gs://b/k", unsupported("gs")),
            ("minio://b/k", unsupported("minio")),
            ("oci://r/i:t", unsupported("oci")),
        ] {
            let uri: ArtifactUri = text.parse().expect(text);
            assert_eq!(uri.place(), &place, "{text}");
            assert_eq!(uri.to_string(), text);
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
