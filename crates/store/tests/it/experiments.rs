//! Experiments.

use coracle_api::{id::ExperimentId, state::StorageState};
use coracle_store::{
    Store,
    records::{Error, Experiment, query::List},
};

use crate::samples::{at, experiment, new_run};

crate::conformance! {
    an_experiment_is_read_back,
    a_taken_name_is_refused_in_one_namespace,
    experiments_are_listed_by_namespace,
    an_experiment_can_be_archived,
    runs_outlive_their_experiment,
    what_is_not_there_is_said_to_be_missing,
}

async fn an_experiment_is_read_back(store: &Store) {
    let records = store.records();
    let made = Experiment {
        last_run_created_at: Some(at(9)),
        ..experiment("first")
    };
    records.create_experiment(made.clone()).await.unwrap();
    assert_eq!(records.experiment(made.id).await.unwrap(), made);
    assert_eq!(
        records.experiment_named("team", "first").await.unwrap(),
        Some(made)
    );
    assert_eq!(records.experiment_named("other", "first").await.unwrap(), None);
}

async fn a_taken_name_is_refused_in_one_namespace(store: &Store) {
    let records = store.records();
    records.create_experiment(experiment("first")).await.unwrap();
    let error = records.create_experiment(experiment("first")).await.unwrap_err();
    assert!(matches!(&error, Error::AlreadyExists { kind: "experiment", name } if name == "first"));
    let elsewhere = Experiment {
        namespace: "other".to_owned(),
        ..experiment("first")
    };
    records.create_experiment(elsewhere).await.unwrap();
}

async fn experiments_are_listed_by_namespace(store: &Store) {
    let records = store.records();
    let ours = experiment("ours");
    let theirs = Experiment {
        namespace: "other".to_owned(),
        created_at: at(1),
        ..experiment("theirs")
    };
    for experiment in [&ours, &theirs] {
        records.create_experiment(experiment.clone()).await.unwrap();
    }
    let page = records
        .list_experiments(Some("team"), &List::default())
        .await
        .unwrap();
    assert_eq!((page.items, page.total, page.next), (vec![ours.clone()], 1, None));
    let page = records.list_experiments(None, &List::default()).await.unwrap();
    assert_eq!((page.items, page.total), (vec![ours, theirs], 2));
}

async fn an_experiment_can_be_archived(store: &Store) {
    let records = store.records();
    let made = experiment("first");
    records.create_experiment(made.clone()).await.unwrap();
    records
        .set_experiment_storage_state(made.id, StorageState::Archived)
        .await
        .unwrap();
    assert_eq!(
        records.experiment(made.id).await.unwrap().storage_state,
        StorageState::Archived
    );
}

async fn runs_outlive_their_experiment(store: &Store) {
    let records = store.records();
    let made = experiment("first");
    records.create_experiment(made.clone()).await.unwrap();
    let run = records.create_run(new_run(made.id, "run")).await.unwrap();
    records.delete_experiment(made.id).await.unwrap();
    assert!(matches!(
        records.experiment(made.id).await,
        Err(Error::NotFound { .. })
    ));
    assert_eq!(records.run(run.id).await.unwrap(), run);
}

async fn what_is_not_there_is_said_to_be_missing(store: &Store) {
    let (records, id) = (store.records(), ExperimentId::new());
    for result in [
        records.experiment(id).await.map(drop),
        records
            .set_experiment_storage_state(id, StorageState::Archived)
            .await,
        records.delete_experiment(id).await,
        records.create_run(new_run(id, "run")).await.map(drop),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), format!("there is no experiment with id {id}"));
    }
}
