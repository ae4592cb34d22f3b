//! The Pythons of this machine, and uv.
//!
//! Found once, when the first container asks for Python. Nothing is ever downloaded.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::Deserialize;
use tokio::process::Command;

use super::table::Wanted;

/// One Python.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Interpreter {
    /// Its executable; not that of a virtual environment.
    pub(crate) path: PathBuf,
    /// Major, minor, patch.
    pub(crate) version: (u32, u32, u32),
    /// Where its library is.
    pub(crate) prefix: PathBuf,
}

impl Interpreter {
    pub(crate) fn version_text(&self) -> String {
        let (major, minor, patch) = self.version;
        format!("{major}.{minor}.{patch}")
    }
}

/// How to run uv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uv {
    program: PathBuf,
    before: Vec<String>,
}

impl Uv {
    /// A command line that starts with uv.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.before)
            .env_remove("VIRTUAL_ENV")
            .env("UV_PYTHON_DOWNLOADS", "never")
            .env("UV_NO_PROGRESS", "1")
            .env("NO_COLOR", "1");
        command
    }

    /// What to call it in a message.
    pub(crate) fn name(&self) -> String {
        let mut name = self.program.display().to_string();
        for part in &self.before {
            name.push(' ');
            name.push_str(part);
        }
        name
    }

    /// `$CORACLE_UV`, then PATH, then beside our own executable, then where its installers put it, then as a
    /// module of Python.
    pub(crate) async fn find() -> Option<Self> {
        let program = |program: PathBuf| Self {
            program,
            before: Vec::new(),
        };
        if let Some(path) = std::env::var_os("CORACLE_UV") {
            return Some(program(path.into()));
        }
        let beside = std::env::current_exe()
            .ok()
            .and_then(|path| Some(path.parent()?.to_path_buf()));
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let folders = search_path().into_iter().chain(beside).chain(
            home.iter()
                .flat_map(|home| [home.join(".local/bin"), home.join(".cargo/bin")]),
        );
        if let Some(path) = folders
            .map(|folder| folder.join("uv"))
            .find(|path| path.is_file())
        {
            return Some(program(path));
        }
        let as_module = Self {
            program: "python3".into(),
            before: vec!["-m".to_owned(), "uv".to_owned()],
        };
        let answer = as_module
            .command()
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .await;
        answer
            .is_ok_and(|output| output.status.success())
            .then_some(as_module)
    }
}

/// Every Python of this machine; the one that `python3` means is first.
pub(crate) async fn discover(uv: Option<&Uv>) -> Vec<Interpreter> {
    let mut names: Vec<PathBuf> = ["python3".into(), "python".into()].into();
    names.extend(
        (6..=20)
            .rev()
            .map(|minor| PathBuf::from(format!("python3.{minor}"))),
    );
    let folders = search_path();
    let mut candidates: Vec<PathBuf> = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .filter(|path| path.is_file())
        .collect();
    candidates.extend(known_to(uv).await);
    let mut asked = HashSet::new();
    candidates.retain(|path| asked.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    let answers = futures::future::join_all(candidates.iter().map(|path| describe(path))).await;
    let mut found = HashSet::new();
    answers
        .into_iter()
        .flatten()
        .filter(|interpreter| found.insert(interpreter.path.clone()))
        .collect()
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

async fn known_to(uv: Option<&Uv>) -> Vec<PathBuf> {
    #[derive(Deserialize)]
    struct Listed {
        path: Option<PathBuf>,
    }
    let Some(uv) = uv else { return Vec::new() };
    let output = uv
        .command()
        .args([
            "python",
            "list",
            "--only-installed",
            "--no-project",
            "--output-format",
            "json",
        ])
        .stdin(Stdio::null())
        .output()
        .await;
    let listed: Vec<Listed> = output
        .ok()
        .and_then(|output| serde_json::from_slice(&output.stdout).ok())
        .unwrap_or_default();
    listed.into_iter().filter_map(|entry| entry.path).collect()
}

const DESCRIBE: &str = "import json, os, sys
path = getattr(sys, '_base_executable', None) or sys.executable
print(json.dumps({'path': os.path.realpath(path), 'version': list(sys.version_info[:3]), 'prefix': sys.base_prefix}))";

async fn describe(path: &Path) -> Option<Interpreter> {
    let output = Command::new(path)
        .args(["-I", "-S", "-c", DESCRIBE])
        .stdin(Stdio::null())
        .output()
        .await
        .ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

/// The Python to use, and whether it is what was asked for. The nearest one otherwise: of the same major version,
/// the least apart in the minor one, the newer of two.
pub(crate) fn choose<'a>(
    interpreters: &'a [Interpreter],
    wanted: &Wanted,
) -> Option<(&'a Interpreter, bool)> {
    let is_wanted = |interpreter: &&Interpreter| {
        let (major, minor, patch) = interpreter.version;
        wanted.major.is_none_or(|wanted| wanted == major)
            && wanted.minor.is_none_or(|wanted| wanted == minor)
            && wanted.patch.is_none_or(|wanted| wanted == patch)
    };
    if let Some(exact) = interpreters.iter().find(is_wanted) {
        return Some((exact, true));
    }
    let nearest = interpreters
        .iter()
        .filter(|interpreter| interpreter.version.0 == wanted.major.unwrap_or(3))
        .min_by_key(|interpreter| {
            let (_, minor, patch) = interpreter.version;
            let wanted_minor = wanted.minor.unwrap_or(minor);
            let wanted_patch = wanted.patch.unwrap_or(patch);
            (
                wanted_minor.abs_diff(minor),
                minor < wanted_minor,
                wanted_patch.abs_diff(patch),
            )
        });
    nearest.map(|interpreter| (interpreter, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(have: &[(u32, u32, u32)], wanted: (Option<u32>, Option<u32>, Option<u32>), expected: &str) {
        let have: Vec<Interpreter> = have
            .iter()
            .map(|&version| Interpreter {
                path: PathBuf::new(),
                version,
                prefix: PathBuf::new(),
            })
            .collect();
        let wanted = Wanted {
            major: wanted.0,
            minor: wanted.1,
            patch: wanted.2,
        };
        let found = choose(&have, &wanted).map_or_else(
            || "none".to_owned(),
            |(found, exact)| format!("{}{}", found.version_text(), if exact { "" } else { " instead" }),
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn the_python_asked_for_is_taken_and_else_the_nearest() {
        let have = [(3, 11, 7), (3, 9, 2), (3, 13, 0), (3, 11, 9)];
        check(&have, (None, None, None), "3.11.7");
        check(&have, (Some(3), None, None), "3.11.7");
        check(&have, (Some(3), Some(11), None), "3.11.7");
        check(&have, (Some(3), Some(11), Some(9)), "3.11.9");
        check(&have, (Some(3), Some(11), Some(4)), "3.11.7 instead");
        check(&have, (Some(3), Some(10), None), "3.11.7 instead");
        check(&have, (Some(3), Some(12), None), "3.13.0 instead");
        check(&have, (Some(3), Some(7), None), "3.9.2 instead");
        check(&have, (Some(2), Some(7), None), "none");
        check(&[], (None, None, None), "none");
    }
}
