//! Get and list. Every page of a list shows the moment of its first page.

use std::time::Duration;

use axum::response::Response;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use coracle_store::resources::{self, At, Object};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    render::ListMetadata,
    request::{self, Parameters},
    selector::Selection,
    server::Call,
    status::Error,
    validation::Problems,
};

/// Objects read from the store at once when only some of them are wanted.
const PIECE: u32 = 500;

/// How long a request waits for a revision that is not there yet, as in Kubernetes.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers GET of one object.
pub(crate) async fn get(call: &Call) -> Result<Response, Error> {
    let view = call.view()?;
    if let Some(asked) = call.parameters.revision()? {
        reach(call, asked).await?;
    }
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

/// What is there now, and the revision from which a watch misses nothing of what follows. It must
/// have reached `not_before`.
pub(crate) async fn snapshot(
    call: &Call,
    selection: &Selection,
    not_before: u64,
    limit: Option<usize>,
) -> Result<(ListMetadata, Vec<Object>), Error> {
    let page = Page {
        not_before,
        limit,
        ..Page::EVERYTHING
    };
    page.read(call, selection).await
}

/// Waits a while for a revision that there is not yet: whoever asks for it may have it from a write
/// whose answer came before what it changed could be read.
async fn reach(call: &Call, asked: u64) -> Result<(), Error> {
    let resources = call.resources();
    if let Ok(reached) = tokio::time::timeout(PATIENCE, resources.reach(asked)).await {
        return Ok(reached?);
    }
    let current = resources.revision().await?;
    Err(Error::FutureRevision { asked, current })
}

/// Where a later page begins, as the `continue` token holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Continuation {
    /// None for what is there by then.
    revision: Option<u64>,
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

/// The options as messages name them.
const OPTIONS: &str = "ListOptions";

/// The `limit` of a request.
pub(crate) fn limit(parameters: &Parameters) -> Result<Option<usize>, Error> {
    // Less than nothing is as good as nothing, as in Kubernetes.
    let limit = parameters.number::<i64>("limit")?;
    Ok(limit
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0))
}

/// Problems with the options of a list.
fn check_options(parameters: &Parameters) -> Result<(), Error> {
    let mut problems = Problems::default();
    if let Some(wanted) = parameters.given("resourceVersionMatch") {
        let field = "resourceVersionMatch";
        let revision = parameters.given("resourceVersion");
        if revision.is_none() {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            problems.forbidden(field, detail);
        }
        if parameters.given("continue").is_some() {
            let detail = "resourceVersionMatch is forbidden when continue is provided";
            problems.forbidden(field, detail);
        }
        if !matches!(wanted, "Exact" | "NotOlderThan") {
            problems.unsupported(field, wanted, &["Exact", "NotOlderThan", ""]);
        }
        if wanted == "Exact" && revision == Some("0") {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            problems.forbidden(field, detail);
        }
    }
    if parameters.optional_flag("sendInitialEvents").is_some() {
        problems.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    request::invalid_options(OPTIONS, problems)
}

/// Problems with the options of a watch.
pub(crate) fn check_watch_options(parameters: &Parameters) -> Result<(), Error> {
    let mut problems = Problems::default();
    let field = "resourceVersionMatch";
    let wanted = parameters.given(field);
    let initial = parameters.optional_flag("sendInitialEvents");
    if initial.is_some() && wanted != Some("NotOlderThan") {
        problems.forbidden(
            field,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
    }
    if let Some(wanted) = wanted {
        if initial.is_none() {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            problems.forbidden(field, detail);
        }
        if wanted != "NotOlderThan" {
            problems.unsupported(field, wanted, &["NotOlderThan"]);
        }
        if parameters.given("continue").is_some() {
            let detail = "resourceVersionMatch is forbidden when continue is provided";
            problems.forbidden(field, detail);
        }
    }
    request::invalid_options(OPTIONS, problems)
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
        check_options(parameters)?;
        let limit = limit(parameters)?;
        let revision = parameters.revision()?;
        if let Some(token) = parameters.given("continue") {
            if revision.is_some_and(|revision| revision > 0) {
                let message = "specifying resource version is not allowed when using continue";
                return Err(Error::bad_request(message));
            }
            let from = Continuation::parse(token)?;
            let after = Some((from.namespace, from.name));
            return Ok(Self {
                at: from.revision.map_or(At::Latest, At::Revision),
                not_before: 0,
                limit,
                after,
            });
        }
        let wanted = parameters.given("resourceVersionMatch");
        let revision = revision.unwrap_or(0);
        // A page of a revision is of exactly that one, unless the client says that it need not be.
        let is_exact = wanted == Some("Exact") || (wanted.is_none() && limit.is_some());
        Ok(if is_exact && revision > 0 {
            Self {
                at: At::Revision(revision),
                limit,
                ..Self::EVERYTHING
            }
        } else {
            Self {
                not_before: revision,
                limit,
                ..Self::EVERYTHING
            }
        })
    }

    async fn read(self, call: &Call, selection: &Selection) -> Result<(ListMetadata, Vec<Object>), Error> {
        reach(call, self.not_before).await?;
        if let Some(found) = self.read_one(call, selection).await? {
            return Ok(found);
        }
        let (resource, namespace) = (call.kind().resource(), call.target.scope());
        let Self {
            mut at,
            limit,
            mut after,
            ..
        } = self;
        let mut found: Vec<Object> = Vec::new();
        loop {
            let piece = limit.map(|limit| {
                let wanted = u32::try_from(limit - found.len()).unwrap_or(PIECE);
                if selection.is_everything() { wanted } else { PIECE }
            });
            let list = call
                .resources()
                .list(&resource, namespace, at, piece, after.clone())
                .await
                .map_err(|error| failure(error, after))?;
            at = At::Revision(list.revision);
            let mut next = list.next;
            // Only of a list without selectors is it known without looking.
            let remaining = list.remaining.filter(|_| selection.is_everything());
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
                            revision: Some(list.revision),
                            namespace,
                            name,
                        }
                        .token()
                    });
                    return Ok((
                        ListMetadata {
                            revision: list.revision,
                            remaining: remaining.filter(|_| next.is_some()),
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
        let object = call.resources().get(&call.kind().key(namespace, name)).await?;
        let found = object
            .into_iter()
            .filter(|object| selection.admits(&object.body))
            .collect();
        Ok(Some((
            ListMetadata {
                revision,
                ..ListMetadata::default()
            },
            found,
        )))
    }
}

/// `after` is where the page was to begin, when it is not the first.
fn failure(error: resources::Error, after: Option<(String, String)>) -> Error {
    match (error, after) {
        (resources::Error::Compacted { .. }, Some((namespace, name))) => {
            let revision = None;
            let next = Continuation {
                revision,
                namespace,
                name,
            };
            Error::ExpiredToken { next: next.token() }
        }
        (resources::Error::Compacted { .. }, None) => {
            Error::Expired("The resourceVersion for the provided list is too old.".to_owned())
        }
        (resources::Error::FutureRevision { requested, latest }, _) => Error::FutureRevision {
            asked: requested,
            current: latest,
        },
        (other, _) => other.into(),
    }
}
