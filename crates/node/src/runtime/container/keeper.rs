//! What sees one container through: its log, what is asked of it, and its end.

use std::{pin::pin, time::Duration};

use bollard::{
    models::ContainerState,
    query_parameters::{KillContainerOptions, RemoveContainerOptions, WaitContainerOptions},
};
use coracle_api::reason::chain;
use futures::{
    StreamExt,
    future::{Either, select},
};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use super::{
    claim::Claim,
    copy::{self, Until},
    engine::{Engine, is_missing, said},
};
use crate::runtime::{
    process::cgroup::oom_kills_of_machine,
    run_dir::{Exit, RunDir},
};

/// The pause before an engine that does not answer is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a container may run: the engine's answer to a wait comes at its end.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// How much of a signal's number is in an exit code.
const SIGNALLED: i32 = 128;

/// What is asked of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// To end.
    Terminate,
    /// To be gone.
    Kill,
}

/// A container that was made, as its keeper sees it.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) engine: Engine,
    pub(crate) dir: RunDir,
    pub(crate) claim: Claim,
    pub(crate) id: String,
}

impl Keeper {
    /// Until the container has ended and that is written down. `None` if the engine has no such container any more.
    pub(crate) async fn keep(self, mut orders: mpsc::UnboundedReceiver<Order>) -> Option<Exit> {
        let mut was_asked = false;
        let kills = oom_kills_of_machine();
        let state = {
            let mut ended = pin!(self.until_ended());
            loop {
                tokio::select! {
                    state = &mut ended => break state,
                    Some(order) = orders.recv() => {
                        was_asked = true;
                        self.obey(order).await;
                    }
                }
            }
        };
        // An engine may not see what the kernel does.
        let may_be_oom = oom_kills_of_machine() > kills;
        let exit = state.map(|state| exit(&state, was_asked, may_be_oom, Timestamp::now()));
        if let Some(exit) = exit.clone() {
            let dir = self.dir.clone();
            let written = tokio::task::spawn_blocking(move || dir.write_exit(&exit)).await;
            if let Ok(Err(error)) = written {
                // The container stays, and the next node asks again.
                tracing::warn!(%error, run = %self.dir.path().display(), "a container's end was not written down");
                return None;
            }
        }
        remove(&self.engine, &self.id).await;
        exit
    }

    async fn until_ended(&self) -> Option<ContainerState> {
        loop {
            {
                let ended = pin!(self.wait());
                let followed = pin!(self.follow());
                // Nothing but the wait tells that it has ended.
                if let Either::Right(((), ended)) = select(ended, followed).await {
                    ended.await;
                }
            }
            match self.engine.docker.inspect_container(&self.id, None).await {
                Ok(found) => {
                    let state = found.state.unwrap_or_default();
                    if state.running != Some(true) && self.copy(Until::Now).await {
                        return Some(state);
                    }
                }
                Err(error) if is_missing(&error) => return None,
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        container = self.claim.name,
                        "the engine does not answer"
                    );
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Until the container has ended, or the engine has.
    async fn wait(&self) {
        let docker = self.engine.docker.clone().with_timeout(FOR_EVER);
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        // What the answer says is asked for afterwards.
        let _ = docker.wait_container(&self.id, Some(options)).next().await;
    }

    /// Copies the log as it comes; begins again when it is cut off.
    async fn follow(&self) {
        while !self.copy(Until::Ended).await {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether it was copied, or is no more.
    async fn copy(&self, until: Until) -> bool {
        match copy::copy(&self.engine, &self.id, &self.dir, self.claim.log_bytes, until).await {
            Ok(()) => true,
            Err(copy::Error::Engine(error)) if is_missing(&error) => true,
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    container = self.claim.name,
                    "a log was cut off"
                );
                false
            }
        }
    }

    async fn obey(&self, order: Order) {
        let signal = match order {
            Order::Terminate => self.claim.stop_signal.as_deref().unwrap_or("SIGTERM"),
            Order::Kill => "SIGKILL",
        };
        let options = KillContainerOptions {
            signal: signal.to_owned(),
        };
        if let Err(error) = self.engine.docker.kill_container(&self.id, Some(options)).await {
            // It ended by itself, most likely.
            tracing::debug!(
                error = said(&error),
                container = self.claim.name,
                signal,
                "no signal was sent"
            );
        }
    }
}

/// Removes a container, whatever it does. One that is not there is removed.
pub(crate) async fn remove(engine: &Engine, id: &str) {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    };
    match engine.docker.remove_container(id, Some(options)).await {
        Ok(()) => {}
        Err(error) if is_missing(&error) => {}
        Err(error) => tracing::warn!(
            error = said(&error),
            container = id,
            "a container was not removed"
        ),
    }
}

/// The end of a container, as its engine tells it. Pure.
fn exit(state: &ContainerState, stopped: bool, may_be_oom: bool, now: Timestamp) -> Exit {
    let exit_code = state
        .exit_code
        .and_then(|code| i32::try_from(code).ok())
        .unwrap_or(SIGNALLED);
    // Before anything happened, engines say year 1.
    let time = |text: &Option<String>| {
        let time: Timestamp = text.as_deref()?.parse().ok()?;
        (time > Timestamp::UNIX_EPOCH).then_some(time)
    };
    let finished_at = time(&state.finished_at).unwrap_or(now);
    let was_killed = exit_code == SIGNALLED + Signal::SIGKILL as i32;
    Exit {
        exit_code,
        signal: Some(exit_code - SIGNALLED).filter(|signal| (1..=64).contains(signal)),
        oom: state.oom_killed == Some(true) || (may_be_oom && was_killed && !stopped),
        stopped,
        started_at: time(&state.started_at).unwrap_or(finished_at),
        finished_at,
        failure: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ended(state: Value) -> Exit {
        let state = serde_json::from_value(state).unwrap();
        exit(&state, false, false, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_end_has_its_code_its_signal_and_its_times() {
        let end = ended(json!({
            "ExitCode": 137, "OOMKilled": true,
            "StartedAt": "2026-01-01T00:00:01.5Z", "FinishedAt": "2026-01-01T01:00:02+01:00",
        }));
        assert_eq!((end.exit_code, end.signal, end.oom), (137, Some(9), true));
        assert_eq!(end.started_at.to_string(), "2026-01-01T00:00:01.5Z");
        assert_eq!(end.finished_at.to_string(), "2026-01-01T00:00:02Z");
    }

    #[test]
    fn an_exit_code_is_no_signal_unless_it_can_be() {
        for (code, signal) in [(0, None), (1, None), (128, None), (143, Some(15)), (255, None)] {
            assert_eq!(ended(json!({"ExitCode": code})).signal, signal);
        }
    }

    #[test]
    fn a_kill_of_the_kernels_is_told_from_one_of_ours() {
        for (code, stopped, may_be_oom, expected) in [
            (137, false, true, true),
            (137, true, true, false),
            (137, false, false, false),
            (1, false, true, false),
        ] {
            let state = serde_json::from_value(json!({"ExitCode": code})).unwrap();
            let end = exit(&state, stopped, may_be_oom, Timestamp::UNIX_EPOCH);
            assert_eq!(end.oom, expected, "{code} {stopped} {may_be_oom}");
        }
    }

    #[test]
    fn one_that_never_started_took_no_time() {
        let end = ended(json!({"ExitCode": 0, "StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": ""}));
        assert_eq!(end.started_at, end.finished_at);
    }
}
