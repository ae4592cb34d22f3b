//! The last step: this process becomes the container's command, or says why it cannot.

use std::{
    ffi::{CString, NulError},
    fmt::Write as _,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use coracle_api::reason::Reason;
use nix::{errno::Errno, unistd::execve};

use super::spec::Spec;
use crate::runtime::run_dir::Failure;

/// Becomes the command of `spec`. Returns only if that cannot be.
pub(crate) fn become_command(spec: &Spec) -> Failure {
    if let Err(error) = std::fs::create_dir_all(&spec.workdir) {
        return Failure {
            reason: Reason::SandboxNotReady,
            message: format!(
                "cannot make the working directory `{}`: {error}",
                spec.workdir.display()
            ),
        };
    }
    if let Err(errno) = nix::unistd::chdir(&spec.workdir) {
        return Failure {
            reason: Reason::SandboxNotReady,
            message: format!(
                "cannot enter the working directory `{}`: {}",
                spec.workdir.display(),
                errno.desc()
            ),
        };
    }
    try_command(spec).unwrap_or_else(|error| Failure {
        reason: Reason::CommandNotExecutable,
        message: format!("the command or its environment holds a zero byte: {error}"),
    })
}

fn try_command(spec: &Spec) -> Result<Failure, NulError> {
    let program = spec.command.first().map_or("", String::as_str);
    let arguments = strings(spec.command.iter().map(String::as_str))?;
    let environment: Vec<CString> = spec
        .env
        .iter()
        .map(|(name, value)| CString::new(format!("{name}={value}")))
        .collect::<Result<_, _>>()?;
    let path = spec
        .env
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value.as_str());
    let mut refused: Option<(PathBuf, Errno)> = None;
    for candidate in candidates(program, path) {
        let name = CString::new(candidate.as_os_str().as_bytes())?;
        let Err(errno) = execve(&name, &arguments, &environment);
        // ENOENT for a file that exists is about its interpreter.
        let is_absent = matches!(errno, Errno::ENOENT | Errno::ENOTDIR) && !candidate.exists();
        if !is_absent && refused.is_none() {
            refused = Some((candidate, errno));
        }
    }
    Ok(refused.map_or_else(
        || not_found(program, path),
        |(candidate, errno)| not_executable(&candidate, errno),
    ))
}

/// The files that `program` may mean, in order.
fn candidates(program: &str, path: &str) -> Vec<PathBuf> {
    if program.is_empty() {
        Vec::new()
    } else if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        path.split(':')
            .map(|folder| Path::new(if folder.is_empty() { "." } else { folder }).join(program))
            .collect()
    }
}

fn not_found(program: &str, path: &str) -> Failure {
    let mut message = format!("the command `{program}` does not exist");
    if !program.contains('/') {
        let _ = write!(message, " in any folder of PATH ({path})");
    }
    Failure {
        reason: Reason::CommandNotFound,
        message,
    }
}

fn not_executable(file: &Path, errno: Errno) -> Failure {
    let file_name = file.display();
    let message = match errno {
        Errno::ENOENT => {
            format!("`{file_name}` exists, but the interpreter that its first line names does not")
        }
        Errno::ENOEXEC => {
            format!("`{file_name}` is neither a program of this machine's kind nor a script with `#!`")
        }
        Errno::EACCES if file.is_dir() => format!("`{file_name}` is a folder"),
        Errno::EACCES => format!("`{file_name}` may not be executed"),
        errno => format!("`{file_name}` cannot be executed: {}", errno.desc()),
    };
    Failure {
        reason: Reason::CommandNotExecutable,
        message,
    }
}

fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<CString>, NulError> {
    texts.map(CString::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_is_sought_in_every_folder_of_path() {
        let expected = [
            PathBuf::from("/a/sh"),
            PathBuf::from("./sh"),
            PathBuf::from("/b/sh"),
        ];
        assert_eq!(candidates("sh", "/a::/b"), expected);
        assert_eq!(candidates("./sh", "/a"), [PathBuf::from("./sh")]);
        assert!(candidates("", "/a").is_empty());
    }
}
