//! The sequence: fetch the spec, put inputs in place, run the command, collect, report.
//!
//! Exactly one report is sent, whatever happens after the spec is known. The exit code is the
//! command's own, so that the Pod shows it; a failure without one is 1.

use std::{
    io::{self, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitCode, ExitStatus},
    sync::Arc,
    time::{Duration, SystemTime},
};

use coracle_api::{
    ir::{
        lightweight,
        placeholder::{self, Scope},
        preamble,
    },
    labels,
    launch::{ExecutorInput, Failure, LOG_ARTIFACT, ProducedArtifact, Report, RuntimeArtifact, Spec},
    reason::Reason,
};
use coracle_artifacts::{ArtifactUri, content};
use nix::sys::signal::Signal;

use crate::{
    arguments,
    boundary::Boundary,
    command,
    inputs::{self, Prepared},
    log::{Log, Story},
    outputs,
    server::{self, Server, persist},
    signals::Events,
    warm, workspace,
};

/// How long a server may be away: long enough to be upgraded in.
const PATIENCE: Duration = Duration::from_mins(10);
/// The same for a task that was asked to stop, which will be killed soon.
const LITTLE_PATIENCE: Duration = Duration::from_secs(20);

/// Runs one attempt of one task, as the environment says which. Returns its exit code.
#[must_use]
pub fn run() -> ExitCode {
    match attempt() {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            // Whoever watches may have gone; the exit code remains.
            let _ = writeln!(io::stderr(), "coracle: {message}");
            ExitCode::FAILURE
        }
    }
}

fn attempt() -> Result<u8, String> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| format!("{name} is not set: `coracle launch` is for task Pods only"))
    };
    let server = Server::new(&variable(labels::SERVER_ENV)?, &variable(labels::TOKEN_ENV)?);
    let mut events = Events::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let log = Arc::new(Log::new());
    let mut log_uri = String::new();
    let mut report = match persist(PATIENCE, &mut events, true, || server.spec()) {
        Ok(spec) => {
            coracle_breakpoint::at("launcher.spec-fetched");
            log_uri.clone_from(&spec.log_uri);
            perform(&spec, &log, &mut events)
        }
        Err(error @ server::Error::Stopped { .. }) => failed(Failure {
            reason: Reason::RunTerminated,
            message: error.to_string(),
        }),
        Err(error) => return Err(format!("{}: {error}", Reason::ServerUnreachable)),
    };
    if let Some(failure) = &report.failure {
        let message = failure.message.lines().next().unwrap_or_default();
        log.say(&format!("{}: {message}", failure.reason));
    }
    log.close();
    // Nothing more is written to the log, unless the server cannot be told.
    if let Some(log) = log_of(&log_uri) {
        report.artifacts.insert(LOG_ARTIFACT.to_owned(), vec![log]);
    }
    let patience = if events.stopped().is_some() {
        LITTLE_PATIENCE
    } else {
        PATIENCE
    };
    coracle_breakpoint::at("launcher.outputs-kept");
    persist(patience, &mut events, false, || server.report(&report))
        .map_err(|error| format!("the task ended, and its result could not be handed over: {error}"))?;
    coracle_breakpoint::at("launcher.reported");
    Ok(match (&report.failure, report.exit_code) {
        (None, _) => 0,
        (Some(_), Some(code)) if code != 0 => u8::try_from(code).unwrap_or(1),
        (Some(_), _) => 1,
    })
}

/// The log as an artifact, weighed.
fn log_of(uri: &str) -> Option<ProducedArtifact> {
    let place: ArtifactUri = uri.parse().ok()?;
    let measure = content::measure(place.local().ok()?).ok()??;
    let artifact = RuntimeArtifact {
        name: LOG_ARTIFACT.to_owned(),
        uri: uri.to_owned(),
        ..RuntimeArtifact::default()
    };
    Some(ProducedArtifact {
        artifact,
        digest: Some(measure.digest),
        size: Some(measure.size),
    })
}

fn failed(failure: Failure) -> Report {
    Report {
        parameters: indexmap::IndexMap::new(),
        artifacts: indexmap::IndexMap::new(),
        failure: Some(failure),
        exit_code: None,
    }
}

/// Everything between the spec and the report.
fn perform(spec: &Spec, log: &Arc<Log>, events: &mut Events) -> Report {
    if let Err(failure) = inputs::open_log(&spec.log_uri).map(|file| log.keep(file)) {
        return failed(failure);
    }
    if let Some(import) = &spec.workspace_import {
        return workspace::import(import, spec, log, events).unwrap_or_else(failed);
    }
    let prepared = inputs::prepare(spec, log, events);
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return failed(failure),
    };
    if let Some(signal) = events.stopped() {
        return failed(terminated(signal));
    }
    let started = SystemTime::now();
    let status =
        command_line(spec, &prepared.input).and_then(|argv| run_command(argv, &prepared, log, events));
    coracle_breakpoint::at("launcher.command-ended");
    let outcome = match status {
        Ok(status) => judge(status, &prepared, log, events),
        Err(failure) => Outcome {
            failure: Some(failure),
            exit_code: None,
        },
    };
    collect(spec, &prepared.input, started, outcome, events)
}

/// Runs the command, however long its arguments are; a Python component perhaps without it.
fn run_command(
    mut argv: Vec<String>,
    prepared: &Prepared,
    log: &Arc<Log>,
    events: &mut Events,
) -> Result<ExitStatus, Failure> {
    if let Some(process) = lightweight::parse(&argv).and_then(warm::start) {
        return command::follow(process, log, events);
    }
    let output_file = Path::new(&prepared.input.outputs.output_file);
    let folder = output_file.parent().unwrap_or_else(|| Path::new(""));
    let shortened = arguments::shorten(&mut argv, folder).map_err(|error| Failure {
        reason: Reason::ArtifactNotStored,
        message: format!("cannot write the command's long arguments to files: {error}"),
    })?;
    let variables = shortened.as_ref().map(arguments::Shortened::variables);
    command::run(&argv, &variables.unwrap_or_default(), log, events)
}

/// What to run: the command as written, without the pip part when its packages are here already.
fn command_line(spec: &Spec, input: &ExecutorInput) -> Result<Vec<String>, Failure> {
    let is_prepared = std::env::var_os(labels::REQUIREMENTS_MET_ENV).is_some_and(|value| !value.is_empty());
    let found = is_prepared
        .then(|| preamble::parse(&spec.command, &spec.args))
        .flatten();
    let argv = match found {
        Some(preamble) => preamble.rest,
        None => spec.command.iter().chain(&spec.args).cloned().collect(),
    };
    let scope = Scope {
        input,
        declared: &spec.input_parameters,
        context: &spec.context,
    };
    placeholder::resolve(&argv, &scope).map_err(|error| Failure {
        reason: Reason::PlaceholderUnresolved,
        message: error.to_string(),
    })
}

/// How the command itself ended.
struct Outcome {
    failure: Option<Failure>,
    exit_code: Option<i32>,
}

fn judge(status: ExitStatus, prepared: &Prepared, log: &Log, events: &Events) -> Outcome {
    if let Some(signal) = events.stopped() {
        let exit_code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal));
        return Outcome {
            failure: Some(terminated(signal)),
            exit_code,
        };
    }
    if status.success() {
        return Outcome {
            failure: None,
            exit_code: Some(0),
        };
    }
    let story = log.story();
    let (reason, what, exit_code) = match (status.code(), status.signal()) {
        // A shell says so of the command that it waited for.
        (Some(code), _) => match deadly(code) {
            Some(signal) => (
                Reason::KilledBySignal,
                format!("exit code {code} (killed by {signal})"),
                Some(code),
            ),
            None => (Reason::CommandFailed, format!("exit code {code}"), Some(code)),
        },
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("an unknown signal", Signal::as_str);
            (
                Reason::KilledBySignal,
                format!("killed by {name} ({number})"),
                Some(128 + number),
            )
        }
        (None, None) => (
            Reason::InternalError,
            format!("ended in an unknown way ({status})"),
            None,
        ),
    };
    // The command's own words tell whether it was for want of an input.
    let names = |path: &Path| {
        let cause = story.cause.as_deref().unwrap_or_default();
        cause.contains(&*path.to_string_lossy())
    };
    let reason = match reason {
        Reason::CommandFailed if prepared.absent.iter().any(|(_, path)| names(path)) => {
            Reason::InputArtifactUnavailable
        }
        reason => reason,
    };
    Outcome {
        failure: Some(Failure {
            reason,
            message: tell(&what, &story, prepared),
        }),
        exit_code,
    }
}

/// The signal of an exit code that shells give to a command which one ended: those that programs do
/// not choose as a code of their own.
fn deadly(code: i32) -> Option<Signal> {
    let signal = Signal::try_from(code.checked_sub(128)?).ok()?;
    let ends = matches!(
        signal,
        Signal::SIGSEGV
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGILL
            | Signal::SIGFPE
            | Signal::SIGKILL
            | Signal::SIGTERM
    );
    ends.then_some(signal)
}

/// One line that says what happened, then what else may help.
fn tell(what: &str, story: &Story, prepared: &Prepared) -> String {
    let mut message = what.to_owned();
    if let Some(cause) = &story.cause {
        message.push_str(": ");
        message.push_str(cause);
    }
    for (name, path) in &prepared.absent {
        message.push_str(&format!(
            "\nnote: nothing was at `{}`, the input artifact `{name}`",
            path.display()
        ));
    }
    if story.lines.len() > 1 {
        message.push_str("\nthe log's last lines:");
        for line in &story.lines {
            message.push_str("\n  ");
            message.push_str(line);
        }
    }
    message
}

pub(crate) fn terminated(signal: Signal) -> Failure {
    Failure {
        reason: Reason::RunTerminated,
        message: format!("asked to stop ({signal})"),
    }
}

/// The report: outputs as far as they are there, and the first thing that went wrong.
fn collect(
    spec: &Spec,
    input: &ExecutorInput,
    started: SystemTime,
    outcome: Outcome,
    events: &mut Events,
) -> Report {
    let inputs = input.inputs.artifacts.values();
    let inputs = inputs
        .flat_map(|list| &list.artifacts)
        .map(|artifact| placeholder::path(artifact).into())
        .collect();
    let boundary = Boundary::new(&input.outputs.output_file, inputs, started);
    let Outcome {
        mut failure,
        exit_code,
    } = outcome;
    let written = outputs::read(input, &boundary).unwrap_or_else(|invalid| {
        failure.get_or_insert(invalid);
        outputs::Written::default()
    });
    let (artifacts, not_stored) = outputs::artifacts(input, &written, &boundary, events);
    if let Some(not_stored) = not_stored {
        failure.get_or_insert(not_stored);
    }
    let mut parameters = indexmap::IndexMap::new();
    if failure.is_none() {
        match outputs::parameters(spec, written, &boundary) {
            Ok(values) => parameters = values,
            Err(missing) => failure = Some(missing),
        }
    }
    Report {
        parameters,
        artifacts,
        failure,
        exit_code,
    }
}
