//! The API as controllers are written against it: `kube::runtime`'s reflector, controller and
//! finalizer, and a lease by which one of several leads.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::ConfigMap,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api as Objects, Error, Resource as _, ResourceExt as _,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
        WatchParams,
    },
    runtime::{
        Controller, WatchStreamExt as _,
        controller::Action,
        finalizer::{self, finalizer},
        reflector,
        wait::{Condition, await_condition, conditions},
        watcher,
    },
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::AbortHandle};

use crate::harness::Api;

/// Something took so long that it does not come.
const LIMIT: Duration = Duration::from_secs(20);

/// What comes in time.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("it did not come")
}

fn settings(name: &str, text: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"text": text}})).unwrap()
}

#[tokio::test]
async fn a_reflector_shows_what_is_there_also_after_the_history_is_gone() {
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let api = Api::new().await;
        let maps: Objects<ConfigMap> = Objects::default_namespaced(api.client());
        maps.create(&PostParams::default(), &settings("a", "1"))
            .await
            .unwrap();
        let (shown, writer) = reflector::store();
        let stream = watcher(maps.clone(), config.clone())
            .default_backoff()
            .reflect(writer);
        let mut stream = pin!(stream);
        let texts = || {
            let mut all: Vec<_> = shown
                .state()
                .iter()
                .map(|map| map.data.clone().unwrap()["text"].clone())
                .collect();
            all.sort();
            all
        };
        while texts() != ["1"] {
            soon(stream.try_next()).await.unwrap();
        }

        // Nobody asks the stream meanwhile: what happens is gone from the log when it goes on.
        maps.create(&PostParams::default(), &settings("b", "2"))
            .await
            .unwrap();
        maps.delete("a", &DeleteParams::default()).await.unwrap();
        for number in 0..1100 {
            let text = json!({"data": {"text": number.to_string()}});
            maps.patch("b", &PatchParams::default(), &Patch::Merge(&text))
                .await
                .unwrap();
        }
        let latest = api.resources().revision().await.unwrap();
        api.resources().compact(latest).await.unwrap();
        let mut errors = 0;
        while texts() != ["1099"] {
            errors += usize::from(soon(stream.try_next()).await.is_err());
        }
        assert_eq!(errors, 1, "that the history is gone was to be told once");
        maps.create(&PostParams::default(), &settings("c", "3"))
            .await
            .unwrap();
        while texts() != ["1099", "3"] {
            soon(stream.try_next()).await.unwrap();
        }
    }
}

/// A kind whose objects ask for a ConfigMap with their text.
fn notes() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": "notes.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "notes", "singular": "note", "kind": "Note"},
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"text": {"type": "string"}}},
                    "status": {"type": "object", "properties": {
                        "observedGeneration": {"type": "integer"},
                        "told": {"type": "string"},
                    }},
                }}},
            }],
        },
    }))
    .unwrap()
}

/// What the reconciler works with.
struct Notes {
    notes: Objects<DynamicObject>,
    maps: Objects<ConfigMap>,
}

const MANAGER: &str = "notes-controller";
const FINALIZER: &str = "example.com/farewell";

/// Makes the ConfigMap be what the note says; says good-bye when the note goes.
async fn reconcile(note: Arc<DynamicObject>, with: Arc<Notes>) -> Result<Action, finalizer::Error<Error>> {
    let notes = with.notes.clone();
    finalizer(&notes, FINALIZER, note, async |event| {
        let apply = PatchParams::apply(MANAGER).force();
        match event {
            finalizer::Event::Apply(note) => {
                let name = note.name_any();
                let owner = json!([{
                    "apiVersion": "example.com/v1",
                    "kind": "Note",
                    "name": name,
                    "uid": note.uid(),
                    "controller": true,
                }]);
                let wanted = json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": name, "ownerReferences": owner},
                    "data": {"text": note.data["spec"]["text"]},
                });
                let map = with.maps.patch(&name, &apply, &Patch::Apply(&wanted)).await?;
                let told = map.data.unwrap_or_default().remove("text");
                let status = json!({
                    "apiVersion": "example.com/v1",
                    "kind": "Note",
                    "status": {"told": told, "observedGeneration": note.metadata.generation},
                });
                with.notes
                    .patch_status(&name, &apply, &Patch::Apply(&status))
                    .await?;
            }
            finalizer::Event::Cleanup(note) => {
                let farewell = settings(&format!("{}-farewell", note.name_any()), "good-bye");
                with.maps.create(&PostParams::default(), &farewell).await?;
            }
        }
        Ok(Action::await_change())
    })
    .await
}

/// Starts the controller.
fn control(with: Arc<Notes>, kind: ApiResource) -> AbortHandle {
    let controller = Controller::new_with(with.notes.clone(), watcher::Config::default(), kind)
        .owns(with.maps.clone(), watcher::Config::default())
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(10)),
            with,
        );
    tokio::spawn(controller.for_each(async |_| {})).abort_handle()
}

fn text_is(wanted: &str) -> impl Condition<ConfigMap> {
    move |map: Option<&ConfigMap>| {
        map.and_then(|map| map.data.as_ref()?.get("text"))
            .is_some_and(|text| text == wanted)
    }
}

/// The status is of the note as it is, and tells the text.
fn is_told(wanted: &str) -> impl Condition<DynamicObject> {
    move |note: Option<&DynamicObject>| {
        note.is_some_and(|note| {
            let status = &note.data["status"];
            status["told"] == wanted && status["observedGeneration"] == json!(note.metadata.generation)
        })
    }
}

#[tokio::test]
async fn a_controller_brings_about_what_a_custom_resource_asks_for() {
    let api = Api::collecting().await;
    let definitions: Objects<CustomResourceDefinition> = Objects::all(api.client());
    definitions
        .create(&PostParams::default(), &notes())
        .await
        .unwrap();
    soon(await_condition(
        definitions,
        "notes.example.com",
        conditions::is_crd_established(),
    ))
    .await
    .unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Note"));
    let with = Arc::new(Notes {
        notes: Objects::default_namespaced_with(api.client(), &kind),
        maps: Objects::default_namespaced(api.client()),
    });
    let (notes, maps) = (with.notes.clone(), with.maps.clone());
    let controller = control(Arc::clone(&with), kind.clone());

    let note = DynamicObject::new("n", &kind).data(json!({"spec": {"text": "hello"}}));
    let note = notes.create(&PostParams::default(), &note).await.unwrap();
    soon(await_condition(maps.clone(), "n", text_is("hello")))
        .await
        .unwrap();
    let note = soon(await_condition(notes.clone(), "n", is_told("hello")))
        .await
        .unwrap()
        .map_or(note, |told| told);
    assert_eq!(note.finalizers(), [FINALIZER]);

    // What somebody else changes is put back, and what is gone is made again.
    let drift = json!({"data": {"text": "drift"}});
    maps.patch("n", &PatchParams::default(), &Patch::Merge(&drift))
        .await
        .unwrap();
    soon(await_condition(maps.clone(), "n", text_is("hello")))
        .await
        .unwrap();
    let map = maps.get("n").await.unwrap();
    maps.delete("n", &DeleteParams::default()).await.unwrap();
    let is_another = |again: Option<&ConfigMap>| again.is_some_and(|again| again.uid() != map.uid());
    soon(await_condition(maps.clone(), "n", is_another))
        .await
        .unwrap();

    // What is asked for while no controller runs is done by the next.
    controller.abort();
    let other = json!({"spec": {"text": "again"}});
    notes
        .patch("n", &PatchParams::default(), &Patch::Merge(&other))
        .await
        .unwrap();
    let controller = control(with, kind);
    soon(await_condition(notes.clone(), "n", is_told("again")))
        .await
        .unwrap();
    let managers: Vec<_> = maps.get("n").await.unwrap().metadata.managed_fields.unwrap();
    assert!(
        managers
            .iter()
            .any(|entry| entry.manager.as_deref() == Some(MANAGER))
    );

    // Its end: first the good-bye, then the note, then what it owned.
    let (note_uid, map_uid) = (note.uid().unwrap(), maps.get("n").await.unwrap().uid().unwrap());
    notes.delete("n", &DeleteParams::default()).await.unwrap();
    soon(await_condition(notes, "n", conditions::is_deleted(&note_uid)))
        .await
        .unwrap();
    soon(await_condition(
        maps.clone(),
        "n",
        conditions::is_deleted(&map_uid),
    ))
    .await
    .unwrap();
    assert!(maps.get_opt("n-farewell").await.unwrap().is_some());
    controller.abort();
}

/// How long a lease holds without being renewed.
const TERM: Duration = Duration::from_secs(15);

/// One of several of which one is to lead, as client-go does it: a lease is taken when nobody has
/// it, or when it did not change for its whole term, seen on the own clock.
#[derive(Clone)]
struct Candidate {
    leases: Objects<Lease>,
    name: &'static str,
    /// The revision of the lease that it has seen and waits for an end of.
    waits_from: watch::Sender<Option<String>>,
}

impl Candidate {
    fn new(api: &Api, name: &'static str) -> Self {
        Self {
            leases: Objects::default_namespaced(api.client()),
            name,
            waits_from: watch::Sender::new(None),
        }
    }

    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let transitions = before.map_or(0, |before| before.lease_transitions.unwrap_or_default() + 1);
        LeaseSpec {
            holder_identity: Some(self.name.to_owned()),
            lease_duration_seconds: Some(i32::try_from(TERM.as_secs()).unwrap()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Returns with the lease once it is this one's.
    async fn lead(&self) -> Lease {
        loop {
            let Some(mut lease) = self.leases.get_opt("leader").await.unwrap() else {
                let mut lease = Lease::default();
                lease.meta_mut().name = Some("leader".to_owned());
                lease.spec = Some(self.spec(None));
                match self.leases.create(&PostParams::default(), &lease).await {
                    Ok(lease) => return lease,
                    Err(error) => assert!(is_conflict(&error), "{error}"),
                }
                continue;
            };
            if holder(&lease).is_some() && !self.expires(&lease).await {
                continue;
            }
            lease.spec = Some(self.spec(lease.spec.take()));
            match self
                .leases
                .replace("leader", &PostParams::default(), &lease)
                .await
            {
                Ok(lease) => return lease,
                Err(error) => assert!(is_conflict(&error), "{error}"),
            }
        }
    }

    /// Whether the lease stays as it is for its term.
    async fn expires(&self, lease: &Lease) -> bool {
        let only = WatchParams::default().fields("metadata.name=leader");
        let revision = lease.resource_version().unwrap();
        let changes = self.leases.watch(&only, &revision).await.unwrap();
        self.waits_from.send_replace(Some(revision));
        tokio::time::timeout(TERM, pin!(changes).next()).await.is_err()
    }

    async fn patch(&self, spec: Value) -> Lease {
        let patch = json!({"spec": spec});
        self.leases
            .patch("leader", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap()
    }

    async fn renew(&self, second: u8) -> Lease {
        self.patch(json!({"renewTime": format!("2026-01-01T00:00:{second:02}.000000Z")}))
            .await
    }

    async fn release(&self) {
        self.patch(json!({"holderIdentity": null})).await;
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409)
}

#[tokio::test]
async fn of_two_candidates_one_leads_until_it_releases_its_lease() {
    let api = Api::new().await;
    let (a, b) = (Candidate::new(&api, "a"), Candidate::new(&api, "b"));
    let (first, other) = {
        let (mut a_leads, mut b_leads) = (pin!(a.lead()), pin!(b.lead()));
        tokio::select! {
            lease = &mut a_leads => (lease, "b"),
            lease = &mut b_leads => (lease, "a"),
        }
    };
    let (leader, other) = if other == "b" { (&a, &b) } else { (&b, &a) };
    assert_eq!(holder(&first), Some(leader.name));

    let mut takes_over = pin!(other.lead());
    for second in 0..3 {
        let renewed = leader.renew(second).await.resource_version();
        // The other sees the renewal, and goes on waiting.
        let mut waits = other.waits_from.subscribe();
        tokio::select! {
            _ = &mut takes_over => panic!("there are two leaders"),
            seen = soon(waits.wait_for(|seen| *seen == renewed)) => assert!(seen.is_ok()),
        }
    }
    leader.release().await;
    let taken = soon(takes_over).await;
    assert_eq!(holder(&taken), Some(other.name));
    assert_eq!(taken.spec.unwrap().lease_transitions, Some(1));
}

#[tokio::test]
async fn the_lease_of_a_candidate_that_died_is_taken_after_its_term() {
    let api = Api::new().await;
    let (dead, heir) = (Candidate::new(&api, "dead"), Candidate::new(&api, "heir"));
    dead.lead().await;
    // From here on only the heir's own clock is waited for.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let taken = heir.lead().await;
    assert_eq!(holder(&taken), Some("heir"));
    assert!(begun.elapsed() >= TERM);
}

#[tokio::test]
async fn of_two_that_take_a_free_lease_at_once_one_is_refused() {
    let api = Api::new().await;
    let before = Candidate::new(&api, "before");
    before.lead().await;
    before.release().await;
    let free = before.leases.get("leader").await.unwrap();
    let take = async |name| {
        let candidate = Candidate::new(&api, name);
        let mut lease = free.clone();
        lease.spec = Some(candidate.spec(lease.spec.take()));
        candidate
            .leases
            .replace("leader", &PostParams::default(), &lease)
            .await
    };
    let (a, b) = futures::join!(take("a"), take("b"));
    let (taken, refused) = if a.is_ok() { (a, b) } else { (b, a) };
    let now = before.leases.get("leader").await.unwrap();
    assert_eq!(holder(&taken.unwrap()), holder(&now));
    assert!(matches!(refused, Err(error) if is_conflict(&error)));
}
