//! From a Python file to a compiled pipeline, with the kfp that the user has.
//!
//! The file is imported, not run: its `if __name__ == "__main__"` part does nothing here.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::Context;

use crate::trouble::Trouble;

/// The exit code by which [`DRIVER`] says that this interpreter has no kfp.
const NO_KFP: i32 = 97;
/// The exit code by which [`DRIVER`] says that it has said what is wrong.
const SAID: i32 = 98;

/// Compiles the one pipeline of a Python file, as `kfp dsl compile` does.
const DRIVER: &str = r#"
import importlib.util, os, sys

if importlib.util.find_spec("kfp") is None:
    sys.exit(97)
path, output, function = sys.argv[1:4]
sys.path[0] = os.path.dirname(path)
sys.argv = [path]
from kfp import compiler, dsl

try:
    from kfp.dsl.base_component import BaseComponent
    from kfp.dsl.graph_component import GraphComponent
except ImportError:
    from kfp.components.base_component import BaseComponent
    from kfp.components.graph_component import GraphComponent


def give_up(message):
    print(message, file=sys.stderr)
    sys.exit(98)


name = os.path.splitext(os.path.basename(path))[0]
spec = importlib.util.spec_from_file_location(name, path)
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
found = {name: value for name, value in vars(module).items() if isinstance(value, BaseComponent)}
if function:
    if function not in found:
        give_up(f"`{function}` is no pipeline or component of this file; it has: {', '.join(found) or 'none'}")
    chosen = found[function]
else:
    graphs = {name: value for name, value in found.items() if isinstance(value, GraphComponent)}
    # A pipeline that another one uses as a component is not the one that is meant.
    inner = {key for value in graphs.values() for key in value.pipeline_spec.components}
    outer = {name: value for name, value in graphs.items() if f"comp-{value.name}" not in inner}
    distinct = {id(value): name for name, value in (outer or graphs or found).items()}
    if not distinct:
        give_up("no pipeline in this file: decorate a function with @dsl.pipeline")
    if len(distinct) > 1:
        names = ", ".join(distinct.values())
        give_up(f"several pipelines are in this file: choose one with --function ({names})")
    chosen = found[next(iter(distinct.values()))]
compiler.Compiler().compile(chosen, output)
"#;

/// The compiled pipeline of `file`.
pub(crate) fn compile(file: &Path, function: Option<&str>, python: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    let file = fs::canonicalize(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let output = folder.path().join("pipeline.yaml");
    let candidates = match python {
        Some(python) => vec![python.to_owned()],
        None => interpreters(&file),
    };
    let mut tried = Vec::new();
    for interpreter in candidates {
        let ended = drive(&interpreter, &file, &output, function);
        let status = match ended {
            Ok(status) => status,
            Err(error) if error.kind() == io::ErrorKind::NotFound && python.is_none() => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot run `{}`", interpreter.display()));
            }
        };
        match status.code() {
            Some(0) => return fs::read(&output).context("the compiler left nothing behind"),
            Some(NO_KFP) => tried.push(interpreter.display().to_string()),
            Some(SAID) => anyhow::bail!("cannot compile `{}`", file.display()),
            _ => {
                return Err(Trouble::error(
                    format!("cannot compile `{}`: Python said why above", file.display()),
                    format!("mend the file; it was imported with `{}`", interpreter.display()),
                ));
            }
        }
    }
    let message = if tried.is_empty() {
        format!("cannot compile `{}`: no Python was found", file.display())
    } else {
        format!(
            "cannot compile `{}`: kfp is not installed for {}",
            file.display(),
            tried.join(", ")
        )
    };
    Err(Trouble::error(
        message,
        "install it (`python3 -m venv .venv && .venv/bin/pip install kfp`), name an interpreter that has it \
         (`--python`), or give a compiled pipeline (`kfp dsl compile --py FILE --output pipeline.yaml`)",
    ))
}

fn drive(interpreter: &Path, file: &Path, output: &Path, function: Option<&str>) -> io::Result<ExitStatus> {
    // Whatever the file prints is no data of ours.
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    Command::new(interpreter)
        .args([
            "-W",
            "ignore::FutureWarning",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            DRIVER,
        ])
        .args([file, output])
        .arg(function.unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(stderr)
        .status()
}

/// The interpreter that a file of the current folder would be compiled with.
pub(crate) fn with_kfp() -> Option<PathBuf> {
    const LOOK: &str = "import importlib.util, sys; sys.exit(importlib.util.find_spec('kfp') is None)";
    let here = std::env::current_dir().unwrap_or_default();
    interpreters(&here.join("file.py"))
        .into_iter()
        .find(|interpreter| {
            let mut look = Command::new(interpreter);
            look.args(["-c", LOOK])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            look.status().is_ok_and(|status| status.success())
        })
}

/// Interpreters that may have the user's kfp, the likeliest first.
fn interpreters(file: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    if let Some(environment) = std::env::var_os("VIRTUAL_ENV").filter(|value| !value.is_empty()) {
        found.push(Path::new(&environment).join("bin/python"));
    }
    let here = std::env::current_dir().unwrap_or_default();
    for folder in file.ancestors().skip(1).chain(here.ancestors()) {
        found.push(folder.join(".venv/bin/python"));
    }
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    for folder in std::env::split_paths(&path) {
        found.extend(["python3", "python"].map(|name| folder.join(name)));
    }
    // Links are not followed: an environment's interpreter is a link to another's.
    let mut seen = BTreeSet::new();
    found.retain(|interpreter| interpreter.is_file() && seen.insert(interpreter.clone()));
    found
}
