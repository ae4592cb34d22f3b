//! What the engine writes about a run, in one transaction, and reads back.

use std::sync::Arc;

use coracle_api::id::{RunId, TaskId};
use sqlx::SqliteConnection;

use super::{
    Attempt, AttemptSpec, Change, Commit, Error, Records, Result, RunStatus, Task, TaskEvent, artifacts,
    cache,
    entity::Entity,
    row::{Bind, Fields, Script, Upsert},
    write::Write,
};

static TASKS: Upsert = Upsert::new(
    "tasks",
    &["id"],
    &[
        "run_id",
        "parent_id",
        "path",
        "name",
        "display_name",
        "kind",
        "iteration",
        "state",
        "created_at",
        "started_at",
        "finished_at",
        "error",
        "state_history",
        "inputs",
        "outputs",
        "retries",
        "retry_at",
        "cached_from",
    ],
);

static ATTEMPTS: Upsert = Upsert::new(
    "attempts",
    &["task_id", "number"],
    &[
        "run_id",
        "namespace",
        "pod_name",
        "token",
        "state",
        "exit_code",
        "log_uri",
        "created_at",
        "started_at",
        "finished_at",
        "error",
    ],
);

static SPECS: Upsert = Upsert::new("attempt_specs", &["task_id", "number"], &["launch", "pod"]);

static EVENTS: Upsert = Upsert::new(
    "task_events",
    &["id"],
    &["run_id", "task_id", "happened_at", "kind", "reason", "message"],
);

const RUN: &str = "SELECT 1 FROM runs WHERE id = ?";

const STATUS: &str = "
    UPDATE runs SET state = ?, error = ?, state_history = ?, finished_at = ?, ended_at = ?,
        termination_requested = CASE WHEN ? = 1 THEN 0 ELSE termination_requested END,
        retry_requested = CASE WHEN ? = 1 THEN 0 ELSE retry_requested END
    WHERE id = ?
    RETURNING 1";

const TASK: Entity<Task> = Entity::unlisted("task", "tasks", "tasks.*", read_task);
pub(super) const ATTEMPT: Entity<Attempt> =
    Entity::unlisted("attempt", "attempts", "attempts.*", read_attempt);
const SPEC: Entity<AttemptSpec> =
    Entity::unlisted("attempt spec", "attempt_specs", "attempt_specs.*", read_spec);
const EVENT: Entity<TaskEvent> = Entity::unlisted("event", "task_events", "task_events.*", read_event);

impl Records {
    /// Writes all of a commit or nothing of it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such run (any more), [`Error::InvalidCommit`] when the
    /// commit names rows that do not exist or belong to another run.
    pub async fn commit(&self, run_id: RunId, commit: impl Into<Arc<Commit>>) -> Result<()> {
        let commit = commit.into();
        check_belongs(run_id, &commit)?;
        self.write(ToRun { run_id, commit }).await
    }

    /// The tasks of a run, in order of their making and path.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn tasks(&self, run_id: RunId) -> Result<Vec<Task>> {
        let mut reader = self.database.reader().await?;
        let of_run = "run_id = $1 ORDER BY created_at, path";
        TASK.all(&mut reader, of_run, vec![Bind::word(run_id)]).await
    }

    /// The task.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn task(&self, id: TaskId) -> Result<Task> {
        let mut reader = self.database.reader().await?;
        TASK.find(&mut reader, id).await
    }

    /// The tasks with these ids that exist, in no order.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn tasks_by_ids(&self, ids: &[TaskId]) -> Result<Vec<Task>> {
        let mut reader = self.database.reader().await?;
        TASK.with_ids(&mut reader, ids).await
    }

    /// The attempts at all tasks of a run, those of a task in order of their number.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn attempts(&self, run_id: RunId) -> Result<Vec<Attempt>> {
        let mut reader = self.database.reader().await?;
        let of_run = "run_id = $1 ORDER BY created_at, task_id, number";
        ATTEMPT.all(&mut reader, of_run, vec![Bind::word(run_id)]).await
    }

    /// The attempts at a task, in order of their number.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn attempts_of(&self, task_id: TaskId) -> Result<Vec<Attempt>> {
        let mut reader = self.database.reader().await?;
        let of_task = "task_id = $1 ORDER BY number";
        ATTEMPT.all(&mut reader, of_task, vec![Bind::word(task_id)]).await
    }

    /// What an attempt is given.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such attempt (any more).
    pub async fn attempt_spec(&self, task_id: TaskId, number: u32) -> Result<AttemptSpec> {
        let mut reader = self.database.reader().await?;
        let binds = vec![Bind::word(task_id), Bind::from(i64::from(number))];
        let found = SPEC
            .first(&mut reader, "task_id = $1 AND number = $2", binds)
            .await?;
        found.ok_or_else(|| Error::not_found("attempt", format_args!("{task_id}/{number}")))
    }

    /// The history of all tasks of a run, oldest first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn events(&self, run_id: RunId) -> Result<Vec<TaskEvent>> {
        let mut reader = self.database.reader().await?;
        let of_run = "run_id = $1 ORDER BY happened_at, id";
        EVENT.all(&mut reader, of_run, vec![Bind::word(run_id)]).await
    }
}

/// A commit to a run.
struct ToRun {
    run_id: RunId,
    commit: Arc<Commit>,
}

impl Write for ToRun {
    type Answer = ();

    async fn write(&self, connection: &mut SqliteConnection) -> Result<((), Option<Change>)> {
        let Self { run_id, commit } = self;
        let is_found = match script(*run_id, commit).run(&mut *connection).await {
            Ok(rows) => !rows.is_empty(),
            Err(error) => {
                let error = refused(*run_id, error);
                let is_invalid = matches!(error, Error::InvalidCommit { .. });
                if !is_invalid || is_there(connection, *run_id).await? {
                    return Err(error);
                }
                false
            }
        };
        if is_found {
            Ok(((), Some(Change::RunChanged(*run_id))))
        } else {
            Err(Error::not_found("run", run_id))
        }
    }
}

/// What is wrong with a commit that the database does not take.
fn refused(run_id: RunId, error: sqlx::Error) -> Error {
    let problem = match error.as_database_error() {
        Some(cause) if cause.is_foreign_key_violation() => {
            "it names a task or an artifact that does not exist"
        }
        Some(cause) if cause.is_unique_violation() => "the token of an attempt is that of another",
        _ => return error.into(),
    };
    Error::InvalidCommit {
        run: run_id.to_string(),
        problem,
    }
}

async fn is_there(connection: &mut SqliteConnection, run_id: RunId) -> Result<bool> {
    let found = sqlx::query(RUN).bind(run_id.to_string());
    Ok(found.fetch_optional(connection).await?.is_some())
}

fn check_belongs(run_id: RunId, commit: &Commit) -> Result<()> {
    let belongs = commit.tasks.iter().all(|task| task.run_id == run_id)
        && commit.attempts.iter().all(|attempt| attempt.run_id == run_id)
        && commit.events.iter().all(|event| event.run_id == run_id)
        && commit.artifact_tasks.iter().all(|link| link.run_id == run_id)
        && commit
            .cache_entries
            .iter()
            .all(|entry| entry.made_by.run_id == run_id);
    if belongs {
        Ok(())
    } else {
        Err(Error::InvalidCommit {
            run: run_id.to_string(),
            problem: "some of its rows belong to another run",
        })
    }
}

/// Returns a row if there is such a run. In an order in which each row finds what it refers to.
fn script(run_id: RunId, commit: &Commit) -> Script {
    let Commit {
        run,
        tasks,
        attempts,
        specs,
        events,
        artifacts,
        artifact_tasks,
        cache_entries,
    } = commit;
    let mut script = Script::default();
    match run {
        Some(status) => script.add(STATUS, status_row(run_id, status)),
        None => script.add(RUN, [Bind::word(run_id)]),
    }
    TASKS.rows(&mut script, tasks.iter().map(task_row));
    ATTEMPTS.rows(&mut script, attempts.iter().map(attempt_row));
    SPECS.rows(&mut script, specs.iter().map(spec_row));
    EVENTS.rows(&mut script, events.iter().map(event_row));
    artifacts::ARTIFACTS.rows(&mut script, artifacts.iter().map(artifacts::artifact_row));
    artifacts::LINKS.rows(&mut script, artifact_tasks.iter().map(artifacts::link_row));
    cache::keep(&mut script, cache_entries);
    script
}

fn status_row(run_id: RunId, status: &RunStatus) -> Vec<Bind> {
    let ended = status.finished_at.map(jiff::Timestamp::as_microsecond);
    vec![
        Bind::word(status.state),
        Bind::optional_json(status.error.as_ref()),
        Bind::json(&status.state_history),
        Bind::Int(ended),
        Bind::from(ended.unwrap_or(0)),
        Bind::from(i64::from(status.retried)),
        Bind::from(i64::from(status.retried)),
        Bind::word(run_id),
    ]
}

fn task_row(task: &Task) -> Vec<Bind> {
    vec![
        Bind::word(task.id),
        Bind::word(task.run_id),
        Bind::optional_word(task.parent_id),
        Bind::from(&task.path),
        Bind::from(&task.name),
        Bind::from(&task.display_name),
        Bind::word(task.kind),
        Bind::Int(task.iteration),
        Bind::word(task.state),
        Bind::time(task.created_at),
        Bind::optional_time(task.started_at),
        Bind::optional_time(task.finished_at),
        Bind::optional_json(task.error.as_ref()),
        Bind::json(&task.state_history),
        Bind::json(&task.inputs),
        Bind::json(&task.outputs),
        Bind::from(i64::from(task.retries)),
        Bind::optional_time(task.retry_at),
        Bind::optional_json(task.cached_from.as_ref()),
    ]
}

fn read_task(fields: &Fields<'_>) -> Result<Task> {
    Ok(Task {
        id: fields.word("id")?,
        run_id: fields.word("run_id")?,
        parent_id: fields.optional_word("parent_id")?,
        path: fields.string("path")?,
        name: fields.string("name")?,
        display_name: fields.string("display_name")?,
        kind: fields.word("kind")?,
        iteration: fields.optional_int("iteration")?,
        state: fields.word("state")?,
        state_history: fields.json("state_history")?,
        error: fields.optional_json("error")?,
        inputs: fields.json("inputs")?,
        outputs: fields.json("outputs")?,
        retries: fields.number("retries")?,
        retry_at: fields.optional_time("retry_at")?,
        cached_from: fields.optional_json("cached_from")?,
        created_at: fields.time("created_at")?,
        started_at: fields.optional_time("started_at")?,
        finished_at: fields.optional_time("finished_at")?,
    })
}

fn attempt_row(attempt: &Attempt) -> Vec<Bind> {
    vec![
        Bind::word(attempt.task_id),
        Bind::from(i64::from(attempt.number)),
        Bind::word(attempt.run_id),
        Bind::from(&attempt.namespace),
        Bind::from(&attempt.pod_name),
        Bind::from(&attempt.token),
        Bind::word(attempt.state),
        Bind::Int(attempt.exit_code.map(i64::from)),
        Bind::from(&attempt.log_uri),
        Bind::time(attempt.created_at),
        Bind::optional_time(attempt.started_at),
        Bind::optional_time(attempt.finished_at),
        Bind::optional_json(attempt.error.as_ref()),
    ]
}

fn spec_row(spec: &AttemptSpec) -> Vec<Bind> {
    vec![
        Bind::word(spec.task_id),
        Bind::from(i64::from(spec.number)),
        Bind::Json(spec.launch.clone()),
        Bind::Json(spec.pod.clone()),
    ]
}

fn read_spec(fields: &Fields<'_>) -> Result<AttemptSpec> {
    Ok(AttemptSpec {
        task_id: fields.word("task_id")?,
        number: fields.number("number")?,
        launch: fields.string("launch")?,
        pod: fields.string("pod")?,
    })
}

fn read_attempt(fields: &Fields<'_>) -> Result<Attempt> {
    Ok(Attempt {
        task_id: fields.word("task_id")?,
        run_id: fields.word("run_id")?,
        number: fields.number("number")?,
        namespace: fields.string("namespace")?,
        pod_name: fields.string("pod_name")?,
        token: fields.string("token")?,
        state: fields.word("state")?,
        error: fields.optional_json("error")?,
        exit_code: fields.optional_number("exit_code")?,
        log_uri: fields.string("log_uri")?,
        created_at: fields.time("created_at")?,
        started_at: fields.optional_time("started_at")?,
        finished_at: fields.optional_time("finished_at")?,
    })
}

fn event_row(event: &TaskEvent) -> Vec<Bind> {
    vec![
        Bind::word(event.id),
        Bind::word(event.run_id),
        Bind::word(event.task_id),
        Bind::time(event.time),
        Bind::from(&event.kind),
        Bind::from(&event.reason),
        Bind::from(&event.message),
    ]
}

fn read_event(fields: &Fields<'_>) -> Result<TaskEvent> {
    Ok(TaskEvent {
        id: fields.word("id")?,
        run_id: fields.word("run_id")?,
        task_id: fields.word("task_id")?,
        time: fields.time("happened_at")?,
        kind: fields.string("kind")?,
        reason: fields.string("reason")?,
        message: fields.string("message")?,
    })
}
