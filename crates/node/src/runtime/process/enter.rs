//! A further command in a container that runs: made by the helper, which holds the container's specification.
//!
//! The helper's children are born into the container's user and PID namespaces; this adds its control groups and what
//! it sees of files. The command leads a session of its own, so that everything it started can be found and ended.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
};

use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
        stat::umask,
    },
    unistd::{ForkResult, Pid, fork},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    control::{self, Answer},
    init::{self, Stdio, Who, not_ready},
    spec::Spec,
};
use crate::runtime::run_dir::Failure;

/// What a program takes a terminal for if nobody says.
const TERM: &str = "xterm";

/// Starts `command` beside the first process of the container. Why it did not start goes to `peer`, if it did not.
pub(crate) fn begin(
    spec: &Spec,
    first: Pid,
    command: Vec<String>,
    stdio: Stdio,
    mediation: Option<BorrowedFd<'_>>,
    peer: &OwnedFd,
) -> nix::Result<Pid> {
    let mut spec = Spec {
        command,
        ..spec.clone()
    };
    if matches!(stdio, Stdio::Terminal { .. }) {
        set_term(&mut spec.env);
    }
    #[expect(unsafe_code, reason = "fork is unsafe in a process with threads")]
    // SAFETY: the helper never starts a thread, so the child may do anything the parent could.
    let forked = unsafe { fork() }?;
    match forked {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let failure = become_command(&spec, first, stdio, mediation);
            // If the node is gone, nobody waits for it.
            let _ = control::send(peer, &Answer::Failed(failure), &[]);
            std::process::exit(127)
        }
    }
}

/// A terminal has a kind, also if the container names none.
pub(crate) fn set_term(env: &mut Vec<(String, String)>) {
    if !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), TERM.to_owned()));
    }
}

fn become_command(spec: &Spec, first: Pid, stdio: Stdio, mediation: Option<BorrowedFd<'_>>) -> Failure {
    let who = match enter(spec, first) {
        Ok(who) => who,
        Err(failure) => return failure,
    };
    // The command's own process may be killed with its helper, whatever its namespaces.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    init::command(spec, stdio, who, mediation)
}

fn enter(spec: &Spec, first: Pid) -> Result<Who, Failure> {
    init::join_cgroups(spec)?;
    let own_user = fs::metadata("/proc/self/ns/user").map(|metadata| metadata.ino());
    // Found before the container's own /proc is all there is to see.
    let user = spec.run_as.and_then(|_| {
        children(first).into_iter().find_map(|pid| {
            let space = File::open(format!("/proc/{pid}/ns/user")).ok()?;
            let number = space.metadata().ok()?.ino();
            own_user.as_ref().is_ok_and(|own| *own != number).then_some(space)
        })
    });
    if spec.mode.sandbox().is_some() {
        if spec.hostname.is_some()
            && let Ok(space) = File::open(format!("/proc/{first}/ns/uts"))
        {
            // The container's name for the machine is worth no failure.
            let _ =
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::HostNameAndNISDomainName));
        }
        let path = PathBuf::from(format!("/proc/{first}/ns/mnt"));
        let space = File::open(&path)
            .map_err(|error| not_ready(format!("cannot find the container's files: {error}")))?;
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(|error| not_ready(format!("cannot enter the container's files: {error}")))?;
        init::drop_capabilities();
    }
    umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok(user.map_or(Who::Anew, Who::As))
}

/// The processes right below one.
pub(crate) fn children(of: Pid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// Ends everything that a command started, as long as it is in its session.
pub(crate) fn end_session(leader: Pid) {
    let _ = kill(leader, Signal::SIGKILL);
    let _ = kill(Pid::from_raw(-leader.as_raw()), Signal::SIGKILL);
    // Shells with a terminal give each job a group of its own.
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if session(&stat) == Some(leader.as_raw()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Field 6 of `/proc/<pid>/stat`; the name in field 2 may hold spaces and parentheses.
fn session(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_behind_any_process_name() {
        assert_eq!(session("17 (a) b (c) S 1 17 23 34817 17 4194560"), Some(23));
        assert_eq!(session("17 (x"), None);
    }

    #[test]
    fn a_terminal_s_kind_is_the_container_s_if_it_names_one() {
        let mut env = vec![("TERM".to_owned(), "vt100".to_owned())];
        set_term(&mut env);
        assert_eq!(env, [("TERM".to_owned(), "vt100".to_owned())]);
        env.clear();
        set_term(&mut env);
        assert_eq!(env, [("TERM".to_owned(), "xterm".to_owned())]);
    }
}
