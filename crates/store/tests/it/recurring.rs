//! Recurring runs, and the runs that they make.

use coracle_api::{
    id::{PipelineId, RecurringRunId, RunId},
    state::{RuntimeState, StorageState},
};
use coracle_store::{
    Store,
    records::{
        Change, Commit, Cursor, Error, NewRun, RecurringRun, RunScope, RunStatus, ScheduleProgress,
        query::{List, Op, Predicate, Value},
    },
};
use serde_json::json;

use crate::samples::{at, experiment, failure, new_run, recurring_run};

crate::conformance! {
    a_recurring_run_is_read_back,
    a_taken_id_is_refused,
    recurring_runs_are_listed_by_scope_and_status,
    only_those_that_are_enabled_are_the_schedulers,
    a_scheduled_run_is_made_once_however_often_it_is_asked_for,
    a_scheduled_run_that_cannot_be_made_writes_nothing,
    progress_can_be_kept_without_a_run,
    unfinished_runs_are_counted_for_each,
    a_deleted_recurring_run_leaves_its_runs,
    archiving_an_experiment_archives_its_runs_and_disables_its_recurring_runs,
    what_is_not_there_is_said_to_be_missing,
}

/// One of an experiment of its own.
async fn stored(store: &Store) -> RecurringRun {
    let group = experiment(&RecurringRunId::new().to_string());
    store.records().create_experiment(group.clone()).await.unwrap();
    let recurring = recurring_run(group.id, "nightly");
    store.records().create_recurring_run(recurring).await.unwrap()
}

fn run_of(recurring: &RecurringRun) -> NewRun {
    new_run(recurring.experiment_id, &recurring.display_name)
}

fn progress(seconds: i64) -> ScheduleProgress {
    ScheduleProgress {
        last_due: Some(at(seconds)),
        runs_made: 1,
        error: None,
    }
}

async fn a_recurring_run_is_read_back(store: &Store) {
    let records = store.records();
    let group = experiment("group");
    records.create_experiment(group.clone()).await.unwrap();
    let inline = recurring_run(group.id, "inline");
    let of_pipeline = RecurringRun {
        pipeline_id: Some(PipelineId::new()),
        document: None,
        progress: ScheduleProgress {
            error: Some(failure()),
            ..progress(3)
        },
        ..recurring_run(group.id, "of a pipeline")
    };
    let mut changes = records.changes();
    for made in [inline, of_pipeline] {
        let elsewhere = RecurringRun {
            namespace: "elsewhere".to_owned(),
            ..made.clone()
        };
        assert_eq!(records.create_recurring_run(elsewhere).await.unwrap(), made);
        assert_eq!(records.recurring_run(made.id).await.unwrap(), made);
        assert_eq!(changes.try_recv().unwrap(), Change::RecurringRunChanged(made.id));
    }
}

async fn a_taken_id_is_refused(store: &Store) {
    let made = stored(store).await;
    let again = RecurringRun {
        display_name: "again".to_owned(),
        document: Some(json!({"another": "document"})),
        ..made.clone()
    };
    let error = store.records().create_recurring_run(again).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::AlreadyExists {
                kind: "recurring run",
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(store.records().recurring_run(made.id).await.unwrap(), made);
}

async fn recurring_runs_are_listed_by_scope_and_status(store: &Store) {
    let records = store.records();
    let (first, second) = (stored(store).await, stored(store).await);
    records
        .set_recurring_run_enabled(second.id, false, at(8))
        .await
        .unwrap();
    let status = |status: &str| List {
        filter: vec![Predicate {
            field: "status".to_owned(),
            op: Op::Equals,
            values: vec![Value::Text(status.to_owned())],
        }],
        ..List::default()
    };
    let disabled = records.recurring_run(second.id).await.unwrap();
    assert_eq!((disabled.enabled, disabled.updated_at), (false, at(8)));
    for (scope, list, expected) in [
        (RunScope::All, status("ENABLED"), vec![&first]),
        (RunScope::All, status("DISABLED"), vec![&disabled]),
        (
            RunScope::Experiment(first.experiment_id),
            List::default(),
            vec![&first],
        ),
        (
            RunScope::Namespace("elsewhere".to_owned()),
            List::default(),
            vec![],
        ),
    ] {
        let page = records.list_recurring_runs(scope, &list).await.unwrap();
        assert_eq!(page.items.iter().collect::<Vec<_>>(), expected);
        assert_eq!(page.total, expected.len() as i64);
    }
    let mut list = List {
        page_size: 1,
        ..List::default()
    };
    let team = RunScope::Namespace("team".to_owned());
    let mut seen = Vec::new();
    loop {
        let page = records.list_recurring_runs(team.clone(), &list).await.unwrap();
        assert_eq!(page.total, 2);
        seen.extend(page.items.into_iter().map(|recurring| recurring.id));
        list.after = page.next;
        if list.after.is_none() {
            break;
        }
    }
    let mut ids = [first.id, second.id];
    ids.sort();
    assert_eq!(seen, ids);
    list.after = Some(Cursor {
        value: json!("not a time"),
        id: String::new(),
    });
    let error = records.list_recurring_runs(team, &list).await.unwrap_err();
    assert!(matches!(
        error,
        Error::InvalidCursor {
            entity: "recurring run"
        }
    ));
}

async fn only_those_that_are_enabled_are_the_schedulers(store: &Store) {
    let records = store.records();
    let (first, second) = (stored(store).await, stored(store).await);
    let mut changes = records.changes();
    records
        .set_recurring_run_enabled(first.id, false, at(8))
        .await
        .unwrap();
    assert_eq!(changes.try_recv().unwrap(), Change::RecurringRunChanged(first.id));
    assert_eq!(
        records.recurring_runs().await.unwrap(),
        std::slice::from_ref(&second)
    );
    records
        .set_recurring_run_enabled(first.id, true, at(9))
        .await
        .unwrap();
    let mut ids: Vec<_> = records
        .recurring_runs()
        .await
        .unwrap()
        .into_iter()
        .map(|recurring| recurring.id)
        .collect();
    ids.sort();
    let mut expected = [first.id, second.id];
    expected.sort();
    assert_eq!(ids, expected);
}

async fn a_scheduled_run_is_made_once_however_often_it_is_asked_for(store: &Store) {
    let records = store.records();
    let recurring = stored(store).await;
    let mut changes = records.changes();
    let new = NewRun {
        scheduled_at: at(60),
        created_at: at(61),
        ..run_of(&recurring)
    };
    let run = records
        .create_scheduled_run(recurring.id, new.clone(), progress(60))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(run.recurring_run_id, Some(recurring.id));
    assert_eq!((run.scheduled_at, run.created_at), (at(60), at(61)));
    assert_eq!(records.run(run.id).await.unwrap(), run);
    assert_eq!(changes.try_recv().unwrap(), Change::RunCreated(run.id));
    assert_eq!(
        records.recurring_run(recurring.id).await.unwrap().progress,
        progress(60)
    );
    // As after a crash before the scheduler heard that the first one was made.
    let again = records
        .create_scheduled_run(recurring.id, new, progress(120))
        .await
        .unwrap();
    assert_eq!(again, None);
    assert_eq!(
        records.recurring_run(recurring.id).await.unwrap().progress,
        progress(120)
    );
    assert_eq!(
        records
            .list_runs(RunScope::All, &List::default())
            .await
            .unwrap()
            .total,
        1
    );
    assert!(changes.try_recv().is_err());
}

async fn a_scheduled_run_that_cannot_be_made_writes_nothing(store: &Store) {
    let records = store.records();
    let recurring = stored(store).await;
    records.delete_experiment(recurring.experiment_id).await.unwrap();
    let error = records
        .create_scheduled_run(recurring.id, run_of(&recurring), progress(60))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotFound {
                kind: "experiment",
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        records.recurring_run(recurring.id).await.unwrap().progress,
        ScheduleProgress::default()
    );
    records.delete_recurring_run(recurring.id).await.unwrap();
    let error = records
        .create_scheduled_run(recurring.id, run_of(&recurring), progress(60))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotFound {
                kind: "recurring run",
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        records
            .list_runs(RunScope::All, &List::default())
            .await
            .unwrap()
            .total,
        0
    );
}

async fn progress_can_be_kept_without_a_run(store: &Store) {
    let records = store.records();
    let recurring = stored(store).await;
    let failed = ScheduleProgress {
        error: Some(failure()),
        ..progress(60)
    };
    let mut changes = records.changes();
    records
        .put_schedule_progress(recurring.id, failed.clone())
        .await
        .unwrap();
    let read = records.recurring_run(recurring.id).await.unwrap();
    assert_eq!(
        (read.progress, read.updated_at),
        (failed, recurring.updated_at),
        "users did not change it"
    );
    assert!(changes.try_recv().is_err());
}

async fn unfinished_runs_are_counted_for_each(store: &Store) {
    let records = store.records();
    let (ours, theirs) = (stored(store).await, stored(store).await);
    let mut runs = Vec::new();
    for recurring in [&ours, &ours, &ours, &theirs] {
        let new = run_of(recurring);
        let run = records
            .create_scheduled_run(recurring.id, new, progress(1))
            .await
            .unwrap();
        runs.push(run.unwrap());
    }
    records.create_run(run_of(&ours)).await.unwrap();
    for (run, state) in runs.iter().zip([RuntimeState::Succeeded, RuntimeState::Running]) {
        let status = RunStatus {
            state,
            error: None,
            state_history: Vec::new(),
            retried: false,
            finished_at: None,
        };
        let commit = Commit {
            run: Some(status),
            ..Commit::default()
        };
        records.commit(run.id, commit).await.unwrap();
    }
    assert_eq!(records.unfinished_runs_of(ours.id).await.unwrap(), 2);
    assert_eq!(records.unfinished_runs_of(theirs.id).await.unwrap(), 1);
    assert_eq!(
        records.unfinished_runs_of(RecurringRunId::new()).await.unwrap(),
        0
    );
}

async fn a_deleted_recurring_run_leaves_its_runs(store: &Store) {
    let records = store.records();
    let recurring = stored(store).await;
    let other = NewRun {
        document: json!({"made": "later"}),
        ..run_of(&recurring)
    };
    let run = records
        .create_scheduled_run(recurring.id, other, progress(1))
        .await
        .unwrap()
        .unwrap();
    let same = records.create_run(run_of(&recurring)).await.unwrap();
    records.delete_run(same.id).await.unwrap();
    assert!(
        records.document(&same.document_digest).await.is_ok(),
        "the recurring run has the document still"
    );
    let mut changes = records.changes();
    records.delete_recurring_run(recurring.id).await.unwrap();
    assert_eq!(
        changes.try_recv().unwrap(),
        Change::RecurringRunChanged(recurring.id)
    );
    assert_eq!(records.run(run.id).await.unwrap(), run);
    let unused = records.document(&same.document_digest).await;
    assert!(matches!(unused, Err(Error::NotFound { .. })), "{unused:?}");
}

async fn archiving_an_experiment_archives_its_runs_and_disables_its_recurring_runs(store: &Store) {
    let records = store.records();
    let (ours, theirs) = (stored(store).await, stored(store).await);
    let run = records.create_run(run_of(&ours)).await.unwrap();
    let other = records.create_run(run_of(&theirs)).await.unwrap();
    let mut changes = records.changes();
    let set = |state| records.set_experiment_storage_state(ours.experiment_id, state);
    set(StorageState::Archived).await.unwrap();
    assert_eq!(changes.try_recv().unwrap(), Change::RecurringRunChanged(ours.id));
    set(StorageState::Archived).await.unwrap();
    assert!(changes.try_recv().is_err(), "nothing is left to disable");
    for _ in 0..2 {
        assert!(!records.recurring_run(ours.id).await.unwrap().enabled);
        assert_eq!(
            records.run(run.id).await.unwrap().storage_state,
            StorageState::Archived
        );
        assert!(records.recurring_run(theirs.id).await.unwrap().enabled);
        assert_eq!(records.run(other.id).await.unwrap(), other);
        set(StorageState::Available).await.unwrap();
    }
}

async fn what_is_not_there_is_said_to_be_missing(store: &Store) {
    let (records, id) = (store.records(), RecurringRunId::new());
    let new = new_run(experiment("none").id, "none");
    assert_ne!(new.id, RunId::new());
    for result in [
        records.recurring_run(id).await.map(drop),
        records.set_recurring_run_enabled(id, true, at(0)).await,
        records.delete_recurring_run(id).await,
        records.put_schedule_progress(id, progress(0)).await,
        records.create_scheduled_run(id, new, progress(0)).await.map(drop),
    ] {
        let error = result.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("there is no recurring run with id {id}")
        );
    }
    let nowhere = recurring_run(experiment("none").id, "none");
    let error = records.create_recurring_run(nowhere).await.unwrap_err();
    assert!(matches!(
        error,
        Error::NotFound {
            kind: "experiment",
            ..
        }
    ));
}
