//! The node's side of a container's run: starts it or takes it up, waits for its end, asks it to end.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf};

use bollard::query_parameters::CreateContainerOptionsBuilder;
use coracle_api::reason::Reason;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    claim::Claim,
    engine::{Engine, connect, is_missing, said, status},
    keeper::{Keeper, Order, remove},
    request::Spec,
};
use crate::runtime::run_dir::{Exit, Failure, RunDir};

/// A run that cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file of the run's folder cannot be made.
    #[error("cannot prepare `{path}`")]
    Prepare {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The engine does not answer. It may later.
    #[error("{0}")]
    Unavailable(String),
    /// The engine said no.
    #[error("{}", .0.message)]
    Refused(Failure),
}

/// A container that was started, by this node or by an earlier one.
#[derive(Debug)]
pub(crate) struct Run {
    orders: mpsc::UnboundedSender<Order>,
    keeper: JoinHandle<Option<Exit>>,
    /// What the keeper found, once it has.
    ended: Option<Option<Exit>>,
    /// As a Pod's status names it: `docker://…` or `podman://…`.
    pub(crate) id: String,
    /// Whether it was started here, and nobody was told yet.
    is_new: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        // The container goes on; the next node follows it.
        self.keeper.abort();
    }
}

/// Makes and starts the container that `spec` describes. May be repeated after it was cut off.
pub(crate) async fn start(engine: &Engine, spec: Spec) -> Result<Run, Error> {
    let dir = spec.dir.clone();
    let mut claim = Claim {
        socket: engine.socket.clone(),
        name: spec.name.clone(),
        id: None,
        stop_signal: spec.stop_signal.clone(),
        tty: spec.tty,
        log_bytes: spec.log_bytes,
    };
    write(&dir, &claim).await?;
    let id = create(engine, &spec).await?;
    claim.id = Some(id.clone());
    write(&dir, &claim).await?;
    if let Err(error) = engine.docker.start_container(&id, None).await {
        if status(&error).is_none() {
            return Err(Error::Unavailable(said(&error)));
        }
        remove(engine, &id).await;
        return Err(Error::Refused(not_started(&said(&error))));
    }
    Ok(keep(engine.clone(), dir, claim, id, true))
}

fn keep(engine: Engine, dir: RunDir, claim: Claim, id: String, is_new: bool) -> Run {
    let (orders, receiver) = mpsc::unbounded_channel();
    let name = format!("{}://{id}", engine.name);
    let keeper = Keeper {
        engine,
        dir,
        claim,
        id,
    };
    Run {
        orders,
        keeper: tokio::spawn(keeper.keep(receiver)),
        ended: None,
        id: name,
        is_new,
    }
}

/// What there is of an earlier node's run.
pub(crate) enum Found {
    /// A container that was started, or will be now.
    Run(Run),
    /// Nothing was begun.
    Nothing,
    /// It ended; this is the record of it, if there is one.
    Over(Option<Exit>),
    /// The engine does not answer, so nobody knows.
    Unknown(String),
}

/// Takes up the run in `dir` where an earlier node left it.
pub(crate) async fn adopt(dir: &RunDir) -> Found {
    let Some(claim) = dir.read_claim() else {
        return Found::Nothing;
    };
    let exit = dir.read_exit();
    let engine = match Engine::at(&claim.socket).await {
        Ok(engine) => engine,
        // What it was is known; the container is removed by a later look.
        Err(_) if exit.is_some() => return Found::Over(exit),
        Err(why) => return Found::Unknown(format!("`{}`: {why}", claim.socket.display())),
    };
    let found = match engine.docker.inspect_container(&claim.name, None).await {
        Ok(found) => found,
        Err(error) if is_missing(&error) => {
            let was_made = claim.id.is_some();
            return if was_made {
                Found::Over(exit)
            } else {
                Found::Nothing
            };
        }
        Err(_) if exit.is_some() => return Found::Over(exit),
        Err(error) => return Found::Unknown(said(&error)),
    };
    let id = found.id.unwrap_or_else(|| claim.name.clone());
    if exit.is_some() {
        remove(&engine, &id).await;
        return Found::Over(exit);
    }
    if claim.id.is_none() {
        // Made, and perhaps not as it would be made now.
        remove(&engine, &id).await;
        return Found::Nothing;
    }
    let has_begun = found.state.is_some_and(|state| {
        use bollard::models::ContainerStateStatusEnum::{CREATED, EMPTY};
        !matches!(state.status, None | Some(CREATED | EMPTY))
    });
    if !has_begun && let Err(error) = engine.docker.start_container(&id, None).await {
        if status(&error).is_none() {
            return Found::Unknown(said(&error));
        }
        tracing::warn!(
            error = said(&error),
            container = claim.name,
            "a container did not start"
        );
        remove(&engine, &id).await;
        return Found::Nothing;
    }
    Found::Run(keep(engine, dir.clone(), claim, id, !has_begun))
}

/// A client for the container of the run in `dir`, and its name there.
pub(crate) fn reach(claim: &Claim) -> io::Result<(bollard::Docker, String)> {
    let docker = connect(&claim.socket).map_err(io::Error::other)?;
    Ok((docker, claim.id.clone().unwrap_or_else(|| claim.name.clone())))
}

/// Writes the claim, and makes what the container is to write to.
async fn write(dir: &RunDir, claim: &Claim) -> Result<(), Error> {
    let (own, claim) = (dir.clone(), claim.clone());
    let written = tokio::task::spawn_blocking(move || {
        own.write_claim(&claim)?;
        let message = own.termination_log();
        fs::OpenOptions::new().create(true).append(true).open(&message)?;
        // Whoever the image's user is.
        fs::set_permissions(&message, fs::Permissions::from_mode(0o666))
    });
    let written = written.await.map_err(io::Error::other).flatten();
    written.map_err(|source| Error::Prepare {
        path: dir.path().to_path_buf(),
        source,
    })
}

async fn create(engine: &Engine, spec: &Spec) -> Result<String, Error> {
    let attempt = || {
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        engine.docker.create_container(Some(options), spec.body())
    };
    let made = match attempt().await {
        Err(error) if status(&error) == Some(409) => {
            // An earlier attempt made it, and nobody knows with what.
            remove(engine, &spec.name).await;
            attempt().await
        }
        made => made,
    };
    match made {
        Ok(made) => Ok(made.id),
        Err(error) if status(&error).is_some() => Err(Error::Refused(Failure {
            reason: Reason::ContainerNotStarted,
            message: format!("the engine does not make the container: {}", said(&error)),
        })),
        Err(error) => Err(Error::Unavailable(said(&error))),
    }
}

/// Why a container did not start, as engines and their runtimes say it. Pure.
fn not_started(said: &str) -> Failure {
    let lower = said.to_lowercase();
    let reason = if lower.contains("executable file not found") || lower.contains("no such file or directory")
    {
        Reason::CommandNotFound
    } else if lower.contains("permission denied") {
        Reason::CommandNotExecutable
    } else {
        Reason::ContainerNotStarted
    };
    Failure {
        reason,
        message: format!("the engine does not start the container: {said}"),
    }
}

impl Run {
    /// Waits for the end. `None` if there is no record of it: somebody removed the container.
    pub(crate) async fn wait(&mut self) -> Option<Exit> {
        if self.ended.is_none() {
            self.ended = Some((&mut self.keeper).await.unwrap_or_default());
        }
        self.ended.clone().flatten()
    }

    /// Whether it was started here. True once.
    pub(crate) fn take_start(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    pub(crate) fn terminate(&self) {
        let _ = self.orders.send(Order::Terminate);
    }

    pub(crate) fn kill(&self) {
        let _ = self.orders.send(Order::Kill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_say_in_words_what_is_wrong_with_a_command() {
        for (said, reason) in [
            (
                "OCI runtime create failed: exec: \"nope\": executable file not found in $PATH: unknown",
                Reason::CommandNotFound,
            ),
            (
                "runc: exec failed: stat /nope: no such file or directory: OCI runtime attempted to invoke a command \
                 that was not found",
                Reason::CommandNotFound,
            ),
            (
                "exec: \"/etc/hosts\": permission denied",
                Reason::CommandNotExecutable,
            ),
            ("cannot set memory limit", Reason::ContainerNotStarted),
        ] {
            assert_eq!(not_started(said).reason, reason, "{said}");
        }
    }
}
