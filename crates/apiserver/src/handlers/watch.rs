//! Watch: the changes to the selected objects as a stream of JSON events, one a line.
//!
//! An object that comes into the selection is ADDED and one that leaves it is DELETED, whatever
//! happened to it otherwise. A stream that cannot go on ends with an ERROR event.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use coracle_store::resources::{self, Event, EventKind, Watch};
use futures::{FutureExt as _, future::BoxFuture, stream};
use http::{StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::{
    handlers::read,
    render::{ListMetadata, View},
    selector::Selection,
    server::Call,
    status::Error,
};

/// How long a watch lasts when the client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
/// How often a client that wants bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// What the client wants to see first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Everything that is there, then what changes.
    Present {
        /// Whether the end of it is told.
        is_marked: bool,
        not_before: u64,
    },
    /// What changed after the revision.
    After(u64),
    /// What changes from now on.
    Now,
}

impl Start {
    fn parse(call: &Call) -> Result<Self, Error> {
        let parameters = &call.parameters;
        read::check_watch_options(parameters)?;
        let revision = parameters.revision()?;
        Ok(match (parameters.optional_flag("sendInitialEvents"), revision) {
            (Some(true), revision) => Self::Present {
                is_marked: true,
                not_before: revision.unwrap_or(0),
            },
            (Some(false), None | Some(0)) => Self::Now,
            (None, None | Some(0)) => Self::Present {
                is_marked: false,
                not_before: 0,
            },
            (_, Some(revision)) => Self::After(revision),
        })
    }
}

/// Answers GET with `watch=true`.
pub(crate) async fn watch(call: Call) -> Result<Response, Error> {
    let view = call.view()?;
    let selection = if call.target.is_collection() {
        read::selection(&call)?
    } else {
        Selection::one(&call.target.name)
    };
    let start = Start::parse(&call)?;
    let timeout = call
        .parameters
        .number("timeoutSeconds")?
        .filter(|seconds| *seconds > 0);
    let timeout = timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let wants_bookmarks = call.parameters.flag("allowWatchBookmarks");

    let mut ready = VecDeque::new();
    // What is wrong from here on is told as an event, not instead of the watch, as in Kubernetes.
    let source = match begin(&call, &selection, &view, start, wants_bookmarks).await {
        Ok((initial, source)) => {
            ready = initial;
            Some(source)
        }
        Err(error) => {
            ready.push_back(error_frame(&error));
            None
        }
    };
    let (stop, deadline) = (call.server.stop.clone(), Instant::now() + timeout);
    let ended = async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    };
    let feed = Feed {
        is_first: ready.is_empty(),
        ready,
        source,
        selection,
        view,
        ended: ended.boxed(),
        bookmarks: wants_bookmarks.then(bookmarks),
    };
    let frames = stream::unfold(feed, |mut feed| async move {
        let frame = feed.next().await?;
        Some((Ok::<_, Infallible>(frame), feed))
    });
    let mut response = Response::new(Body::from_stream(frames));
    *response.status_mut() = StatusCode::OK;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// What is to be sent first, and the watch of what follows it.
async fn begin(
    call: &Call,
    selection: &Selection,
    view: &View,
    start: Start,
    wants_bookmarks: bool,
) -> Result<(VecDeque<Bytes>, Watch), Error> {
    let mut initial = VecDeque::new();
    let from = match start {
        // It may be one that there is not yet: then nothing is told until after it.
        Start::After(revision) => revision,
        Start::Now => call.resources().revision().await?,
        Start::Present {
            is_marked,
            not_before,
        } => {
            let (ListMetadata { revision, .. }, objects) =
                read::snapshot(call, selection, not_before, None).await?;
            for (index, object) in objects.into_iter().enumerate() {
                let shown = view.watched_text(&object.body, index == 0, call.now);
                initial.push_back(frame("ADDED", &shown));
            }
            if is_marked && wants_bookmarks {
                initial.push_back(document("BOOKMARK", &view.bookmark(revision, true)));
            }
            revision
        }
    };
    let namespace = call.target.scope().map(str::to_owned);
    let source = call
        .resources()
        .watch(&call.kind().resource(), namespace, from)
        .await
        .map_err(failure)?;
    Ok((initial, source))
}

fn bookmarks() -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + BOOKMARKS, BOOKMARKS);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// A watch at work.
struct Feed {
    ready: VecDeque<Bytes>,
    /// None once the watch is at its end.
    source: Option<Watch>,
    selection: Selection,
    view: View,
    is_first: bool,
    /// The client has watched long enough, or the server stops. One future for all events: to begin
    /// to wait for these costs more than to go on.
    ended: BoxFuture<'static, ()>,
    bookmarks: Option<Interval>,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let source = self.source.as_mut()?;
            let bookmark = async {
                match &mut self.bookmarks {
                    Some(interval) => interval.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut self.ended => return None,
                event = source.next() => match event? {
                    Ok(event) => self.push(&event),
                    Err(error) => {
                        self.source = None;
                        return Some(error_frame(&failure(error)));
                    }
                },
                _ = bookmark => {
                    let revision = source.revision();
                    return Some(document("BOOKMARK", &self.view.bookmark(revision, false)));
                }
            }
        }
    }

    fn push(&mut self, event: &Event) {
        let Some(seen) = seen_through(&self.selection, event) else {
            return;
        };
        let frame = match seen {
            // The same bytes for all who watch objects as they are.
            Seen::AsIs if self.view.is_plain() => {
                event.frame(|| frame(told(event.kind), event.object.body.text()))
            }
            Seen::AsIs => self.frame(told(event.kind), &event.object.body),
            Seen::Entering => self.frame("ADDED", &event.object.body),
            Seen::Leaving(last) => self.frame("DELETED", &last),
        };
        self.is_first = false;
        self.ready.push_back(frame);
    }

    fn frame(&self, kind: &str, object: &resources::Body) -> Bytes {
        let shown = self.view.watched_text(object, self.is_first, Timestamp::now());
        frame(kind, &shown)
    }
}

const fn told(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Added => "ADDED",
        EventKind::Modified => "MODIFIED",
        EventKind::Deleted => "DELETED",
    }
}

/// What an event is to someone who sees only a selection.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    /// What it is to everybody.
    AsIs,
    /// The object was not in the selection before.
    Entering,
    /// It is not any more. It is shown as it last was, at the revision at which it left.
    Leaving(resources::Body),
}

/// None when it is nothing.
fn seen_through(selection: &Selection, event: &Event) -> Option<Seen> {
    if selection.is_everything() {
        return Some(Seen::AsIs);
    }
    let previous = event.previous.as_ref();
    let was = previous.is_some_and(|previous| selection.admits(previous));
    if event.kind == EventKind::Deleted {
        return was.then_some(Seen::AsIs);
    }
    match (was, selection.admits(&event.object.body)) {
        (false, false) => None,
        (false, true) if event.kind == EventKind::Added => Some(Seen::AsIs),
        (false, true) => Some(Seen::Entering),
        (true, true) => Some(Seen::AsIs),
        (true, false) => {
            let mut last = previous.cloned().unwrap_or_default().into_value();
            crate::object::metadata(&mut last).insert(
                "resourceVersion".to_owned(),
                event.object.revision.to_string().into(),
            );
            Some(Seen::Leaving(last.into()))
        }
    }
}

fn frame(kind: &str, object: &[u8]) -> Bytes {
    let parts = [
        b"{\"type\":\"",
        kind.as_bytes(),
        b"\",\"object\":",
        object,
        b"}\n",
    ];
    parts.concat().into()
}

fn document(kind: &str, object: &Value) -> Bytes {
    frame(kind, object.to_string().as_bytes())
}

fn error_frame(error: &Error) -> Bytes {
    if let Error::Store(source) = error {
        tracing::error!(error = %source, "a watch ended early");
    }
    document("ERROR", &error.status())
}

fn failure(error: resources::Error) -> Error {
    match error {
        resources::Error::Compacted { .. } => Error::expired(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::PODS;

    #[test]
    fn objects_enter_and_leave_a_selection() {
        let selection = Selection::parse(&PODS, "app=web", "").unwrap();
        let pod = |app: &str, revision: u64| json!({"metadata": {"labels": {"app": app}, "resourceVersion": revision.to_string()}});
        let check = |kind, previous: Option<&str>, app, expected: Option<Seen>| {
            let object = resources::Object {
                key: PODS.key("d", "p"),
                revision: 2,
                body: pod(app, 2).into(),
            };
            let event = Event::new(kind, object, previous.map(|app| pod(app, 1).into()));
            assert_eq!(seen_through(&selection, &event), expected);
            let everything = Selection::parse(&PODS, "", "").unwrap();
            assert_eq!(seen_through(&everything, &event), Some(Seen::AsIs));
        };
        let left = Seen::Leaving(pod("web", 2).into());
        check(EventKind::Added, None, "web", Some(Seen::AsIs));
        check(EventKind::Added, None, "db", None);
        check(EventKind::Modified, Some("web"), "web", Some(Seen::AsIs));
        check(EventKind::Modified, Some("db"), "web", Some(Seen::Entering));
        check(EventKind::Modified, Some("web"), "db", Some(left));
        check(EventKind::Modified, Some("db"), "db", None);
        check(EventKind::Deleted, Some("web"), "web", Some(Seen::AsIs));
        check(EventKind::Deleted, Some("db"), "db", None);
    }
}
