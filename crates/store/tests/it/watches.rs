//! Watches: what was, then what is, with no gap and no duplicate.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
};

use coracle_store::{
    Location, Store,
    resources::{At, Body, Error, EventKind, GroupResource, Key, Resources, Watch},
};
use futures::{StreamExt as _, task::noop_waker};

use crate::samples::{body, pod, pods};

crate::conformance! {
    a_watch_tells_what_was_and_then_what_is,
    a_watch_keeps_to_its_kind_and_namespace,
    watches_under_concurrent_writers_see_each_revision_once_in_order,
    a_list_and_a_watch_from_it_end_where_the_store_is,
    a_watch_that_lags_reads_the_log,
    a_watch_that_lags_behind_a_compaction_is_told,
    watches_from_before_a_compaction_are_refused,
    a_watch_from_a_revision_that_is_not_there_yet_begins_after_it,
    a_watch_says_how_far_it_is,
    a_watch_may_be_abandoned_while_it_waits,
    a_write_that_is_abandoned_is_still_told,
    a_stream_ends_after_an_error,
    watches_from_any_revision_see_the_rest_once_from_memory_or_log,
    a_watch_is_not_woken_by_another_kind,
    a_watch_ends_with_its_store,
}

async fn a_watch_tells_what_was_and_then_what_is(store: &Store) {
    let resources = store.resources();
    let first = resources.create(pod("a", "x"), body(1)).await.unwrap();
    let second = resources
        .update(pod("a", "x"), body(2), first.revision)
        .await
        .unwrap();
    let mut watch = resources.watch(&pods(), None, first.revision).await.unwrap();

    let event = watch.next().await.unwrap().unwrap();
    assert_eq!((event.kind, &event.object), (EventKind::Modified, &second));
    assert_eq!(event.previous.as_ref(), Some(&first.body));

    let gone = resources.delete(&pod("a", "x"), None).await.unwrap();
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!((event.kind, &event.object), (EventKind::Deleted, &gone));
    assert_eq!(event.previous.as_ref(), Some(&second.body));

    // The log tells it in the same words.
    let mut again = resources.watch(&pods(), None, second.revision).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap(), event);
    let mut from_first = resources.watch(&pods(), None, first.revision - 1).await.unwrap();
    let event = from_first.next().await.unwrap().unwrap();
    assert_eq!(
        (event.kind, &event.object, &event.previous),
        (EventKind::Added, &first, &None)
    );
}

async fn a_watch_keeps_to_its_kind_and_namespace(store: &Store) {
    let resources = store.resources();
    let from = resources.revision().await.unwrap();
    let mut before = resources
        .watch(&pods(), Some("a".to_owned()), from)
        .await
        .unwrap();
    let nodes = Key {
        resource: GroupResource::new("", "nodes"),
        ..pod("", "n")
    };
    resources.create(nodes, body(1)).await.unwrap();
    resources.create(pod("b", "x"), body(1)).await.unwrap();
    let wanted = resources.create(pod("a", "x"), body(1)).await.unwrap();
    let mut after = resources
        .watch(&pods(), Some("a".to_owned()), from)
        .await
        .unwrap();
    assert_eq!(before.next().await.unwrap().unwrap().object, wanted);
    assert_eq!(after.next().await.unwrap().unwrap().object, wanted);
}

async fn watches_under_concurrent_writers_see_each_revision_once_in_order(store: &Store) {
    const WRITERS: u64 = 4;
    const ROUNDS: u64 = 60;
    let resources = store.resources();
    let from = resources.revision().await.unwrap();
    let last = from + WRITERS * ROUNDS * 3;
    let early = tokio::spawn(revisions(
        resources.watch(&pods(), None, from).await.unwrap(),
        last,
    ));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(resources.clone(), writer, ROUNDS)))
        .collect();
    // Watches that begin in the middle of it, at the past and at the present.
    let mut others = Vec::new();
    for _ in 0..20 {
        let now = resources.revision().await.unwrap();
        let past = revisions(resources.watch(&pods(), None, from).await.unwrap(), last);
        let present = revisions(resources.watch(&pods(), None, now).await.unwrap(), last);
        others.push((from, tokio::spawn(past)));
        others.push((now, tokio::spawn(present)));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(early.await.unwrap(), (from + 1..=last).collect::<Vec<_>>());
    for (from, watch) in others {
        assert_eq!(watch.await.unwrap(), (from + 1..=last).collect::<Vec<_>>());
    }
}

async fn a_list_and_a_watch_from_it_end_where_the_store_is(store: &Store) {
    let resources = store.resources();
    let writers: Vec<_> = (0..3)
        .map(|writer| tokio::spawn(write(resources.clone(), writer, 40)))
        .collect();
    let list = resources
        .list(&pods(), None, At::Latest, None, None)
        .await
        .unwrap();
    let mut watch = resources.watch(&pods(), None, list.revision).await.unwrap();
    let mut mirror: BTreeMap<Key, Body> = list
        .objects
        .into_iter()
        .map(|object| (object.key, object.body))
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let kept = resources.create(pod("a", "kept"), body(1)).await.unwrap();
    loop {
        let event = watch.next().await.unwrap().unwrap();
        let object = event.object.clone();
        match event.kind {
            EventKind::Deleted => mirror.remove(&object.key),
            EventKind::Added | EventKind::Modified => mirror.insert(object.key, object.body),
        };
        if object.revision == kept.revision {
            break;
        }
    }
    let end = resources
        .list(&pods(), None, At::Latest, None, None)
        .await
        .unwrap();
    let end: BTreeMap<_, _> = end
        .objects
        .into_iter()
        .map(|object| (object.key, object.body))
        .collect();
    assert_eq!(mirror, end);
}

async fn a_watch_that_lags_reads_the_log(store: &Store) {
    let resources = store.resources();
    let from = resources.revision().await.unwrap();
    let watch = resources.watch(&pods(), None, from).await.unwrap();
    // More than are kept for watches that do not keep up.
    write(resources.clone(), 0, 500).await;
    assert_eq!(
        revisions(watch, from + 1500).await,
        (from + 1..=from + 1500).collect::<Vec<_>>()
    );
}

async fn a_watch_that_lags_behind_a_compaction_is_told(store: &Store) {
    let resources = store.resources();
    let from = resources.revision().await.unwrap();
    let mut watch = resources.watch(&pods(), None, from).await.unwrap();
    write(resources.clone(), 0, 500).await;
    resources.compact(from + 1000).await.unwrap();
    let told = watch.next().await.unwrap();
    assert!(matches!(told, Err(Error::Compacted { requested, oldest })
        if requested == from && oldest == from + 999));
}

async fn watches_from_before_a_compaction_are_refused(store: &Store) {
    let resources = store.resources();
    let first = resources.create(pod("a", "x"), body(1)).await.unwrap();
    let second = resources
        .update(pod("a", "x"), body(2), first.revision)
        .await
        .unwrap();
    let third = resources
        .update(pod("a", "x"), body(3), second.revision)
        .await
        .unwrap();
    resources.compact(third.revision).await.unwrap();
    let old = resources.watch(&pods(), None, first.revision).await;
    assert!(matches!(old, Err(Error::Compacted { .. })));
    let mut young = resources.watch(&pods(), None, second.revision).await.unwrap();
    assert_eq!(young.next().await.unwrap().unwrap().object, third);
}

async fn a_watch_from_a_revision_that_is_not_there_yet_begins_after_it(store: &Store) {
    let resources = store.resources();
    let latest = resources.revision().await.unwrap();
    let mut watch = resources.watch(&pods(), None, latest + 2).await.unwrap();
    let mut waker = Context::from_waker(Waker::noop());
    for name in ["before", "at"] {
        assert!(pin!(watch.next()).poll(&mut waker).is_pending());
        assert_eq!(watch.revision(), latest + 2);
        resources.create(pod("a", name), body(1)).await.unwrap();
    }
    assert!(pin!(watch.next()).poll(&mut waker).is_pending());
    let after = resources.create(pod("a", "after"), body(1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().object, after);
}

async fn a_watch_says_how_far_it_is(store: &Store) {
    let resources = store.resources();
    let start = resources.revision().await.unwrap();
    let first = resources.create(pod("a", "x"), body(1)).await.unwrap();
    let mut watch = resources.watch(&pods(), None, start).await.unwrap();
    assert_eq!(watch.revision(), start, "the first event is still to come");
    watch.next().await.unwrap().unwrap();
    assert_eq!(watch.revision(), first.revision);
    let nodes = Key {
        resource: GroupResource::new("", "nodes"),
        ..pod("", "n")
    };
    let other = resources.create(nodes, body(1)).await.unwrap();
    poll_once(watch.next());
    assert_eq!(
        watch.revision(),
        other.revision,
        "what does not concern it is behind it"
    );
    // The log is read as far as it goes, also where it holds nothing that concerns the watch.
    let late = resources
        .watch(&GroupResource::new("", "secrets"), None, start)
        .await
        .unwrap();
    assert_eq!(late.revision(), other.revision);
}

async fn a_watch_may_be_abandoned_while_it_waits(store: &Store) {
    let resources = store.resources();
    let from = resources.revision().await.unwrap();
    let mut watch = resources.watch(&pods(), None, from).await.unwrap();
    for number in 0..20 {
        poll_once(watch.next());
        let made = resources
            .create(pod("a", &format!("x{number}")), body(1))
            .await
            .unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().object, made);
    }
}

async fn a_write_that_is_abandoned_is_still_told(store: &Store) {
    let resources = store.resources();
    let from = resources.revision().await.unwrap();
    let mut watch = resources.watch(&pods(), None, from).await.unwrap();
    for number in 0..20 {
        let name = format!("x{number}");
        poll_once(resources.create(pod("a", &name), body(1)));
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!(event.object.key.name, name);
    }
}

async fn a_stream_ends_after_an_error(store: &Store) {
    let resources = store.resources();
    let from = resources.revision().await.unwrap();
    let watch = resources.watch(&pods(), None, from).await.unwrap();
    write(resources.clone(), 0, 500).await;
    resources.compact(from + 1000).await.unwrap();
    let told: Vec<_> = watch.into_stream().collect().await;
    assert!(matches!(told.as_slice(), [Err(Error::Compacted { .. })]));
}

async fn watches_from_any_revision_see_the_rest_once_from_memory_or_log(store: &Store) {
    let resources = store.resources();
    let start = resources.revision().await.unwrap();
    // More than is kept in memory, by their number and by their size.
    write(resources.clone(), 0, 400).await;
    for number in 0..80 {
        let large = body("y".repeat(50_000));
        resources
            .create(pod("a", &format!("large-{number}")), large)
            .await
            .unwrap();
    }
    let last = start + 400 * 3 + 80;
    let compacted = start + 100;
    let early = resources.watch(&pods(), None, start).await.unwrap();
    resources.compact(compacted + 1).await.unwrap();
    for from in (start..=last).step_by(23) {
        let watch = resources.watch(&pods(), None, from).await;
        if from < compacted {
            assert!(matches!(watch, Err(Error::Compacted { .. })), "{from}");
            continue;
        }
        let seen = revisions(watch.unwrap(), last).await;
        assert_eq!(seen, (from + 1..=last).collect::<Vec<_>>(), "{from}");
    }
    let told: Vec<_> = early.into_stream().collect().await;
    assert!(matches!(told.as_slice(), [Err(Error::Compacted { .. })]));
}

async fn a_watch_is_not_woken_by_another_kind(store: &Store) {
    let resources = store.resources();
    let from = resources.revision().await.unwrap();
    let mut watch = resources.watch(&pods(), None, from).await.unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    {
        let mut next = pin!(watch.next());
        let mut context = Context::from_waker(&waker);
        assert!(next.as_mut().poll(&mut context).is_pending());
        let other = GroupResource::new("", "nodes");
        for number in 0..10 {
            let key = Key {
                resource: other.clone(),
                ..pod("", &format!("n{number}"))
            };
            resources.create(key, body(1)).await.unwrap();
        }
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
    }
    assert_eq!(watch.revision(), from + 10, "it has seen them all the same");
    let made = resources.create(pod("a", "x"), body(1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().object, made);
}

async fn a_watch_ends_with_its_store(_: &Store) {
    let store = Store::open(Location::Memory).await.unwrap();
    let now = store.resources().revision().await.unwrap();
    let mut watch = store.resources().watch(&pods(), None, now).await.unwrap();
    let made = store.resources().create(pod("a", "x"), body(1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().object, made);
    let closing = tokio::spawn(store.close());
    assert!(watch.next().await.is_none());
    closing.await.unwrap();
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Creates, updates and deletes objects: three revisions a round.
async fn write(resources: Resources, writer: u64, rounds: u64) {
    for round in 0..rounds {
        let key = pod("a", &format!("{writer}-{round}"));
        let made = resources.create(key.clone(), body(1)).await.unwrap();
        let changed = resources
            .update(key.clone(), body(2), made.revision)
            .await
            .unwrap();
        resources.delete(&key, Some(changed.revision)).await.unwrap();
    }
}

async fn revisions(mut watch: Watch, last: u64) -> Vec<u64> {
    let mut revisions = Vec::new();
    while revisions.last().is_none_or(|seen| *seen < last) && watch.revision() < last {
        revisions.push(watch.next().await.unwrap().unwrap().object.revision);
    }
    revisions
}

/// Begins something and abandons it.
fn poll_once(future: impl Future) {
    let _ = pin!(future).poll(&mut Context::from_waker(&noop_waker()));
}
