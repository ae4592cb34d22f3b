//! Objects: create, update, delete, list, compact.

use std::pin::pin;

use coracle_store::{
    Location, Store,
    resources::{At, Error, GroupResource, Key},
};
use serde_json::{Value, json};

use crate::samples::{body, pod, pods};

crate::conformance! {
    an_object_is_read_back_with_its_revision,
    a_body_cannot_claim_another_revision,
    a_taken_name_is_refused,
    an_update_needs_the_current_revision,
    of_two_updates_from_one_revision_exactly_one_wins,
    an_update_that_changes_nothing_writes_nothing,
    a_deleted_object_says_the_revision_of_its_deletion,
    a_deletion_may_need_the_current_revision,
    a_name_can_be_used_again,
    a_list_keeps_to_its_kind_and_namespace,
    pages_of_a_list_show_one_moment,
    a_list_at_an_old_revision_shows_what_was,
    lists_from_before_a_compaction_are_refused,
    a_list_at_a_revision_that_is_not_there_yet_is_refused,
    a_revision_can_be_waited_for,
    revisions_are_above_those_of_databases_that_were_there_before,
}

async fn an_object_is_read_back_with_its_revision(store: &Store) {
    let resources = store.resources();
    assert_eq!(resources.get(&pod("a", "x")).await.unwrap(), None);
    let made = resources.create(pod("a", "x"), body(1)).await.unwrap();
    assert_eq!(
        made.body["metadata"]["resourceVersion"],
        made.revision.to_string()
    );
    assert_eq!(made.body["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(resources.get(&pod("a", "x")).await.unwrap(), Some(made.clone()));
    assert_eq!(resources.revision().await.unwrap(), made.revision);
    let cluster_scoped = Key {
        resource: GroupResource::new("", "nodes"),
        namespace: String::new(),
        name: "x".to_owned(),
    };
    let node = resources.create(cluster_scoped.clone(), body(2)).await.unwrap();
    assert_eq!(node.revision, made.revision + 1);
    assert_eq!(resources.get(&cluster_scoped).await.unwrap(), Some(node));
}

async fn a_body_cannot_claim_another_revision(store: &Store) {
    let claim = json!({"metadata": {"resourceVersion": "999"}});
    let made = store
        .resources()
        .create(pod("a", "x"), claim.clone())
        .await
        .unwrap();
    assert_eq!(
        made.body,
        json!({"metadata": {"resourceVersion": made.revision.to_string()}})
    );
    let same = store
        .resources()
        .update(pod("a", "x"), claim, made.revision)
        .await
        .unwrap();
    assert_eq!(same, made);
}

async fn a_taken_name_is_refused(store: &Store) {
    let made = store.resources().create(pod("a", "x"), body(1)).await.unwrap();
    let error = store
        .resources()
        .create(pod("a", "x"), body(2))
        .await
        .unwrap_err();
    assert!(matches!(&error, Error::AlreadyExists { key } if *key == pod("a", "x")));
    assert_eq!(error.to_string(), r#"pods "a/x" already exists"#);
    assert_eq!(store.resources().get(&pod("a", "x")).await.unwrap(), Some(made));
}

async fn an_update_needs_the_current_revision(store: &Store) {
    let resources = store.resources();
    let missing = resources.update(pod("a", "x"), body(1), 1).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }));
    let first = resources.create(pod("a", "x"), body(1)).await.unwrap();
    let second = resources
        .update(pod("a", "x"), body(2), first.revision)
        .await
        .unwrap();
    assert_eq!(second.revision, first.revision + 1);
    let late = resources
        .update(pod("a", "x"), body(3), first.revision)
        .await
        .unwrap_err();
    assert!(matches!(late, Error::Conflict { expected, current, .. }
        if expected == first.revision && current == second.revision));
    assert_eq!(resources.get(&pod("a", "x")).await.unwrap(), Some(second));
}

async fn of_two_updates_from_one_revision_exactly_one_wins(store: &Store) {
    let resources = store.resources();
    let mut current = resources.create(pod("a", "x"), body(0)).await.unwrap();
    for round in 0..20 {
        let updates = ["left", "right"].map(|side| {
            let resources = resources.clone();
            let body = body(format!("{side} {round}"));
            tokio::spawn(async move { resources.update(pod("a", "x"), body, current.revision).await })
        });
        let [left, right] = updates;
        let results = [left.await.unwrap(), right.await.unwrap()];
        let mut won = results.iter().filter_map(|result| result.as_ref().ok());
        let winner = won.next().expect("one must win").clone();
        assert!(won.next().is_none(), "only one may win");
        assert!(
            results
                .iter()
                .any(|result| matches!(result, Err(Error::Conflict { .. })))
        );
        assert_eq!(
            resources.get(&pod("a", "x")).await.unwrap().as_ref(),
            Some(&winner)
        );
        current = winner;
    }
}

async fn an_update_that_changes_nothing_writes_nothing(store: &Store) {
    let resources = store.resources();
    let made = resources.create(pod("a", "x"), body(1)).await.unwrap();
    assert_eq!(
        resources
            .update(pod("a", "x"), made.body.clone().into_value(), made.revision)
            .await
            .unwrap(),
        made
    );
    assert_eq!(
        resources
            .update(pod("a", "x"), body(1), made.revision)
            .await
            .unwrap(),
        made
    );
    assert_eq!(resources.revision().await.unwrap(), made.revision);
    let late = resources.update(pod("a", "x"), body(1), made.revision - 1).await;
    assert!(matches!(late, Err(Error::Conflict { .. })));
}

async fn a_deleted_object_says_the_revision_of_its_deletion(store: &Store) {
    let resources = store.resources();
    let made = resources.create(pod("a", "x"), body(1)).await.unwrap();
    let gone = resources.delete(&pod("a", "x"), None).await.unwrap();
    assert_eq!(gone.revision, made.revision + 1);
    assert_eq!(
        gone.body["metadata"]["resourceVersion"],
        gone.revision.to_string()
    );
    assert_eq!(gone.body["spec"], made.body["spec"]);
    assert_eq!(resources.get(&pod("a", "x")).await.unwrap(), None);
    assert!(matches!(
        resources.delete(&pod("a", "x"), None).await,
        Err(Error::NotFound { .. })
    ));
}

async fn a_deletion_may_need_the_current_revision(store: &Store) {
    let resources = store.resources();
    let made = resources.create(pod("a", "x"), body(1)).await.unwrap();
    let late = resources.delete(&pod("a", "x"), Some(made.revision + 1)).await;
    assert!(matches!(late, Err(Error::Conflict { .. })));
    resources
        .delete(&pod("a", "x"), Some(made.revision))
        .await
        .unwrap();
}

async fn a_name_can_be_used_again(store: &Store) {
    let resources = store.resources();
    resources.create(pod("a", "x"), body(1)).await.unwrap();
    let gone = resources.delete(&pod("a", "x"), None).await.unwrap();
    let again = resources.create(pod("a", "x"), body(2)).await.unwrap();
    assert_eq!(again.revision, gone.revision + 1);
}

async fn a_list_keeps_to_its_kind_and_namespace(store: &Store) {
    let resources = store.resources();
    for (namespace, name) in [("b", "y"), ("a", "z"), ("b", "x"), ("bb", "x")] {
        resources.create(pod(namespace, name), body(1)).await.unwrap();
    }
    let other = Key {
        resource: GroupResource::new("apps", "pods"),
        ..pod("b", "other")
    };
    resources.create(other, body(1)).await.unwrap();

    assert_eq!(
        names(store, None, At::Latest).await,
        ["a/z", "b/x", "b/y", "bb/x"]
    );
    assert_eq!(names(store, Some("b"), At::Latest).await, ["b/x", "b/y"]);
    let first = resources
        .list(&pods(), None, At::Latest, Some(1), None)
        .await
        .unwrap();
    assert_eq!(first.remaining, Some(3));
    let second = resources
        .list(&pods(), None, At::Latest, Some(1), first.next)
        .await
        .unwrap();
    assert_eq!(second.remaining, Some(2));
    let in_one = resources
        .list(&pods(), Some("b"), At::Latest, Some(1), None)
        .await
        .unwrap();
    assert_eq!(in_one.remaining, Some(1));
    assert_eq!(names(store, Some(""), At::Latest).await, [""; 0]);
    let now = At::Revision(resources.revision().await.unwrap());
    assert_eq!(names(store, Some("b"), now).await, ["b/x", "b/y"]);
}

async fn pages_of_a_list_show_one_moment(store: &Store) {
    let resources = store.resources();
    for number in 0..10 {
        resources
            .create(pod("a", &format!("x{number}")), body(number))
            .await
            .unwrap();
    }
    for namespace in [Some("a"), None] {
        let mut at = At::Latest;
        let mut after = None;
        let mut seen = Vec::new();
        loop {
            let page = resources
                .list(&pods(), namespace, at, Some(3), after)
                .await
                .unwrap();
            assert!(page.objects.len() <= 3);
            if at == At::Latest {
                assert_eq!(page.remaining, Some(7));
            }
            seen.extend(page.objects);
            // What happens between pages shows in none of them.
            let changed = pod("a", "x9");
            match resources.get(&changed).await.unwrap() {
                Some(_) => resources.delete(&changed, None).await.unwrap(),
                None => resources.create(changed, body("again")).await.unwrap(),
            };
            at = At::Revision(page.revision);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let names: Vec<_> = seen.iter().map(|object| object.key.name.as_str()).collect();
        assert_eq!(
            names,
            ["x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9"]
        );
    }
    let exact = resources
        .list(&pods(), Some("a"), At::Latest, Some(10), None)
        .await
        .unwrap();
    assert_eq!(
        (exact.objects.len(), exact.next, exact.remaining),
        (10, None, None)
    );
}

async fn a_list_at_an_old_revision_shows_what_was(store: &Store) {
    let resources = store.resources();
    let mut moments = Vec::new();
    // Any sequence will do, as long as it is the same each time.
    let mut random: u32 = 7;
    for step in 0..200 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = pod(
            ["a", "b"][(random >> 16) as usize % 2],
            &format!("x{}", (random >> 18) % 5),
        );
        match resources.get(&key).await.unwrap() {
            None => resources.create(key, body(step)).await.unwrap(),
            Some(_) if (random >> 24).is_multiple_of(3) => resources.delete(&key, None).await.unwrap(),
            Some(found) => resources.update(key, body(step), found.revision).await.unwrap(),
        };
        moments.push(
            resources
                .list(&pods(), None, At::Latest, None, None)
                .await
                .unwrap(),
        );
    }
    for moment in moments {
        let at = At::Revision(moment.revision);
        assert_eq!(
            resources.list(&pods(), None, at, None, None).await.unwrap(),
            moment
        );
        let in_namespace = resources.list(&pods(), Some("b"), at, None, None).await.unwrap();
        let expected: Vec<_> = moment
            .objects
            .into_iter()
            .filter(|object| object.key.namespace == "b")
            .collect();
        assert_eq!(in_namespace.objects, expected);
    }
}

async fn lists_from_before_a_compaction_are_refused(store: &Store) {
    let resources = store.resources();
    let first = resources.create(pod("a", "x"), body(1)).await.unwrap();
    let second = resources
        .update(pod("a", "x"), body(2), first.revision)
        .await
        .unwrap();
    let third = resources.create(pod("a", "y"), body(3)).await.unwrap();
    assert_eq!(resources.compact(third.revision).await.unwrap(), 2);
    assert_eq!(
        resources.compact(third.revision).await.unwrap(),
        0,
        "nothing is left below"
    );

    let old = resources
        .list(&pods(), None, At::Revision(first.revision), None, None)
        .await;
    assert!(matches!(old, Err(Error::Compacted { requested, oldest })
        if requested == first.revision && oldest == second.revision));
    assert_eq!(names(store, None, At::Revision(second.revision)).await, ["a/x"]);
    assert_eq!(names(store, None, At::Latest).await, ["a/x", "a/y"]);

    resources.compact(u64::MAX >> 1).await.unwrap();
    assert_eq!(
        names(store, None, At::Revision(third.revision)).await,
        ["a/x", "a/y"]
    );
    let next = resources.delete(&pod("a", "y"), None).await.unwrap();
    assert_eq!(next.revision, third.revision + 1, "revisions go on");
}

async fn a_list_at_a_revision_that_is_not_there_yet_is_refused(store: &Store) {
    let latest = store.resources().revision().await.unwrap();
    let list = store
        .resources()
        .list(&pods(), None, At::Revision(latest + 1), None, None)
        .await;
    assert!(matches!(list, Err(Error::FutureRevision { .. })));
}

async fn revisions_are_above_those_of_databases_that_were_there_before(store: &Store) {
    let latest = store.resources().revision().await.unwrap();
    // A thousand writes a second since 2026 began are no more.
    assert!(latest > 1_767_225_600_000, "{latest}");
    let watch = store.resources().watch(&pods(), None, latest - 1).await;
    assert!(matches!(watch, Err(Error::Compacted { .. })));
    let later = Store::open(Location::Memory).await.unwrap();
    let first = later.resources().revision().await.unwrap();
    assert!(first >= latest, "{first} {latest}");
}

async fn a_revision_can_be_waited_for(store: &Store) {
    let resources = store.resources();
    let latest = resources.revision().await.unwrap();
    resources.reach(latest).await.unwrap();
    let mut waiting = pin!(resources.reach(latest + 2));
    assert!(futures::poll!(&mut waiting).is_pending());
    resources.create(pod("a", "x"), body(1)).await.unwrap();
    assert!(futures::poll!(&mut waiting).is_pending());
    resources.create(pod("a", "y"), body(1)).await.unwrap();
    waiting.await.unwrap();
}

async fn names(store: &Store, namespace: Option<&str>, at: At) -> Vec<String> {
    let list = store
        .resources()
        .list(&pods(), namespace, at, None, None)
        .await
        .unwrap();
    for object in &list.objects {
        assert_eq!(
            object.body["metadata"]["resourceVersion"],
            Value::from(object.revision.to_string())
        );
    }
    list.objects
        .iter()
        .map(|object| format!("{}/{}", object.key.namespace, object.key.name))
        .collect()
}
