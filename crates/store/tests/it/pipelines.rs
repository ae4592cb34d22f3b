//! Pipelines, versions and documents.

use std::collections::BTreeMap;

use coracle_api::id::{PipelineId, PipelineVersionId};
use coracle_store::{
    Store,
    records::{
        Error, Pipeline, PipelineUpdate, PipelineVersion,
        query::{List, Op, Predicate, Value},
    },
};

use crate::samples::{at, experiment, new_run, pipeline, version};

crate::conformance! {
    a_pipeline_and_its_first_version_are_read_back,
    a_pipeline_whose_version_is_refused_is_not_made,
    names_are_taken_within_their_owner,
    the_latest_version_is_the_newest,
    a_pipeline_with_versions_is_deleted_only_with_them,
    a_version_is_found_under_its_own_pipeline_only,
    what_is_given_of_a_pipeline_or_version_is_changed,
    changed_tags_are_the_ones_filtered_by,
    documents_that_say_the_same_are_one,
    what_is_not_there_is_said_to_be_missing,
}

async fn a_pipeline_and_its_first_version_are_read_back(store: &Store) {
    let records = store.records();
    let tags = [("team".to_owned(), "vision".to_owned())];
    let made = Pipeline {
        tags: tags.clone().into(),
        ..pipeline("train")
    };
    let first = PipelineVersion {
        tags: tags.into(),
        ..version(&made, "v1")
    };
    records
        .create_pipeline(made.clone(), Some(first.clone()))
        .await
        .unwrap();
    assert_eq!(records.pipeline(made.id).await.unwrap(), made);
    assert_eq!(
        records.pipeline_named("team", "train").await.unwrap(),
        Some(made.clone())
    );
    assert_eq!(records.pipeline_named("team", "test").await.unwrap(), None);
    assert_eq!(records.pipeline_version(made.id, first.id).await.unwrap(), first);
    let page = records
        .list_pipelines(Some("team"), &List::default())
        .await
        .unwrap();
    assert_eq!(page.items, std::slice::from_ref(&made));
    let page = records
        .list_pipeline_versions(made.id, &List::default())
        .await
        .unwrap();
    assert_eq!((page.items, page.total), (vec![first], 1));
}

async fn a_pipeline_whose_version_is_refused_is_not_made(store: &Store) {
    let records = store.records();
    let one = pipeline("one");
    let taken = version(&one, "v1");
    records.create_pipeline(one, Some(taken.clone())).await.unwrap();
    let two = pipeline("two");
    let same_id = PipelineVersion {
        id: taken.id,
        ..version(&two, "v1")
    };
    let error = records
        .create_pipeline(two.clone(), Some(same_id))
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        Error::AlreadyExists {
            kind: "pipeline version",
            ..
        }
    ));
    assert!(matches!(
        records.pipeline(two.id).await,
        Err(Error::NotFound { .. })
    ));
}

async fn names_are_taken_within_their_owner(store: &Store) {
    let records = store.records();
    let (one, two) = (pipeline("one"), pipeline("two"));
    records.create_pipeline(one.clone(), None).await.unwrap();
    records.create_pipeline(two.clone(), None).await.unwrap();
    let again = records.create_pipeline(pipeline("one"), None).await.unwrap_err();
    assert!(matches!(again, Error::AlreadyExists { kind: "pipeline", name } if name == "one"));
    records
        .create_pipeline_version(version(&one, "v1"))
        .await
        .unwrap();
    records
        .create_pipeline_version(version(&two, "v1"))
        .await
        .unwrap();
    let again = records
        .create_pipeline_version(version(&one, "v1"))
        .await
        .unwrap_err();
    assert!(matches!(again, Error::AlreadyExists { kind: "pipeline version", name } if name == "v1"));
}

async fn the_latest_version_is_the_newest(store: &Store) {
    let records = store.records();
    let made = pipeline("train");
    records.create_pipeline(made.clone(), None).await.unwrap();
    assert_eq!(records.latest_pipeline_version(made.id).await.unwrap(), None);
    let newest = PipelineVersion {
        created_at: at(2),
        ..version(&made, "v2")
    };
    for version in [
        newest.clone(),
        PipelineVersion {
            created_at: at(1),
            ..version(&made, "v1")
        },
    ] {
        records.create_pipeline_version(version).await.unwrap();
    }
    assert_eq!(
        records.latest_pipeline_version(made.id).await.unwrap(),
        Some(newest)
    );
}

async fn a_pipeline_with_versions_is_deleted_only_with_them(store: &Store) {
    let records = store.records();
    let made = pipeline("train");
    let first = version(&made, "v1");
    records
        .create_pipeline(made.clone(), Some(first.clone()))
        .await
        .unwrap();
    let refused = records.delete_pipeline(made.id, false).await.unwrap_err();
    assert!(matches!(refused, Error::InUse { .. }));
    assert_eq!(records.pipeline_version(made.id, first.id).await.unwrap(), first);
    records.delete_pipeline(made.id, true).await.unwrap();
    assert!(records.pipeline(made.id).await.is_err());
    assert!(records.pipeline_version(made.id, first.id).await.is_err());
    // Its name and those of its versions are free again.
    records
        .create_pipeline(made.clone(), Some(first.clone()))
        .await
        .unwrap();
    records.delete_pipeline_version(made.id, first.id).await.unwrap();
    records.delete_pipeline(made.id, false).await.unwrap();
}

async fn a_version_is_found_under_its_own_pipeline_only(store: &Store) {
    let records = store.records();
    let (one, two) = (pipeline("one"), pipeline("two"));
    let first = version(&one, "v1");
    records
        .create_pipeline(one.clone(), Some(first.clone()))
        .await
        .unwrap();
    records.create_pipeline(two.clone(), None).await.unwrap();
    assert!(matches!(
        records.pipeline_version(two.id, first.id).await,
        Err(Error::NotFound { .. })
    ));
    let refused = records.delete_pipeline_version(two.id, first.id).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })));
    assert_eq!(records.pipeline_version(one.id, first.id).await.unwrap(), first);
}

async fn what_is_given_of_a_pipeline_or_version_is_changed(store: &Store) {
    let records = store.records();
    let made = Pipeline {
        tags: tags("vision"),
        ..pipeline("train")
    };
    let first = version(&made, "v1");
    records
        .create_pipeline(made.clone(), Some(first.clone()))
        .await
        .unwrap();
    let nothing = PipelineUpdate::default;
    let updated = records.update_pipeline(made.id, nothing()).await.unwrap();
    assert_eq!(updated, made);
    let renamed = PipelineUpdate {
        display_name: Some("Another".to_owned()),
        description: Some(String::new()),
        tags: None,
    };
    let expected = Pipeline {
        display_name: "Another".to_owned(),
        description: String::new(),
        ..made.clone()
    };
    let updated = records.update_pipeline(made.id, renamed.clone()).await.unwrap();
    assert_eq!(updated, expected);
    assert_eq!(records.pipeline(made.id).await.unwrap(), expected);
    let cleared = PipelineUpdate {
        tags: Some(BTreeMap::new()),
        ..nothing()
    };
    let updated = records.update_pipeline(made.id, cleared).await.unwrap();
    assert_eq!(updated.tags, BTreeMap::new());
    let expected = PipelineVersion {
        display_name: "Another".to_owned(),
        description: String::new(),
        ..first.clone()
    };
    let updated = records
        .update_pipeline_version(made.id, first.id, renamed.clone())
        .await
        .unwrap();
    assert_eq!(updated, expected);
    assert_eq!(
        records.pipeline_version(made.id, first.id).await.unwrap(),
        expected
    );
    let elsewhere = records
        .update_pipeline_version(PipelineId::new(), first.id, renamed)
        .await;
    assert!(matches!(elsewhere, Err(Error::NotFound { .. })));
}

async fn changed_tags_are_the_ones_filtered_by(store: &Store) {
    let records = store.records();
    let made = Pipeline {
        tags: tags("vision"),
        ..pipeline("train")
    };
    let first = PipelineVersion {
        tags: tags("vision"),
        ..version(&made, "v1")
    };
    records
        .create_pipeline(made.clone(), Some(first.clone()))
        .await
        .unwrap();
    let update = || PipelineUpdate {
        tags: Some(tags("speech")),
        ..PipelineUpdate::default()
    };
    records.update_pipeline(made.id, update()).await.unwrap();
    records
        .update_pipeline_version(made.id, first.id, update())
        .await
        .unwrap();
    for (value, total) in [("vision", 0), ("speech", 1)] {
        let list = List {
            filter: vec![Predicate {
                field: "tags.team".to_owned(),
                op: Op::Equals,
                values: vec![Value::Text(value.to_owned())],
            }],
            ..List::default()
        };
        let pipelines = records.list_pipelines(None, &list).await.unwrap();
        let versions = records.list_pipeline_versions(made.id, &list).await.unwrap();
        assert_eq!((pipelines.total, versions.total), (total, total), "{value}");
    }
}

fn tags(team: &str) -> BTreeMap<String, String> {
    [("team".to_owned(), team.to_owned())].into()
}

async fn documents_that_say_the_same_are_one(store: &Store) {
    let records = store.records();
    let group = experiment("group");
    records.create_experiment(group.clone()).await.unwrap();
    let made = pipeline("train");
    let first = version(&made, "v1");
    records
        .create_pipeline(made.clone(), Some(first.clone()))
        .await
        .unwrap();

    let mut new = new_run(group.id, "one");
    new.document = first.document.clone();
    let one = records.create_run(new).await.unwrap();
    let mut new = new_run(group.id, "two");
    new.document =
        serde_json::from_str(r#"{"root": {"version": "v1"}, "pipelineInfo": {"name": "train"}}"#).unwrap();
    let two = records.create_run(new).await.unwrap();
    let other = records.create_run(new_run(group.id, "other")).await.unwrap();
    assert_eq!(one.document_digest, two.document_digest);
    assert_ne!(one.document_digest, other.document_digest);
    assert_eq!(
        records.document(&one.document_digest).await.unwrap(),
        first.document
    );

    // It goes when the last that has it goes.
    records.delete_run(one.id).await.unwrap();
    records.delete_pipeline(made.id, true).await.unwrap();
    assert_eq!(
        records.document(&two.document_digest).await.unwrap(),
        first.document
    );
    records.delete_run(two.id).await.unwrap();
    assert!(matches!(
        records.document(&two.document_digest).await,
        Err(Error::NotFound { .. })
    ));
}

async fn what_is_not_there_is_said_to_be_missing(store: &Store) {
    let (records, id) = (store.records(), PipelineId::new());
    let missing = Pipeline {
        id,
        ..pipeline("missing")
    };
    for (result, kind) in [
        (records.pipeline(id).await.map(drop), "pipeline"),
        (records.delete_pipeline(id, true).await, "pipeline"),
        (
            records.create_pipeline_version(version(&missing, "v1")).await,
            "pipeline",
        ),
        (
            records
                .pipeline_version(id, PipelineVersionId::new())
                .await
                .map(drop),
            "pipeline version",
        ),
        (
            records
                .delete_pipeline_version(id, PipelineVersionId::new())
                .await,
            "pipeline version",
        ),
    ] {
        assert!(matches!(result, Err(Error::NotFound { kind: found, .. }) if found == kind));
    }
}
