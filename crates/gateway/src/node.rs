//! Which task the `node` of a path names: by the name of its Pod, its id, its path or its name.

use coracle_api::id::{RunId, TaskId};
use coracle_store::records::{Attempt, Records, Task};

use crate::kfp::error::Error;

/// The task that `node` names, and its attempt, if it was tried yet.
pub(crate) async fn find(
    records: &Records,
    run_id: RunId,
    node: &str,
    number: Option<u32>,
) -> Result<(Task, Option<Attempt>), Error> {
    let missing = || Error::NotFound {
        kind: format!("task of run `{run_id}`"),
        id: node.to_owned(),
    };
    let task = match node.parse::<TaskId>() {
        Ok(id) => Some(records.task(id).await?)
            .filter(|task| task.run_id == run_id)
            .ok_or_else(missing)?,
        Err(_) => {
            let attempts = records.attempts(run_id).await?;
            if let Some(attempt) = attempts.into_iter().find(|attempt| attempt.pod_name == node) {
                return Ok((records.task(attempt.task_id).await?, Some(attempt)));
            }
            named(records.tasks(run_id).await?, node)?.ok_or_else(missing)?
        }
    };
    let mut attempts = records.attempts_of(task.id).await?;
    let attempt = match number {
        None => attempts.pop(),
        Some(number) => Some(
            attempts
                .into_iter()
                .find(|attempt| attempt.number == number)
                .ok_or_else(|| Error::NotFound {
                    kind: format!("attempt of task `{}`", task.path),
                    id: number.to_string(),
                })?,
        ),
    };
    Ok((task, attempt))
}

/// The task of a path or name. A name may be that of several tasks, in loops and nested DAGs.
fn named(tasks: Vec<Task>, node: &str) -> Result<Option<Task>, Error> {
    let mut found: Vec<_> = tasks
        .into_iter()
        .filter(|task| task.path == node || task.name == node)
        .collect();
    if let Some(index) = found.iter().position(|task| task.path == node) {
        return Ok(Some(found.swap_remove(index)));
    }
    if found.len() > 1 {
        let paths: Vec<_> = found
            .iter()
            .take(3)
            .map(|task| format!("`{}`", task.path))
            .collect();
        return Err(Error::Invalid(format!(
            "{} tasks are called `{node}`: name one by its path, such as {}",
            found.len(),
            paths.join(", ")
        )));
    }
    Ok(found.pop())
}
