//! Keeps what is only history from growing without bound: old Events, the part of the revision
//! log that no watch needs any more, and, where a limit is set, artifacts of old runs. Rows about
//! runs are not history, and stay.

use std::time::Duration;

use axum::{Router, body::Body};
use coracle_store::resources::Resources;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::config::Retention;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(600);
/// How long an Event stays, as on Kubernetes (`kube-apiserver --event-ttl`).
const EVENTS_STAY: SignedDuration = SignedDuration::from_hours(1);
/// How many revisions stay for watches that take up where they broke off.
const REVISIONS_STAY: u64 = 20_000;
/// The largest answer about deleted artifacts that is read, in bytes.
const ANSWER: usize = 64 << 20;

/// Tidies up now and then, until `stop`. `own` are the objects of the embedded Kubernetes API, and
/// a client of it; a cluster tidies up by itself. `pipelines` is the pipelines API, which knows what of a
/// run's artifacts nobody needs.
pub async fn keep(
    own: Option<(Resources, Client)>,
    pipelines: Router,
    retention: Retention,
    stop: CancellationToken,
) {
    let mut due = tokio::time::interval(PERIOD);
    due.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = due.tick() => {}
        }
        if let Some((resources, client)) = &own {
            if let Err(error) = forget_events(client, Timestamp::now()).await {
                tracing::warn!(%error, "cannot delete old Events");
            }
            if let Err(error) = forget_revisions(resources).await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot shorten the log of revisions");
            }
        }
        if retention != Retention::default() {
            collect(&pipelines, retention).await;
        }
    }
}

/// Deletes the Events that were last seen too long before `now`.
async fn forget_events(client: &Client, now: Timestamp) -> Result<(), kube::Error> {
    let events: Vec<Event> = Api::all(client.clone()).list(&ListParams::default()).await?.items;
    let old = events.into_iter().filter(|event| is_old(event, now));
    futures::stream::iter(old.map(Ok))
        .try_for_each_concurrent(4, async |event: Event| {
            let (Some(namespace), Some(name)) = (event.metadata.namespace, event.metadata.name) else {
                return Ok(());
            };
            let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
            match events.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(|_| ()),
            }
        })
        .await
}

fn is_old(event: &Event, now: Timestamp) -> bool {
    let seen = [&event.last_timestamp, &event.metadata.creation_timestamp];
    let last = seen.into_iter().flatten().map(|time| time.0).max();
    last.is_some_and(|last| now.duration_since(last) > EVENTS_STAY)
}

async fn forget_revisions(resources: &Resources) -> Result<(), coracle_store::resources::Error> {
    let latest = resources.revision().await?;
    if let Some(below) = latest.checked_sub(REVISIONS_STAY).filter(|below| *below > 0) {
        resources.compact(below).await?;
    }
    Ok(())
}

/// Deletes the artifacts that the limits leave out, as `coracle gc` does.
async fn collect(pipelines: &Router, retention: Retention) {
    let asked = http::Request::post("/apis/v2beta1/storage:collect")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Body::from(order(retention).to_string()));
    let Ok(asked) = asked else { return };
    // A router that has no error of its own: `Infallible`.
    let Ok(answer) = pipelines.clone().oneshot(asked).await;
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), ANSWER).await;
    let body: Value = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok())
        .unwrap_or_default();
    if !status.is_success() {
        let message = body["message"].as_str().unwrap_or_default();
        tracing::warn!(%status, message, "cannot delete artifacts of old runs");
        return;
    }
    let count = body["artifacts"].as_array().map_or(0, Vec::len);
    if count > 0 {
        let bytes = body["bytes"].as_str().unwrap_or_default();
        tracing::info!(count, bytes, "deleted artifacts of old runs");
    }
    for problem in body["problems"].as_array().into_iter().flatten() {
        let problem = problem.as_str().unwrap_or_default();
        tracing::warn!(problem, "cannot delete an artifact");
    }
}

fn order(retention: Retention) -> Value {
    let mut order = json!({"dry_run": false});
    if let Some(age) = retention.age {
        order["older_than_seconds"] = json!(age.as_secs());
    }
    if let Some(runs) = retention.runs {
        order["keep_last"] = json!(runs);
    }
    if let Some(size) = retention.size {
        order["max_bytes"] = json!(size);
    }
    order
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn an_event_is_old_an_hour_after_it_was_last_seen() {
        let minutes = |minutes: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let mut event = Event {
            last_timestamp: Some(Time(minutes(10))),
            ..Event::default()
        };
        event.metadata.creation_timestamp = Some(Time(minutes(0)));
        assert!(!is_old(&event, minutes(69)));
        assert!(is_old(&event, minutes(71)));
        assert!(!is_old(&Event::default(), minutes(1000)));
    }

    #[test]
    fn only_the_limits_that_are_set_are_asked_for() {
        let retention = Retention {
            age: Some(SignedDuration::from_hours(48)),
            runs: None,
            size: Some(1024),
        };
        let expected = json!({"dry_run": false, "older_than_seconds": 172_800, "max_bytes": 1024});
        assert_eq!(order(retention), expected);
    }
}
