//! Errors as people read them: `error: …`, and `hint: …` with what to do about it.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

/// An error that comes with advice.
#[derive(Debug)]
pub(crate) struct Trouble {
    message: String,
    hint: String,
}

impl Trouble {
    /// What happened, to what, and why; and what to do about it.
    pub(crate) fn error(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self {
            message: message.into(),
            hint: hint.into(),
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Trouble {}

/// Says what went wrong, once, and gives the exit code for it.
pub(crate) fn show(error: &anyhow::Error) -> ExitCode {
    let mut chain = error.chain();
    // Whoever read our output has read enough: `coracle logs … | head`.
    let is_broken_pipe = |error: &(dyn std::error::Error + 'static)| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if chain.any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    let mut stderr = io::stderr().lock();
    let hint = error
        .chain()
        .find_map(|error| error.downcast_ref::<Trouble>())
        .map(|trouble| &trouble.hint);
    // When stderr is gone, the exit code still says it.
    let _ = writeln!(stderr, "error: {error:#}");
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "hint: {hint}");
    }
    ExitCode::FAILURE
}
