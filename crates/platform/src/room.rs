//! How much of what clients write may be in memory at once.
//!
//! A write takes room for its body before the body is read, and gives it back with the answer. Who
//! finds no room waits a little; who waited in vain, or would wait behind too many, is told to come
//! back later (429 with `Retry-After`). So many runs may be asked for at once as clients like, and
//! memory stays bounded. Reads take no room: lists come in pages, and watches would never give it back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use coracle_api::reason::Reason;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What all requests together may hold, in KiB.
const ALL: u32 = 256 << 10;
/// What a request takes at least: what is made of a body is larger than the body.
const LEAST: u32 = 128;
/// What a body takes that does not say how large it is: the most that one may have.
const UNKNOWN: u32 = 64 << 10;
/// Requests that may wait.
const MOST_WAITING: usize = 4096;
/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// When to come back, in seconds.
const LATER: u32 = 2;

/// The room that is left. Clones share it.
#[derive(Debug, Clone)]
pub struct Room {
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(ALL as usize)),
            waiting: Arc::default(),
        }
    }
}

impl Room {
    async fn take(&self, amount: u32) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.free);
        if let Ok(taken) = Arc::clone(&free).try_acquire_many_owned(amount) {
            return Some(taken);
        }
        let place = Place::behind(&self.waiting)?;
        let taken = tokio::time::timeout(PATIENCE, free.acquire_many_owned(amount)).await;
        drop(place);
        taken.ok()?.ok()
    }
}

/// One of those who wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn behind(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets a write in when there is room for it.
pub async fn layer(State(room): State<Room>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let Some(taken) = room.take(amount(request.headers())).await else {
        return refusal(request.uri().path());
    };
    let answer = next.run(request).await;
    drop(taken);
    answer
}

/// What a request takes, in KiB.
fn amount(headers: &HeaderMap) -> u32 {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let is_unknown = length.is_none() && headers.contains_key(header::TRANSFER_ENCODING);
    match length {
        Some(bytes) => u32::try_from(bytes / 1024).unwrap_or(ALL).clamp(LEAST, ALL),
        None if is_unknown => UNKNOWN,
        None => LEAST,
    }
}

/// The answer, in the shape of the API that was asked.
fn refusal(path: &str) -> Response {
    let reason = Reason::TooManyRequests;
    let message = format!("the server has its hands full: try again in {LATER} s");
    let is_pipelines = path.starts_with("/apis/v") || path.starts_with("/pipeline/");
    let body: Value = if is_pipelines {
        // The code is gRPC's RESOURCE_EXHAUSTED.
        json!({"code": 8, "message": message, "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason.to_string(),
            "domain": "coracle.dev",
            "metadata": {"hint": reason.hint()},
        }]})
    } else {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason.to_string(),
            "details": {"retryAfterSeconds": LATER},
            "code": 429,
        })
    };
    let later = [(header::RETRY_AFTER, LATER.to_string())];
    (StatusCode::TOO_MANY_REQUESTS, later, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing};
    use tokio::sync::oneshot;
    use tower::ServiceExt as _;

    use super::*;

    fn write(path: &str, bytes: u32) -> Request {
        Request::post(path)
            .header(header::CONTENT_LENGTH, bytes)
            .body(Body::empty())
            .expect("a request")
    }

    fn router(room: &Room) -> Router {
        Router::new()
            .fallback(routing::any(|| async { "done" }))
            .layer(middleware::from_fn_with_state(room.clone(), layer))
    }

    async fn status(router: Router, request: Request) -> StatusCode {
        router.oneshot(request).await.expect("an answer").status()
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_room_and_is_done_when_there_is_some() {
        let room = Room::default();
        let all = room.take(ALL).await.expect("all of it");
        let (begin, begun) = oneshot::channel();
        let waits = async {
            begin.send(()).expect("somebody listens");
            status(router(&room), write("/apis/v2beta1/runs", 10)).await
        };
        let frees = async {
            begun.await.expect("it began");
            drop(all);
        };
        let (answer, ()) = tokio::join!(waits, frees);
        assert_eq!(answer, StatusCode::OK);
        assert_eq!(room.free.available_permits(), ALL as usize, "all is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_a_write_is_told_to_come_back_and_a_read_is_done() {
        let room = Room::default();
        let _all = room.take(ALL).await.expect("all of it");
        for (path, shape) in [
            ("/apis/v2beta1/runs", "ErrorInfo"),
            ("/api/v1/pods", "retryAfterSeconds"),
        ] {
            let answer = router(&room).oneshot(write(path, 10)).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
            let body = axum::body::to_bytes(answer.into_body(), 4096)
                .await
                .expect("a body");
            let text = String::from_utf8_lossy(&body).into_owned();
            assert!(text.contains("TooManyRequests") && text.contains(shape), "{text}");
        }
        let read = Request::get("/api/v1/pods")
            .body(Body::empty())
            .expect("a request");
        assert_eq!(status(router(&room), read).await, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_behind_too_many_is_told_at_once() {
        let room = Room::default();
        let _all = room.take(ALL).await.expect("all of it");
        room.waiting.store(MOST_WAITING, Ordering::Relaxed);
        let before = tokio::time::Instant::now();
        assert_eq!(
            status(router(&room), write("/x", 1)).await,
            StatusCode::TOO_MANY_REQUESTS
        );
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(room.waiting.load(Ordering::Relaxed), MOST_WAITING);
    }

    #[test]
    fn a_large_body_takes_more_room_and_one_of_no_known_size_the_most() {
        let of = |name: header::HeaderName, value: &str| {
            amount(&HeaderMap::from_iter([(name, value.parse().expect("a value"))]))
        };
        assert_eq!(of(header::CONTENT_LENGTH, "10"), LEAST);
        assert_eq!(of(header::CONTENT_LENGTH, "1048576"), 1024);
        assert_eq!(of(header::CONTENT_LENGTH, "99999999999999"), ALL);
        assert_eq!(of(header::TRANSFER_ENCODING, "chunked"), UNKNOWN);
        assert_eq!(amount(&HeaderMap::new()), LEAST);
    }
}
