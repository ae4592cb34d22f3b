//! Runs, launch reports, and what is told about changes.

use coracle_api::{
    id::{RecurringRunId, RunId, TaskId},
    launch::{Failure, Report},
    reason::Reason,
    state::{RuntimeState, StorageState},
};
use coracle_store::{
    Store,
    records::{Change, Commit, Error, RunStatus, StateChange},
};
use jiff::Timestamp;
use serde_json::json;

use crate::samples::{artifact, at, attempt, event, experiment, failure, new_run, output, stored_run, task};

crate::conformance! {
    a_run_is_made_pending_in_the_namespace_of_its_experiment,
    a_taken_id_is_refused,
    an_experiment_knows_when_its_last_run_was_made,
    a_run_can_be_archived_and_asked_to_stop,
    runs_that_have_not_ended_are_found,
    a_run_that_ended_can_be_asked_to_go_on,
    why_a_run_has_to_wait_is_said_once_and_until_it_begins,
    a_deleted_run_leaves_nothing_but_its_artifacts,
    the_first_report_stays,
    an_attempt_is_found_by_its_token,
    changes_are_told_in_order,
    what_is_not_there_is_said_to_be_missing,
}

async fn a_run_is_made_pending_in_the_namespace_of_its_experiment(store: &Store) {
    let records = store.records();
    let group = experiment("group");
    records.create_experiment(group.clone()).await.unwrap();
    let mut new = new_run(group.id, "run");
    // Finer than the store keeps: what is returned is what will be read.
    new.created_at += jiff::SignedDuration::from_nanos(1234);
    new.scheduled_at = at(-60);
    new.recurring_run_id = Some(RecurringRunId::new());
    let run = records.create_run(new.clone()).await.unwrap();
    assert_eq!(run.namespace, group.namespace);
    assert_eq!(
        (run.state, run.storage_state),
        (RuntimeState::Pending, StorageState::Available)
    );
    assert_eq!(run.parameters, new.parameters);
    assert_eq!(
        (run.scheduled_at, run.recurring_run_id),
        (at(-60), new.recurring_run_id)
    );
    assert_eq!(records.run(run.id).await.unwrap(), run);
    assert_eq!(
        records.document(&run.document_digest).await.unwrap(),
        new.document
    );
}

async fn a_taken_id_is_refused(store: &Store) {
    let run = stored_run(store).await;
    let mut again = new_run(run.experiment_id, "again");
    again.id = run.id;
    let error = store.records().create_run(again).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { kind: "run", .. }));
    assert_eq!(store.records().run(run.id).await.unwrap(), run);
}

async fn an_experiment_knows_when_its_last_run_was_made(store: &Store) {
    let records = store.records();
    let group = experiment("group");
    records.create_experiment(group.clone()).await.unwrap();
    for seconds in [5, 9, 7] {
        let mut new = new_run(group.id, "run");
        new.created_at = at(seconds);
        records.create_run(new).await.unwrap();
    }
    assert_eq!(
        records.experiment(group.id).await.unwrap().last_run_created_at,
        Some(at(9))
    );
}

async fn a_run_can_be_archived_and_asked_to_stop(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    records
        .set_run_storage_state(run.id, StorageState::Archived)
        .await
        .unwrap();
    records.request_termination(run.id).await.unwrap();
    records.request_termination(run.id).await.unwrap();
    let read = records.run(run.id).await.unwrap();
    assert_eq!(read.storage_state, StorageState::Archived);
    assert!(read.termination_requested);
    assert_eq!(
        read.state,
        RuntimeState::Pending,
        "what that means is for the engine to say"
    );
}

async fn runs_that_have_not_ended_are_found(store: &Store) {
    let records = store.records();
    let mut unfinished = Vec::new();
    for state in [
        RuntimeState::Pending,
        RuntimeState::Running,
        RuntimeState::Succeeded,
        RuntimeState::Skipped,
        RuntimeState::Failed,
        RuntimeState::Canceling,
        RuntimeState::Canceled,
        RuntimeState::Paused,
    ] {
        let run = stored_run(store).await;
        let status = RunStatus {
            state,
            error: None,
            state_history: Vec::new(),
            retried: false,
            finished_at: None,
        };
        records
            .commit(
                run.id,
                Commit {
                    run: Some(status),
                    ..Commit::default()
                },
            )
            .await
            .unwrap();
        if !state.is_terminal() {
            unfinished.push((run.id, state));
        }
    }
    assert_eq!(records.unfinished_runs().await.unwrap(), unfinished);
}

async fn a_run_that_ended_can_be_asked_to_go_on(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let status = |state, retried| Commit {
        run: Some(RunStatus {
            state,
            error: None,
            state_history: Vec::new(),
            retried,
            finished_at: None,
        }),
        ..Commit::default()
    };
    let error = records.request_retry(run.id).await.unwrap_err();
    assert!(matches!(error, Error::NotEnded { .. }), "{error:?}");
    assert!(!records.run(run.id).await.unwrap().retry_requested);
    records.request_termination(run.id).await.unwrap();
    let asked = |run: coracle_store::records::Run| (run.termination_requested, run.retry_requested);
    records
        .commit(run.id, status(RuntimeState::Canceled, false))
        .await
        .unwrap();
    assert_eq!(records.unfinished_runs().await.unwrap(), []);
    let mut changes = records.changes();
    records.request_retry(run.id).await.unwrap();
    assert_eq!(changes.try_recv().unwrap(), Change::RetryRequested(run.id));
    assert_eq!(asked(records.run(run.id).await.unwrap()), (true, true));
    assert_eq!(
        records.unfinished_runs().await.unwrap(),
        [(run.id, RuntimeState::Canceled)]
    );
    records
        .commit(run.id, status(RuntimeState::Canceled, false))
        .await
        .unwrap();
    assert_eq!(asked(records.run(run.id).await.unwrap()), (true, true));
    records
        .commit(run.id, status(RuntimeState::Running, true))
        .await
        .unwrap();
    assert_eq!(asked(records.run(run.id).await.unwrap()), (false, false));
    assert_eq!(
        records.unfinished_runs().await.unwrap(),
        [(run.id, RuntimeState::Running)]
    );
}

async fn why_a_run_has_to_wait_is_said_once_and_until_it_begins(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let why = Failure {
        reason: Reason::RunLimitReached,
        message: "others are at work".into(),
    };
    let wait = || records.note_wait(run.id, Timestamp::now(), why.clone());
    let mut changes = records.changes();
    wait().await.unwrap();
    assert_eq!(changes.try_recv().unwrap(), Change::RunChanged(run.id));
    wait().await.unwrap();
    assert!(changes.try_recv().is_err(), "nothing is new");
    let told = records.run(run.id).await.unwrap();
    assert_eq!((told.waits_for(), told.state_history.len()), (Some(&why), 2));

    let moved = |state, retried| Commit {
        run: Some(RunStatus {
            state,
            error: None,
            state_history: vec![StateChange {
                time: Timestamp::now(),
                state,
                error: None,
            }],
            retried,
            finished_at: None,
        }),
        ..Commit::default()
    };
    for state in [RuntimeState::Running, RuntimeState::Failed] {
        records.commit(run.id, moved(state, false)).await.unwrap();
        wait().await.unwrap();
        let begun = records.run(run.id).await.unwrap();
        assert_eq!((begun.waits_for(), begun.state_history.len()), (None, 1));
    }
    // One that ended and is to go on waits like one that is new.
    records.request_retry(run.id).await.unwrap();
    wait().await.unwrap();
    assert_eq!(records.run(run.id).await.unwrap().waits_for(), Some(&why));
    records.delete_run(run.id).await.unwrap();
    wait().await.unwrap();
}

async fn a_deleted_run_leaves_nothing_but_its_artifacts(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let (train, model) = (task(run.id, "root.train"), artifact("/models/1"));
    let try_1 = attempt(&train, 1);
    let commit = Commit {
        tasks: vec![train.clone()],
        attempts: vec![try_1.clone()],
        events: vec![event(&train, "Started")],
        artifacts: vec![model.clone()],
        artifact_tasks: vec![output(&train, &model, "model")],
        ..Commit::default()
    };
    records.commit(run.id, commit.clone()).await.unwrap();
    records.put_report(train.id, 1, &report("first")).await.unwrap();
    records.delete_run(run.id).await.unwrap();

    assert!(matches!(records.run(run.id).await, Err(Error::NotFound { .. })));
    assert!(records.tasks(run.id).await.unwrap().is_empty());
    assert!(records.attempts(run.id).await.unwrap().is_empty());
    assert!(records.events(run.id).await.unwrap().is_empty());
    assert!(records.artifact_tasks(run.id).await.unwrap().is_empty());
    assert!(records.reports(run.id).await.unwrap().is_empty());
    assert_eq!(records.attempt_by_token(&try_1.token).await.unwrap(), None);
    assert_eq!(records.artifact(model.id).await.unwrap(), model);
    // The engine may be at work on it still.
    assert!(matches!(
        records.commit(run.id, commit).await,
        Err(Error::NotFound { .. })
    ));
    let late = records.put_report(train.id, 1, &report("late")).await;
    assert!(matches!(late, Err(Error::NotFound { kind: "attempt", .. })));
}

async fn the_first_report_stays(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let train = task(run.id, "root.train");
    let commit = Commit {
        attempts: vec![attempt(&train, 1), attempt(&train, 2)],
        tasks: vec![train.clone()],
        ..Commit::default()
    };
    records.commit(run.id, commit).await.unwrap();
    assert_eq!(records.report(train.id, 1).await.unwrap(), None);
    let mut changes = records.changes();
    for text in ["first", "first", "second"] {
        records.put_report(train.id, 1, &report(text)).await.unwrap();
    }
    assert_eq!(records.report(train.id, 1).await.unwrap(), Some(report("first")));
    assert_eq!(records.report(train.id, 2).await.unwrap(), None);
    assert_eq!(
        records.reports(run.id).await.unwrap(),
        [(train.id, 1, report("first"))]
    );
    let told = changes.try_recv().unwrap();
    assert_eq!(
        told,
        Change::Reported {
            run_id: run.id,
            task_id: train.id,
            attempt: 1
        }
    );
    assert!(
        changes.try_recv().is_err(),
        "a report that changes nothing is not told"
    );
}

async fn an_attempt_is_found_by_its_token(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let train = task(run.id, "root.train");
    let try_1 = attempt(&train, 1);
    let commit = Commit {
        tasks: vec![train],
        attempts: vec![try_1.clone()],
        ..Commit::default()
    };
    records.commit(run.id, commit).await.unwrap();
    assert_eq!(records.attempt_by_token(&try_1.token).await.unwrap(), Some(try_1));
    for token in ["", "token", "' OR 1=1 --"] {
        assert_eq!(records.attempt_by_token(token).await.unwrap(), None);
    }
}

async fn changes_are_told_in_order(store: &Store) {
    let records = store.records();
    let mut changes = records.changes();
    let run = stored_run(store).await;
    let status = RunStatus {
        state: RuntimeState::Failed,
        error: Some(failure()),
        state_history: vec![StateChange {
            time: at(1),
            state: RuntimeState::Failed,
            error: None,
        }],
        retried: false,
        finished_at: Some(at(2)),
    };
    records
        .commit(
            run.id,
            Commit {
                run: Some(status.clone()),
                ..Commit::default()
            },
        )
        .await
        .unwrap();
    records.request_termination(run.id).await.unwrap();
    let read = records.run(run.id).await.unwrap();
    assert_eq!(
        (read.state, read.error, read.state_history, read.finished_at),
        (
            status.state,
            status.error,
            status.state_history,
            status.finished_at
        )
    );
    records.delete_run(run.id).await.unwrap();
    for change in [
        Change::RunCreated(run.id),
        Change::RunChanged(run.id),
        Change::TerminationRequested(run.id),
        Change::RunDeleted(run.id),
    ] {
        assert_eq!(changes.recv().await.unwrap(), change);
    }
}

async fn what_is_not_there_is_said_to_be_missing(store: &Store) {
    let (records, id) = (store.records(), RunId::new());
    for result in [
        records.run(id).await.map(drop),
        records.set_run_storage_state(id, StorageState::Archived).await,
        records.request_termination(id).await,
        records.request_retry(id).await,
        records.delete_run(id).await,
        records.commit(id, Commit::default()).await,
    ] {
        assert_eq!(
            result.unwrap_err().to_string(),
            format!("there is no run with id {id}")
        );
    }
    let missing = records.put_report(TaskId::at(id, "root"), 1, &report("x")).await;
    assert!(matches!(missing, Err(Error::NotFound { kind: "attempt", .. })));
}

fn report(text: &str) -> Report {
    Report {
        parameters: [("text".to_owned(), json!(text))].into_iter().collect(),
        artifacts: Default::default(),
        failure: Some(failure()),
        exit_code: Some(1),
    }
}
