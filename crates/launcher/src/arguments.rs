//! Arguments that are too long for the system, of commands that are known: Linux takes no argument
//! of 128 KiB, and the KFP executor gets all its inputs as one.
//!
//! Such an argument goes into a file, and a program called `python3` before all others on `PATH`
//! puts it back where there is no limit: inside Python. Any other command is left as it is.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Bytes of the longest argument (Linux's `MAX_ARG_STRLEN`, less its end).
pub(crate) const LONGEST: usize = 131_071;
/// What the SDK's components run in the end.
const EXECUTOR: &str = "kfp.dsl.executor_main";
const MARK: &str = "coracle-argument-in:";

/// The `python3` that comes first.
const PYTHON: &str = r#"#!/bin/sh
PATH=$CORACLE_PATH
export PATH
unset CORACLE_PATH
if [ "$1" != "-m" ] || [ "$2" != "kfp.dsl.executor_main" ]; then
    exec python3 "$@"
fi
exec python3 -c '
import runpy, sys
mark = "coracle-argument-in:"
def whole(text):
    if not text.startswith(mark):
        return text
    with open(text[len(mark):], encoding="utf-8") as file:
        return file.read()
sys.argv = [whole(text) for text in sys.argv[2:]]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
' "$@"
"#;

/// The variables to run a shortened command with; what it needs is there until this is dropped.
#[derive(Debug)]
pub(crate) struct Shortened {
    folder: tempfile::TempDir,
}

impl Shortened {
    /// Variables and values to add.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let first = self.folder.path().join("bin");
        vec![
            ("PATH", format!("{}:{path}", first.display())),
            ("CORACLE_PATH", path),
        ]
    }
}

/// Puts the long arguments of a KFP executor's command in files under `folder`.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn shorten(argv: &mut [String], folder: &Path) -> io::Result<Option<Shortened>> {
    let is_executor = argv.iter().any(|argument| argument.contains(EXECUTOR));
    let first = argv.iter().position(|argument| argument == "--executor_input");
    let (Some(first), true) = (first, is_executor) else {
        return Ok(None);
    };
    let mut long: Vec<&mut String> = argv[first..]
        .iter_mut()
        .filter(|argument| argument.len() > LONGEST)
        .collect();
    if long.is_empty() {
        return Ok(None);
    }
    let folder = if folder.is_dir() {
        tempfile::Builder::new().prefix(".arguments-").tempdir_in(folder)
    } else {
        tempfile::tempdir()
    }?;
    for (number, argument) in long.iter_mut().enumerate() {
        let path: PathBuf = folder.path().join(number.to_string());
        fs::write(&path, argument.as_bytes())?;
        **argument = format!("{MARK}{}", path.display());
    }
    let bin = folder.path().join("bin");
    fs::create_dir(&bin)?;
    fs::write(bin.join("python3"), PYTHON)?;
    fs::set_permissions(bin.join("python3"), fs::Permissions::from_mode(0o755))?;
    Ok(Some(Shortened { folder }))
}
