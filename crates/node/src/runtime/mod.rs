//! How containers run: as processes in sandboxes, or through the container engine of this machine.
//!
//! What is common to both is here. A run's folder says which of them it is.

pub(crate) mod container;
pub(crate) mod log_writer;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod run_dir;
pub(crate) mod session;

use self::run_dir::{Exit, RunDir};

/// A run that was started, by this node or by an earlier one.
#[derive(Debug)]
pub(crate) enum Run {
    Process(Box<process::launch::Run>),
    Container(container::run::Run),
    /// A container that is no more.
    Over(Option<Exit>),
}

/// What there is of a run.
pub(crate) enum Found {
    /// It was begun.
    Run(Run),
    /// Nothing: nobody ever took it up.
    Nothing,
    /// Nobody knows, because its engine does not answer; why not.
    Unknown(String),
}

/// Tells when the command of a run that was started here runs.
#[derive(Debug)]
pub(crate) enum Start {
    Process(process::launch::Start),
    /// It runs.
    Now,
}

impl Start {
    /// Waits for it; `false` if it never will.
    pub(crate) async fn wait(&mut self) -> bool {
        match self {
            Self::Process(start) => start.wait().await,
            Self::Now => true,
        }
    }
}

/// Takes up the run in `dir` where an earlier node left it.
pub(crate) async fn adopt(dir: RunDir) -> Found {
    use container::run::Found as InEngine;
    match container::run::adopt(&dir).await {
        InEngine::Run(run) => Found::Run(Run::Container(run)),
        InEngine::Over(exit) => Found::Run(Run::Over(exit)),
        InEngine::Unknown(why) => Found::Unknown(why),
        InEngine::Nothing => match process::launch::adopt(dir) {
            Some(run) => Found::Run(Run::Process(Box::new(run))),
            None => Found::Nothing,
        },
    }
}

impl Run {
    /// Waits for its end. `None` if there is no record of it: something ended it from outside.
    /// May be called again after it was dropped half-way.
    pub(crate) async fn wait(&mut self) -> Option<Exit> {
        match self {
            Self::Process(run) => run.wait().await,
            Self::Container(run) => run.wait().await,
            Self::Over(exit) => exit.clone(),
        }
    }

    /// Asks its command to end.
    pub(crate) fn terminate(&self) {
        match self {
            Self::Process(run) => run.terminate(),
            Self::Container(run) => run.terminate(),
            Self::Over(_) => {}
        }
    }

    /// Ends everything at once, and waits for the record.
    pub(crate) async fn kill(&mut self) -> Option<Exit> {
        match self {
            Self::Process(run) => run.kill().await,
            Self::Container(run) => {
                run.kill();
                run.wait().await
            }
            Self::Over(exit) => exit.clone(),
        }
    }

    /// What its helper itself had to say, for a run without a record.
    pub(crate) fn errors(&self) -> String {
        match self {
            Self::Process(run) => run.errors(),
            Self::Container(_) | Self::Over(_) => String::new(),
        }
    }

    /// What tells when the command runs. There is none for a run that was taken up: its command runs, or ran.
    pub(crate) fn take_start(&mut self) -> Option<Start> {
        match self {
            Self::Process(run) => run.take_start().map(Start::Process),
            Self::Container(run) => run.take_start().then_some(Start::Now),
            Self::Over(_) => None,
        }
    }

    /// Its name in the engine, if it has one: `docker://…`.
    pub(crate) fn id(&self) -> Option<&str> {
        match self {
            Self::Container(run) => Some(&run.id),
            Self::Process(_) | Self::Over(_) => None,
        }
    }
}
