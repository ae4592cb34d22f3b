//! Get and list. Every page of a list shows the moment of its first page.

use axum::response::Response;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use coracle_store::resources::{self, At, Object};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{render::ListMetadata, selector::Selection, server::Call, status::Error};

/// Objects read from the store at once when only some of them are wanted.
const PIECE: u32 = 500;

/// Answers GET of one object.
pub(crate) async fn get(call: &Call) -> Result<Response, Error> {
    let view = call.view()?;
    let object = call.resources().get(&call.key()).await?;
    let object = object.ok_or_else(|| Error::not_found(call.kind(), &call.target.name))?;
    Ok(call.show(StatusCode::OK, &view, &object.body))
}

/// Answers GET of a collection.
pub(crate) async fn list(call: &Call) -> Result<Response, Error> {
    let view = call.view()?;
    let selection = selection(call)?;
    let page = Page::parse(call)?;
    let (metadata, objects) = page.read(call, &selection).await?;
    let objects = objects.into_iter().map(|object| object.body).collect();
    Ok(call.show_list(&view, metadata, objects))
}

/// The objects that a request to a collection is about.
pub(crate) fn selection(call: &Call) -> Result<Selection, Error> {
    let parameters = &call.parameters;
    Selection::parse(
        call.kind(),
        parameters.text("labelSelector"),
        parameters.text("fieldSelector"),
    )
}

/// What is there now, and the revision from which a watch misses nothing of what follows.
pub(crate) async fn snapshot(call: &Call, selection: &Selection) -> Result<(u64, Vec<Object>), Error> {
    let (metadata, objects) = Page::EVERYTHING.read(call, selection).await?;
    Ok((metadata.revision, objects))
}

/// Where a later page begins, as the `continue` token holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Continuation {
    revision: u64,
    namespace: String,
    name: String,
}

impl Continuation {
    fn token(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn parse(token: &str) -> Result<Self, Error> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| {
                Error::bad_request("continue key is not valid: it is not one that this server gave out")
            })
    }
}

/// The part of a collection that a request wants.
#[derive(Debug)]
struct Page {
    at: At,
    /// What is shown must have reached this revision.
    not_before: u64,
    limit: Option<usize>,
    after: Option<(String, String)>,
}

impl Page {
    const EVERYTHING: Self = Self {
        at: At::Latest,
        not_before: 0,
        limit: None,
        after: None,
    };

    fn parse(call: &Call) -> Result<Self, Error> {
        let parameters = &call.parameters;
        let limit = parameters.number::<usize>("limit")?.filter(|limit| *limit > 0);
        let revision = parameters.revision()?;
        if let Some(token) = parameters.given("continue") {
            if revision.is_some_and(|revision| revision > 0) {
                let message = "specifying resource version is not allowed when using continue";
                return Err(Error::bad_request(message));
            }
            let from = Continuation::parse(token)?;
            let after = Some((from.namespace, from.name));
            return Ok(Self {
                at: At::Revision(from.revision),
                not_before: 0,
                limit,
                after,
            });
        }
        match (parameters.given("resourceVersionMatch"), revision) {
            (None, None) => Ok(Self {
                limit,
                ..Self::EVERYTHING
            }),
            (None | Some("NotOlderThan"), Some(revision)) => Ok(Self {
                not_before: revision,
                limit,
                ..Self::EVERYTHING
            }),
            (Some("Exact"), Some(revision)) if revision > 0 => Ok(Self {
                at: At::Revision(revision),
                limit,
                ..Self::EVERYTHING
            }),
            (Some("Exact" | "NotOlderThan"), _) => Err(Error::bad_request(
                "resourceVersionMatch is forbidden unless resourceVersion is provided, and \"Exact\" is \
                 forbidden for resourceVersion \"0\"",
            )),
            (Some(other), _) => Err(Error::BadRequest(format!(
                "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \
                 \"NotOlderThan\""
            ))),
        }
    }

    async fn read(self, call: &Call, selection: &Selection) -> Result<(ListMetadata, Vec<Object>), Error> {
        if let Some(found) = self.read_one(call, selection).await? {
            return Ok(found);
        }
        let (resource, namespace) = (call.kind().resource(), call.target.scope());
        let Self {
            mut at,
            not_before,
            limit,
            mut after,
        } = self;
        let mut found: Vec<Object> = Vec::new();
        loop {
            let piece = limit.map(|limit| {
                let wanted = u32::try_from(limit - found.len()).unwrap_or(PIECE);
                if selection.is_everything() { wanted } else { PIECE }
            });
            let list = call
                .resources()
                .list(&resource, namespace, at, piece, after)
                .await
                .map_err(failure)?;
            if list.revision < not_before {
                return Err(Error::FutureRevision {
                    asked: not_before,
                    current: list.revision,
                });
            }
            at = At::Revision(list.revision);
            let mut next = list.next;
            for object in list.objects {
                // The limit may be reached before the end of what was read.
                if limit.is_some_and(|limit| found.len() == limit) {
                    next = found
                        .last()
                        .map(|last| (last.key.namespace.clone(), last.key.name.clone()));
                    break;
                }
                if selection.admits(&object.body) {
                    found.push(object);
                }
            }
            let is_full = limit.is_some_and(|limit| found.len() == limit);
            match next {
                Some(next) if !is_full => after = Some(next),
                next => {
                    let next = next.map(|(namespace, name)| {
                        Continuation {
                            revision: list.revision,
                            namespace,
                            name,
                        }
                        .token()
                    });
                    return Ok((
                        ListMetadata {
                            revision: list.revision,
                            next,
                        },
                        found,
                    ));
                }
            }
        }
    }

    /// The one object that the selection names, without a look at the others.
    async fn read_one(
        &self,
        call: &Call,
        selection: &Selection,
    ) -> Result<Option<(ListMetadata, Vec<Object>)>, Error> {
        let namespace = call.target.namespace.as_str();
        let (Some(name), At::Latest, None) = (selection.name(), self.at, &self.after) else {
            return Ok(None);
        };
        if call.kind().is_namespaced() && namespace.is_empty() {
            return Ok(None);
        }
        // The revision first: a watch from it shows every change that the object does not.
        let revision = call.resources().revision().await?;
        if revision < self.not_before {
            return Err(Error::FutureRevision {
                asked: self.not_before,
                current: revision,
            });
        }
        let object = call.resources().get(&call.kind().key(namespace, name)).await?;
        let found = object
            .into_iter()
            .filter(|object| selection.admits(&object.body))
            .collect();
        Ok(Some((ListMetadata { revision, next: None }, found)))
    }
}

fn failure(error: resources::Error) -> Error {
    match error {
        resources::Error::Compacted { .. } => Error::Expired(
            "The provided resourceVersion or continue token is too old: list again from the beginning"
                .to_owned(),
        ),
        resources::Error::FutureRevision { requested, latest } => Error::FutureRevision {
            asked: requested,
            current: latest,
        },
        other => other.into(),
    }
}
