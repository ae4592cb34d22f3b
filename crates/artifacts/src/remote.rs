//! Artifacts that are not on this machine: object stores, and web servers for reading.
//!
//! An artifact is one object, or a folder: all objects whose keys begin with its own and a slash.
//! Credentials come from the variables of the process, see [`Remote::from_env`]. What goes where is
//! decided elsewhere; local folders are [`crate::local`]'s.

mod background;
mod connector;
mod settings;
mod transfer;

use std::{
    collections::HashMap,
    fmt, io,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_api::reason::Reason;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Method, Request, StatusCode, header};
use object_store::{
    GetOptions, ObjectStore, ObjectStoreExt,
    client::{HttpErrorKind, HttpRequestBody, HttpResponse, HttpService},
    path::Path as Key,
};

pub use self::background::Job;
use self::{connector::Connector, settings::Settings};
use crate::{
    local::Opened,
    uri::{ArtifactUri, NotSupported, Object, Place, Provider},
};

/// All that is not on this machine. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    /// By provider, bucket and account.
    stores: Mutex<HashMap<Bucket, Arc<dyn ObjectStore>>>,
    /// Of the stores, of the web: they differ in whether they follow redirects.
    connectors: Mutex<[Option<Connector>; 2]>,
}

/// How long to wait before a web server is asked again.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// A store, the key in it, and both as they were written.
type Found = (Arc<dyn ObjectStore>, Key, Object);

type Bucket = (Provider, String, Option<String>);

/// Why an artifact of another machine cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is there.
    #[error("nothing is at `{uri}`")]
    NotFound {
        /// As asked for.
        uri: String,
    },
    /// The store cannot be reached, or does not let us in.
    #[error("cannot use `{uri}`: {why}")]
    Unavailable {
        /// As asked for.
        uri: String,
        /// What the store said, and what may help.
        why: String,
    },
    /// A web address was to be written to.
    #[error("`{uri}` can be read and not written: use an object store or a path of this machine")]
    ReadOnly {
        /// As asked for.
        uri: String,
    },
    /// Nobody here can use it.
    #[error(transparent)]
    NotSupported(#[from] NotSupported),
    /// A link in a folder leads out of it, so that what it leads to is not the folder's.
    #[error("`{}` is a link that leads out of its folder", path.display())]
    LeadsOut {
        /// The link.
        path: PathBuf,
    },
    /// A file of this machine cannot be read or written.
    #[error("cannot use `{}`: {source}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// The stable name of what went wrong while reading.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::InputArtifactUnavailable,
            Self::Unavailable { .. } => Reason::StorageUnavailable,
            Self::NotSupported(_) => Reason::NotSupported,
            Self::LeadsOut { .. } => Reason::OutputOutsideFolder,
            Self::ReadOnly { .. } | Self::Local { .. } => Reason::ArtifactNotStored,
        }
    }
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes.
    pub size: u64,
    /// What changes with the content, if the store says.
    pub etag: Option<String>,
}

/// One object in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key below the folder's.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

impl Remote {
    /// With this process's variables.
    #[must_use]
    pub fn from_env() -> Self {
        let text = |text: std::ffi::OsString| text.into_string().ok();
        Self::new(std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))))
    }

    /// With these variables. Those that are about nothing here are ignored.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings: Settings::new(variables),
                stores: Mutex::default(),
                connectors: Mutex::default(),
            }),
        }
    }

    /// Opens an object or a web address for reading, all of it or a range of its bytes.
    ///
    /// # Errors
    /// [`Error`] when it is not there or cannot be reached.
    pub async fn open(&self, uri: &ArtifactUri, range: Option<Range<u64>>) -> Result<Opened, Error> {
        let Some((store, key, object)) = self.find(uri)? else {
            return self.open_web(uri, range).await;
        };
        let options = GetOptions {
            range: range.map(Into::into),
            ..GetOptions::default()
        };
        let found = store
            .get_opts(&key, options)
            .await
            .map_err(|error| self.failed(uri, &object, &error))?;
        let (size, range) = (found.meta.size, found.range.clone());
        let (this, uri) = (self.clone(), uri.clone());
        let bytes = found
            .into_stream()
            .map_err(move |error| broken(&this.failed(&uri, &object, &error)))
            .boxed();
        Ok(Opened { size, range, bytes })
    }

    /// Size and tag of one object; `None` when there is none (there may be a folder).
    ///
    /// # Errors
    /// [`Error`] when it cannot be reached.
    pub async fn head(&self, uri: &ArtifactUri) -> Result<Option<Head>, Error> {
        let Some((store, key, object)) = self.find(uri)? else {
            return self.head_web(uri).await;
        };
        if key.is_root() {
            return Ok(None);
        }
        match store.head(&key).await {
            Ok(meta) => Ok(Some(Head {
                size: meta.size,
                etag: meta.e_tag,
            })),
            Err(error @ object_store::Error::NotFound { .. }) if !told(&error).contains("NoSuchBucket") => {
                Ok(None)
            }
            Err(error) => Err(self.failed(uri, &object, &error)),
        }
    }

    /// Whether something is there: an object, or a folder with something in it.
    ///
    /// # Errors
    /// [`Error`] when that cannot be known.
    pub async fn exists(&self, uri: &ArtifactUri) -> Result<bool, Error> {
        if self.head(uri).await?.is_some() {
            return Ok(true);
        }
        let Some((store, key, object)) = self.find(uri)? else {
            return Ok(false);
        };
        let first = store.list(Some(&key)).next().await.transpose();
        first
            .map(|first| first.is_some())
            .map_err(|error| self.failed(uri, &object, &error))
    }

    /// All objects in a folder, at any depth, by name. None when there is no such folder.
    ///
    /// # Errors
    /// [`Error`] when it cannot be listed.
    pub async fn list(&self, uri: &ArtifactUri) -> Result<Vec<Listed>, Error> {
        let Some((store, key, object)) = self.find(uri)? else {
            return Err(Error::Unavailable {
                uri: uri.to_string(),
                why: "a web address has no folders".to_owned(),
            });
        };
        let mut listed: Vec<Listed> = store
            .list(Some(&key))
            .map_ok(|meta| {
                let name: Vec<_> = meta
                    .location
                    .prefix_match(&key)
                    .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect())
                    .unwrap_or_default();
                Listed {
                    name: name.join("/"),
                    size: meta.size,
                }
            })
            .try_collect()
            .await
            .map_err(|error| self.failed(uri, &object, &error))?;
        // Consoles keep an empty object to show a folder.
        listed.retain(|listed| !listed.name.is_empty());
        listed.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    /// Deletes an object or all of a folder. What is not there is deleted already. Returns how many
    /// objects went.
    ///
    /// # Errors
    /// [`Error`] when something stays.
    pub async fn delete(&self, uri: &ArtifactUri) -> Result<u64, Error> {
        let Some((store, key, object)) = self.find(uri)? else {
            return Err(Error::ReadOnly { uri: uri.to_string() });
        };
        if key.is_root() {
            return Err(Error::Unavailable {
                uri: uri.to_string(),
                why: "a whole bucket is not deleted from here".to_owned(),
            });
        }
        let failed = |error| self.failed(uri, &object, &error);
        let mut keys: Vec<Key> = store
            .list(Some(&key))
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .map_err(failed)?;
        let has_object = self.head(uri).await?.is_some();
        keys.extend(has_object.then_some(key));
        store
            .delete_stream(stream::iter(keys.into_iter().map(Ok)).boxed())
            .filter_map(async |deleted| match deleted {
                Err(object_store::Error::NotFound { .. }) => None,
                deleted => Some(deleted.map_err(failed)),
            })
            .try_fold(0, async |count, _| Ok(count + 1))
            .await
    }

    /// The store, the key in it, and both as they were written; `None` for a web address.
    fn find(&self, uri: &ArtifactUri) -> Result<Option<Found>, Error> {
        let unusable = |why: String| Error::Unavailable {
            uri: uri.to_string(),
            why,
        };
        let object = match uri.place() {
            Place::Object(object) => object,
            Place::Http => return Ok(None),
            Place::Local(_) | Place::Unsupported { .. } => {
                return Err(Error::NotSupported(NotSupported {
                    uri: uri.to_string(),
                    scheme: uri.scheme().to_owned(),
                }));
            }
        };
        let key = Key::parse(&object.key).map_err(|error| unusable(error.to_string()))?;
        let bucket = (object.provider, object.bucket.clone(), object.account.clone());
        let known = self.stores().get(&bucket).cloned();
        let store = match known {
            Some(store) => store,
            None => {
                let connector = self.connector(false).map_err(unusable)?;
                let store =
                    self.inner.settings.store(object, connector).map_err(|why| {
                        unusable(format!("the settings of its store are incomplete: {why}"))
                    })?;
                self.stores().insert(bucket, Arc::clone(&store));
                store
            }
        };
        Ok(Some((store, key, object.clone())))
    }

    fn stores(&self) -> std::sync::MutexGuard<'_, HashMap<Bucket, Arc<dyn ObjectStore>>> {
        self.inner.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connector(&self, web: bool) -> Result<Connector, String> {
        let mut connectors = self
            .inner
            .connectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let slot = &mut connectors[usize::from(web)];
        if let Some(connector) = slot {
            return Ok(connector.clone());
        }
        let redirects = if web { 10 } else { 0 };
        let made = Connector::new(self.inner.settings.authorities(), redirects)?;
        Ok(slot.insert(made).clone())
    }

    /// A store's own words, and what may help.
    fn failed(&self, uri: &ArtifactUri, object: &Object, error: &object_store::Error) -> Error {
        let said = told(error);
        let is_denied = matches!(
            error,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }
        ) || said.contains("403")
            || said.contains("401");
        let why = if said.contains("NoSuchBucket") || said.contains("ContainerNotFound") {
            format!("there is no bucket `{}`", object.bucket)
        } else if matches!(error, object_store::Error::NotFound { .. }) {
            return Error::NotFound { uri: uri.to_string() };
        } else if is_denied {
            let credentials = settings::credentials(object.provider);
            if self.inner.settings.has_credentials(object.provider) {
                format!("the store does not let us in ({said}); check {credentials}")
            } else {
                format!("the store does not let us in without credentials ({said}); set {credentials}")
            }
        } else {
            said
        };
        Error::Unavailable {
            uri: uri.to_string(),
            why,
        }
    }

    async fn web(
        &self,
        uri: &ArtifactUri,
        method: Method,
        range: Option<&Range<u64>>,
    ) -> Result<HttpResponse, Error> {
        let unavailable = |why: String| Error::Unavailable {
            uri: uri.to_string(),
            why,
        };
        let connector = self.connector(true).map_err(unavailable)?;
        let mut request = Request::builder().method(method).uri(uri.as_str());
        if let Some(range) = range {
            let last = range.end.saturating_sub(1);
            request = request.header(header::RANGE, format!("bytes={}-{last}", range.start));
        }
        let request = request
            .body(HttpRequestBody::empty())
            .map_err(|error| unavailable(error.to_string()))?;
        let mut pauses = PAUSES.iter();
        loop {
            let (why, may_pass) = match connector.call(request.clone()).await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => match answer.status() {
                    StatusCode::NOT_FOUND | StatusCode::GONE => {
                        return Err(Error::NotFound { uri: uri.to_string() });
                    }
                    status => (
                        format!("the server answered {status}"),
                        status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
                    ),
                },
                Err(error) => (told(&error), error.kind() != HttpErrorKind::Unknown),
            };
            match pauses.next().filter(|_| may_pass) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(unavailable(why)),
            }
        }
    }

    async fn open_web(&self, uri: &ArtifactUri, range: Option<Range<u64>>) -> Result<Opened, Error> {
        let answer = self.web(uri, Method::GET, range.as_ref()).await?;
        let length = length(&answer);
        let (size, range) = match range {
            Some(range) if answer.status() == StatusCode::PARTIAL_CONTENT => {
                let total = answer
                    .headers()
                    .get(header::CONTENT_RANGE)
                    .and_then(|value| value.to_str().ok()?.rsplit('/').next()?.parse().ok());
                let end = range.start + length.unwrap_or(range.end - range.start);
                (total.unwrap_or(end), range.start..end)
            }
            _ => (length.unwrap_or(0), 0..length.unwrap_or(0)),
        };
        let uri = uri.to_string();
        let bytes = answer
            .into_body()
            .bytes_stream()
            .map_err(move |error| {
                broken(&Error::Unavailable {
                    uri: uri.clone(),
                    why: told(&error),
                })
            })
            .boxed();
        Ok(Opened { size, range, bytes })
    }

    async fn head_web(&self, uri: &ArtifactUri) -> Result<Option<Head>, Error> {
        let answer = match self.web(uri, Method::HEAD, None).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            answer => answer?,
        };
        let etag = answer.headers().get(header::ETAG);
        Ok(Some(Head {
            size: length(&answer).unwrap_or(0),
            etag: etag.and_then(|etag| etag.to_str().ok()).map(str::to_owned),
        }))
    }
}

impl fmt::Debug for Remote {
    /// Without settings: there are secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

fn length(answer: &HttpResponse) -> Option<u64> {
    answer
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// An error on the way, for whoever reads a stream.
fn broken(error: &Error) -> crate::local::Error {
    crate::local::Error::Read {
        uri: match error {
            Error::NotFound { uri } | Error::Unavailable { uri, .. } | Error::ReadOnly { uri } => uri.clone(),
            _ => "(an artifact)".to_owned(),
        },
        source: error.to_string().into(),
    }
}

/// The innermost cause, which is the store's own words, without its markup.
fn told(error: &dyn std::error::Error) -> String {
    const LONGEST: usize = 300;
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        // What quotes its cause says more than the cause alone.
        if !said.contains(&text) {
            said = text;
        }
        source = inner.source();
    }
    let element = |name: &str| {
        let (_, rest) = said.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
    };
    let said = match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => {
            let status = said
                .split_once("status code: ")
                .and_then(|(_, rest)| rest.get(..3))
                .map(|status| format!("{status} "));
            format!("{}{code}: {message}", status.unwrap_or_default())
        }
        (Some(code), None) => code.to_owned(),
        _ => said,
    };
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    match said.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &said[..end]),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Said {
        text: String,
        source: Option<Box<Self>>,
    }

    #[test]
    fn a_stores_own_words_are_told_without_markup() {
        let xml = "Server returned non-2xx status code: 403 Forbidden: <?xml?><Error><Code>AccessDenied</Code>\n\
                   <Message>No\n  way</Message></Error>";
        for (said, expected) in [
            (xml, "403 AccessDenied: No way"),
            ("plain", "plain"),
            ("<Code>SlowDown</Code>", "SlowDown"),
        ] {
            let error = Said {
                text: "Generic S3 error".to_owned(),
                source: Some(Box::new(Said {
                    text: said.to_owned(),
                    source: None,
                })),
            };
            assert_eq!(told(&error), expected);
        }
        let long = Said {
            text: "é".repeat(1000),
            source: None,
        };
        assert_eq!(told(&long).chars().count(), 301);
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let remote = Remote::new([("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned())]);
        assert!(!format!("{remote:?}").contains("hush"));
    }
}
