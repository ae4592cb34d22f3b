//! Keeps what is only history from growing without bound: old Events, and the part of the
//! revision log that no watch needs any more. Rows about runs are not history, and stay.

use std::time::Duration;

use coracle_store::resources::Resources;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use tokio_util::sync::CancellationToken;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(600);
/// How long an Event stays, as on Kubernetes (`kube-apiserver --event-ttl`).
const EVENTS_STAY: SignedDuration = SignedDuration::from_hours(1);
/// How many revisions stay for watches that take up where they broke off.
const REVISIONS_STAY: u64 = 20_000;

/// Tidies up now and then, until `stop`.
pub async fn keep(resources: Resources, client: Client, stop: CancellationToken) {
    let mut due = tokio::time::interval(PERIOD);
    due.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = due.tick() => {}
        }
        if let Err(error) = forget_events(&client, Timestamp::now()).await {
            tracing::warn!(%error, "cannot delete old Events");
        }
        if let Err(error) = forget_revisions(&resources).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "cannot shorten the log of revisions");
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
}
