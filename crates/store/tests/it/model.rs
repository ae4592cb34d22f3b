//! Many writers at once, in random order, against a model that does one thing after the other.

use std::collections::BTreeMap;

use coracle_store::{
    Location, Store,
    resources::{At, Body, Error, EventKind, Key, Object, Resources, Watch},
};
use proptest::prelude::*;

use crate::samples::{body, pod, pods};

/// One thing that a writer tries.
#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    /// From the revision it has, or from one it does not have.
    Update {
        is_late: bool,
    },
    Delete {
        is_exact: bool,
    },
    Compact,
}

/// What became of it.
#[derive(Debug, Clone)]
struct Done {
    kind: EventKind,
    expected: Option<u64>,
    object: Object,
}

fn steps() -> impl Strategy<Value = Vec<Vec<(u8, Step)>>> {
    let step = prop_oneof![
        8 => Just(Step::Create),
        8 => any::<bool>().prop_map(|is_late| Step::Update { is_late }),
        6 => any::<bool>().prop_map(|is_exact| Step::Delete { is_exact }),
        1 => Just(Step::Compact),
    ];
    let writer = proptest::collection::vec((0..6_u8, step), 1..40);
    proptest::collection::vec(writer, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn writers_at_once_are_as_writers_one_by_one(writers in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(check(writers));
    }
}

async fn check(writers: Vec<Vec<(u8, Step)>>) {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::File(directory.path().join("store.db"));
    let store = Store::open(location.clone()).await.unwrap();
    let resources = store.resources();
    let first = resources.revision().await.unwrap();
    let watch = resources.watch(&pods(), None, first).await.unwrap();
    let tasks: Vec<_> = writers
        .into_iter()
        .map(|steps| tokio::spawn(write(resources.clone(), first, steps)))
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.unwrap());
    }
    done.sort_by_key(|done: &Done| done.object.revision);

    // Each revision is one write that was acknowledged, and was right when its turn came.
    let mut model: BTreeMap<Key, Object> = BTreeMap::new();
    let mut moments = vec![Vec::new()];
    for (
        revision,
        Done {
            kind,
            expected,
            object,
        },
    ) in (first + 1..).zip(&done)
    {
        assert_eq!(object.revision, revision);
        let current = model.get(&object.key);
        match kind {
            EventKind::Added => assert_eq!(current, None),
            EventKind::Modified | EventKind::Deleted => {
                let current = current.unwrap();
                assert!(expected.is_none_or(|expected| expected == current.revision));
            }
        }
        if *kind == EventKind::Deleted {
            model.remove(&object.key);
        } else {
            model.insert(object.key.clone(), object.clone());
        }
        moments.push(model.values().cloned().collect::<Vec<_>>());
    }

    // The watch heard of all of it in order, with what was before.
    is_told(watch, &done).await;
    holds(&store, first, &moments).await;
    store.close().await;
    let store = Store::open(location).await.unwrap();
    holds(&store, first, &moments).await;
    let latest = first + u64::try_from(done.len()).unwrap();
    assert_eq!(store.resources().revision().await.unwrap(), latest);
}

async fn is_told(mut watch: Watch, done: &[Done]) {
    let mut before: BTreeMap<&Key, &Body> = BTreeMap::new();
    for Done { kind, object, .. } in done {
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!((event.kind, &event.object), (*kind, object));
        assert_eq!(event.previous.as_ref(), before.get(&object.key).copied());
        if *kind == EventKind::Deleted {
            before.remove(&object.key);
        } else {
            before.insert(&object.key, &object.body);
        }
    }
}

/// The store shows each moment that it still knows, from memory or from the log.
async fn holds(store: &Store, first: u64, moments: &[Vec<Object>]) {
    let resources = store.resources();
    let now = resources
        .list(&pods(), None, At::Latest, None, None)
        .await
        .unwrap();
    assert_eq!(Some(&now.objects), moments.last());
    for object in &now.objects {
        assert_eq!(resources.get(&object.key).await.unwrap().as_ref(), Some(object));
    }
    for (revision, moment) in (first..).zip(moments) {
        match resources
            .list(&pods(), None, At::Revision(revision), None, None)
            .await
        {
            Ok(list) => assert_eq!((list.revision, &list.objects), (revision, moment)),
            Err(Error::Compacted { requested, oldest }) => assert!(requested < oldest),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn write(resources: Resources, first: u64, steps: Vec<(u8, Step)>) -> Vec<Done> {
    let mut done = Vec::new();
    for (number, (name, step)) in steps.into_iter().enumerate() {
        let key = pod(["a", "b"][usize::from(name) % 2], &format!("x{name}"));
        let known = resources.get(&key).await.unwrap().map(|found| found.revision);
        let (kind, expected, result) = match step {
            Step::Create => (EventKind::Added, None, resources.create(key, body(number)).await),
            Step::Update { is_late } => {
                let expected = known.unwrap_or(1) - u64::from(is_late);
                let result = resources.update(key, body(number), expected).await;
                // It may say already what it is to say.
                if result.as_ref().is_ok_and(|object| object.revision == expected) {
                    continue;
                }
                (EventKind::Modified, Some(expected), result)
            }
            Step::Delete { is_exact } => {
                let expected = known.filter(|_| is_exact);
                (
                    EventKind::Deleted,
                    expected,
                    resources.delete(&key, expected).await,
                )
            }
            Step::Compact => {
                let latest = resources.revision().await.unwrap();
                resources.compact(first.midpoint(latest)).await.unwrap();
                continue;
            }
        };
        match result {
            Ok(object) => done.push(Done {
                kind,
                expected,
                object,
            }),
            Err(Error::AlreadyExists { .. }) => assert_eq!(kind, EventKind::Added),
            Err(Error::NotFound { .. }) => assert_ne!(kind, EventKind::Added),
            Err(Error::Conflict {
                expected, current, ..
            }) => assert_ne!(expected, current),
            Err(error) => panic!("{error}"),
        }
    }
    done
}
