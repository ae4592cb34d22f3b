//! Commits: tasks, attempts, events, artifacts and links.

use coracle_api::{
    id::{ArtifactId, RunId, TaskId},
    state::RuntimeState,
};
use coracle_store::{
    Store,
    records::{Artifact, Attempt, Commit, Error, RunStatus, Task},
};

use crate::samples::{artifact, at, attempt, event, output, spec, stored_run, task};

crate::conformance! {
    what_is_committed_is_read_back,
    rows_are_replaced_by_key,
    a_commit_is_made_wholly_or_not_at_all,
    a_commit_with_rows_of_another_run_is_refused,
    a_commit_with_the_token_of_another_attempt_is_refused,
    a_commit_may_hold_many_rows,
    a_uri_names_its_newest_artifact,
    what_is_not_there_is_said_to_be_missing,
}

async fn what_is_committed_is_read_back(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let (root, train) = (task(run.id, "root"), task(run.id, "root.train"));
    let (model, log) = (artifact("/models/1"), artifact("/logs/1"));
    let commit = Commit {
        // A child may come before the task that holds it.
        tasks: vec![train.clone(), root.clone()],
        attempts: vec![attempt(&train, 2), attempt(&train, 1), attempt(&root, 1)],
        specs: vec![spec(&attempt(&train, 2)), spec(&attempt(&train, 1))],
        events: vec![event(&train, "Started"), event(&train, "Ended")],
        artifacts: vec![model.clone(), log.clone()],
        artifact_tasks: vec![output(&train, &log, "log"), output(&train, &model, "model")],
        ..Commit::default()
    };
    records.commit(run.id, commit.clone()).await.unwrap();

    assert_eq!(
        records.tasks(run.id).await.unwrap(),
        [root.clone(), train.clone()]
    );
    assert_eq!(records.task(train.id).await.unwrap(), train);
    assert_eq!(
        records.attempts_of(train.id).await.unwrap(),
        [attempt(&train, 1), attempt(&train, 2)]
    );
    assert_eq!(records.attempts(run.id).await.unwrap().len(), 3);
    assert_eq!(records.attempt_spec(train.id, 2).await.unwrap(), commit.specs[0]);
    let missing = records.attempt_spec(root.id, 1).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    assert_eq!(records.events(run.id).await.unwrap(), commit.events);
    assert_eq!(
        records.artifact_tasks(run.id).await.unwrap(),
        commit.artifact_tasks
    );
    assert_eq!(records.artifacts_of_run(run.id).await.unwrap(), commit.artifacts);
    assert_eq!(records.artifact(log.id).await.unwrap(), log);
    assert_eq!(records.artifacts(&[]).await.unwrap(), []);
    assert_eq!(
        records.artifacts(&[ArtifactId::new(), model.id]).await.unwrap(),
        [model]
    );
}

async fn rows_are_replaced_by_key(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let (train, model) = (task(run.id, "root.train"), artifact("/models/1"));
    let mut commit = Commit {
        tasks: vec![train.clone()],
        attempts: vec![attempt(&train, 1)],
        events: vec![event(&train, "Started")],
        artifacts: vec![model.clone()],
        artifact_tasks: vec![output(&train, &model, "model")],
        ..Commit::default()
    };
    records.commit(run.id, commit.clone()).await.unwrap();
    records.commit(run.id, commit.clone()).await.unwrap();
    commit.tasks[0] = Task {
        state: RuntimeState::Succeeded,
        error: None,
        finished_at: Some(at(9)),
        ..train
    };
    commit.attempts[0] = Attempt {
        exit_code: None,
        ..commit.attempts[0].clone()
    };
    commit.artifacts[0] = Artifact {
        digest: None,
        size: None,
        ..model
    };
    records.commit(run.id, commit.clone()).await.unwrap();
    assert_eq!(records.tasks(run.id).await.unwrap(), commit.tasks);
    assert_eq!(records.attempts(run.id).await.unwrap(), commit.attempts);
    assert_eq!(records.events(run.id).await.unwrap(), commit.events);
    assert_eq!(records.artifacts_of_run(run.id).await.unwrap(), commit.artifacts);
    assert_eq!(
        records.artifact_tasks(run.id).await.unwrap(),
        commit.artifact_tasks
    );
}

async fn a_commit_is_made_wholly_or_not_at_all(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let mut changes = records.changes();
    let train = task(run.id, "root.train");
    let commit = Commit {
        run: Some(RunStatus {
            state: RuntimeState::Running,
            error: None,
            state_history: Vec::new(),
            retried: false,
            finished_at: None,
        }),
        tasks: vec![train.clone()],
        attempts: vec![attempt(&train, 1)],
        specs: Vec::new(),
        events: vec![event(&train, "Started")],
        artifacts: vec![artifact("/models/1")],
        artifact_tasks: vec![output(&train, &artifact("/not/committed"), "model")],
        cache_entries: Vec::new(),
    };
    let error = records.commit(run.id, commit).await.unwrap_err();
    assert!(matches!(error, Error::InvalidCommit { .. }), "{error:?}");
    assert_eq!(records.run(run.id).await.unwrap(), run);
    assert!(records.tasks(run.id).await.unwrap().is_empty());
    assert!(records.attempts(run.id).await.unwrap().is_empty());
    assert!(records.events(run.id).await.unwrap().is_empty());
    assert_eq!(records.artifact_by_uri("team", "/models/1").await.unwrap(), None);
    assert!(changes.try_recv().is_err(), "what did not happen is not told");
}

async fn a_commit_with_rows_of_another_run_is_refused(store: &Store) {
    let (run, other) = (stored_run(store).await, stored_run(store).await);
    let commit = Commit {
        tasks: vec![task(other.id, "root")],
        ..Commit::default()
    };
    let error = store.records().commit(run.id, commit).await.unwrap_err();
    assert!(matches!(error, Error::InvalidCommit { .. }));
    assert!(store.records().tasks(other.id).await.unwrap().is_empty());
}

async fn a_commit_with_the_token_of_another_attempt_is_refused(store: &Store) {
    let run = stored_run(store).await;
    let train = task(run.id, "root.train");
    let first = attempt(&train, 1);
    let second = Attempt {
        token: first.token.clone(),
        ..attempt(&train, 2)
    };
    let commit = Commit {
        tasks: vec![train],
        attempts: vec![first, second],
        ..Commit::default()
    };
    let error = store.records().commit(run.id, commit).await.unwrap_err();
    assert!(matches!(error, Error::InvalidCommit { .. }));
}

async fn a_commit_may_hold_many_rows(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    // Not a multiple of what one statement writes.
    let tasks: Vec<_> = (0..1007)
        .map(|number| task(run.id, &format!("root.{number:04}")))
        .collect();
    let commit = Commit {
        tasks: tasks.clone(),
        ..Commit::default()
    };
    records.commit(run.id, commit).await.unwrap();
    assert_eq!(records.tasks(run.id).await.unwrap(), tasks);

    let artifacts: Vec<_> = (0..1007).map(|number| artifact(&number.to_string())).collect();
    let ids: Vec<_> = artifacts.iter().map(|artifact| artifact.id).collect();
    records
        .commit(
            run.id,
            Commit {
                artifacts,
                ..Commit::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(records.artifacts(&ids).await.unwrap().len(), ids.len());
}

async fn a_uri_names_its_newest_artifact(store: &Store) {
    let records = store.records();
    let run = stored_run(store).await;
    let newest = Artifact {
        created_at: at(9),
        ..artifact("/data")
    };
    let artifacts = vec![
        newest.clone(),
        artifact("/data"),
        Artifact {
            namespace: "other".to_owned(),
            created_at: at(10),
            ..artifact("/data")
        },
    ];
    records
        .commit(
            run.id,
            Commit {
                artifacts,
                ..Commit::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(
        records.artifact_by_uri("team", "/data").await.unwrap(),
        Some(newest)
    );
    assert_eq!(records.artifact_by_uri("team", "/dat").await.unwrap(), None);
}

async fn what_is_not_there_is_said_to_be_missing(store: &Store) {
    let records = store.records();
    let task = records.task(TaskId::at(RunId::new(), "root")).await;
    assert!(matches!(task, Err(Error::NotFound { kind: "task", .. })));
    let artifact = records.artifact(ArtifactId::new()).await;
    assert!(matches!(artifact, Err(Error::NotFound { kind: "artifact", .. })));
}
