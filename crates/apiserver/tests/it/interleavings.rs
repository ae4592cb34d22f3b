//! Whatever several clients write at once, a watcher misses nothing and sees nothing twice: in
//! every way to begin a watch, when it comes back, and when the history it comes back to is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::body::Body;
use http::Request;
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, Events, MERGE, get, with_body};

/// The object whose coming ends a watch.
const END: &str = "end";

#[derive(Debug, Clone)]
enum Write {
    Create {
        name: u8,
        app: u8,
    },
    Label {
        name: u8,
        app: u8,
    },
    Data {
        name: u8,
        value: u8,
    },
    Delete {
        name: u8,
    },
    /// Forgets history up to so many revisions ago.
    Compact {
        keep: u64,
    },
}

/// How a watch begins.
#[derive(Debug, Clone, Copy)]
enum Begin {
    List,
    /// With what is there as events, whose end is not told.
    Present,
    /// With what is there, up to a bookmark.
    Streamed,
}

#[derive(Debug, Clone)]
struct Watcher {
    begin: Begin,
    /// Only objects with this label are of interest.
    app: Option<u8>,
    /// It goes away after so many events, and comes back to where it was.
    patience: usize,
}

fn write() -> impl Strategy<Value = Write> {
    let (name, app) = (0..4_u8, 0..2_u8);
    prop_oneof![
        3 => (name.clone(), app.clone()).prop_map(|(name, app)| Write::Create { name, app }),
        3 => (name.clone(), app).prop_map(|(name, app)| Write::Label { name, app }),
        3 => (name.clone(), 0..3_u8).prop_map(|(name, value)| Write::Data { name, value }),
        2 => name.prop_map(|name| Write::Delete { name }),
        1 => (0..6_u64).prop_map(|keep| Write::Compact { keep }),
    ]
}

fn watcher() -> impl Strategy<Value = Watcher> {
    let begin = prop_oneof![Just(Begin::List), Just(Begin::Present), Just(Begin::Streamed)];
    (begin, proptest::option::of(0..2_u8), 1..12_usize).prop_map(|(begin, app, patience)| Watcher {
        begin,
        app,
        patience,
    })
}

/// A revision that a write made, or none when it did nothing.
async fn perform(api: &Api, write: &Write) -> Option<u64> {
    let path = |name: &u8| format!("{CONFIG_MAPS}/c{name}");
    let request = match write {
        Write::Create { name, app } => {
            let object =
                json!({"metadata": {"name": format!("c{name}"), "labels": {"app": app.to_string()}}});
            with_body("POST", CONFIG_MAPS, "application/json", &object)
        }
        Write::Label { name, app } => {
            let patch = json!({"metadata": {"labels": {"app": app.to_string()}}});
            with_body("PATCH", &path(name), MERGE, &patch)
        }
        Write::Data { name, value } => {
            let patch = json!({"data": {"v": value.to_string()}});
            with_body("PATCH", &path(name), MERGE, &patch)
        }
        Write::Delete { name } => Request::delete(path(name)).body(Body::empty()).unwrap(),
        Write::Compact { keep } => {
            let latest = api.resources().revision().await.unwrap();
            api.resources()
                .compact(latest.saturating_sub(*keep))
                .await
                .unwrap();
            return None;
        }
    };
    let (code, answer) = api.send(request).await;
    assert!(
        [200, 201, 404, 409].contains(&code.as_u16()),
        "{write:?}: {answer}"
    );
    revision(&answer)
}

fn revision(object: &Value) -> Option<u64> {
    object
        .pointer("/metadata/resourceVersion")?
        .as_str()?
        .parse()
        .ok()
}

/// What a watcher knows.
#[derive(Debug, Default)]
struct Seen {
    objects: BTreeMap<String, Value>,
    /// The revision that it has got to.
    at: u64,
    /// From where on it has seen every event; none when it cannot know.
    since: Option<u64>,
    revisions: BTreeSet<u64>,
    is_over: bool,
}

impl Seen {
    /// Begins anew from a list.
    fn list(&mut self, list: &Value) {
        let items = list["items"].as_array().unwrap().iter();
        self.objects = items.map(|item| (name(item), item.clone())).collect();
        self.is_over = self.objects.contains_key(END);
        self.begin(revision(list).unwrap());
    }

    fn begin(&mut self, at: u64) {
        self.since = Some(at);
        self.at = at;
        self.revisions.clear();
    }

    /// One event after the beginning.
    fn event(&mut self, event: &Value) {
        let object = &event["object"];
        let revision = revision(object).unwrap();
        let kind = event["type"].as_str().unwrap();
        if kind == "BOOKMARK" {
            assert!(revision >= self.at, "a bookmark goes back: {event}");
            self.at = revision;
            return;
        }
        // What is there at the beginning comes in the order of names.
        let may_be_present = self.since.is_none() && kind == "ADDED";
        assert!(
            may_be_present || revision > self.at,
            "{revision} comes after {}: {event}",
            self.at
        );
        assert!(self.revisions.insert(revision), "{revision} is there twice");
        self.at = self.at.max(revision);
        let before = match kind {
            "DELETED" => self.objects.remove(&name(object)),
            _ => self.objects.insert(name(object), object.clone()),
        };
        assert_eq!(before.is_some(), kind != "ADDED", "{event}, after {before:?}");
        self.is_over |= name(object) == END;
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Watches until the end comes.
async fn watch(api: Arc<Api>, watcher: Watcher) -> Seen {
    let selector = watcher
        .app
        .map_or_else(String::new, |app| format!("labelSelector=app in ({app},{END})"));
    let selector = selector.replace(' ', "%20");
    let mut seen = Seen::default();
    let mut is_new = true;
    // Who begins anew each time must get beyond what is there at the beginning.
    let least = if matches!(watcher.begin, Begin::Present) {
        8
    } else {
        1
    };
    while !seen.is_over {
        // Who does not know where the beginning ended cannot come back to it.
        let mut events = if is_new || seen.since.is_none() {
            begin(&api, watcher.begin, &selector, &mut seen).await
        } else {
            let from = seen.at;
            api.watch(&format!(
                "{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={from}&{selector}"
            ))
            .await
        };
        is_new = false;
        for _ in 0..watcher.patience.max(least) {
            if seen.is_over {
                break;
            }
            let event = events.next().await.expect("a watch goes on");
            if event["type"] == "ERROR" {
                assert_eq!(event["object"]["code"], 410, "{event}");
                is_new = true;
                break;
            }
            seen.event(&event);
        }
    }
    seen
}

async fn begin(api: &Api, begin: Begin, selector: &str, seen: &mut Seen) -> Events {
    match begin {
        Begin::List => {
            let list = api.expect(200, get(&format!("{CONFIG_MAPS}?{selector}"))).await;
            seen.list(&list);
            let from = seen.at;
            api.watch(&format!(
                "{CONFIG_MAPS}?watch=true&resourceVersion={from}&{selector}"
            ))
            .await
        }
        Begin::Present | Begin::Streamed => {
            let query = "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
            let query = if matches!(begin, Begin::Streamed) {
                query
            } else {
                "watch=true"
            };
            let mut events = api.watch(&format!("{CONFIG_MAPS}?{query}&{selector}")).await;
            *seen = Seen::default();
            if matches!(begin, Begin::Streamed) {
                loop {
                    let event = events.next().await.expect("a watch goes on");
                    let object = &event["object"];
                    if event["type"] == "ERROR" {
                        // History was forgotten while the list was read: once more.
                        events = api.watch(&format!("{CONFIG_MAPS}?{query}&{selector}")).await;
                        *seen = Seen::default();
                        continue;
                    }
                    if event["type"] == "BOOKMARK" {
                        assert_eq!(
                            object["metadata"]["annotations"]["k8s.io/initial-events-end"],
                            "true"
                        );
                        seen.begin(revision(object).unwrap());
                        return events;
                    }
                    assert_eq!(event["type"], "ADDED");
                    seen.objects.insert(name(object), object.clone());
                    seen.is_over |= name(object) == END;
                }
            }
            events
        }
    }
}

async fn run(writers: Vec<Vec<Write>>, watchers: Vec<Watcher>) {
    let api = Arc::new(Api::new().await);
    let watching: Vec<_> = watchers
        .iter()
        .map(|watcher| tokio::spawn(watch(Arc::clone(&api), watcher.clone())))
        .collect();
    let writing: Vec<_> = writers
        .into_iter()
        .map(|writes| {
            let api = Arc::clone(&api);
            tokio::spawn(async move {
                let mut made = Vec::new();
                for write in writes {
                    made.extend(perform(&api, &write).await);
                }
                made
            })
        })
        .collect();
    let mut made = BTreeSet::new();
    for writer in writing {
        made.extend(writer.await.unwrap());
    }
    let end = json!({"metadata": {"name": END, "labels": {"app": END}}});
    made.extend(revision(&api.create(CONFIG_MAPS, &end).await));
    for (watcher, seen) in watchers.into_iter().zip(watching) {
        let seen = seen.await.unwrap();
        let selector = watcher.app.map_or_else(String::new, |app| {
            format!("labelSelector=app%20in%20({app},{END})")
        });
        let list = api.get(&format!("{CONFIG_MAPS}?{selector}")).await;
        let mut last = Seen::default();
        last.list(&list);
        assert_eq!(seen.objects, last.objects, "{watcher:?}");
        if let (None, Some(since)) = (watcher.app, seen.since) {
            let missed: Vec<_> = made
                .iter()
                .filter(|revision| **revision > since && !seen.revisions.contains(revision))
                .collect();
            assert!(missed.is_empty(), "{watcher:?} has missed {missed:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn watchers_miss_nothing_and_see_nothing_twice(
        writers in vec(vec(write(), 1..25), 1..5),
        watchers in vec(watcher(), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(3)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run(writers, watchers));
    }
}
