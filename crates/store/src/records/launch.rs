//! The launcher's side: finding an attempt by its token, and keeping its report.

use coracle_api::{
    id::{RunId, TaskId},
    launch::Report,
};
use sqlx::SqliteConnection;

use super::{
    Attempt, Change, Error, Records, Result,
    row::{Bind, Fields, json},
    tasks,
    write::Write,
};

impl Records {
    /// The attempt that a launcher's token stands for, or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn attempt_by_token(&self, token: &str) -> Result<Option<Attempt>> {
        let mut reader = self.database.reader().await?;
        let token = vec![Bind::from(token)];
        tasks::ATTEMPT.first(&mut reader, "token = $1", token).await
    }

    /// Keeps the report on an attempt. The first one stays: sending another changes nothing and
    /// is no error.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such attempt (any more).
    pub async fn put_report(&self, task_id: TaskId, attempt: u32, report: &Report) -> Result<()> {
        self.write(PutReport {
            task_id,
            attempt,
            report: json(report),
        })
        .await
    }

    /// The report on an attempt, or none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn report(&self, task_id: TaskId, attempt: u32) -> Result<Option<Report>> {
        let mut reader = self.database.reader().await?;
        sqlx::query("SELECT report FROM reports WHERE task_id = $1 AND attempt = $2")
            .bind(task_id.to_string())
            .bind(i64::from(attempt))
            .fetch_optional(&mut *reader)
            .await?
            .map(|row| {
                Fields {
                    table: "reports",
                    row: &row,
                }
                .json("report")
            })
            .transpose()
    }

    /// The reports on all attempts at tasks of a run: task, attempt, report.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn reports(&self, run_id: RunId) -> Result<Vec<(TaskId, u32, Report)>> {
        let mut reader = self.database.reader().await?;
        let rows = sqlx::query("SELECT * FROM reports WHERE run_id = $1 ORDER BY task_id, attempt")
            .bind(run_id.to_string())
            .fetch_all(&mut *reader)
            .await?;
        rows.iter()
            .map(|row| {
                let fields = Fields {
                    table: "reports",
                    row,
                };
                Ok((
                    fields.word("task_id")?,
                    fields.number("attempt")?,
                    fields.json("report")?,
                ))
            })
            .collect()
    }
}

struct PutReport {
    task_id: TaskId,
    attempt: u32,
    report: String,
}

impl Write for PutReport {
    type Answer = ();

    async fn write(&self, connection: &mut SqliteConnection) -> Result<((), Option<Change>)> {
        let Self {
            task_id,
            attempt,
            report,
        } = self;
        let kept = sqlx::query(
            "INSERT INTO reports (task_id, attempt, run_id, report)
             SELECT task_id, number, run_id, $3 FROM attempts WHERE task_id = $1 AND number = $2
             ON CONFLICT (task_id, attempt) DO NOTHING
             RETURNING run_id",
        )
        .bind(task_id.to_string())
        .bind(i64::from(*attempt))
        .bind(report)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = kept else {
            let known = sqlx::query("SELECT 1 FROM reports WHERE task_id = $1 AND attempt = $2")
                .bind(task_id.to_string())
                .bind(i64::from(*attempt))
                .fetch_optional(connection)
                .await?;
            let missing = || Error::not_found("attempt", format_args!("{task_id}/{attempt}"));
            return known.map(|_| ((), None)).ok_or_else(missing);
        };
        let run_id: RunId = Fields {
            table: "reports",
            row: &row,
        }
        .word("run_id")?;
        let reported = Change::Reported {
            run_id,
            task_id: *task_id,
            attempt: *attempt,
        };
        Ok(((), Some(reported)))
    }
}
